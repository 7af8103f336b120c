"""Transfer pretrained features to shapes: one configuration is one experiment."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparsefeat.cli.frame import (
    ToolParser,
    add_result_option,
    check_file,
    prepare_result,
    publish,
    run_tool,
)
from sparsefeat.cli.view import add_html_option
from sparsefeat.errors import InputError

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
    from sparsefeat.checkpoint import find_checkpoint
    from sparsefeat.data.shapes import find_loader
    from sparsefeat.io.config import load_config, save_config
    from sparsefeat.io.lock import output_folder
    from sparsefeat.packaged import find_config
    from sparsefeat.process.progress import Progress
    from sparsefeat.transfer import TransferConfig, format_table, run_transfer, save_report
    from sparsefeat.transfer.creatures import make_missing_creatures
    from sparsefeat.transfer.page import write_page
    from sparsefeat.transfer.report import to_json

    check_file("--json", args.json)
    check_file("--html", args.html)
    path = find_config(args.config, "transfer")
    task = _task(path)
    if args.html and task in ("study", "axis", "classification"):
        raise InputError(f"--html: {task} draws charts alone; a page shows shapes")
    if task == "study":
        return _run_study(args, path)
    if task == "axis":
        return _run_axis(args, path)
    if task == "maps":
        return _run_maps(args, path)
    config = load_config(TransferConfig, path, args.overrides)
    if config.adapter is not None:
        args.result_task = "receptive_field"
    prepare_result(args)
    output = args.output or config.output
    # What can be wrong is found out before creatures are made.
    find_checkpoint(config.features.checkpoint)
    find_loader(config.data.name, config.data.options)
    with output_folder(output):
        if config.creatures is not None:
            with Progress("creatures", unit="shape") as made:
                make_missing_creatures(config.creatures, config.data.root, made)
        with Progress(config.task, _parts(config), "part") as progress:
            result = run_transfer(config, _begins(progress))
            progress(_parts(config))
        save_config(output / "config.yaml", config)
        written = save_report(result, output, args.json)
        if args.html:
            written += write_page(result, args.html)
    written += publish(args, to_json(result), config.seeds)
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
    from sparsefeat.transfer.maps_report import format_maps, maps_json, save_maps
    from sparsefeat.transfer.page import write_maps_page

    config = load_config(MapsConfig, path, args.overrides)
    args.result_task = "maps"
    prepare_result(args)
    find_checkpoint(config.features.checkpoint)
    output = args.output or config.output
    with output_folder(output):
        resumed = (output / STATE).is_file()
        with Progress(config.task, config.steps, "step") as progress:
            result = run_maps(config, output, lambda done, text: progress(done, note=text))
        save_config(output / "config.yaml", config)
        written = save_maps(result, output, args.json)
        if args.html:
            written += write_maps_page(result, args.html)
    written += publish(args, maps_json(result), [config.seed], resumed)
    print(format_maps(result))
    print("\n".join(str(path) for path in written))
    return 0


def _run_study(args: argparse.Namespace, path: Path) -> int:
    """The study of who wins where; continues what the output folder has of it."""
    from sparsefeat.io.config import load_config, save_config, to_dict
    from sparsefeat.io.lock import output_folder
    from sparsefeat.process.progress import Progress
    from sparsefeat.transfer.config import StudyConfig
    from sparsefeat.transfer.study import run_study
    from sparsefeat.transfer.study_report import format_study, regimes, save_study

    config = load_config(StudyConfig, path, args.overrides)
    args.result_task = "study"
    prepare_result(args)
    output = args.output or config.output
    target = args.json or output / "result.json"
    with output_folder(output):
        resumed = target.is_file()
        save_config(output / "config.yaml", config)
        with Progress(config.task, regimes(config), "part") as progress:
            result = run_study(config, target, _begins(progress))
            progress(regimes(config))
        written = [target, *save_study(result, output)]
    numbers = {"config": to_dict(config), "records": result.records}
    written += publish(args, numbers, config.seeds, resumed)
    print(format_study(result))
    print("\n".join(str(path) for path in written))
    return 0


def _run_axis(args: argparse.Namespace, path: Path) -> int:
    """The study of one axis of pretraining; continues what the output folder has of it."""
    from sparsefeat.io.config import load_config, save_config, to_dict
    from sparsefeat.io.lock import output_folder
    from sparsefeat.process.progress import Progress
    from sparsefeat.transfer.axis import run_axis
    from sparsefeat.transfer.axis_report import format_axis, parts, save_axis
    from sparsefeat.transfer.config import AxisConfig

    config = load_config(AxisConfig, path, args.overrides)
    args.result_task = "axes"
    prepare_result(args)
    output = args.output or config.output
    target = args.json or output / "result.json"
    with output_folder(output):
        resumed = target.is_file() or (output / "trainings").is_dir()
        save_config(output / "config.yaml", config)
        with Progress(config.task, parts(config), "part") as progress:
            result = run_axis(config, output, target, _begins(progress))
            progress(parts(config))
        written = [target, *save_axis(result, output)]
    numbers = {"config": to_dict(config), "records": result.records}
    written += publish(args, numbers, config.seeds, resumed)
    print(format_axis(result))
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
