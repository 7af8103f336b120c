"""Transfer pretrained features to shapes: one configuration is one experiment."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sparsefeat.cli.frame import add_result_option, check_file, prepare_result, publish
from sparsefeat.cli.view import add_html_option, check_page
from sparsefeat.errors import InputError
from sparsefeat.process.tool import ToolParser, run_tool

if TYPE_CHECKING:
    from sparsefeat.process.progress import Progress
    from sparsefeat.transfer import TransferConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sparsefeat transfer``; returns the exit code."""
    args = parse(argv)
    return run_tool(lambda: run(args), args)


def run(args: argparse.Namespace) -> int:
    """Run the experiment, print its table and write its report."""
    # Imported here, so that --help answers at once.
    import torch

    from sparsefeat.checkpoint import find_checkpoint
    from sparsefeat.data.shapes import find_loader
    from sparsefeat.io.config import load_config, save_config
    from sparsefeat.io.lock import output_folder
    from sparsefeat.io.packaged import find_config
    from sparsefeat.models.blocks import checked_device
    from sparsefeat.process.progress import Progress
    from sparsefeat.transfer import TransferConfig, format_table, run_transfer, save_report
    from sparsefeat.transfer.creatures import make_missing_creatures
    from sparsefeat.transfer.page import write_page
    from sparsefeat.transfer.report import to_json
    from sparsefeat.transfer.run import ADAPTER_DRAWS

    checked_device(args.device or "cpu", torch.nn.Identity())
    check_page(args.html)
    path = find_config(args.config, "transfer")
    check_file("--json", args.json, [path])
    task = _task(path)
    if task in ("study", "axis"):
        _check_shown(args.html, task)
    if task == "study":
        return _run_study(args, path, _who_wins())
    if task == "axis":
        return _run_study(args, path, _one_axis())
    if task == "maps":
        return _run_maps(args, path)
    config = load_config(TransferConfig, path, args.overrides)
    _check_shown(args.html, config.task)
    if config.adapter is not None:
        args.result_task = "receptive_field"
    prepare_result(args)
    output = args.output or config.output
    # What can be wrong is found out before creatures are made.
    if config.adapter is None:  # that goes on with what is there, and checks it
        _check_same(output / "config.yaml", config)
    find_checkpoint(config.features.checkpoint)
    find_loader(config.data.name, config.data.options)
    resumed = config.adapter is not None and (output / ADAPTER_DRAWS).is_file()
    with output_folder(output):
        if config.creatures is not None:
            with Progress("creatures", unit="shape") as made:
                make_missing_creatures(config.creatures, config.data.root, made)
        with Progress(config.task, _parts(config), "part", announce=True) as progress:
            result = run_transfer(config, _begins(progress), args.device, output)
            progress(_parts(config))
        save_config(output / "config.yaml", config)
        written = save_report(result, output, args.json)
        if args.html:
            written += write_page(result, args.html)
    written += publish(args, to_json(result), config.seeds, resumed)
    if config.note:
        print(config.note)
    print(format_table(result))
    print("\n".join(str(path) for path in written))
    return 0


def _begins(progress: Progress) -> Callable[[str], None]:
    """What is called before each part: the one before it is done then."""
    begun = 0

    def begins(text: str) -> None:
        nonlocal begun
        progress(begun, note=text)
        begun += 1

    return begins


def _check_same(path: Path, config: TransferConfig) -> None:
    """Refuse a folder with the results of another experiment, whose ``config.yaml`` is at ``path``."""
    from sparsefeat.io import yaml12
    from sparsefeat.io.config import to_dict

    if not path.is_file():
        return
    try:
        found = yaml12.parse(path.read_text(encoding="utf-8"), str(path))[0]
    except (OSError, UnicodeDecodeError, InputError):
        found = None
    if found != json.loads(json.dumps(to_dict(config))):
        raise InputError(
            f"{path}: the result of another configuration; remove it or choose another --output"
        )


def _check_shown(html: str | None, task: str) -> None:
    """Refuse a page of an experiment that has no shapes to show."""
    if html and task in ("study", "axis", "classification"):
        raise InputError(f"--html: {task} draws charts alone; a page shows shapes")


def _task(path: Path) -> object:
    """The task that a configuration names; None of one that cannot be read, which is refused by who reads it."""
    from sparsefeat.errors import InputError
    from sparsefeat.io import yaml12

    try:
        data = yaml12.parse(path.read_text(encoding="utf-8"), str(path))[0]
    except (OSError, UnicodeDecodeError, InputError):
        return None
    return data.get("task") if isinstance(data, dict) else None


def _run_maps(args: argparse.Namespace, path: Path) -> int:
    """Training of a functional-map head; continues what the output folder has of it."""
    from sparsefeat.checkpoint import find_checkpoint
    from sparsefeat.io.config import load_config, save_config
    from sparsefeat.io.lock import output_folder
    from sparsefeat.process.progress import Progress
    from sparsefeat.transfer.maps import STATE, MapsConfig, run_maps
    from sparsefeat.transfer.maps.report import format_maps, maps_json, save_maps
    from sparsefeat.transfer.page import write_maps_page

    config = load_config(MapsConfig, path, args.overrides)
    args.result_task = "maps"
    prepare_result(args)
    find_checkpoint(config.features.checkpoint)
    output = args.output or config.output
    with output_folder(output):
        resumed = (output / STATE).is_file()
        with Progress(config.task, config.steps, "step") as progress:
            result = run_maps(
                config, output, lambda done, text: progress(done, note=text), args.device
            )
        save_config(output / "config.yaml", config)
        written = save_maps(result, output, args.json)
        if args.html:
            written += write_maps_page(result, args.html)
    written += publish(args, maps_json(result), [config.seed], resumed)
    print(format_maps(result))
    print("\n".join(str(path) for path in written))
    return 0


class _Study(NamedTuple):
    """A kind of study.

    Attributes:
        results: folder in ``results/``.
        config: its class.
        left: how many parts there are to do, given the configuration and the JSON.
        run: takes the configuration, the output folder, the JSON, what is called before each part, and the device.
        save: pictures and tables in the output folder.
        format: the table to print.
    """

    results: str
    config: type[Any]
    left: Callable[[Any, Path], int]
    run: Callable[[Any, Path, Path, Callable[[str], None], str | None], Any]
    save: Callable[[Any, Path], list[Path]]
    format: Callable[[Any], str]


def _who_wins() -> _Study:
    """The study of who wins where."""
    from sparsefeat.transfer.study import parts_left, run_study
    from sparsefeat.transfer.study_config import StudyConfig
    from sparsefeat.transfer.study_report import format_study, save_study

    def run(
        config: StudyConfig,
        output: Path,
        target: Path,
        begins: Callable[[str], None],
        device: str | None,
    ) -> Any:
        return run_study(config, target, begins, device)

    return _Study("study", StudyConfig, parts_left, run, save_study, format_study)


def _one_axis() -> _Study:
    """The study of one axis of pretraining."""
    from sparsefeat.transfer.axis import parts_left, run_axis
    from sparsefeat.transfer.axis_config import AxisConfig
    from sparsefeat.transfer.axis_report import format_axis, save_axis

    return _Study("axes", AxisConfig, parts_left, run_axis, save_axis, format_axis)


def _run_study(args: argparse.Namespace, path: Path, study: _Study) -> int:
    """A study; continues what the output folder has of it."""
    from sparsefeat.io.config import load_config, save_config, to_dict
    from sparsefeat.io.lock import output_folder
    from sparsefeat.process.progress import Progress

    config = load_config(study.config, path, args.overrides)
    args.result_task = study.results
    prepare_result(args)
    output = args.output or config.output
    target = args.json or output / "result.json"
    left = study.left(config, target)
    with output_folder(output):
        resumed = target.is_file() or (output / "trainings").is_dir()
        with Progress(config.task, left, "part", announce=True) as progress:
            begins = _begins(progress)

            def begins_saved(text: str) -> None:
                # Not before the data were found: wrong input leaves nothing behind.
                save_config(output / "config.yaml", config)
                begins(text)

            result = study.run(config, output, target, begins_saved, args.device)
            progress(left)
        written = [target, *study.save(result, output)]
    numbers = {"config": to_dict(config), "records": result.records}
    written += publish(args, numbers, config.seeds, resumed)
    print(study.format(result))
    print("\n".join(str(path) for path in written))
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = ToolParser(prog="sparsefeat transfer", description=__doc__)
    add = parser.add_argument
    add(
        "config",
        metavar="CONFIG",
        help="a YAML file, or a name in configs/transfer/, such as quickstart",
    )
    add(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="such as features.checkpoint=PATH or shots=[1,5]",
    )
    add("--output", type=Path, metavar="DIR", help="default: output of the configuration")
    add("--json", type=Path, metavar="FILE", help="default: result.json in the output folder")
    add("--device", metavar="D", help="where networks run: cpu, cuda, cuda:1; default: cpu")
    add_html_option(parser)
    add_result_option(parser, "shapes", argv)
    return parser.parse_intermixed_args(argv)  # options may stand between the key=value arguments


def _parts(config: TransferConfig) -> int:
    runs = 1 if config.task == "correspondence" else len(config.shots) * len(config.seeds)
    compared = 0
    if config.adapter is not None:
        check = config.adapter
        compared = len(check.draws) * (check.rungs + len(check.starts))
    return len(config.methods) * runs + config.rungs + compared
