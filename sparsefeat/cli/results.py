"""Published results: render them into documents, list them, or measure one again."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparsefeat.errors import InputError, opening
from sparsefeat.process.tool import DONE, INTERRUPTED, WRONG_INPUT, ToolParser, run_tool

LONG_S = 600.0
"""A result that took more CPU time is measured again only where ``--long`` asks for it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sparsefeat results``; returns the exit code."""
    args = parse(argv)
    return run_tool(lambda: args.run(args), args)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = ToolParser(prog="sparsefeat results", description=__doc__)
    tasks = parser.add_subparsers(dest="task", required=True)
    render = tasks.add_parser("render", help="fill the tables of README, docs and cards")
    render.add_argument(
        "--check", action="store_true", help="change nothing; exit with 2 if a file differs"
    )
    render.set_defaults(run=run_render)
    check = tasks.add_parser("check", help="run a result's command again and compare the numbers")
    check.add_argument("name", metavar="NAME", help="TASK/NAME, or NAME alone where it is unique")
    check.add_argument(
        "--long",
        action="store_true",
        help="also where it took over ten minutes of CPU, or nobody knows",
    )
    check.set_defaults(run=run_check)
    listing = tasks.add_parser("list", help="print the results that there are")
    listing.set_defaults(run=run_list)
    return parser.parse_args(argv)


def run_render(args: argparse.Namespace) -> int:
    """Fill all documents; with ``--check`` only say which differ."""
    from sparsefeat.io.atomic import atomic_write
    from sparsefeat.results import documents, fill, list_results

    root = Path()
    list_results(root)  # before anything else: is this a checkout
    differing = []
    for path in documents(root):
        with opening(path):
            text = path.read_text(encoding="utf-8")
        filled = fill(text, root, str(path))
        if filled == text:
            continue
        differing.append(path)
        if not args.check:
            with opening(path), atomic_write(path) as temporary:
                temporary.write_text(filled, encoding="utf-8")
            print(path)
    if args.check:
        for path in differing:
            print(f"{path}: differs from results/; run: sparsefeat results render", file=sys.stderr)
    return WRONG_INPUT if args.check and differing else DONE


def run_list(args: argparse.Namespace) -> int:
    """Print a line for each result."""
    from sparsefeat.io.results import read_result
    from sparsefeat.results import list_results

    for name, path in list_results(Path()).items():
        result = read_result(path)
        seconds = result.get("cpu_seconds")
        took = f"{seconds / 60:5.1f} min" if seconds else "       ?"
        version = result["versions"].get("sparsefeat", "?")
        print(f"{name:<45} {result['date'][:10]}  {version:<7} {took}")
    return DONE


def run_check(args: argparse.Namespace) -> int:
    """Run the command of a result, compare, print a line for each number."""
    from sparsefeat.results import COMPARED, compare, find_result

    result = find_result(Path(), args.name)
    name = f"{result['task']}/{result['name']}"
    if result["task"] not in COMPARED:
        raise InputError(f"{name}: cannot be compared, expected a result of {', '.join(COMPARED)}")
    seconds = result.get("cpu_seconds")
    if not args.long and (seconds is None or seconds > LONG_S):
        took = (
            "has no recorded duration"
            if seconds is None
            else f"took {seconds / 60:.0f} minutes of CPU"
        )
        raise InputError(f"{name}: {took}; --long measures it again")
    comparisons = compare(result, measure_again(result, name))
    for comparison in comparisons:
        print(comparison.line())
    differing = sum(not comparison.agrees for comparison in comparisons)
    print(f"{name}: {len(comparisons) - differing} of {len(comparisons)} numbers agree")
    return WRONG_INPUT if differing else DONE


def measure_again(result: dict[str, Any], name: str) -> dict[str, Any]:
    """The numbers that the command of a result gives now. What it prints goes to standard error.

    Args:
        result: as published.
        name: for errors.

    Raises:
        InputError: the command names a place of the machine that it ran on, or ends with an error.
    """
    from sparsefeat.results import command_words

    words = command_words(result)
    elsewhere = [word for word in words if ".../" in word]
    if elsewhere:
        raise InputError(f"{name}: its command names a place on another machine: {elsewhere[0]}")
    programs = {"sparsefeat": [sys.executable, "-m", "sparsefeat"], "python": [sys.executable]}
    if not words or words[0] not in programs:
        raise InputError(f"{name}: expected a command of sparsefeat or python, got {words[:1]}")
    with tempfile.TemporaryDirectory(prefix="sparsefeat-check-") as folder:
        target = Path(folder, "numbers.json")
        command = [*programs[words[0]], *words[1:], "--json", str(target)]
        if words[1:2] == ["transfer"]:  # or it would go on with what its output folder has
            command += ["--output", str(Path(folder, "output"))]
        environment = os.environ | {"OMP_NUM_THREADS": str(result["machine"]["threads"])}
        standard_error = 2
        code = subprocess.run(command, env=environment, stdout=standard_error).returncode
        if code in (INTERRUPTED, -signal.SIGINT, -signal.SIGTERM):
            raise KeyboardInterrupt
        if not target.is_file():
            raise InputError(f"{name}: its command ended with exit code {code}: {' '.join(words)}")
        return dict(json.loads(target.read_text(encoding="utf-8")))
