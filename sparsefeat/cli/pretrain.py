"""Pretrain a backbone on pairs of fragments: one configuration is one run."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sparsefeat.cli.frame import check_folder
from sparsefeat.errors import InputError
from sparsefeat.process.tool import INTERRUPTED, ToolParser, run_tool


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sparsefeat pretrain``; returns the exit code."""
    args = parse(argv)
    return run_tool(lambda: run(args), args, lambda: _left(args))


def run(args: argparse.Namespace) -> int:
    """Pretrain; 130 if a signal ended the run early."""
    # Imported here, so that --help answers at once.
    from sparsefeat import pretrain
    from sparsefeat.io.config import load_config
    from sparsefeat.io.packaged import find_config
    from sparsefeat.process.progress import Progress

    check_folder("--output", _output(args))
    path = find_config(args.config)
    config = load_config(pretrain.PretrainConfig, path, args.overrides)
    if args.overrides and not args.resume and path.resolve() == _config(args).resolve():
        raise InputError(
            f"{path}: the run would write its own options there; name another --output"
        )
    stop = Stop()
    with stop.listening():
        pretrain.run(
            config,
            _output(args),
            device=args.device,
            resume=args.resume,
            overwrite=args.overwrite,
            overfit=args.overfit,
            should_stop=stop,
            say=lambda line: Progress.write(line, error=False),
        )
    if not stop.asked:
        return 0
    print(_left(args), file=sys.stderr)
    return INTERRUPTED


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = ToolParser(prog="sparsefeat pretrain", description=__doc__)
    add = parser.add_argument
    add("config", metavar="CONFIG", help="a YAML file, or a name in configs/ such as quickstart")
    add(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="values in place of the file's, such as optimizer.lr=0.01",
    )
    add(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder to write to; default: runs/ and the configuration's name",
    )
    add("--resume", action="store_true", help="continue from last.pt in the output folder")
    add(
        "--overwrite",
        action="store_true",
        help="replace the run that the output folder holds",
    )
    add(
        "--device",
        default="cpu",
        metavar="D",
        help="cpu, cuda, cuda:1 (default: cpu); under torchrun cuda is the GPU of LOCAL_RANK",
    )
    add(
        "--overfit",
        action="store_true",
        help="train on the first batch alone, to check that the loss falls",
    )
    return parser.parse_intermixed_args(argv)  # options may stand between the key=value arguments


class Stop:
    """Whether a signal asked for the end: the first ends training after its current step, the second at once.

    Before training asks for the first time there is nothing to save, and the first signal ends the run at once.
    """

    def __init__(self) -> None:
        self.asked = self._training = False

    def __call__(self) -> bool:
        """Whether to stop; asked after every step."""
        self._training = True
        return self.asked

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take Ctrl-C and SIGTERM within the block."""

        def receive(number: int, frame: object) -> None:
            if self.asked or not self._training:
                raise KeyboardInterrupt
            self.asked = True

        before = [
            (number, signal.signal(number, receive)) for number in (signal.SIGINT, signal.SIGTERM)
        ]
        try:
            yield
        finally:
            for number, handler in before:
                signal.signal(number, handler)


def _output(args: argparse.Namespace) -> Path:
    return args.output or Path("runs") / Path(args.config).stem


def _config(args: argparse.Namespace) -> Path:
    return _output(args) / "config.yaml"


def _left(args: argparse.Namespace) -> str:
    output = _output(args)
    if (output / "last.pt").is_file():
        return f"interrupted; go on with --resume --output {output}"
    return "interrupted before there was anything to resume"
