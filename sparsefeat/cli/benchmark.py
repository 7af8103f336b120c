"""Measure the engine's speed, beside other engines that are installed and beside the bare matrix products."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparsefeat.cli.frame import add_result_option, check_file, prepare_result, publish
from sparsefeat.errors import InputError, opening
from sparsefeat.process.tool import ToolParser, run_tool


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sparsefeat benchmark``; returns the exit code."""
    args = parse(argv)
    return run_tool(lambda: run(args), args)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = ToolParser(prog="sparsefeat benchmark", description=__doc__)
    add = parser.add_argument
    add(
        "cases", nargs="*", metavar="CASE", help="names, with * and ?; default: those of the preset"
    )
    add(
        "--preset",
        choices=("quick", "full", "large", "cuda"),
        default="quick",
        help="quick: under 2 minutes; cuda: everything on a GPU in every dtype (default: %(default)s)",
    )
    add("--list", action="store_true", help="print the names of the cases and stop")
    add(
        "--voxelization",
        action="store_true",
        help="measure how fast surfaces are voxelised, and nothing else; only --json and --result apply",
    )
    add(
        "--engines",
        default="",
        metavar="A,B",
        help="others beside ours; default: all that are installed",
    )
    add("--threads", default="", metavar="N,N", help="CPU threads; default: torch's")
    add(
        "--dtypes",
        metavar="D,D",
        help="fp64, fp32, tf32, fp16, bf16 (default: fp32; with preset cuda: fp32,tf32,fp16,bf16)",
    )
    add("--device", metavar="D", help="cpu, cuda, cuda:1 (default: cpu; preset cuda: cuda)")
    add(
        "--data",
        metavar="DIR",
        help="folder of real fragments (default: data if it is there, else a drawn room)",
    )
    add("--runs", type=int, default=7, metavar="N", help="rounds that count (default: %(default)s)")
    add(
        "--seconds",
        type=float,
        default=10,
        metavar="S",
        help="a case stops after this time, but not before 3 rounds (default: %(default)s)",
    )
    add("--json", metavar="FILE", help="write all numbers there, after every case")
    add(
        "--resume",
        action="store_true",
        help="keep the numbers in that file, measure the cases that it lacks",
    )
    add("--plot", metavar="FILE", help="draw them, .png or .pdf")
    add_result_option(parser, "engine", argv)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Measure; 1 if numbers are wrong or a case failed for another reason than memory."""
    # Imported here, so that --help answers at once.
    from sparsefeat.benchmark import Options, run_benchmark, select
    from sparsefeat.benchmark.engines import Plain
    from sparsefeat.benchmark.report import read_json, table, write_json, write_plot
    from sparsefeat.process.progress import Progress

    if args.voxelization:
        return run_voxelization(args)
    if args.list:
        print("\n".join(case.name for case in select(args.cases or ("*",))))
        return 0
    if args.resume and args.json is None:
        raise InputError("--resume: expected --json FILE too, the file to go on with")
    prepare_result(args)
    check_file("--json", args.json)
    check_file("--plot", args.plot, suffixes=(".png", ".pdf"))
    if args.data is not None and not os.path.isdir(args.data):
        raise InputError(f"--data {args.data}: no such folder")
    data = Path(args.data or "data")
    device, dtypes = ("cuda", "fp32,tf32,fp16,bf16") if args.preset == "cuda" else ("cpu", "fp32")
    options = Options(
        cases=tuple(args.cases),
        preset=args.preset,
        engines=tuple(split(args.engines)),
        threads=tuple(map(whole, split(args.threads))),
        dtypes=tuple(split(args.dtypes or dtypes)),
        device=args.device or device,
        data=data if data.is_dir() else None,
        runs=args.runs,
        seconds=args.seconds,
    )
    earlier = read_json(args.json) if args.resume and os.path.exists(args.json) else None

    with Progress("benchmark", unit="case") as bar:

        def progress(
            new: list[dict[str, Any]], rows: list[dict[str, Any]], facts: dict[str, Any], left: int
        ) -> None:
            if args.json is not None:
                # After every case: who is cut short has what was measured until then.
                write_json(args.json, rows, facts)
            bar.write(table(new) if new else failure(facts["failed"][-1]), error=False)
            bar(bar.done + 1, bar.done + 1 + left)

        rows, facts = run_benchmark(options, progress, earlier)
    left_out = {(name, why) for row in rows for name, why in row["absent"].items()} | {
        *facts["not_installed"].items()
    }
    for name, why in sorted(left_out):
        print(f"without {name}: {why}")
    for failed in facts["failed"]:
        print(failure(failed))
    # Its numbers differ and it did not merely fail: then the kernels for CUDA are wrong, or it is.
    wrong = [row for row in rows if Plain.name in row["absent"] and Plain.name in row["errors"]]
    for row in wrong:
        print(
            f"wrong: {row['case']} {row['operation']} {row['dtype']}: {Plain.name}: {row['absent'][Plain.name]}"
        )
    if options.device.startswith("cuda") and facts["arithmetic"] != "triton":
        print(f"not by the kernels for CUDA: all convolutions ran in plain {facts['arithmetic']}")
    for written in publish(args, {**facts, "results": rows}, [], args.resume):
        print(written)
    if args.plot is not None and rows:
        write_plot(args.plot, rows)
    return int(bool(wrong) or not all(failed["out_of_memory"] for failed in facts["failed"]))


def run_voxelization(args: argparse.Namespace) -> int:
    """Measure the voxelisation of surfaces."""
    from sparsefeat.benchmark.voxelization import run_sizes
    from sparsefeat.io.atomic import atomic_write

    args.result_task = "voxelization"
    prepare_result(args)
    check_file("--json", args.json)
    numbers = {"results": run_sizes(lambda line: print(line, flush=True))}
    if args.json is not None:
        with opening(args.json), atomic_write(args.json) as temporary:
            temporary.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    for written in publish(args, numbers, []):
        print(written)
    return 0


def failure(failed: dict[str, Any]) -> str:
    """The line for a case that failed."""
    what = "no memory for" if failed["out_of_memory"] else "failed:"
    return f"{what} {failed['case']} {failed['threads']} thr {failed['dtype']}: {failed['reason']}"


def split(names: str) -> list[str]:
    """The names in a list with commas."""
    return [name.strip() for name in names.split(",") if name.strip()]


def whole(text: str) -> int:
    """A whole number of ``--threads``."""
    try:
        return int(text)
    except ValueError as error:
        raise InputError(f"--threads: expected whole numbers, got {text!r}") from error
