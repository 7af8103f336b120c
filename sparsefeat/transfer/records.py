"""Measurements of a study in one JSON file, written after each of them, so that a stopped study continues."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparsefeat.errors import InputError, opening
from sparsefeat.io.atomic import atomic_write

Record = dict[str, Any]
"""One measurement: what it is of, and its numbers."""


def write_records(path: Path, identity: dict[str, Any], records: Sequence[Record]) -> None:
    """Write all measurements so far, whole or not at all.

    Args:
        path: the JSON; its folder is made if absent.
        identity: what the numbers depend on.
        records: the measurements.
    """
    with opening(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            text = json.dumps({"config": identity, "records": list(records)}, indent=1)
            temporary.write_text(text + "\n", encoding="utf-8")


def read_records(path: Path, identity: dict[str, Any]) -> list[Record]:
    """The measurements of a file that :func:`write_records` wrote; none where there is no file.

    Raises:
        InputError: another kind of file, or one with another identity.
    """
    if not path.is_file():
        return []
    with opening(path):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            config, records = found["config"], found["records"]
            if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
                raise TypeError("records: expected a list of mappings")
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: not a result that could be continued; remove it or choose another --output"
            ) from error
    if config != json.loads(json.dumps(identity)):
        raise InputError(
            f"{path}: the result of another configuration; remove it or choose another --output"
        )
    return records
