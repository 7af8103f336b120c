"""The report of ``evaluate matching``: its table, its JSON, and how a run goes on where another was cut off."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsefeat.errors import InputError, opening
from sparsefeat.io.damage import parsing

if TYPE_CHECKING:
    from sparsefeat.evaluate.journal import PairJournal
    from sparsefeat.evaluate.matching import MatchingResult

COLUMNS = ("FMR", "IR", "FMR_mutual", "IR_mutual", "RR")


def split(names: str | None) -> list[str]:
    """The names in a list with commas, each once."""
    return list(dict.fromkeys(name.strip() for name in (names or "").split(",") if name.strip()))


def pair_settings(args: argparse.Namespace, voxel_size: float) -> dict[str, Any]:
    """What a pair's numbers depend on. Which pairs and baselines are wanted may change.

    Args:
        args: of the command.
        voxel_size: of the checkpoint, or as it was asked for.
    """
    from sparsefeat.checkpoint import weights_digest
    from sparsefeat.evaluate.journal import DIGEST

    names = (
        "data", "pairs", "points", "tau1", "tau2", "seed", "rotate", "views", "scales", "interpolation", "dense",
        "viewpoints", "salient", "registration",
    )  # fmt: skip
    settings = {name: getattr(args, name) for name in names}
    # Earlier versions knew no other orientation and did not write it.
    settings["orientation"] = None if args.orientation == "given" else args.orientation
    if args.viewpoints is not None:
        with opening(args.viewpoints):
            listed = Path(args.viewpoints).read_bytes()
        settings[f"viewpoints{DIGEST}"] = hashlib.sha256(listed).hexdigest()
    return settings | {
        "checkpoint": args.checkpoint,
        "weights": weights_digest(args.checkpoint),
        "voxel_size": voxel_size,
    }


@contextlib.contextmanager
def open_journal(args: argparse.Namespace, settings: Mapping[str, Any]) -> Iterator[PairJournal]:
    """The pairs of ``--json FILE`` so far; nobody else writes FILE meanwhile. ``settings``: see :func:`pair_settings`."""
    from sparsefeat.evaluate.journal import PairJournal
    from sparsefeat.io.atomic import sweep
    from sparsefeat.io.lock import LOCK_NAME, locked

    path = Path(args.json)
    with locked(path.with_name(f".{path.name}{LOCK_NAME}"), path):
        sweep(path.parent, deep=False, name=path.name)
        with PairJournal(_part(path), settings, args.resume) as journal:
            yield journal


def is_complete(args: argparse.Namespace, settings: Mapping[str, Any]) -> bool:
    """Whether ``--json FILE`` is there and finished, so that nothing is left to do.

    Args:
        args: of the command.
        settings: see :func:`pair_settings`.

    Raises:
        InputError: it is finished, with other settings, or is no report.
    """
    path = Path(args.json)
    if not path.exists() or _part(path).exists():
        return False
    with opening(path), parsing(path, "a report of evaluate matching"):
        report = json.loads(path.read_text(encoding="utf-8"))
        found = {
            "pairs": report["pairs"],
            **report["settings"],
            "baselines": set(report["baselines"]),
        }
    asked = _all_settings(args, settings) | {"baselines": set(split(args.baselines))}
    for name, value in asked.items():
        # Reports of earlier versions do not have all of them; the device does not matter.
        if name != "device" and name in found and found[name] != value:
            raise InputError(
                f"--resume: {path} is complete, with {name} {found[name]!r} in place of {value!r}; name another "
                "--json, or delete it"
            )
    return True


def as_json(
    args: argparse.Namespace, settings: Mapping[str, Any], results: Mapping[str, MatchingResult]
) -> dict[str, Any]:
    """All numbers and settings: the contract's form of matching results.

    Args:
        args: of the command.
        settings: see :func:`pair_settings`.
        results: of ``"checkpoint"`` and of the baselines.
    """
    report: dict[str, Any] = {"pairs": args.pairs, **results["checkpoint"].to_json()}
    report["baselines"] = {k: v.to_json() for k, v in results.items() if k != "checkpoint"}
    report["settings"] |= _all_settings(args, settings)
    return report


def _all_settings(args: argparse.Namespace, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **settings,
        "orientation": args.orientation,
        "scenes": split(args.scenes) or None,
        "max_pairs_per_scene": args.max_pairs_per_scene,
        "device": args.device or "cpu",
    }


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def table(name: str, result: MatchingResult) -> str:
    """Per scene and mean +- sd over scenes, in fixed columns."""
    columns = [c for c in COLUMNS if c != "RR" or result.RR is not None]
    width = max(len(scene) for scene in (*result.scenes, "mean over scenes"))
    lines = [f"\n{name:<{width}}  pairs" + "".join(f"{column:>17}" for column in columns)]
    for scene, row in result.per_scene().items():
        values = "".join(f"{'-' if row[c] is None else format(row[c], '.4f'):>17}" for c in columns)
        lines.append(f"{scene:<{width}}  {row['n_pairs']:5d}{values}")
    cells = [result.summary(column) for column in columns]
    values = "".join(f"{f'{cell.mean:.4f} ± {cell.sd:.4f}':>17}" for cell in cells if cell)
    lines.append(f"{'mean over scenes':<{width}}  {len(result.pairs):5d}{values}")
    return "\n".join(lines)
