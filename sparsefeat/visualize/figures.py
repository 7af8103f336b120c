"""Pictures of clouds, matches and curves as PNG. No display, no global matplotlib state."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sparsefeat.errors import InputError, opening
from sparsefeat.io.atomic import atomic_write
from sparsefeat.visualize.cutaway import inside
from sparsefeat.visualize.raster import CAMERA_VIEW, View, disc_radius, fit_frame, rasterize

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 100
_THEMES = {
    "white": {"background": (1.0, 1.0, 1.0), "text": "#222222", "muted": "#777777"},
    "dark": {"background": (0.09, 0.10, 0.12), "text": "#f0f0f0", "muted": "#9a9a9a"},
}
_CLOUD = (0.66, 0.70, 0.76)
_CLOUDS = ((0.96, 0.87, 0.72), (0.75, 0.85, 0.95))
_INLIER, _OUTLIER = "#16a34a", "#dc2626"
# A row of a legend, the least width of an entry, and of a letter, pixels.
_ROW, _ENTRY, _LETTER = 22, 60, 7.2
# Okabe and Ito's palette: told apart with any colour vision.
_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#333333")


def render_points(
    points: Sequence[np.ndarray],
    colors: Sequence[np.ndarray] | None,
    path: str | os.PathLike,
    titles: Sequence[str] | None = None,
    view: View = CAMERA_VIEW,
    background: str = "white",
    radius: float | None = None,
    shade: bool = True,
    columns: int | None = None,
    panel: tuple[int, int] = (640, 480),
    cut_open: bool = False,
) -> None:
    """Draw clouds side by side, at one scale, into a PNG.

    Args:
        points: arrays (N_k, 3), metres; points that are not finite are left out.
        colors: arrays (N_k, 3) in [0, 1], or None for grey.
        path: the PNG.
        titles: one per cloud.
        view: direction of sight, the same for all.
        background: "white" or "dark".
        radius: of a point, metres; default: by the points' spacing.
        shade: light surfaces by their estimated normals and darken depth edges.
        columns: panels in a row; default: up to 4, as square as possible.
        panel: width and height of one cloud's picture, pixels.
        cut_open: leave out the ceiling and the near walls of closed rooms, and say so in their titles.

    Raises:
        InputError: no cloud, an empty one, shapes or counts that do not fit, an unknown background.
    """
    theme = theme_colors(background)
    clouds, shown = _check_clouds(points, colors)
    if titles is not None and len(titles) != len(clouds):
        raise InputError(f"render_points: {len(clouds)} clouds but {len(titles)} titles")
    if cut_open:
        kept = [inside(cloud, view) for cloud in clouds]
        if titles is not None:
            notes = ["" if keep.all() else " (cut open)" for keep in kept]
            titles = [title + note for title, note in zip(titles, notes, strict=True)]
        clouds = [cloud[keep] for cloud, keep in zip(clouds, kept, strict=True)]
        shown = [color[keep] for color, keep in zip(shown, kept, strict=True)]
    columns = columns or (len(clouds) if len(clouds) <= 4 else int(np.ceil(np.sqrt(len(clouds)))))
    rows = -(-len(clouds) // columns)
    band = 34 if titles is not None else 0
    figure = new_figure(columns * panel[0], rows * (panel[1] + band), theme)
    frames = fit_frame([c @ view.axes()[:2].T for c in clouds], *panel)
    for k, (cloud, color, frame) in enumerate(zip(clouds, shown, frames, strict=True)):
        image = rasterize(
            cloud, color, view, frame, _radius(cloud, radius), theme["background"], shade
        )
        left, top = (k % columns) * panel[0], (k // columns) * (panel[1] + band)
        place_image(figure, image, left, top + band)
        if titles is not None:
            write_text(figure, left + panel[0] / 2, top + band * 0.6, titles[k], theme["text"], 12)
    save_figure(figure, path)


def draw_matches(
    points0: np.ndarray,
    points1: np.ndarray,
    matches: np.ndarray,
    inliers: np.ndarray,
    path: str | os.PathLike,
    colors: tuple[np.ndarray, np.ndarray] | None = None,
    clouds: tuple[np.ndarray, np.ndarray] | None = None,
    title: str | None = None,
    view: View = CAMERA_VIEW,
    background: str = "white",
    most: int = 200,
    seed: int = 0,
    panel: tuple[int, int] = (640, 560),
    verdict: str = "are right",
) -> None:
    """Draw two clouds side by side and lines between matched points: green inliers over red outliers.

    Args:
        points0: Shape (N, 3), metres.
        points1: Shape (M, 3), metres.
        matches: Shape (K, 2), rows of ``points0`` and ``points1``.
        inliers: Shape (K,) bool.
        path: the PNG.
        colors: of the drawn clouds, in [0, 1]; default: one tint each.
        clouds: drawn in place of ``points0`` and ``points1``, where these are key points only.
        title: above the picture; the counts stand beside it.
        view: direction of sight, the same for both.
        background: "white" or "dark".
        most: lines drawn; more matches are thinned out at random, in the same proportion.
        seed: of the thinning.
        panel: width and height of one cloud's picture, pixels.
        verdict: what the inliers are, behind their count.

    Raises:
        InputError: empty clouds, rows out of range, shapes that do not fit.
    """
    from matplotlib.collections import LineCollection

    theme = theme_colors(background)
    ends = [np.asarray(points0, dtype=np.float64), np.asarray(points1, dtype=np.float64)]
    matches, inliers = (
        np.asarray(matches).reshape(-1, 2),
        np.asarray(inliers, dtype=bool).reshape(-1),
    )
    if len(matches) != len(inliers):
        raise InputError(f"draw_matches: {len(matches)} matches but {len(inliers)} inlier flags")
    for side, cloud in enumerate(ends):
        if len(matches) and not (
            0 <= matches[:, side].min() and matches[:, side].max() < len(cloud)
        ):
            raise InputError(
                f"draw_matches: a match beyond the {len(cloud)} points of cloud {side}"
            )
    tints = [np.tile(c, (len(p), 1)) for c, p in zip(_CLOUDS, clouds or ends, strict=True)]
    drawn, shown = _check_clouds(clouds or ends, colors or tints)
    axes = view.axes()
    frames = fit_frame([c @ axes[:2].T for c in drawn], *panel)
    band = 40
    figure = new_figure(2 * panel[0], panel[1] + band, theme)
    for side in range(2):
        image = rasterize(
            drawn[side],
            shown[side],
            view,
            frames[side],
            _radius(drawn[side], None),
            theme["background"],
        )
        place_image(figure, image, side * panel[0], band)
    pixels = [frames[s].pixels(ends[s][matches[:, s]] @ axes[:2].T) for s in range(2)]
    pixels[1] = pixels[1] + [panel[0], 0]
    segments = np.stack(pixels, 1)
    rng = np.random.default_rng(seed)
    keep = np.sort(rng.choice(len(matches), min(most, len(matches)), replace=False))
    lines = figure.add_axes((0, 0, 1, panel[1] / (panel[1] + band)))
    lines.set(xlim=(0, 2 * panel[0]), ylim=(panel[1], 0))
    lines.set_axis_off()
    for good, color, alpha in ((False, _OUTLIER, 0.30), (True, _INLIER, 0.65)):
        some = segments[keep[inliers[keep] == good]]
        lines.add_collection(LineCollection(some, colors=color, linewidths=0.9, alpha=alpha))
        lines.plot(*some.reshape(-1, 2).T, ".", color=color, markersize=3.5, alpha=0.9)
    share = inliers.mean() if len(inliers) else 0.0
    counts = f"{int(inliers.sum())} of {len(inliers)} matches {verdict} ({share:.1%})"
    if len(keep) < len(matches):
        counts += f", {len(keep)} drawn"
    if title:
        write_text(figure, 16, band * 0.55, title, theme["text"], 13, "left")
    write_text(figure, 2 * panel[0] - 16, band * 0.55, counts, theme["muted"], 11, "right")
    words = ("right match", "wrong match") if verdict == "are right" else ("agrees", "does not")
    entries = [(words[0], _INLIER), (words[1], _OUTLIER)]
    draw_legend(
        figure,
        entries,
        2 * panel[0] - 2 * 120 - 16,
        panel[1] + band - _ROW - 6,
        2 * 120,
        theme["text"],
    )
    save_figure(figure, path)


def plot_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    path: str | os.PathLike,
    xlabel: str,
    ylabel: str,
    title: str | None = None,
    marks: Mapping[str, float] | None = None,
    ylim: tuple[float, float] | None = None,
    logx: bool = False,
) -> None:
    """Plot lines into a PNG.

    Args:
        curves: label -> (x, y).
        path: the PNG.
        xlabel, ylabel: with units.
        title: above the axes.
        marks: label -> x of a dotted vertical line.
        ylim: default: from 0 to 1, or to a little above the largest value where that is small, for values
            in [0, 1]; else by the values.
        logx: logarithmic x axis.

    Raises:
        InputError: no curve, or x and y of different lengths.
    """
    if not curves:
        raise InputError("plot_curves: expected at least one curve, got none")
    theme = theme_colors("white")
    figure = new_figure(760, 500, theme)
    axes = figure.add_axes((0.1, 0.13, 0.86, 0.76 if title else 0.82))
    values = []
    for k, (label, (x, y)) in enumerate(curves.items()):
        x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
        if x.ndim != 1 or x.shape != y.shape:
            raise InputError(f"plot_curves: {label!r}: x has shape {x.shape}, y has {y.shape}")
        style = "-" if k < len(_LINES) else "--"
        axes.plot(x, y, style, color=_LINES[k % len(_LINES)], linewidth=2.2, label=label)
        values.append(y[np.isfinite(y)])
    values = np.concatenate(values)
    if ylim is None and len(values) and values.min() >= 0 and values.max() <= 1:
        top = float(values.max())
        ylim = (0, 1 if top > 0.5 or top == 0 else 1.2 * top)
    if ylim is not None:
        axes.set_ylim(*ylim)
    if logx:
        axes.set_xscale("log")
    axes.margins(x=0)
    for label, x in (marks or {}).items():
        axes.axvline(x, color=theme["muted"], linewidth=1, linestyle=":")
        where = axes.get_xaxis_transform()
        axes.text(x, 1.015, label, color=theme["muted"], fontsize=9, ha="center", transform=where)
    axes.set_xlabel(xlabel, fontsize=11, color=theme["text"])
    axes.set_ylabel(ylabel, fontsize=11, color=theme["text"])
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme["muted"], labelsize=10, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#bbbbbb")
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize=10, loc="best")
    if title:
        figure.text(0.1, 0.955, title, fontsize=13, color=theme["text"], va="center")
    save_figure(figure, path)


def theme_colors(name: str) -> dict:
    if name not in _THEMES:
        raise InputError(f"background: expected one of {', '.join(_THEMES)}, got {name!r}")
    return _THEMES[name]


def _check_clouds(points, colors) -> tuple[list[np.ndarray], list[np.ndarray]]:
    clouds, shown = [], []
    if len(points) == 0:
        raise InputError("rendering: expected at least one cloud, got none")
    if colors is not None and len(colors) != len(points):
        raise InputError(f"rendering: {len(points)} clouds but {len(colors)} colour arrays")
    for k, cloud in enumerate(points):
        cloud = np.asarray(cloud, dtype=np.float64)
        if cloud.ndim != 2 or cloud.shape[1] != 3:
            raise InputError(f"rendering: cloud {k}: expected points (N, 3), got {cloud.shape}")
        color = np.tile(_CLOUD, (len(cloud), 1)) if colors is None else colors[k]
        color = np.asarray(color, dtype=np.float64)
        if color.shape != cloud.shape:
            raise InputError(
                f"rendering: cloud {k}: {cloud.shape} points but {color.shape} colours"
            )
        finite = np.isfinite(cloud).all(1) & np.isfinite(color).all(1)
        if not finite.any():
            raise InputError(f"rendering: cloud {k}: no finite point among {len(cloud)}")
        clouds.append(cloud[finite])
        shown.append(np.clip(color[finite], 0, 1))
    return clouds, shown


def _radius(cloud: np.ndarray, radius: float | None) -> float:
    return disc_radius(cloud) if radius is None else radius


def new_figure(width: int, height: int, theme: dict) -> Figure:
    # Imported here, since it takes a while and most who import the package draw nothing.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor=theme["background"])
    FigureCanvasAgg(figure)
    return figure


def place_image(figure: Figure, image: np.ndarray, left: float, top: float) -> None:
    width, height = figure.get_size_inches() * _DPI
    h, w = image.shape[:2]
    axes = figure.add_axes((left / width, 1 - (top + h) / height, w / width, h / height))
    axes.set_axis_off()
    axes.imshow(image, interpolation="none", aspect="auto", vmin=0, vmax=1)


def write_text(
    figure: Figure, x: float, y: float, text: str, color: str, size: float, align: str = "center"
) -> None:
    width, height = figure.get_size_inches() * _DPI
    figure.text(x / width, 1 - y / height, text, color=color, fontsize=size, ha=align, va="center")


def legend_height(entries: Sequence[tuple[str, object]], width: float) -> int:
    """Pixels that :func:`draw_legend` needs."""
    return -(-len(entries) // _legend_columns(entries, width)) * _ROW


def draw_legend(
    figure: Figure,
    entries: Sequence[tuple[str, object]],
    left: float,
    top: float,
    width: float,
    color: str,
) -> None:
    """Names beside squares of their colours, in as many columns as fit.

    Args:
        figure: of :func:`new_figure`.
        entries: (name, colour of matplotlib).
        left, top, width: of the space, pixels.
        color: of the names.
    """
    from matplotlib.patches import Rectangle

    columns = _legend_columns(entries, width)
    whole, high = figure.get_size_inches() * _DPI
    for k, (name, tint) in enumerate(entries):
        x = left + (k % columns) * width / columns
        y = top + (k // columns + 0.5) * _ROW
        corner = (x / whole, 1 - (y + 6) / high)
        figure.add_artist(
            Rectangle(corner, 12 / whole, 12 / high, facecolor=tint, edgecolor="none")
        )
        write_text(figure, x + 19, y, name, color, 10, "left")


def _legend_columns(entries: Sequence[tuple[str, object]], width: float) -> int:
    entry = max(_ENTRY, 32 + _LETTER * max(len(name) for name, _ in entries))
    return max(1, min(len(entries), int(width / entry)))


def save_figure(figure: Figure, path: str | os.PathLike) -> None:
    from matplotlib.text import Text

    # Names of files and classes may have dollar signs, and are no formulas.
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    with opening(path), atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, facecolor=figure.get_facecolor(), format="png")
