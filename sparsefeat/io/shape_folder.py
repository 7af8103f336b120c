"""The files beside the meshes of a folder of shapes; :func:`sparsefeat.data.folder.load_folder` reads them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sparsefeat.io import yaml12

SPLITS = "splits.yaml"
"""``train: [<name>, ...]``: which shapes are for what."""
INDIVIDUALS = "individuals.yaml"
"""``<who>: [<name>, ...]``: shapes that are poses of one body."""
TEMPLATES = "templates.yaml"
"""``<anything>: [<class>, ...]``: classes with landmarks in common."""
PART_NAMES = "part_names.txt"
"""Name of part l in line l."""


def write_lists(
    root: Path,
    splits: Mapping[str, Sequence[str]],
    individuals: Mapping[str, Sequence[str]],
    templates: Mapping[str, Sequence[str]],
    part_names: Sequence[str],
) -> None:
    """Write the four files into a folder that exists."""
    for file, value in ((SPLITS, splits), (INDIVIDUALS, individuals), (TEMPLATES, templates)):
        (root / file).write_text(yaml12.dump(value), encoding="utf-8")
    (root / PART_NAMES).write_text("".join(name + "\n" for name in part_names), encoding="utf-8")
