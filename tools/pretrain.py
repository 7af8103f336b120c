"""Pretrain a backbone: tools/pretrain.py CONFIG.yaml [key=value ...]."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from tqdm import tqdm


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="a YAML file; configs/ has the published recipes and a quickstart")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes, such as optimizer.lr=0.01")
    parser.add_argument("--output", type=Path, help="folder to write to (runs/<name of the config>)")
    parser.add_argument("--resume", action="store_true", help="go on from the output folder's last.pt")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (cpu); under torchrun cuda takes LOCAL_RANK")
    parser.add_argument("--overfit", action="store_true", help="train on the first batch alone: does learning work?")
    return parser.parse_intermixed_args(arguments)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    # Imported here and below, so that --help answers at once.
    from sparsefeat.cli.frame import run_tool

    return run_tool(lambda: train(options), "pretrain")


def train(options: argparse.Namespace) -> int:
    from sparsefeat.io.config import load_config
    from sparsefeat.pretrain import PretrainConfig, run

    stop = Stop()
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    config = load_config(PretrainConfig, options.config, options.overrides)
    output = options.output or Path("runs") / Path(options.config).stem
    run(
        config,
        output,
        device=options.device,
        resume=options.resume,
        overfit=options.overfit,
        should_stop=lambda: stop.asked,
        say=tqdm.write,
    )
    if not stop.asked:
        return 0
    print(f"interrupted; go on with --resume --output {output}", file=sys.stderr)
    return 130


class Stop:
    """The first signal ends the run after its current step, the second at once."""

    asked = False

    def __call__(self, number: int, frame: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
