"""The command ``sparsefeat``: which verbs there are, and the way to each."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence

from sparsefeat import __version__
from sparsefeat.errors import did_you_mean
from sparsefeat.process.tool import DONE, WRONG_INPUT, run_tool

# Verb -> what it does. Each is a module of this package with `main(argv) -> exit code`.
VERBS = {
    "extract": "write the features of point clouds",
    "pretrain": "pretrain a network on pairs of fragments",
    "transfer": "use pretrained features on other shapes: segmentation, classification, correspondence",
    "evaluate": "measure features by matching pairs of fragments",
    "voxelize": "write the voxels that meshes touch",
    "make_data": "make rooms or creatures, or fuse a recorded RGB-D sequence",
    "match": "find the pose of one scan on another, of all scans of a folder, or a map between shapes",
    "view": "look at clouds, meshes, features and labels in a browser",
    "benchmark": "measure the speed of the engine",
    "results": "render published results into documents, or measure one again",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sparsefeat VERB ...``.

    Args:
        argv: without the program's name; None: those of this process.

    Returns:
        The exit code: 0 done, 2 wrong input, 130 interrupted. A bug raises.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    first = argv[0] if argv else ""
    if first in ("-h", "--help"):
        return run_tool(_print_help)
    if first == "--version":
        print(f"sparsefeat {__version__}")
        return DONE
    verb = first.replace("-", "_")
    if verb not in VERBS:
        print(f"sparsefeat: {_refusal(first)}", file=sys.stderr)
        return WRONG_INPUT
    run: Callable[[list[str]], int] = importlib.import_module(f"sparsefeat.cli.{verb}").main
    return run(argv[1:])


def _print_help() -> int:
    print(_help())
    return DONE


def _help() -> str:
    names = {shown(verb): text for verb, text in VERBS.items()}
    width = max(map(len, names))
    lines = [f"  {name:<{width}}  {text}" for name, text in names.items()]
    usage = "usage: sparsefeat VERB ... | --help | --version"
    return "\n".join([usage, "", *lines, "", "sparsefeat VERB --help lists the options of a verb."])


def _refusal(given: str) -> str:
    names = [shown(verb) for verb in VERBS]
    return f"expected one of {', '.join(names)}, got {given!r}{did_you_mean(given, names)}"


def shown(verb: str) -> str:
    """A verb as it is typed."""
    return verb.replace("_", "-")
