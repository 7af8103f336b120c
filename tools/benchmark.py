#!/usr/bin/env python3
"""Measure the engine's speed, beside other engines that are installed and beside the bare matrix products."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sparsefeat.benchmark import PRESETS, Options, run_benchmark, select
from sparsefeat.benchmark.report import table, write_json, write_plot
from sparsefeat.command_line import run_tool


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    return run_tool(lambda: run(args), "benchmark")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("cases", nargs="*", metavar="CASE", help="names, with * and ?; default: those of the preset")
    add(
        "--preset", choices=PRESETS, default="quick",
        help="quick: under 2 minutes; cuda: everything on a GPU in every dtype (default: %(default)s)",
    )
    add("--list", action="store_true", help="print the names of the cases and stop")
    add("--engines", default="", metavar="A,B", help="others beside ours; default: all that are installed")
    add("--threads", default="", metavar="N,N", help="CPU threads; default: torch's")
    add(
        "--dtypes", metavar="D,D",
        help="fp64, fp32, tf32, fp16, bf16 (default: fp32; with preset cuda: fp32,tf32,fp16,bf16)",
    )
    add("--device", metavar="D", help="cpu, cuda, cuda:1 (default: cpu; preset cuda: cuda)")
    add("--data", default="data", metavar="DIR", help="folder of real fragments (default: %(default)s)")
    add("--runs", type=int, default=7, metavar="N", help="rounds that count (default: %(default)s)")
    add("--seconds", type=float, default=10, metavar="S", help="after which a case gets 3 (default: %(default)s)")
    add("--json", metavar="FILE", help="write all numbers there")
    add("--plot", metavar="FILE", help="draw them, .png or .pdf")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    if args.list:
        print("\n".join(case.name for case in select(args.cases or ("*",))))
        return 0
    for option, path in (("--json", args.json), ("--plot", args.plot)):
        # What can be wrong is found out before the minutes of work, not after them.
        if path and (Path(path).is_dir() or not Path(path).resolve().parent.is_dir()):
            raise ValueError(f"{option} {path}: expected a file in a folder that exists")
    device, dtypes = ("cuda", "fp32,tf32,fp16,bf16") if args.preset == "cuda" else ("cpu", "fp32")
    options = Options(
        cases=tuple(args.cases), preset=args.preset, engines=tuple(split(args.engines)),
        threads=tuple(map(whole, split(args.threads))), dtypes=tuple(split(args.dtypes or dtypes)),
        device=args.device or device, data=Path(args.data) if Path(args.data).is_dir() else None,
        runs=args.runs, seconds=args.seconds,
    )
    rows, facts = run_benchmark(options, progress=lambda row: print(table([row]), flush=True))
    left_out = {(name, why) for row in rows for name, why in row["absent"].items()} | {*facts["not_installed"].items()}
    for name, why in sorted(left_out):
        print(f"without {name}: {why}")
    if args.json:
        write_json(args.json, rows, facts)
    if args.plot:
        write_plot(args.plot, rows)
    return 0


def split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"--threads: expected whole numbers, got {text!r}") from error


if __name__ == "__main__":
    sys.exit(main())
