"""Matrices as pictures: confusion, and scores of methods."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.patches import Rectangle

from sparsefeat.errors import InputError
from sparsefeat.visualize.figures import new_figure, save_figure, theme_colors


def plot_matrix(
    matrix: np.ndarray, names: Sequence[str] | None, path: str | os.PathLike, title: str | None = None
) -> None:
    """Draw a confusion matrix, each row as shares of its sum, into a PNG.

    Args:
        matrix: counts; the row is the true class. Shape: (L, L)
        names: of the classes; None: numbers.
        path: the PNG.
        title: above it.

    Raises:
        InputError: not square, or as many names as it has not rows.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"plot_matrix: expected a square matrix, got {matrix.shape}")
    names = [str(k) for k in range(len(matrix))] if names is None else list(names)
    if len(names) != len(matrix):
        raise InputError(f"plot_matrix: {len(names)} names for {len(matrix)} classes")
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    theme = theme_colors("white")
    figure = new_figure(720, 680, theme)
    axes = figure.add_axes((0.2, 0.2, 0.76, 0.7))
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=9)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    if len(names) <= 16:
        for row, column in np.ndindex(share.shape):
            color = "white" if share[row, column] > 0.5 else theme["text"]
            axes.text(column, row, f"{share[row, column]:.2f}".lstrip("0"), ha="center", va="center", fontsize=8, color=color)
    if title:
        axes.set_title(title, fontsize=11, color=theme["text"])
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
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (len(rows), len(columns)) or not scores.size:
        raise InputError(f"plot_scores: scores {scores.shape} for {len(rows)} rows and {len(columns)} columns")
    theme = theme_colors("white")
    left, top, cell = 330, 130, (82, 30)
    width, height = left + cell[0] * len(columns) + 20, top + cell[1] * len(rows) + 20
    figure = new_figure(width, height, theme)
    place = (left / width, 20 / height, cell[0] * len(columns) / width, cell[1] * len(rows) / height)
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
                axes.add_patch(Rectangle((column - 0.47, row - 0.44), 0.94, 0.88, fill=False, edgecolor="#d55e00", lw=2))
    if title:
        figure.text(0.01, 1 - 12 / height, title, fontsize=11, va="top", color=theme["text"])
    save_figure(figure, path)
