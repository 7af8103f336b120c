"""Pictures of triangle meshes as PNG: z-buffer, smooth shading, any number of meshes and views."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from sparsefeat.errors import InputError
from sparsefeat.visualize import figures
from sparsefeat.visualize.raster import Frame, View, brightness, edge_darkening, fit_frame

_GREY = (0.72, 0.74, 0.78)
# Pixels are computed this much finer along both axes and averaged.
_OVERSAMPLE = 2
# Around a legend, pixels.
_MARGIN = 12
# Candidate pixels handled at once: what fits a processor's cache.
_CHUNK = 200_000

# Front, slightly from the side and from above: what a shape's portrait is.
PORTRAIT_VIEW = View(azimuth_deg=30.0, elevation_deg=15.0, up="z")


def render_meshes(
    meshes: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray | None]],
    path: str | os.PathLike,
    titles: Sequence[str] | None = None,
    views: View | Sequence[View] = PORTRAIT_VIEW,
    background: str = "white",
    smooth: bool = True,
    one_scale: bool = False,
    columns: int | None = None,
    panel: tuple[int, int] = (320, 320),
    legend: Sequence[tuple[str, object]] = (),
) -> None:
    """Draw meshes side by side into a PNG; with several views, those of a mesh stand beside each other.

    Args:
        meshes: (vertices (N, 3), faces (F, 3), colours in [0, 1]: (N, 3) per vertex, (F, 3) per face, or
            None for grey). Where N = F, the colours are the vertices'.
        path: the PNG.
        titles: one per mesh.
        views: directions of sight.
        background: "white" or "dark".
        smooth: light by normals per vertex rather than per face.
        one_scale: draw all meshes at one scale, as large as fits; else each fills its panel.
        columns: panels in a row, a multiple of the number of views; default: as square as possible.
        panel: width and height of one mesh's picture, pixels.
        legend: (name, colour) below the pictures.

    Raises:
        InputError: no mesh, an empty one, shapes or counts that do not fit, an unknown background.
    """
    views = [views] if isinstance(views, View) else list(views)
    checked = [_check(k, *mesh) for k, mesh in enumerate(meshes)]
    if not checked or not views:
        raise InputError("render_meshes: expected at least one mesh and one view")
    if titles is not None and len(titles) != len(checked):
        raise InputError(f"render_meshes: {len(checked)} meshes but {len(titles)} titles")
    theme = figures.theme_colors(background)
    count = len(checked) * len(views)
    if columns is None:
        columns = len(views) * max(1, round(np.sqrt(count / len(views)))) if count > 4 else count
    rows = -(-count // columns)
    band = 26 if titles is not None else 0
    width, height = columns * panel[0], rows * (panel[1] + band)
    space = figures.legend_height(legend, width - 2 * _MARGIN) + 2 * _MARGIN if legend else 0
    figure = figures.new_figure(width, height + space, theme)
    if legend:
        room = (_MARGIN, height + _MARGIN, width - 2 * _MARGIN)
        figures.draw_legend(figure, legend, *room, theme["text"])
    planes = [vertices @ view.axes()[:2].T for vertices, _, _ in checked for view in views]
    if one_scale:
        frames = fit_frame(planes, *panel)
    else:
        # The views of one mesh share a scale, so that they look like one thing.
        step = len(views)
        frames = [f for k in range(0, count, step) for f in fit_frame(planes[k : k + step], *panel)]
    for k, frame in enumerate(frames):
        vertices, faces, colors = checked[k // len(views)]
        view = views[k % len(views)]
        image = rasterize_mesh(vertices, faces, colors, view, frame, theme["background"], smooth)
        left, top = (k % columns) * panel[0], (k // columns) * (panel[1] + band)
        figures.place_image(figure, image, left, top + band)
        if titles is not None and k % len(views) == 0:
            middle = left + panel[0] * min(len(views), columns) / 2
            figures.write_text(
                figure, middle, top + band * 0.6, titles[k // len(views)], theme["text"], 11
            )
    figures.save_figure(figure, path)


def rasterize_mesh(
    vertices: np.ndarray,
    faces: np.ndarray,
    colors: np.ndarray,
    view: View,
    frame: Frame,
    background: tuple[float, float, float],
    smooth: bool = True,
) -> np.ndarray:
    """Draw one mesh.

    Args:
        vertices: Shape (N, 3).
        faces: Shape (F, 3).
        colors: in [0, 1], per vertex or per face. Shape (N, 3) or (F, 3).
        view: direction of sight.
        frame: the part of the picture plane that is drawn.
        background: colour in [0, 1].
        smooth: light by normals per vertex rather than per face.

    Returns:
        (height, width, 3) float64 in [0, 1].
    """
    axes = view.axes()
    seen = vertices @ axes.T
    fine = Frame(
        frame.center,
        frame.metres_per_pixel / _OVERSAMPLE,
        frame.width * _OVERSAMPLE,
        frame.height * _OVERSAMPLE,
    )
    face, weights, depth = _visible(fine, seen, faces)
    hit = np.flatnonzero(face >= 0)
    corners, weights = faces[face[hit]], weights[hit]
    normals = _normals(vertices, faces) @ axes.T
    if smooth:
        shown = np.einsum(
            "pc,pcx->px", weights, _vertex_normals(normals, faces, len(vertices))[corners]
        )
        # A vertex normal may look away where its face looks at the viewer, at an outline.
        facing = np.where((normals[face[hit], 2] < 0) & (shown[:, 2] < 0), -1.0, 1.0)
        shown = shown * facing[:, None] / np.maximum(np.linalg.norm(shown, axis=1), 1e-12)[:, None]
        shown[:, 2] = np.abs(shown[:, 2])
    else:
        shown = (
            normals[face[hit]]
            / np.maximum(np.linalg.norm(normals[face[hit]], axis=1), 1e-12)[:, None]
        )
    tint = (
        np.einsum("pc,pcx->px", weights, colors[corners])
        if len(colors) == len(vertices)
        else colors[face[hit]]
    )
    image = np.zeros((fine.height * fine.width, 3))
    image[hit] = np.clip(tint * brightness(shown)[:, None], 0, 1)
    depth = depth.reshape(fine.height, fine.width)
    extent = frame.metres_per_pixel * max(frame.width, frame.height)
    image = image.reshape(fine.height, fine.width, 3)
    image *= edge_darkening(depth, 2 * fine.metres_per_pixel, extent)[..., None]
    image = np.where(np.isfinite(depth)[..., None], image, background)
    shape = (frame.height, _OVERSAMPLE, frame.width, _OVERSAMPLE, 3)
    return np.clip(image.reshape(shape).mean((1, 3)), 0, 1)


def _visible(frame: Frame, seen: np.ndarray, faces: np.ndarray):
    """The front face of every pixel (-1: none), barycentric weights in it, and depths (inf: none)."""
    width, height = frame.width, frame.height
    pixels = frame.pixels(seen[:, :2])
    corners = pixels[faces]  # (F, 3, 2)
    low = np.clip(np.ceil(corners.min(1) - 0.5).astype(np.int64), 0, [width, height])
    high = np.clip(np.floor(corners.max(1) - 0.5).astype(np.int64) + 1, 0, [width, height])
    size = np.maximum(high - low, 0)
    area2 = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    drawn = np.flatnonzero((size.prod(1) > 0) & (np.abs(area2) > 1e-12))
    front = np.full(width * height, -1, np.int64)
    weights = np.zeros((width * height, 3))
    depth = np.full(width * height, np.inf)
    # Small triangles are many: those of like size are drawn together, in boxes of the largest of them.
    rank = np.ceil(np.log2(size[drawn].max(1))).astype(np.int64)
    groups = [drawn[rank == r] for r in np.unique(rank)]
    chunks = [max(1, _CHUNK // int(size[group].max(0).prod())) for group in groups]
    for some in (
        g[k : k + n] for g, n in zip(groups, chunks, strict=True) for k in range(0, len(g), n)
    ):
        box = size[some].max(0)
        x = low[some, 0, None] + np.tile(np.arange(box[0]), box[1])
        y = low[some, 1, None] + np.repeat(np.arange(box[1]), box[0])
        centre = np.stack([x + 0.5, y + 0.5], -1)
        a, b, c = (corners[some, i, None] for i in range(3))
        bary = np.stack([_cross(b - centre, c - centre), _cross(c - centre, a - centre)], -1)
        bary /= area2[some, None, None]
        bary = np.concatenate([bary, 1 - bary.sum(-1, keepdims=True)], -1)
        inside = (bary >= -1e-9).all(-1) & (x < high[some, 0, None]) & (y < high[some, 1, None])
        row, column = np.nonzero(inside)
        bary, pixel, face = bary[row, column], (y * width + x)[row, column], some[row]
        distance = -(bary * seen[faces[face], 2]).sum(1)
        # Of several faces at a pixel the nearest comes first; of equally near ones the first of the mesh.
        nearest = np.lexsort((face, distance, pixel))
        nearest = nearest[np.unique(pixel[nearest], return_index=True)[1]]
        nearest = nearest[distance[nearest] < depth[pixel[nearest]]]
        front[pixel[nearest]] = face[nearest]
        weights[pixel[nearest]] = bary[nearest]
        depth[pixel[nearest]] = distance[nearest]
    return front, weights, depth


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Normals of the faces, as long as twice their area. Shape: (F, 3)."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return np.cross(b - a, c - a)


def _vertex_normals(normals: np.ndarray, faces: np.ndarray, count: int) -> np.ndarray:
    """Unit normals of the vertices, weighted by area. Shape: (N, 3)."""
    summed = np.stack(
        [
            np.bincount(faces.ravel(), np.repeat(normals[:, i], 3), minlength=count)
            for i in range(3)
        ],
        1,
    )
    return summed / np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), 1e-30)


def _check(k: int, vertices, faces, colors) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    vertices, faces = np.asarray(vertices, dtype=np.float64), np.asarray(faces, dtype=np.int64)
    if (
        vertices.ndim != 2
        or vertices.shape[1] != 3
        or len(vertices) == 0
        or not np.isfinite(vertices).all()
    ):
        raise InputError(
            f"render_meshes: mesh {k}: expected finite vertices (N, 3), got {vertices.shape}"
        )
    if faces.ndim != 2 or faces.shape[1] != 3 or len(faces) == 0:
        raise InputError(f"render_meshes: mesh {k}: expected faces (F, 3), got {faces.shape}")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise InputError(
            f"render_meshes: mesh {k}: faces name vertices {faces.min()} to {faces.max()}, "
            f"it has {len(vertices)}"
        )
    colors = (
        np.tile(_GREY, (len(vertices), 1))
        if colors is None
        else np.asarray(colors, dtype=np.float64)
    )
    if colors.shape not in ((len(vertices), 3), (len(faces), 3)):
        raise InputError(
            f"render_meshes: mesh {k}: colours {colors.shape}, expected ({len(vertices)}, 3) per vertex or "
            f"({len(faces)}, 3) per face"
        )
    return vertices, faces, np.clip(colors, 0, 1)
