"""Where the files lie that come with the package: released checkpoints and configurations."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from sparsefeat.errors import InputError, did_you_mean


def packaged(folder: str) -> Path:
    """The folder ``"assets"`` or ``"configs"``: inside the installed package, or beside it in a checkout."""
    package = Path(str(resources.files("sparsefeat")))
    inside = package / folder
    return inside if inside.is_dir() else package.parent / folder


def find_config(name: str | os.PathLike, kind: str = "") -> Path:
    """The configuration that a path or a name stands for.

    Args:
        name: a file; where there is none, one that comes with the package: ``configs/quickstart.yaml``,
            ``quickstart.yaml`` or ``quickstart``.
        kind: sub-folder of the configurations where bare names are looked for.

    Raises:
        InputError: there is none; the message lists those that there are.
    """
    path = Path(name)
    if os.path.exists(path):
        return path
    root = packaged("configs")
    parts = path.parts[1:] if path.parts[:1] == ("configs",) else path.parts
    if parts and not path.is_absolute() and ".." not in parts:
        relative = Path(*parts).with_name(parts[-1].removesuffix(".yaml") + ".yaml")
        for found in (root / kind / relative, root / relative):
            if os.path.isfile(found):
                return found
    known = sorted(file.stem for file in (root / kind).glob("*.yaml"))
    raise InputError(
        f"{name}: no such file, and no configuration of that name{did_you_mean(path.stem, known)}"
        f"; there are: {', '.join(known) or 'none'}"
    )
