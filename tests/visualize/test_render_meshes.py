"""Pictures of meshes: what is in front is seen, colours are those that were given."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sparsefeat.visualize.meshes import rasterize_mesh, render_meshes
from sparsefeat.visualize.raster import Frame, View

FRONT = View()  # looks along +y
WHITE = (1.0, 1.0, 1.0)
RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


def square(y: float, size: float = 1.0) -> np.ndarray:
    """Corners of a square that stands at depth y, counter-clockwise for a viewer at -y."""
    return np.array([[-size, y, -size], [size, y, -size], [size, y, size], [-size, y, size]])


def draw(vertices, faces, colors, **options) -> np.ndarray:
    frame = Frame(np.zeros(2), 4 / 40, 40, 40)
    return rasterize_mesh(
        np.asarray(vertices), np.asarray(faces), np.asarray(colors), FRONT, frame, WHITE, **options
    )


SQUARE = [[0, 1, 2], [0, 2, 3]]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_nearer_surface_is_seen_whatever_comes_first(order):
    layers = [(square(0.0, 0.5), RED), (square(1.0), BLUE)]
    vertices = np.concatenate([layers[k][0] for k in order])
    faces = np.concatenate([np.array(SQUARE) + 4 * k for k in range(2)])
    colors = np.repeat([layers[k][1] for k in order], 4, axis=0)
    image = draw(vertices, faces, colors)
    assert image[20, 20, 0] > 0.5 > image[20, 20, 2]
    assert image[20, 12, 2] > 0.5 > image[20, 12, 0]
    assert np.array_equal(image[1, 1], WHITE)


def test_a_surface_covers_all_its_pixels_and_no_other():
    image = draw(square(0.0), SQUARE, [RED] * 4)
    drawn = (image[..., 1] < 0.5).sum()
    assert drawn == 20 * 20


def test_colours_per_vertex_blend_and_colours_per_face_do_not():
    blended = draw(square(0.0), SQUARE, [RED, BLUE, BLUE, RED])
    across = blended[20, 11:29, 0]
    assert (np.diff(across) < 0).all()
    flat = draw(square(0.0), SQUARE, [RED, BLUE], smooth=False)
    assert flat[14, 13, 2] > 0.5 > flat[14, 13, 0]
    assert flat[26, 26, 0] > 0.5 > flat[26, 26, 2]


def test_a_surface_seen_from_behind_is_lit_too():
    behind = draw(square(0.0), np.array(SQUARE)[:, ::-1], [RED] * 4)
    assert np.allclose(behind, draw(square(0.0), SQUARE, [RED] * 4))


def test_meshes_and_views_stand_side_by_side(tmp_path):
    mesh = (square(0.0), SQUARE, None)
    path = tmp_path / "m.png"
    render_meshes(
        [mesh, mesh, mesh], path, titles=["a", "b", "c"], views=[FRONT, View(30)], panel=(50, 40)
    )
    assert Image.open(path).size == (200, 2 * (40 + 26))
    first = path.read_bytes()
    render_meshes(
        [mesh, mesh, mesh], path, titles=["a", "b", "c"], views=[FRONT, View(30)], panel=(50, 40)
    )
    assert path.read_bytes() == first


def test_a_legend_has_the_colours_of_its_entries(tmp_path):
    mesh = (square(0.0), SQUARE, None)
    path = tmp_path / "m.png"
    names = ["head", "right upper arm", "hand"]
    legend = [
        (name, color) for name, color in zip(names, (RED, BLUE, (0.0, 0.6, 0.0)), strict=True)
    ]
    render_meshes([mesh], path, views=[FRONT], panel=(200, 60), legend=legend)
    image = np.asarray(Image.open(path).convert("RGB"))[60:]
    # Long names, so each entry has a row of its own.
    assert image.shape[0] == 3 * 22 + 2 * 12
    for _, color in legend:
        drawn = np.abs(image / 255 - color).max(-1) < 0.05
        assert drawn.sum() == pytest.approx(12 * 12, rel=0.35)


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        ((square(0.0), [[0, 1, 4]], None), "vertices 0 to 4, it has 4"),
        ((square(0.0), SQUARE, [RED] * 3), r"colours \(3, 3\).*\(4, 3\) per vertex"),
        ((np.full((3, 3), np.nan), [[0, 1, 2]], None), "finite"),
        ((square(0.0), np.empty((0, 3)), None), r"faces \(F, 3\)"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, mesh, message):
    with pytest.raises(ValueError, match=message):
        render_meshes([mesh], tmp_path / "m.png")
    assert list(tmp_path.iterdir()) == []
