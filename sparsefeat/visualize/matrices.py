"""Matrices as pictures: confusion, and scores of methods."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from sparsefeat.errors import InputError
from sparsefeat.visualize.figures import new_figure, save_figure, theme_colors

# Up to so many classes each share is written into its cell.
_WRITTEN = 16
# Of a cell and around the matrix, pixels.
_CELL = (18, 46)
_LARGEST = 720


def plot_matrix(
    matrix: np.ndarray,
    names: Sequence[str] | None,
    path: str | os.PathLike,
    title: str | None = None,
) -> None:
    """Draw a confusion matrix, each row in percent of its sum, into a PNG.

    Classes that occur neither as truth nor as prediction are left out.

    Args:
        matrix: counts; the row is the true class. Shape: (L, L)
        names: of the classes; None: numbers.
        path: the PNG.
        title: above it.

    Raises:
        InputError: not square, as many names as it has not rows, or nothing counted.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"plot_matrix: expected a square matrix, got {matrix.shape}")
    names = [str(k) for k in range(len(matrix))] if names is None else [str(name) for name in names]
    if len(names) != len(matrix):
        raise InputError(f"plot_matrix: {len(names)} names for {len(matrix)} classes")
    met = matrix.any(0) | matrix.any(1)
    if not met.any():
        raise InputError("plot_matrix: expected at least one count, all are 0")
    matrix, names = (
        matrix[np.ix_(met, met)],
        [n for n, there in zip(names, met, strict=True) if there],
    )
    total = matrix.sum(1, keepdims=True)
    # A class that is only ever predicted has no shares.
    percent = 100 * np.divide(matrix, total, out=np.full_like(matrix, np.nan), where=total > 0)
    count = len(names)
    side = count * int(np.clip(_LARGEST / count, *_CELL))
    side = max(side, 240)
    label = 20 + 8 * max(len(name) for name in names)
    left, top, bottom, right = label + 36, 64 if title else 26, round(0.87 * label) + 36, 120
    width, height = max(left + side + right, 32 + 9 * len(title or "")), top + side + bottom
    theme = theme_colors("white")
    figure = new_figure(width, height, theme)
    axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
    axes.set_facecolor("#eeeeee")
    image = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(
        range(count), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=9
    )
    axes.set_yticks(range(count), names, fontsize=9)
    axes.tick_params(length=0, colors=theme["text"])
    axes.set_xlabel("predicted", fontsize=11, color=theme["text"])
    axes.set_ylabel("true", fontsize=11, color=theme["text"])
    for spine in axes.spines.values():
        spine.set_color("#bbbbbb")
    if count <= _WRITTEN:
        for row, column in np.ndindex(percent.shape):
            share = percent[row, column]
            if np.isfinite(share):
                color = "white" if share > 50 else theme["text"] if share >= 0.5 else theme["muted"]
                text = {"ha": "center", "va": "center", "fontsize": 9, "color": color}
                axes.text(column, row, f"{share:.0f}", **text)
    scale_axes = figure.add_axes(
        ((left + side + 24) / width, bottom / height, 14 / width, side / height)
    )
    scale = figure.colorbar(image, cax=scale_axes, ticks=[0, 25, 50, 75, 100])
    scale.set_label("% of the true class", fontsize=10, color=theme["text"])
    scale.ax.tick_params(length=0, labelsize=9, colors=theme["text"])
    scale.outline.set_visible(False)
    if title:
        figure.text(
            16 / width, 1 - 28 / height, title, fontsize=12, color=theme["text"], va="center"
        )
    save_figure(figure, path)


def plot_scores(
    scores: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    path: str | os.PathLike,
    title: str | None = None,
) -> None:
    """Draw shares of several methods in several cases into a PNG, the best of each row framed.

    Args:
        scores: shares from 0 to 1; NaN where there is none. Shape: (R, M).
        rows, columns: names of cases and of methods.
        path: the PNG.
        title: above it.

    Raises:
        InputError: names that do not fit the scores.
    """
    from matplotlib.patches import Rectangle  # as late as figures.py imports the library

    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (len(rows), len(columns)) or not scores.size:
        raise InputError(
            f"plot_scores: scores {scores.shape} for {len(rows)} rows and {len(columns)} columns"
        )
    theme = theme_colors("white")
    # Names have some 7 pixels a letter; those of columns are turned by 35 degrees and reach to the right.
    longest = [7 * max(len(name) for name in names) for names in (rows, columns)]
    left, top, cell = 30 + longest[0], 70 + round(0.6 * longest[1]), (82, 30)
    right = max(20, round(0.9 * longest[1]) - 20)
    width, height = left + cell[0] * len(columns) + right, top + cell[1] * len(rows) + 20
    figure = new_figure(width, height, theme)
    place = (
        left / width,
        20 / height,
        cell[0] * len(columns) / width,
        cell[1] * len(rows) / height,
    )
    axes = figure.add_axes(place)
    axes.imshow(scores, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(columns)), list(columns), rotation=35, ha="left", fontsize=9)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=9)
    axes.tick_params(length=0)
    for row, values in enumerate(scores):
        best = np.nanmax(values) if np.isfinite(values).any() else np.nan
        for column, value in enumerate(values):
            if not np.isfinite(value):
                continue
            first = round(value, 3) == round(best, 3)
            axes.text(
                column, row, f"{value:.3f}", ha="center", va="center", fontsize=9,
                color="white" if value > 0.6 else theme["text"], fontweight="bold" if first else "normal",
            )  # fmt: skip
            if first:
                axes.add_patch(
                    Rectangle(
                        (column - 0.47, row - 0.44),
                        0.94,
                        0.88,
                        fill=False,
                        edgecolor="#d55e00",
                        lw=2,
                    )
                )
    if title:
        figure.text(0.01, 1 - 12 / height, title, fontsize=11, va="top", color=theme["text"])
    save_figure(figure, path)
