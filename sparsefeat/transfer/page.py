"""The shapes of an experiment as a page to look at, with what the pictures of the reports show."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparsefeat.match.shape_files import place_colors
from sparsefeat.transfer.features import vertex_labels
from sparsefeat.transfer.maps import MapsResult
from sparsefeat.transfer.report import drawn_score, first_maps
from sparsefeat.transfer.run import TransferResult
from sparsefeat.transfer.shapes import LoadedShape
from sparsefeat.visualize.viewer import view

_SHAPES = 6


def write_page(result: TransferResult, html: str) -> list[Path]:
    """Labels of a segmentation, true and predicted; or the map of a correspondence's first pair.

    Returns:
        The file.
    """
    if result.maps:
        source, target = result.shapes[0], result.shapes[-1]
        score = first_maps(result)[-1]
        _write_map(html, source, target, score.first, result.config.data.up)
        return [Path(html)]
    score = drawn_score(result)
    shapes = result.shapes[:_SHAPES]
    view(
        [(shape.vertices, shape.faces) for shape in shapes],
        html=html,
        names=[shape.name for shape in shapes],
        labels={
            "true": [vertex_labels(shape) for shape in shapes],
            f"predicted from {score.method}": [
                vertex_labels(shape, score.predictions[shape.name]) for shape in shapes
            ],
        },
        label_names=result.dataset.part_names,
        up=result.config.data.up,
    )
    return [Path(html)]


def write_maps_page(result: MapsResult, html: str) -> list[Path]:
    """The refined map of the first pair.

    Returns:
        The file.
    """
    first, second, points = result.picture
    _write_map(html, second, first, points, result.config.data.up)
    return [Path(html)]


def _write_map(
    html: str, source: LoadedShape, target: LoadedShape, rows: np.ndarray, up: str
) -> None:
    """Rows of the target for the vertices of the source."""
    view(
        [(shape.vertices, shape.faces) for shape in (source, target)],
        [None, place_colors(target.vertices)],
        html=html,
        names=[source.name, target.name],
        maps=np.asarray(rows),
        up=up,
    )
