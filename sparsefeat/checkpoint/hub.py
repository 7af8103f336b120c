"""A checkpoint as a folder: the layout of a repository on the Hugging Face hub."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from sparsefeat.checkpoint.native import HUB_FILE, find_checkpoint, read_checkpoint
from sparsefeat.errors import InputError, opening
from sparsefeat.io.atomic import atomic_folder

_FRONT_MATTER = """---
library_name: sparsefeat
license: mit
tags:
- point-cloud
- mesh
- 3d-features
---

"""


def write_folder(
    folder: str | os.PathLike,
    name_or_path: str | os.PathLike,
    card: str | os.PathLike | None = None,
) -> Path:
    """Write ``model.safetensors``, ``config.json`` and ``README.md``, whole or not at all.

    :func:`sparsefeat.from_pretrained` takes the folder, and its hub id once it is uploaded. It reads
    ``model.safetensors`` alone; ``config.json`` repeats the header of that file for people and for the hub.

    Args:
        folder: absent or empty.
        name_or_path: of a checkpoint of ours, see :func:`sparsefeat.from_pretrained`.
        card: Markdown; None: the file beside the checkpoint, with the suffix ``.md``.

    Returns:
        The folder.

    Raises:
        InputError: no such checkpoint, not in our format, no card, or a folder that has files.
    """
    source = find_checkpoint(name_or_path)
    checkpoint = read_checkpoint(source)
    if source.suffix != ".safetensors" or checkpoint.voxel_size is None:
        raise InputError(
            f"{source}: expected a checkpoint that sparsefeat wrote, with its voxel size; "
            "sparsefeat.save_checkpoint writes one"
        )
    card = source.with_suffix(".md") if card is None else Path(card)
    with opening(card):
        text = card.read_text(encoding="utf-8")
    config = {key: value for key, value in asdict(checkpoint).items() if key != "state"}
    with atomic_folder(folder) as temporary:
        (temporary / HUB_FILE).write_bytes(source.read_bytes())
        (temporary / "config.json").write_text(json.dumps(config, indent=1) + "\n", "utf-8")
        (temporary / "README.md").write_text(_FRONT_MATTER + text, "utf-8")
    return Path(folder)
