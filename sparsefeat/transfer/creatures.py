"""Makes the creatures of a configuration that asks for them, where they are not there yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from sparsefeat import yaml12
from sparsefeat.data.synthetic.creatures import SETTINGS, make_creatures
from sparsefeat.transfer.config import TransferConfig


def make_missing_creatures(config: TransferConfig, progress: Callable[[int, int], None] | None = None) -> bool:
    """Write creatures to ``data.root`` if the configuration has a section for them and they are not there.

    Args:
        config: of the experiment.
        progress: called with (shapes done, all shapes).

    Returns:
        Whether any were made.

    Raises:
        ValueError: a setting out of range, or something else is at ``data.root``.
    """
    if config.creatures is None:
        return False
    root, wanted = config.data.root, asdict(config.creatures)
    if not root.exists():
        make_creatures(root, **wanted, progress=progress)
        return True
    try:
        found = yaml12.parse((root / SETTINGS).read_text(encoding="utf-8"), SETTINGS)[0]
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or any(found.get(name) != value for name, value in wanted.items()):
        made = "other files than creatures" if not isinstance(found, dict) else f"creatures made with {_line(found)}"
        raise ValueError(
            f"{root}: holds {made}, but the configuration asks for {_line(wanted)}; delete it, name another "
            "data.root, or leave out `creatures`"
        )
    return False


def _line(settings: dict) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items())
