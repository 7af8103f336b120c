"""Makes the creatures of a configuration that asks for them, where they are not there yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from sparsefeat.errors import InputError, opening
from sparsefeat.io import yaml12
from sparsefeat.synthetic.creatures import SETTINGS, make_creatures
from sparsefeat.transfer.config import CreaturesConfig


def make_missing_creatures(
    config: CreaturesConfig, root: Path, progress: Callable[[int, int], None] | None = None
) -> bool:
    """Write creatures to a folder if nothing is there.

    Args:
        config: which creatures.
        root: the folder.
        progress: called with (shapes done, all shapes).

    Returns:
        Whether any were made.

    Raises:
        InputError: a setting out of range, or something else than these creatures is at ``root``.
    """
    wanted = {name: value for name, value in asdict(config).items() if value is not None}
    with opening(root):
        vacant = not root.exists() or (root.is_dir() and not any(root.iterdir()))
    if vacant:
        make_creatures(root, **wanted, progress=progress)
        return True
    found = _settings(root)
    if _comparable(found) != _comparable(wanted):
        raise InputError(
            f"{root}: holds creatures made with {_line(found)}, but the configuration asks for {_line(wanted)}; "
            "name another data.root, or delete these"
        )
    return False


def _settings(root: Path) -> dict:
    path = root / SETTINGS
    try:
        found = yaml12.parse(path.read_text(encoding="utf-8"), str(path))[0]
    except OSError as error:
        raise InputError(
            f"{root}: these are not creatures made here ({SETTINGS}: {error.strerror}); name another data.root, or "
            "leave out `creatures` to use what is there"
        ) from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected the settings of creatures, got {type(found).__name__}")
    return found


def _comparable(settings: dict) -> dict:
    # Families are made one by one, whatever the order that they are named in.
    families = settings.get("families")
    return settings | {
        "families": sorted(map(str, families)) if isinstance(families, list) else families
    }


def _line(settings: dict) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items())
