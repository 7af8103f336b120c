#!/usr/bin/env python3
"""Transfer pretrained features to shapes: one configuration is one experiment."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from sparsefeat.cli.frame import run_tool
from sparsefeat.io.config import load_config, save_config
from sparsefeat.transfer import TransferConfig, format_table, run_transfer, save_report
from sparsefeat.transfer.creatures import make_missing_creatures


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("config", metavar="CONFIG.yaml")
    add("overrides", nargs="*", metavar="key=value", help="such as features.checkpoint=PATH or shots=[1,5]")
    add("--output", type=Path, metavar="DIR", help="default: output of the configuration")
    add("--json", type=Path, metavar="FILE", help="default: result.json in the output folder")
    args = parser.parse_intermixed_args(argv)  # options may stand between the key=value arguments
    return run_tool(lambda: run(args), "transfer")


def run(args: argparse.Namespace) -> int:
    config = load_config(TransferConfig, args.config, args.overrides)
    output = args.output or config.output
    output.mkdir(parents=True, exist_ok=True)
    with tqdm(desc="creatures", unit="shape", disable=config.creatures is None) as bar:

        def made(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        make_missing_creatures(config, made)
    with tqdm(total=_parts(config), desc=config.task, unit="part") as bar:

        def begins(text: str) -> None:
            # Called before a part: the one before it is done then.
            bar.set_postfix_str(text)
            bar.update(min(1, begins.calls))
            begins.calls += 1

        begins.calls = 0
        result = run_transfer(config, begins)
        bar.update()
    save_config(output / "config.yaml", config)
    written = save_report(result, output, args.json)
    print(format_table(result))
    print("\n".join(str(path) for path in written))
    return 0


def _parts(config: TransferConfig) -> int:
    runs = 1 if config.task == "correspondence" else len(config.shots) * len(config.seeds)
    compared = 0 if config.adapter is None else config.adapter.rungs + len(config.adapter.starts)
    return len(config.methods) * runs + config.rungs + compared


if __name__ == "__main__":
    sys.exit(main())
