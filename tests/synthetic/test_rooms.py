"""Synthetic rooms: what is in them, how a camera sees them, and how they are written."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy.spatial import cKDTree

from sparsefeat.data import threedmatch
from sparsefeat.data.fragments import load_fragment
from sparsefeat.data.threedmatch import read_scene_list, train_pairs
from sparsefeat.io.gtlog import read_info
from sparsefeat.synthetic import furniture, things
from sparsefeat.synthetic.camera import KINECT, Intrinsics, drifted
from sparsefeat.synthetic.depth_noise import DepthNoise
from sparsefeat.synthetic.fragments import (
    Fragment,
    fuse_fragment,
    information_matrix,
    overlaps,
    thin,
    transform,
)
from sparsefeat.synthetic.fusion import fuse_frames
from sparsefeat.synthetic.layout import make_room
from sparsefeat.synthetic.shapes import axis_rotation

SMALL_CAMERA = Intrinsics(80, 60, 73.0, 73.0, 39.5, 29.5)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    """Two small rooms in both layouts, made by one process."""
    return make(tmp_path_factory.mktemp("rooms"), workers=1)


def make(folder, workers=1, seed=3, **more):
    pytest.importorskip("embreex", reason="casting rays needs embreex")
    from sparsefeat.synthetic.rooms import make_rooms

    settings = {"rooms": 2, "fragments_per_room": 3, "frames": 4, "voxel_size": 0.02} | more
    return make_rooms(folder, seed, workers=workers, **settings)


def contents(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def random_pose(rng):
    pose = np.eye(4)
    pose[:3, :3] = axis_rotation(rng.uniform(-1, 1), 0) @ axis_rotation(rng.uniform(-1, 1), 2)
    pose[:3, 3] = rng.normal(size=3)
    return pose


def sphere_depth(camera, center, radius):
    """Depth (H,W) of a sphere, by solving the quadratic along each ray."""
    rays = camera.rays().astype(float)
    a, b, c = (rays**2).sum(1), rays @ center, center @ center - radius**2
    root = b**2 - a * c
    depth = np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, 0)
    return depth.reshape(camera.height, camera.width).astype(np.float32)


# What is made


@pytest.mark.parametrize(
    "make_thing", sorted(set(things.SMALL + things.KITCHEN + things.OFFICE + things.FLOOR), key=str)
)
def test_every_small_thing_stands_where_it_is_put(make_thing):
    for seed in range(4):
        mesh = make_thing(np.random.default_rng(seed))
        size = np.ptp(mesh.vertices, axis=0)
        assert np.isfinite(mesh.vertices).all() and len(mesh.faces) == len(mesh.material) > 0
        assert mesh.faces.min() >= 0 and mesh.faces.max() < len(mesh.vertices)
        assert -0.2 < mesh.vertices[:, 2].min() < 0.06
        assert 0.02 < size.max() < 1.5


@pytest.mark.parametrize("kind", sorted(furniture.WALL))
def test_every_piece_of_furniture_fits_its_footprint(kind):
    for make_piece, _ in furniture.WALL[kind]:
        piece = make_piece(np.random.default_rng(5))
        assert np.isfinite(piece.mesh.vertices).all()
        assert -0.2 < piece.mesh.vertices[:, 2].min() < 0.2
        assert np.ptp(piece.mesh.vertices[:, 0]) < piece.width + 0.7
        for support in piece.supports:
            assert support.x1 > support.x0 and support.y1 > support.y0 and 0 <= support.z < 3


def test_the_same_seed_gives_the_same_files_whatever_the_number_of_workers(rooms, tmp_path):
    assert contents(make(tmp_path, workers=3)) == contents(rooms)


def test_another_seed_gives_other_rooms(rooms, tmp_path):
    other = make(tmp_path, seed=4, rooms=1)
    name = "room-0000@seq-01_000.npz"
    assert not np.array_equal(load_fragment(other / name), load_fragment(rooms / name))


def test_fragments_have_points_where_a_room_is(rooms):
    for path in sorted(rooms.glob("*.npz")):
        points = load_fragment(path)
        assert len(points) > 2000
        assert np.isfinite(points).all() and np.abs(points).max() < 6


def test_the_loaders_read_both_layouts_and_the_poses_bring_fragments_together(rooms):
    pairs = [pair for listed in threedmatch.test_pairs(rooms).values() for pair in listed]
    listed = {(pair.source.name, pair.target.name) for pair in train_pairs(rooms)}
    assert len(pairs) == len(listed) > 0
    for pair in pairs:
        source, target = load_fragment(pair.source), load_fragment(pair.target)
        tree = cKDTree(transform(source, pair.transform))
        share = np.mean(tree.query(target)[0] < 0.035)
        assert share == pytest.approx(pair.overlap, abs=2e-3)
        assert pair.information[0, 0] == pytest.approx(share * len(target), abs=20)


def test_both_layouts_hold_the_same_points(rooms):
    pair = next(pair for listed in threedmatch.test_pairs(rooms).values() for pair in listed)
    common = {
        k: load_fragment(rooms / f"{pair.scene}@seq-01_{k:03d}.npz") for k in (pair.i, pair.j)
    }
    local = {pair.i: load_fragment(pair.target), pair.j: load_fragment(pair.source)}
    # The transform between the layouts' frames follows from three pairs of points; all others must obey it.
    moved = transform(local[pair.j], pair.transform)
    for k, points in ((pair.i, local[pair.i]), (pair.j, moved)):
        pick = [0, len(points) // 2, len(points) - 1]
        np.testing.assert_allclose(
            np.linalg.norm(points[pick] - points[0], axis=1),
            np.linalg.norm(common[k][pick] - common[k][0], axis=1),
            atol=1e-4,
        )


def test_the_splits_are_listed_and_share_no_room(tmp_path):
    from sparsefeat.synthetic.rooms import splits

    for count in (4, 9, 40):
        parts = splits(count)
        everything = parts["train"] + parts["val"] + parts["test"]
        assert len(everything) == len(set(everything)) == count
        assert all(parts.values())


def test_the_scene_lists_are_written(rooms):
    assert read_scene_list(rooms / "train_rooms.txt") == ["room-0000"]
    assert read_scene_list(rooms / "val_rooms.txt") == ["room-0001"]


def test_only_the_layout_asked_for_is_written(tmp_path):
    train = make(tmp_path / "train", layout="train", rooms=1, fragments_per_room=1)
    test = make(tmp_path / "test", layout="test", rooms=1, fragments_per_room=1)
    assert list(train.glob("*.npz")) and not list(train.glob("*/"))
    assert list(test.glob("room-0000/*.ply")) and not list(test.glob("*.npz"))


def test_progress_counts_fragments(tmp_path):
    seen = []
    make(
        tmp_path,
        rooms=1,
        fragments_per_room=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 2), (2, 2)]


def test_the_camera_stays_inside_the_room():
    from sparsefeat.synthetic.camera import walk

    for seed in range(10):
        obstacles = np.array([[-2.4, -2.0, -1.8, 0.0]])
        poses = walk(np.random.default_rng(seed), 5.0, 4.0, obstacles, fragments=10, frames=20)
        assert poses.shape == (200, 4, 4)
        assert np.abs(poses[:, 0, 3]).max() < 2.5 and np.abs(poses[:, 1, 3]).max() < 2.0
        assert 0.5 < poses[:, 2, 3].min() and poses[:, 2, 3].max() < 2.3
        product = poses[:, :3, :3] @ poses[:, :3, :3].transpose(0, 2, 1)
        np.testing.assert_allclose(product, np.broadcast_to(np.eye(3), product.shape), atol=1e-9)
        # Nobody jumps while a fragment is seen.
        of_fragment = poses[:, :3, 3].reshape(10, 20, 3)
        assert np.linalg.norm(np.diff(of_fragment, axis=1), axis=2).max() < 0.25


@pytest.mark.parametrize(("way", "least", "most"), [("_sweep", 0, 15), ("_visits", 20, 60)])
def test_visits_come_from_other_sides_than_sweeps(way, least, most):
    from sparsefeat.synthetic import camera

    angles = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        path = getattr(camera, way)(rng, np.array([2.5, 2.0]), np.zeros((0, 4)), 10, 20)
        place, stand = (x.reshape(10, 20, 2).mean(1) for x in (path.looked_at, path.position))
        for i, j in zip(*np.triu_indices(10, 2), strict=True):
            if np.linalg.norm(place[i] - place[j]) < 0.8:
                common = (place[i] + place[j]) / 2
                lines = stand[i] - common, stand[j] - common
                cosine = lines[0] @ lines[1] / np.prod([np.linalg.norm(x) for x in lines])
                angles.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    assert len(angles) > 100 and least < np.median(angles) < most


def test_drift_is_zero_in_the_middle_and_small_everywhere():
    poses = np.broadcast_to(np.eye(4), (50, 4, 4))
    wrong = drifted(poses, np.random.default_rng(0), angle_deg=0.25, distance=0.01)
    np.testing.assert_array_equal(wrong[25], np.eye(4))
    assert 0 < np.abs(wrong[:, :3, 3]).max() < 0.08


# How it is seen


def noisy(depth, cosine=1.0, material=0, seed=0):
    camera = DepthNoise(KINECT, np.random.default_rng(seed))
    shape = (KINECT.height, KINECT.width)
    frame = np.full(shape, depth, np.float32)
    return camera(
        frame,
        np.full(shape, cosine, np.float32),
        np.full(shape, material),
        np.random.default_rng(1),
    )


def test_depth_noise_grows_with_the_square_of_the_distance():
    spread = {z: np.std(frame[frame > 0] - z) for z in (1.0, 2.0, 3.0) for frame in [noisy(z)]}
    assert spread[1.0] < spread[2.0] < spread[3.0] < 0.05
    assert 0.9 < np.mean(noisy(2.0) > 0)


@pytest.mark.parametrize(
    "case", [{"depth": 0.0}, {"depth": 0.2}, {"depth": 6.0}, {"depth": 2.0, "cosine": 0.02}]
)
def test_nothing_is_measured_of_what_is_absent_near_far_or_grazing(case):
    assert not noisy(**case).any()


def test_dark_surfaces_are_seen_from_near_and_from_the_front_only():
    assert np.mean(noisy(1.5, material=things.DARK) > 0) > 0.9
    assert np.mean(noisy(3.5, material=things.DARK) > 0) < 0.1
    assert np.mean(noisy(2.0, cosine=0.3, material=things.DARK) > 0) < 0.1
    assert np.mean(noisy(2.0, cosine=0.3) > 0) > 0.9


def test_edges_get_jagged_and_cast_a_shadow():
    depth = np.full((KINECT.height, KINECT.width), 3.0, np.float32)
    depth[:, 100:200] = 1.0
    camera = DepthNoise(KINECT, np.random.default_rng(0))
    frame = camera(depth, np.ones_like(depth), np.zeros_like(depth, int), np.random.default_rng(1))
    lost = (frame == 0).mean(0)
    assert max(lost[85:99].max(), lost[201:215].max()) > 0.9
    assert min(lost[85:99].max(), lost[201:215].max()) < 0.5


# How it is fused


def test_fused_points_lie_on_a_sphere_that_was_seen_from_two_sides():
    center, radius = np.array([0.0, 0.0, 1.2]), 0.4
    behind = np.eye(4)
    behind[:3, :3] = axis_rotation(np.pi, 1)
    behind[:3, 3] = [0, 0, 2.4]
    depth = sphere_depth(SMALL_CAMERA, center, radius)
    points = fuse_frames([depth, depth], SMALL_CAMERA, [np.eye(4), behind], voxel_size=0.02)
    error = np.abs(np.linalg.norm(points - center, axis=1) - radius)
    assert np.median(error) < 0.004
    assert points[:, 2].min() < 0.85 and points[:, 2].max() > 1.55


def test_fusing_does_not_depend_on_the_frame_of_the_poses_beyond_a_voxel():
    depth = sphere_depth(SMALL_CAMERA, np.array([0.1, 0.0, 1.2]), 0.4)
    pose = random_pose(np.random.default_rng(0))
    here = fuse_frames([depth], SMALL_CAMERA, [np.eye(4)], 0.02)
    there = transform(fuse_frames([depth], SMALL_CAMERA, [pose], 0.02), np.linalg.inv(pose))
    assert np.abs(here.mean(0) - there.mean(0)).max() < 0.01


def test_nothing_measured_fuses_to_nothing():
    assert fuse_frames([np.zeros((60, 80), np.float32)], SMALL_CAMERA, [np.eye(4)]).shape == (0, 3)


def test_frames_and_poses_must_be_as_many():
    with pytest.raises(ValueError, match="1 depth frames and 2 poses"):
        fuse_frames([np.zeros((60, 80))], SMALL_CAMERA, [np.eye(4)] * 2)


def test_frames_are_of_the_camera_s_size():
    with pytest.raises(ValueError, match=r"frame 0 of shape \(30, 80\).* expected \(60, 80\)"):
        fuse_frames([np.ones((30, 80))], SMALL_CAMERA, [np.eye(4)])
    depth = np.full((60, 80), 2.0)
    flat = fuse_frames([depth], SMALL_CAMERA, [np.eye(4)])
    np.testing.assert_array_equal(
        fuse_frames([depth.tolist()], SMALL_CAMERA, [np.eye(4).tolist()]), flat
    )


def test_what_is_too_far_away_to_be_told_apart_is_refused():
    points = np.random.default_rng(0).uniform(0, 5, (2000, 3))
    there = points + [20_000, -20_000, 100]
    assert len(thin(there, 0.025)) == len(np.unique(np.floor(there / 0.025), axis=0))
    with pytest.raises(ValueError, match="too far from the origin"):
        thin(points + [500_000, 4_649_776, 100], 0.025)
    pose = np.eye(4)
    pose[:3, 3] = [500_000, 4_649_776, 100]
    with pytest.raises(ValueError, match="too far from the origin"):
        fuse_frames([np.full((60, 80), 2.0)], SMALL_CAMERA, [pose])


def test_a_fragment_keeps_one_point_per_cell_within_the_volume():
    depth = np.full((60, 80), 2.0, np.float32)
    depth[:, :20] = 4.0  # beyond the volume of 3DMatch
    points = fuse_fragment([depth], SMALL_CAMERA, [np.eye(4)], voxel_size=0.02, spacing=0.05)
    assert len(np.unique(np.floor(points / 0.05), axis=0)) == len(points) > 100
    assert 1.97 < points[:, 2].min() and points[:, 2].max() < 2.03
    whole = fuse_fragment([depth], SMALL_CAMERA, [np.eye(4)], 0.02, 0.05, like_3dmatch=False)
    assert whole[:, 2].max() > 3.9


def test_thinning_keeps_the_first_point_of_each_cell_in_order():
    points = np.array([[0.06, 0, 0], [0.01, 0, 0], [0.02, 0, 0], [-0.01, 0, 0]])
    np.testing.assert_array_equal(thin(points, 0.05), points[[0, 1, 3]])
    np.testing.assert_array_equal(thin(points, 0), points)


# How fragments overlap


def test_overlap_is_the_share_of_the_first_fragment_that_the_second_has():
    grid = (
        np.stack(np.meshgrid(np.arange(40), np.arange(25), [0.0], indexing="ij"), -1).reshape(-1, 3)
        * 0.05
    )
    shifted = grid + [1.0, 0, 0]  # half of it
    far = grid + [0, 0, 5.0]
    found = overlaps([Fragment(p, np.eye(4)) for p in (grid, shifted, far)])
    assert [(p.i, p.j) for p in found] == [(0, 1)]
    assert found[0].share == pytest.approx(0.5)
    assert found[0].information[0, 0] == 500


def test_empty_fragments_overlap_with_nothing():
    full = Fragment(np.random.default_rng(0).random((50, 3)), np.eye(4))
    empty = Fragment(np.zeros((0, 3)), np.eye(4))
    assert overlaps([empty, full, empty]) == []


def test_the_information_matrix_gives_the_mean_squared_displacement_of_small_motions():
    rng = np.random.default_rng(0)
    points, shift, turn = (
        rng.normal(size=(200, 3)) + [0, 0, 2],
        rng.normal(size=3),
        rng.normal(size=3),
    )
    moved = shift + np.cross(turn, points)
    e = np.concatenate([shift, turn])
    information = information_matrix(points)
    assert e @ information @ e / information[0, 0] == pytest.approx((moved**2).sum(1).mean())


def test_our_information_matrix_is_laid_out_as_3dmatchs_own(dataset):
    folder = dataset("threedmatch_test") / "7-scenes-redkitchen-evaluation"
    for block in read_info(folder / "gt.info")[:20]:
        theirs = block.matrix / block.matrix[0, 0]
        mean = np.array([theirs[1, 5], theirs[2, 3], theirs[0, 4]])
        ours = information_matrix(mean[None])
        np.testing.assert_allclose(theirs[:3], ours[:3], atol=1e-6)
        assert 1 < mean[2] < 4  # metres before the camera


# Wrong input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "fcgf"}, "layout: got 'fcgf', expected one of train, test, both"),
        ({"rooms": 0}, "rooms 0, expected a whole number of at least 1"),
        ({"fragments_per_room": 0}, "fragments_per_room 0"),
        ({"frames": 1}, "frames 1, expected a whole number of at least 2"),
        ({"frames": None}, "frames None"),
        ({"rooms": 2.5}, "rooms 2.5"),
        ({"workers": 0}, "workers 0"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 1.5}, "seed 1.5"),
        ({"voxel_size": 0.0}, "voxel_size 0.0, expected a positive number"),
        ({"voxel_size": 1.0}, "voxel_size: got 1.0 m, expected 0.002 to 0.2"),
        ({"voxel_size": "a"}, "voxel_size 'a'"),
        ({"spacing": "a"}, "spacing in metres 'a', expected a number from 0 to 1"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, **settings)
    with pytest.raises(ValueError, match="seed -1, expected a whole number"):
        make_room(-1)


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file"):
        make(tmp_path / "file")


def test_rooms_that_are_there_are_not_made_again(tmp_path):
    settings = {"rooms": 1, "fragments_per_room": 1}
    make(tmp_path, **settings)
    before = contents(tmp_path)
    seen = []
    make(tmp_path, **settings, progress=lambda *done: seen.append(done))
    assert contents(tmp_path) == before and seen == []


def test_a_making_that_was_interrupted_starts_over(rooms, tmp_path):
    def interrupt(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, progress=interrupt)
    assert contents(tmp_path) != contents(rooms)
    assert contents(make(tmp_path)) == contents(rooms)


@pytest.mark.parametrize("finished", [True, False])
def test_other_rooms_are_not_overwritten(tmp_path, finished):
    settings = {"rooms": 1, "fragments_per_room": 1}
    make(tmp_path, **settings)
    if not finished:
        (tmp_path / "made.txt").write_text("unfinished: " + (tmp_path / "made.txt").read_text())
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="holds rooms made with seed=3 .*, asked for are seed=4 "):
        make(tmp_path, seed=4, **settings)
    assert contents(tmp_path) == before


def test_a_folder_with_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "room-0000@seq-01_000.npz").write_text("mine")
    with pytest.raises(ValueError, match="there is something already"):
        make(tmp_path, rooms=1, fragments_per_room=1)
    assert contents(tmp_path) == {"room-0000@seq-01_000.npz": b"mine"}


def test_without_embreex_the_error_says_what_to_install(monkeypatch):
    from sparsefeat.synthetic.camera import Scene
    from sparsefeat.synthetic.shapes import box

    for module in ("embreex", "embreex.rtcore_scene", "embreex.mesh_construction"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install .*\[rooms\]"):
        Scene(box((1, 1, 1)))
