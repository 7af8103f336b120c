"""Confusion matrices as pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

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
