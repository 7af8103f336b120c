"""The public call: shapes in, a page out."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from typing import Any

from sparsefeat.visualize.viewer.layers import ReceptiveField
from sparsefeat.visualize.viewer.page import Page
from sparsefeat.visualize.viewer.scene import MAX_POINTS, build_scene


def view(
    shapes: Any,
    features: Any = None,
    *,
    html: str | os.PathLike | None = None,
    names: Sequence[str] | None = None,
    labels: Any = None,
    label_names: Sequence[str] | Mapping[int, str] | None = None,
    values: Any = None,
    matches: Any = None,
    confidence: Any = None,
    correct: Any = None,
    maps: Any = None,
    transforms: Any = None,
    receptive_field: float | ReceptiveField | None = None,
    up: str | None = None,
    unit: str = "",
    title: str | None = None,
    max_points: int = MAX_POINTS,
    port: int = 0,
) -> Page:
    """Look at clouds and meshes in a browser: turn, click a point, compare features.

    With ``html`` the page is written to that file. In a notebook, the page that is returned shows itself.
    Otherwise it is served on 127.0.0.1 and opened; a script waits there until Ctrl-C, an interactive Python
    goes on.

    Args:
        shapes: one shape or a list of them. A shape is a path, points (N, 3), a tuple (vertices (N, 3), faces
            (F, 3)), a Mesh or PointCloud of sparsefeat.io, or an object of trimesh or Open3D. Rows that are not
            finite are left out of a cloud.
        features: (N, C), a list with one array or None per shape; default: what files of tools/extract.py have.
            The page gets at most 32 principal components in 8 bits, and says how exact that is.
        html: a file to write; nothing is served or opened then.
        names: one per shape.
        labels: (N,) whole numbers or names (-1: no label), a list with one array or None per shape, or a mapping
            from titles to such, for example ``{"true": ..., "predicted": ...}``.
        label_names: what the numbers mean.
        values: (N,) numbers that are shown on a colour scale; given like ``labels``.
        matches: (K, 2) rows of shape 0 and shape 1, or :class:`Matches`, one or a list.
        confidence: (K,), of ``matches``; a slider hides the less confident ones.
        correct: (K,) bool, of ``matches``; right ones are green, wrong ones red.
        maps: (N,) rows of shape 1 for the points of shape 0, whose colours are carried over; or a list with one
            array per shape and None for the shape that they are rows of.
        transforms: (4, 4) per shape, into one frame; a single matrix moves the first shape.
        receptive_field: edge of the cube that a feature looks at, in the unit of the shapes, or a
            :class:`ReceptiveField`; drawn around the point that is clicked.
        up: the axis that points up: x, y, z, -x, -y or -z; default: -y (depth cameras) for clouds; z for a mesh
            that stands on z = 0, else y.
        unit: shown beside lengths, such as "m".
        title: of the page.
        max_points: drawn of all shapes together; more are thinned out evenly, and the page says so.
        port: to serve at; 0: any free one.

    Returns:
        The page: ``.html`` is its text, ``.save(path)`` writes it, ``.serve()`` serves it.

    Raises:
        InputError: what is given is no shape, or arrays do not fit the shapes.
    """
    scene = build_scene(
        shapes,
        features,
        names=names,
        labels=labels,
        label_names=label_names,
        values=values,
        matches=matches,
        confidence=confidence,
        correct=correct,
        maps=maps,
        transforms=transforms,
        receptive_field=receptive_field,
        up=up,
        unit=unit,
        title=title,
        max_points=max_points,
    )
    page = Page(scene)
    if html is not None:
        page.save(html)
    elif not _in_notebook():
        _open(page, port)
    return page


def _open(page: Page, port: int) -> None:
    server = page.serve(port)
    print(f"{server.url} (on this machine only)", file=sys.stderr)
    webbrowser.open(server.url)
    if not hasattr(sys, "ps1"):
        print("Ctrl-C ends it", file=sys.stderr)
        server.wait()


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    running = shell.get_ipython() if shell is not None else None
    return running is not None and running.has_trait("kernel")
