"""Pairs that an evaluation has measured, on disk as they come, so that stopping it loses nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparsefeat.errors import InputError, opening
from sparsefeat.evaluate.matching import TAU1_CURVE, Matches, PairResult
from sparsefeat.io.atomic import atomic_write

Key = tuple[str, int, int]

DIGEST = "_sha256"
"""Ends the name of a setting that is the digest of a file which another setting names."""


class PairJournal:
    """JSON lines beside the report that they will make: the settings, then one line for each pair.

    Args:
        path: of the file; the folder exists.
        settings: of the evaluation, as JSON can hold them; pairs of other settings are refused. One that is off (False
            or None) and one that ends in `DIGEST` may be missing in the file: an earlier version did not know it.
        resume: take over what is there. Otherwise a file with pairs is refused, and one without begun anew.

    Raises:
        InputError: see above; or the file cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike, settings: Mapping[str, Any], resume: bool):
        self.path = Path(path)
        header = json.dumps(dict(settings), sort_keys=True)
        self.known: dict[str, dict[Key, PairResult]] = {}
        with opening(path):
            lines = (
                self.path.read_text(encoding="utf-8", errors="replace").splitlines()
                if self.path.is_file()
                else []
            )
        # Without its first line a file may begin with a pair, or be of another program.
        settled = not lines or _settings(lines[0]) is not None
        rows = [row for row in map(_row, lines[1:] if settled else lines) if row is not None]
        if rows and not resume:
            raise InputError(
                f"{path}: holds {len(rows)} pairs that were measured before; --resume goes on with them, or delete it"
            )
        if not settled:
            raise InputError(f"{path}: its first line is damaged, expected settings; delete it")
        if rows and (differences := _differences(lines[0], header)):
            raise InputError(f"{path}: was measured with other settings: {differences}")
        for name, result in rows:
            self.known.setdefault(name, {})[result.scene, result.i, result.j] = result
        with opening(path):
            with atomic_write(path) as temporary:
                text = [header, *(_line(name, result) for name, result in rows)]
                temporary.write_text("\n".join(text) + "\n", encoding="utf-8")
            self._file = self.path.open("a", encoding="utf-8")
        self._empty = not rows

    def __enter__(self) -> PairJournal:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        if self._empty:
            self.finish()

    def keep(self, name: str, result: PairResult) -> None:
        """Add a pair, measured with the descriptor of this name."""
        self._empty = False
        with opening(self.path):
            self._file.write(_line(name, result) + "\n")
            self._file.flush()

    def finish(self) -> None:
        """Delete the file: all is in the report now."""
        self._file.close()
        with opening(self.path):
            self.path.unlink(missing_ok=True)


def _line(name: str, result: PairResult) -> str:
    nearest, mutual = (
        [matches.count, matches.inliers, matches.closer.tolist()]
        for matches in (result.nearest, result.mutual)
    )
    error = result.registration_error
    # As text, since JSON has no infinity.
    return json.dumps(
        [
            name,
            result.scene,
            result.i,
            result.j,
            nearest,
            mutual,
            None if error is None else repr(error),
        ]
    )


def _row(line: str) -> tuple[str, PairResult] | None:
    """The pair of a line; None if the line is cut or damaged: that pair is measured again."""
    try:
        name, scene, i, j, nearest, mutual, error = json.loads(line)
        both = [
            Matches(int(n), int(inliers), np.array(closer, np.int64))
            for n, inliers, closer in (nearest, mutual)
        ]
        if any(matches.closer.shape != TAU1_CURVE.shape for matches in both):
            return None
        return str(name), PairResult(
            str(scene), int(i), int(j), *both, None if error is None else float(error)
        )
    except (ValueError, TypeError, RecursionError, OverflowError):
        return None


def _settings(line: str) -> dict[str, Any] | None:
    """What a first line says; None if it is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _differences(theirs: str, ours: str) -> str:
    """What the first lines of two files say otherwise; empty if nothing."""
    old, new = _settings(theirs) or {}, _settings(ours) or {}
    for settings in (old, new):
        settings.update({name: None for name, value in settings.items() if value is False})
    names = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    names = [name for name in names if name in old or not name.endswith(DIGEST)]
    return ", ".join(f"{name} {old.get(name)!r} and not {new.get(name)!r}" for name in names)
