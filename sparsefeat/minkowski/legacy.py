"""Names of version 0.4 that published model files still use (PointContrast, SpatioTemporalSegmentation)."""

from __future__ import annotations

from typing import Any

TENSOR = {
    "feats": "features",
    "coords": "coordinates",
    "coords_key": "coordinate_map_key",
    "coords_manager": "coordinate_manager",
}
CONVOLUTION = {
    "has_bias": "bias",
    "generate_new_coords": "expand_coordinates",
    "generate_new_coordinates": "expand_coordinates",
}
UNUSED_DIMENSION = ("dimension", "D")
"""Layers that once needed to know the number of axes, and no longer do."""


def rename(
    given: dict[str, Any], names: dict[str, str], current: dict[str, Any], where: str
) -> dict[str, Any]:
    """Put legacy keyword arguments in the place of the current ones.

    Args:
        given: keywords that the signature does not have.
        names: their legacy name -> the current name.
        current: the current arguments by name.

    Returns:
        ``current`` with the given values.

    Raises:
        TypeError: a keyword that was never an argument.
    """
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise TypeError(f"{where}: unexpected keyword argument {', '.join(map(repr, unknown))}")
    return {**current, **{names[name]: value for name, value in given.items()}}


def check_unused(given: dict[str, Any], where: str) -> None:
    """Accept the ``dimension`` that 0.4 asked for; raise TypeError for any other keyword."""
    rename(given, {name: name for name in UNUSED_DIMENSION}, {}, where)
