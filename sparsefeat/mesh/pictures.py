"""Pictures of voxels as cubes."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from sparsefeat.checks import as_array
from sparsefeat.errors import InputError
from sparsefeat.visualize.meshes import render_meshes
from sparsefeat.visualize.raster import View

# Seen from here each cube shows three sides, each lit differently.
_AZIMUTH_DEG, _ELEVATION_DEG = 32.0, 24.0
_PANEL = (480, 520)
_SIDE = (0.66, 0.78, 0.94)
# Of the sides that face up, the viewer and away; light alone tells them apart too little.
_TINTS = (1.0, 0.90, 0.76)
_RIM = (0.24, 0.34, 0.50)
# Share of a cube's side that is its rim; drawn where a cube is more than this many pixels wide.
_RIM_SHARE = 0.07
_RIM_PIXELS = 5.0
_BACKGROUND = "white"


def draw_voxels(
    coordinates: Sequence[np.ndarray],
    path: str | os.PathLike,
    titles: Sequence[str] | None = None,
    up: str = "y",
) -> None:
    """Draw voxels of meshes side by side into a PNG, as shaded cubes, those of a coarse grid with rims.

    Args:
        coordinates: (V_k, 3) whole numbers each.
        path: the PNG.
        titles: one each.
        up: the axis that points up: x, y, z, -x, -y or -z.

    Raises:
        InputError: nothing to draw, what are no voxels, or no such axis.
    """
    cells = [as_array(given, "voxels") for given in coordinates]
    for one in cells:
        if one.ndim != 2 or one.shape[1] != 3 or one.dtype.kind not in "iu" or not len(one):
            raise InputError(
                f"voxels: {one.shape} of {one.dtype}, expected whole numbers (V, 3), V > 0"
            )
    view = View(_AZIMUTH_DEG, _ELEVATION_DEG, up)
    towards = view.axes()[2]
    across = "xyz".index(up[-1])
    facing = sorted(range(3), key=lambda k: (k != across, -abs(towards[k])))
    tints = np.array(_TINTS)[np.argsort(facing)]
    meshes = [cubes(one, towards, tints) for one in cells]
    render_meshes(meshes, path, titles, view, _BACKGROUND, smooth=False, panel=_PANEL)


def cubes(
    cells: np.ndarray, towards: np.ndarray, tints: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The sides of cubes that can be seen from a direction, as vertices, faces and colours per face.

    Args:
        cells: Shape (V, 3) whole numbers.
        towards: direction to the viewer. Shape: (3,)
        tints: factors of the colour of the sides across x, y and z. Shape: (3,)
    """
    cells = np.asarray(cells, dtype=np.int64)
    cells = cells - cells.min(0)
    extent = cells.max(0) + 1
    # A margin of one cell on each side, so that a neighbour's key is never that of another row's end.
    stride = np.array([(extent[1] + 2) * (extent[2] + 2), extent[2] + 2, 1])
    keys = np.sort(cells @ stride)
    quads, colors = [], []
    for axis in range(3):
        step = 1 if towards[axis] > 0 else -1
        place = np.searchsorted(keys, cells @ stride + step * stride[axis])
        free = keys[np.minimum(place, len(keys) - 1)] != cells @ stride + step * stride[axis]
        u, v = np.eye(3)[(axis + 1) % 3], np.eye(3)[(axis + 2) % 3]
        square = np.array([np.zeros(3), u, u + v, v]) + np.eye(3)[axis] * (step > 0)
        quads.append(cells[free][:, None] + square)
        colors.append(np.tile(np.array(_SIDE) * tints[axis], (int(free.sum()), 1)))
    quads, colors = np.concatenate(quads), np.concatenate(colors)
    pixels = min(_PANEL) / (1.3 * extent.max())
    if pixels > _RIM_PIXELS:
        middle = quads.mean(1, keepdims=True)
        # The middle of a side in front of its rim, by what no eye can see.
        inner = middle + (1 - 2 * _RIM_SHARE) * (quads - middle) + 1e-3 * towards
        quads = np.concatenate([quads, inner])
        colors = np.concatenate([np.tile(_RIM, (len(colors), 1)), colors])
    faces = np.arange(4 * len(quads)).reshape(-1, 4)[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)
    return quads.reshape(-1, 3), faces, np.repeat(colors, 2, axis=0)
