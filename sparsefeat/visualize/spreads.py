"""Means with error bars of several settings, one panel for each score."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from sparsefeat.errors import InputError
from sparsefeat.visualize.figures import new_figure, save_figure, theme_colors

_PANEL, _GAP, _ROW = 210, 26, 34
"""Width of a panel, between two of them, and height of a setting, pixels."""
_MEAN, _DOT = "#0072b2", "#e69f00"


def plot_spreads(
    scores: Mapping[str, Mapping[str, Sequence[float]]],
    path: str | os.PathLike,
    title: str | None = None,
) -> None:
    """Draw mean and sample standard deviation of each setting, and each number as a dot, into a PNG.

    Args:
        scores: score -> setting -> numbers, such as one of each seed; the settings of all scores are the same.
        path: the PNG.
        title: above it.

    Raises:
        InputError: no scores, or scores of different settings.
    """
    rows = list(next(iter(scores.values()), {}))
    if not rows or any(list(settings) != rows for settings in scores.values()):
        raise InputError("plot_spreads: expected scores of the same settings, at least one of each")
    theme = theme_colors("white")
    left, top, bottom = 24 + 7.4 * max(len(row) for row in rows), 78 if title else 44, 36
    inside = _ROW * len(rows)
    width = left + (_PANEL + _GAP) * len(scores)
    if title:
        width = max(width, 40 + 7.6 * len(title))
    height = top + inside + bottom
    figure = new_figure(round(width), round(height), theme)
    for panel, (score, settings) in enumerate(scores.items()):
        place = (left + panel * (_PANEL + _GAP), bottom, _PANEL, inside)
        axes = figure.add_axes(
            (place[0] / width, place[1] / height, place[2] / width, place[3] / height)
        )
        for row, values in enumerate(settings.values()):
            if not len(values):
                axes.text(
                    0.5, row, "not scored", ha="center", va="center", fontsize=9,
                    color=theme["muted"], transform=axes.get_yaxis_transform(),
                )  # fmt: skip
                continue
            deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
            axes.errorbar(
                np.mean(values), row, xerr=deviation, fmt="o", color=_MEAN, markersize=7,
                elinewidth=2, capsize=4, zorder=2,
            )  # fmt: skip
            axes.plot(values, [row] * len(values), "o", color=_DOT, markersize=3.5, zorder=3)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), rows if panel == 0 else [""] * len(rows), fontsize=10)
        axes.margins(x=0.12)
        axes.locator_params(axis="x", nbins=4)
        axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors=theme["muted"], labelsize=9, length=0)
        axes.tick_params(axis="y", colors=theme["text"], labelsize=10)
        axes.set_title(score, fontsize=11, color=theme["text"])
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color("#bbbbbb")
    if title:
        figure.text(16 / width, 1 - 24 / height, title, fontsize=12, color=theme["text"], va="center")  # fmt: skip
    save_figure(figure, path)
