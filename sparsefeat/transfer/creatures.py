"""Makes the creatures of a configuration that asks for them, where they are not there yet."""

from __future__ import annotations

from collections.abc import Callable

from sparsefeat.data.synthetic.creatures import make_creatures
from sparsefeat.transfer.config import TransferConfig


def make_missing_creatures(config: TransferConfig, progress: Callable[[int, int], None] | None = None) -> bool:
    """Write creatures to ``data.root`` if the configuration has a section for them and nothing is there.

    Args:
        config: of the experiment.
        progress: called with (shapes done, all shapes).

    Returns:
        Whether any were made.

    Raises:
        ValueError: a setting out of range.
    """
    if config.creatures is None or config.data.root.exists():
        return False
    made = config.creatures
    make_creatures(
        config.data.root,
        made.seed,
        count=made.count,
        poses=made.poses,
        families=made.families,
        vertices=made.vertices,
        progress=progress,
    )
    return True
