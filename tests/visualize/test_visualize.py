"""Pictures: colours on a common basis, clouds with hidden surfaces removed, matches, curves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from sparsefeat.visualize import (
    PcaColors,
    View,
    class_colors,
    draw_matches,
    pca_colors,
    plot_curves,
    plot_matrix,
    render_points,
)
from sparsefeat.visualize.cutaway import inside

ROOT = Path(__file__).resolve().parents[2]
RED, GREEN, BLUE = np.eye(3)


def pixels(path):
    """The picture as (height, width, 3) in [0, 1]."""
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    return imread(path)[..., :3]


def share_of(image, color, tolerance=0.25):
    return (np.abs(image - color).max(-1) < tolerance).mean()


# ---- colours


def test_equal_features_have_equal_colours_in_all_clouds():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 16)).astype(np.float32)
    a, b = pca_colors([features[:150], features[100:] * 1.0])
    assert (a[100:] == b[:50]).all()
    assert a.shape == (150, 3) and a.min() >= 0 and a.max() <= 1


def test_the_first_component_is_the_direction_of_largest_variance():
    rng = np.random.default_rng(1)
    t = rng.normal(size=500)
    direction = np.array([3.0, 4, 0, 0]) / 5
    features = t[:, None] * direction + 0.01 * rng.normal(size=(500, 4))
    basis = PcaColors.fit([features])
    assert np.abs(basis.components[:, 0] @ direction) == pytest.approx(1, abs=1e-3)
    # The sign is settled by the largest entry, so that a colour means the same in every run.
    assert basis.components[1, 0] > 0
    assert np.corrcoef(t, basis(features)[:, 0])[0, 1] > 0.97


def test_a_few_outliers_do_not_take_the_colours_from_the_rest():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(1000, 8))
    features[:3] *= 1000
    colors = PcaColors.fit([features[3:], features[:3]])(features[3:])
    assert colors.std(0).min() > 0.05


def test_what_has_no_colour_is_grey():
    features = np.random.default_rng(0).normal(size=(50, 5))
    features[7] = np.nan
    colors = pca_colors([features])[0]
    assert (colors[7] == 0.5).all() and np.isfinite(colors).all()
    assert (pca_colors([np.ones((4, 5))])[0] == 0.5).all()
    assert (pca_colors([np.random.default_rng(0).random((9, 1))])[0][:, 1:] == 0.5).all()


def test_tensors_have_colours_too():
    features = torch.rand(30, 4, requires_grad=True)
    assert (pca_colors([features])[0] == pca_colors([features.detach().numpy()])[0]).all()


def test_arrays_without_a_common_basis_are_refused():
    with pytest.raises(ValueError, match=r"\[3, 4\]"):
        pca_colors([np.ones((2, 3)), np.ones((2, 4))])
    with pytest.raises(ValueError, match="array 1.*shape"):
        pca_colors([np.ones((2, 3)), np.ones(3)])
    with pytest.raises(ValueError, match="at least one"):
        pca_colors([])
    with pytest.raises(ValueError, match="no finite row"):
        pca_colors([np.full((3, 3), np.nan)])


# ---- clouds


def square(z, side=1.0, count=40):
    x, y = np.meshgrid(
        np.linspace(-side / 2, side / 2, count), np.linspace(-side / 2, side / 2, count)
    )
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, z)], 1)


def test_a_nearer_surface_hides_the_one_behind(tmp_path):
    points = np.concatenate([square(0.0), square(1.0)])
    colors = np.repeat([RED, GREEN], 1600, 0)
    path = tmp_path / "front.png"
    for up, front, hidden in (("y", GREEN, RED), ("-y", RED, GREEN)):
        render_points([points], [colors], path, view=View(up=up), shade=False, panel=(200, 160))
        image = pixels(path)
        assert share_of(image, front) > 0.3 and share_of(image, hidden) == 0


@pytest.mark.parametrize("up", ["x", "y", "z", "-x", "-y", "-z"])
def test_the_up_axis_points_up_and_pictures_are_not_mirrored(up):
    direction = np.eye(3)["xyz".index(up[-1])] * (-1 if up[0] == "-" else 1)
    axes = View(azimuth_deg=30, up=up).axes()
    assert np.allclose(axes @ axes.T, np.eye(3)) and np.linalg.det(axes) == pytest.approx(1)
    assert axes[1] @ direction == pytest.approx(1)
    assert View(elevation_deg=30, up=up).axes()[2] @ direction == pytest.approx(0.5)


def test_clouds_stand_side_by_side_at_one_scale(tmp_path):
    path = tmp_path / "two.png"
    render_points(
        [square(0), square(0, side=0.5)],
        [np.tile(RED, (1600, 1)), np.tile(BLUE, (1600, 1))],
        path,
        titles=["a", "b"],
        view=View(up="y"),
        shade=False,
        panel=(200, 160),
    )
    image = pixels(path)
    assert image.shape == (194, 400, 3)
    red, blue = share_of(image[:, :200], RED), share_of(image[:, 200:], BLUE)
    assert red / blue == pytest.approx(4, rel=0.1)
    assert share_of(image[:, 200:], RED) == 0


def test_single_points_duplicates_and_nans_are_drawn_or_left_out(tmp_path):
    path = tmp_path / "odd.png"
    render_points([np.zeros((1, 3)), np.ones((5, 3))], None, path, panel=(80, 60))
    points = np.concatenate([square(0), [[np.nan, 0, 0]]])
    render_points([points], None, path, background="dark", panel=(80, 60))
    assert pixels(path).shape == (60, 80, 3)


def test_pictures_of_the_same_cloud_are_the_same(tmp_path):
    points = np.random.default_rng(0).random((300, 3))
    for name in ("a.png", "b.png"):
        render_points([points], None, tmp_path / name, panel=(80, 60))
    assert (pixels(tmp_path / "a.png") == pixels(tmp_path / "b.png")).all()


def test_wrong_clouds_are_refused_and_leave_nothing_behind(tmp_path):
    path = tmp_path / "x.png"
    with pytest.raises(ValueError, match="no finite point"):
        render_points([np.zeros((0, 3))], None, path)
    with pytest.raises(ValueError, match=r"cloud 0: expected points \(N, 3\)"):
        render_points([np.zeros((4, 2))], None, path)
    with pytest.raises(ValueError, match="1 clouds but 2 colour"):
        render_points([square(0)], [square(0)] * 2, path)
    with pytest.raises(ValueError, match="background"):
        render_points([square(0)], None, path, background="pink")
    with pytest.raises(ValueError, match="up: expected one of"):
        render_points([square(0)], None, path, view=View(up="w"))
    with pytest.raises(ValueError, match="nowhere"):
        render_points([square(0)], None, tmp_path / "nowhere" / "x.png", panel=(40, 40))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("width", [240, 640])
@pytest.mark.parametrize("even", [True, False])
def test_surfaces_have_no_holes_at_any_size(tmp_path, width, even):
    rng = np.random.default_rng(0)
    points = (
        square(0, count=100)
        if even
        else np.column_stack([rng.random((10_000, 2)) - 0.5, np.zeros(10_000)])
    )
    path = tmp_path / "s.png"
    colors = np.tile(RED, (10_000, 1))
    render_points([points], [colors], path, view=View(up="y"), shade=False, panel=(width, width))
    middle = pixels(path)[width // 4 : -width // 4, width // 4 : -width // 4]
    assert share_of(middle, RED) > (0.9999 if even else 0.98)


def box(rng, size, sides=range(6), count=4000):
    """Points on the given sides of a box: 2k is the low one of axis k, 2k + 1 the high one."""
    parts = []
    for side in sides:
        points = rng.random((count, 3)) * size
        points[:, side // 2] = (side % 2) * size[side // 2]
        parts.append(points)
    return np.concatenate(parts)


def test_a_closed_room_is_cut_open_and_says_so(tmp_path):
    rng = np.random.default_rng(0)
    turn = View(azimuth_deg=35).axes()
    room = box(rng, np.array([5.0, 4.0, 2.5])) @ turn
    view = View(azimuth_deg=20, elevation_deg=30, up="z")
    keep = inside(room, view)
    height = room @ turn[1]
    # The floor and the two far walls are left.
    assert keep.mean() == pytest.approx(0.5, abs=0.04)
    assert (height[keep] < 0.97 * height.max()).all()
    towards = view.axes()[2]
    assert (room[~keep] @ towards).mean() > (room[keep] @ towards).mean() + 1


@pytest.mark.parametrize("azimuth", [20, 110, 200, 290])
def test_what_is_open_is_drawn_as_it_is(azimuth):
    view = View(azimuth_deg=azimuth, elevation_deg=30, up="z")
    towards = view.axes()[2]
    outwards = [sign * np.eye(3)[axis] for axis in range(3) for sign in (-1, 1)]
    rng, size = np.random.default_rng(0), np.array([5.0, 4.0, 2.5])
    far = [side for side, outward in enumerate(outwards) if outward @ towards < 0]
    near = [side for side in range(4) if side not in far]
    assert 4 in far  # the floor
    for sides in (far, [5], [4], [near[0]], [*far, near[0]]):
        assert inside(box(rng, size, sides), view).all()
    # A table: a top and four legs.
    feet = [[0, 0, 0], [4.9, 0, 0], [0, 3.9, 0], [4.9, 3.9, 0]]
    legs = rng.random((2000, 3)) * [0.05, 0.05, 2.5] + np.repeat(feet, 500, 0)
    assert inside(np.concatenate([box(rng, size, [5]), legs]), view).all()


# ---- matrices


def test_a_confusion_matrix_leaves_out_empty_classes(tmp_path):
    matrix = np.diag([30, 0, 20, 0])
    matrix[0, 2] = 5
    names = ["a", "unused", "b", "unused too"]
    plot_matrix(matrix, names, tmp_path / "all.png", "Title")
    met = [0, 2]
    plot_matrix(matrix[np.ix_(met, met)], ["a", "b"], tmp_path / "met.png", "Title")
    assert (pixels(tmp_path / "all.png") == pixels(tmp_path / "met.png")).all()


def test_a_full_share_is_dark_and_none_is_light(tmp_path):
    plot_matrix(np.eye(20) * 7, None, tmp_path / "m.png")
    image = pixels(tmp_path / "m.png")
    dark = np.array([0.03, 0.19, 0.42])  # the end of the scale
    # 20 cells of 36 pixels, and the upper end of the scale.
    assert share_of(image, dark, 0.02) * image[..., 0].size == pytest.approx(20 * 36**2, rel=0.1)


def test_wrong_matrices_are_refused(tmp_path):
    for matrix, names, message in (
        (np.ones((2, 3)), None, "square"),
        (np.ones((2, 2)), ["a"], "1 names for 2 classes"),
        (np.zeros((2, 2)), None, "at least one count"),
    ):
        with pytest.raises(ValueError, match=message):
            plot_matrix(matrix, names, tmp_path / "m.png")


def test_the_first_class_colours_differ_clearly():
    colors = class_colors(30)
    assert colors.shape == (30, 3) and colors.min() >= 0 and colors.max() <= 1
    apart = np.linalg.norm(colors[:, None] - colors[None], axis=2) + np.eye(30)
    assert apart[:7, :7].min() > 0.25 and apart.min() > 0.03
    assert np.array_equal(class_colors(5), colors[:5])


# ---- matches and curves


def test_right_matches_are_green_and_wrong_ones_red(tmp_path):
    points = square(0, count=12)
    matches = np.stack([np.arange(40), np.arange(40)], 1)
    path = tmp_path / "m.png"
    shares = {}
    for name, inliers in (("right", np.ones(40, bool)), ("wrong", np.zeros(40, bool))):
        draw_matches(points, points, matches, inliers, path, view=View(up="y"), panel=(200, 160))
        image = pixels(path)
        greenish = (image[..., 1] - image[..., 0] > 0.2).mean()
        reddish = (image[..., 0] - image[..., 1] > 0.2).mean()
        shares[name] = (greenish, reddish)
    assert shares["right"][0] > 0.01 and shares["right"][1] < 0.2 * shares["wrong"][1]
    assert shares["wrong"][1] > shares["right"][1] and shares["wrong"][0] < 0.2 * shares["right"][0]


def test_matches_may_be_none_but_not_beyond_the_points(tmp_path):
    points = square(0, count=5)
    draw_matches(
        points, points, np.empty((0, 2), int), np.empty(0, bool), tmp_path / "m.png", panel=(80, 60)
    )
    with pytest.raises(ValueError, match="beyond the 25 points of cloud 1"):
        draw_matches(points, points, [[0, 25]], [True], tmp_path / "m.png")
    with pytest.raises(ValueError, match="1 matches but 2"):
        draw_matches(points, points, [[0, 1]], [True, False], tmp_path / "m.png")


def test_curves_are_drawn_and_checked(tmp_path):
    path = tmp_path / "c.png"
    x = np.linspace(0, 0.2, 20)
    plot_curves(
        {"a": (x, x * 4), "b": (x, x)}, path, "τ1 [m]", "FMR", title="Recall", marks={"0.10": 0.1}
    )
    assert pixels(path).std() > 0.02
    with pytest.raises(ValueError, match="'a': x has shape"):
        plot_curves({"a": (x, x[1:])}, path, "x", "y")
    with pytest.raises(ValueError, match="at least one curve"):
        plot_curves({}, path, "x", "y")


def test_no_display_and_no_global_figure_state_is_needed(tmp_path):
    code = (
        "import sys, sparsefeat.visualize as v, numpy as np; early = 'matplotlib' in sys.modules;"
        "v.plot_curves({'a': ([0, 1], [0, 1])}, sys.argv[1], 'x', 'y');"
        "print(early, 'matplotlib.pyplot' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "c.png")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False"]


def test_names_with_dollar_signs_are_no_formulas(tmp_path):
    points = np.random.default_rng(0).random((50, 3))
    pairs = np.array([[0, 0]])
    draw_matches(points, points, pairs, np.array([True]), tmp_path / "a.png", title="r$^$.ply")
    plot_matrix(np.eye(2), ["$a$", "$_$"], tmp_path / "b.png")
    assert imread(tmp_path / "a.png").size and imread(tmp_path / "b.png").size
