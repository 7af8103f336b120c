"""Recorded RGB-D sequences: read, fused to fragments, refused when something is wrong with them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree

from sparsefeat.cli import make_data
from sparsefeat.data import threedmatch
from sparsefeat.data.fragments import load_fragment
from sparsefeat.data.rgbd import fuse_rgbd, read_rgbd
from sparsefeat.data.threedmatch import train_pairs
from sparsefeat.synthetic.camera import Intrinsics
from sparsefeat.synthetic.shapes import axis_rotation

CAMERA = Intrinsics(80, 60, 73.0, 73.0, 39.5, 29.5)
ROOM = np.array([1.6, 1.2, 1.5])  # half of the size of a box that the camera stands in
FRAMES = 6


def box_depth(pose):
    """Depth (H,W) of the inside of an axis-aligned box, by the slab method."""
    directions = CAMERA.rays().astype(float) @ pose[:3, :3].T
    with np.errstate(divide="ignore"):
        reach = (np.sign(directions) * ROOM - pose[:3, 3]) / directions
    return reach.min(1).reshape(CAMERA.height, CAMERA.width)


def poses():
    """A camera that turns by 40 degrees in all while it moves by 20 cm."""
    for k in range(FRAMES):
        pose = np.eye(4)
        pose[:3, :3] = axis_rotation(0.14 * k, 1)
        pose[:3, 3] = [0.04 * k, 0.1, -0.2]
        yield pose


@pytest.fixture
def recording(tmp_path):
    """A recording in the way of 7-Scenes."""
    folder = tmp_path / "box room"
    folder.mkdir()
    np.savetxt(folder / "camera-intrinsics.txt", [[73, 0, 39.5], [0, 73, 29.5], [0, 0, 1]])
    for k, pose in enumerate(poses()):
        depth = np.rint(box_depth(pose) * 1000).astype(np.uint16)
        depth[:5] = 65535
        depth[5:8] = 0
        Image.fromarray(depth).save(folder / f"frame-{k:06d}.depth.png")
        np.savetxt(folder / f"frame-{k:06d}.pose.txt", pose)
    return folder


@pytest.fixture
def redwood(recording, tmp_path):
    """The same in the way of Redwood: depth/<k>.png and one trajectory; every second frame was kept."""
    folder = tmp_path / "redwood"
    (folder / "depth").mkdir(parents=True)
    blocks = []
    for k, pose in enumerate(poses()):
        shutil.copy(recording / f"frame-{k:06d}.depth.png", folder / "depth" / f"{2 * k:05d}.png")
        for index in (2 * k, 2 * k + 1):
            rows = "\n".join(" ".join(f"{value:.9f}" for value in row) for row in pose)
            blocks.append(f"{index} {index} {index + 1}\n{rows}\n")
    (folder / "trajectory.log").write_text("".join(blocks))
    shutil.copy(recording / "camera-intrinsics.txt", folder)
    return folder


def off_the_walls(points):
    """Distance of points (N,3) inside or outside of the box from its surface."""
    inward = (ROOM - np.abs(points)).min(1)
    return np.abs(inward)


def test_fused_points_lie_on_the_walls(recording, tmp_path):
    fragments = fuse_rgbd(
        recording, tmp_path / "out", frames=3, voxel_size=0.02, like_3dmatch=False
    )
    assert len(fragments) == 2
    for fragment in fragments:
        assert len(fragment.points) > 1000
        assert np.median(off_the_walls(fragment.points)) < 0.006
        assert off_the_walls(fragment.points).max() < 0.05


def test_the_loaders_read_both_layouts(recording, tmp_path):
    fuse_rgbd(recording, tmp_path / "out", frames=3, voxel_size=0.02)
    (pair,) = threedmatch.test_pairs(tmp_path / "out")["box-room"]
    assert (pair.i, pair.j) == (0, 1)
    expected = list(poses())
    np.testing.assert_allclose(pair.transform, np.linalg.inv(expected[0]) @ expected[3], atol=1e-9)
    (listed,) = train_pairs(tmp_path / "out")
    assert listed.overlap == pytest.approx(pair.overlap, abs=1e-4)
    assert np.median(off_the_walls(load_fragment(listed.source))) < 0.012


def test_redwoods_way_of_keeping_a_recording_gives_the_same(recording, redwood, tmp_path):
    one = fuse_rgbd(recording, tmp_path / "one", frames=3, voxel_size=0.02)
    other = fuse_rgbd(redwood, tmp_path / "other", frames=3, voxel_size=0.02)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a.points, b.points, atol=1e-6)


def test_hidden_files_are_no_pictures(redwood):
    options = {"intrinsics": (73, 73, 39.5, 29.5)}
    files = read_rgbd(redwood, **options).files
    (files[0].parent / f"._{files[0].name}").write_text("")
    assert read_rgbd(redwood, **options).files == files


def test_several_workers_write_the_same(recording, tmp_path):
    fuse_rgbd(recording, tmp_path / "one", frames=3, voxel_size=0.02)
    fuse_rgbd(recording, tmp_path / "two", frames=3, voxel_size=0.02, workers=2)
    for path in (tmp_path / "one").rglob("*.*"):
        if path.is_file():
            assert (
                path.read_bytes()
                == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
            )


def test_the_recording_is_left_as_it_was(recording, tmp_path):
    before = {path.name: path.read_bytes() for path in recording.iterdir()}
    fuse_rgbd(recording, tmp_path / "out", frames=6, voxel_size=0.02)
    assert {path.name: path.read_bytes() for path in recording.iterdir()} == before
    with pytest.raises(ValueError, match="never written to"):
        fuse_rgbd(recording, recording / "out")


def test_unmeasured_pixels_are_zero_and_millimetres_become_metres(recording):
    sequence = read_rgbd(recording)
    depth = sequence.depth(0)
    assert not depth[:8].any()
    np.testing.assert_allclose(depth[8:], box_depth(next(poses()))[8:], atol=6e-4)


def test_a_remainder_is_kept_if_it_is_at_least_half_a_fragment(recording, tmp_path):
    assert len(fuse_rgbd(recording, tmp_path / "a", frames=4, voxel_size=0.03)) == 2
    assert len(fuse_rgbd(recording, tmp_path / "b", frames=5, voxel_size=0.03)) == 1


def test_intrinsics_come_as_numbers_as_a_file_or_from_the_folder_above(recording, tmp_path):
    expected = read_rgbd(recording).camera
    assert expected == CAMERA
    assert read_rgbd(recording, (73, 73, 39.5, 29.5)).camera == expected
    above = recording.parent / "camera-intrinsics.txt"
    shutil.move(recording / "camera-intrinsics.txt", above)
    assert read_rgbd(recording).camera == expected
    above.unlink()
    file = tmp_path / "pinhole.json"
    file.write_text(json.dumps({"intrinsic_matrix": [73, 0, 0, 0, 73, 0, 39.5, 29.5, 1]}))
    assert read_rgbd(recording, file).camera == expected


# Wrong input


def cut_picture(folder):
    path = folder / "frame-000004.depth.png"
    path.write_bytes(path.read_bytes()[:-60])


def colour_picture(folder):
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(folder / "frame-000000.depth.png")


def small_picture(folder):
    Image.fromarray(np.full((30, 40), 1500, np.uint16)).save(folder / "frame-000003.depth.png")


def stretched_pose(folder):
    np.savetxt(folder / "frame-000002.pose.txt", np.diag([1.0, 1.2, 1.0, 1.0]))


def lost_pose(folder):
    np.savetxt(folder / "frame-000002.pose.txt", np.full((4, 4), -np.inf))


def nothing_measured(folder):
    for path in folder.glob("*.png"):
        Image.fromarray(np.zeros((60, 80), np.uint16)).save(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_picture, r"frame-000004\.depth\.png: cannot be read as a whole PNG"),
        (colour_picture, r"frame-000000\.depth\.png: uint8 .* expected one 16-bit channel"),
        (small_picture, r"frame-000003\.depth\.png: 40 x 30 pixels, the first frame has 80 x 60"),
        (
            lambda f: (f / "frame-000002.pose.txt").unlink(),
            r"frame-000002\.pose\.txt: no such file",
        ),
        (
            lambda f: (f / "frame-000002.pose.txt").write_text("1 0 0"),
            r"frame-000002\.pose\.txt: expected a matrix",
        ),
        (stretched_pose, r"frame-000002\.pose\.txt: the pose is not a rigid motion"),
        (lost_pose, r"frame-000002\.pose\.txt: expected a matrix of 4 x 4 finite numbers"),
        (lambda f: (f / "camera-intrinsics.txt").unlink(), "intrinsics are needed"),
        (
            lambda f: np.savetxt(f / "camera-intrinsics.txt", np.diag([500, 500, 1])),
            "do not fit pictures of 80 x 60",
        ),
        (
            lambda f: (f / "camera-intrinsics.txt").write_text("inf 0 39\n0 inf 29\n0 0 1\n"),
            "intrinsics",
        ),
        (lambda f: [p.unlink() for p in f.glob("*.png")], "no depth pictures"),
        (nothing_measured, "no surface in the 6 frames from here on"),
    ],
)
def test_a_damaged_recording_is_one_clear_error(recording, tmp_path, damage, message):
    damage(recording)
    with pytest.raises(ValueError, match=message):
        fuse_rgbd(recording, tmp_path / "out", frames=6, voxel_size=0.02)


def test_a_trajectory_without_a_frames_block_is_refused(redwood, tmp_path):
    lines = (redwood / "trajectory.log").read_text().splitlines()
    (redwood / "trajectory.log").write_text("\n".join(lines[:-10]))
    with pytest.raises(ValueError, match=r"trajectory\.log: no block '10 10 11'.*00010\.png"):
        read_rgbd(redwood)
    (redwood / "trajectory.log").write_text("\n".join(lines[:-3]))
    with pytest.raises(ValueError, match=r"trajectory\.log, line"):
        read_rgbd(redwood)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        read_rgbd(tmp_path / "nowhere")


# The tool


@pytest.fixture(scope="module")
def tool():
    return make_data.main


def test_the_tool_fuses_a_recording(tool, recording, tmp_path, capsys):
    shutil.move(recording / "camera-intrinsics.txt", tmp_path / "camera.txt")
    arguments = [
        "fuse",
        str(recording),
        "--output",
        str(tmp_path / "out"),
        "--frames",
        "3",
        "--voxel-size",
        "0.02",
    ]
    assert (
        tool([*arguments, "--intrinsics", "73,73,39.5,29.5", "--scene", "box", "--layout", "test"])
        == 0
    )
    assert len(threedmatch.test_pairs(tmp_path / "out")["box"]) == 1
    assert "written to" in capsys.readouterr().out


def test_the_tool_makes_rooms(tool, tmp_path):
    pytest.importorskip("embreex", reason="casting rays needs embreex")
    counts = [
        "--rooms",
        "1",
        "--fragments",
        "1",
        "--frames",
        "2",
        "--workers",
        "1",
        "--voxel-size",
        "0.02",
    ]
    assert (
        tool(["rooms", "--output", str(tmp_path), "--seed", "2", "--layout", "train", *counts]) == 0
    )
    assert len(list(tmp_path.glob("*.npz"))) == 1


@pytest.mark.parametrize(
    "extra", [["--intrinsics", "1,2,3,four"], ["--frames", "0"], ["--depth-scale", "0"]]
)
def test_the_tool_says_in_one_line_what_is_wrong(tool, recording, tmp_path, capsys, extra):
    assert tool(["fuse", str(recording), "--output", str(tmp_path / "out"), *extra]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in error if not line.startswith("fuse:")]) == 1
    assert not (tmp_path / "out").exists()


# Real recordings


def test_a_real_recording_gives_3dmatchs_own_fragment_of_it(dataset, tmp_path):
    recorded, reference = dataset("rgbd") / "redkitchen_seq01", dataset("threedmatch_test")
    (fragment,) = fuse_rgbd(recorded, tmp_path, scene="ours", layout="test", voxel_size=0.0125)
    ours = load_fragment(tmp_path / "ours" / "cloud_bin_0.ply")
    theirs = load_fragment(reference / "7-scenes-redkitchen" / "cloud_bin_0.ply")
    assert len(ours) == len(fragment.points) == pytest.approx(len(theirs), rel=0.15)
    assert np.mean(cKDTree(ours).query(theirs)[0] < 0.035) > 0.97
    assert np.mean(cKDTree(theirs).query(ours)[0] < 0.035) > 0.97


def test_a_rendered_recording_with_a_trajectory_fuses_to_overlapping_fragments(dataset, tmp_path):
    recorded = dataset("rgbd") / "livingroom1_micro"
    with pytest.raises(ValueError, match="intrinsics are needed"):
        read_rgbd(recorded)
    sequence = read_rgbd(recorded, (525, 525, 319.5, 239.5))
    assert len(sequence.files) == 106 and sequence.depth(0).max() < 4


def test_a_scene_of_another_recording_is_not_overwritten(recording, tmp_path):
    options = {"frames": 3, "voxel_size": 0.03}
    fuse_rgbd(recording, tmp_path / "out", **options)
    elsewhere = shutil.copytree(recording, tmp_path / "elsewhere" / recording.name)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    for folder, more in ((elsewhere, {}), (recording, {"frames": 6})):
        with pytest.raises(ValueError, match="the scene box-room is there already, of recording="):
            fuse_rgbd(folder, tmp_path / "out", **(options | more))
    fuse_rgbd(recording, tmp_path / "out", **options)  # the same again
    after = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert after == before
    fuse_rgbd(elsewhere, tmp_path / "out", scene="other", **options)
    assert set(threedmatch.test_pairs(tmp_path / "out")) == {"box-room", "other"}


def test_a_recording_that_changed_does_not_join_what_was_made_of_it(recording, tmp_path):
    options = {"frames": 3, "voxel_size": 0.03}
    fuse_rgbd(recording, tmp_path / "out", **options)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    message = "the scene box-room is there already"
    with pytest.raises(ValueError, match=message):
        fuse_rgbd(recording, tmp_path / "out", intrinsics=(70, 73, 39.5, 29.5), **options)
    last = max(recording.glob("*.depth.png"))
    last.unlink()
    with pytest.raises(ValueError, match=message):
        fuse_rgbd(recording, tmp_path / "out", **options)
    after = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize("scene", ["", ".", "..", "../esc", "a/b", "a\\b", "a\0b"])
def test_a_scene_whose_name_is_no_name_of_a_file_is_refused_before_any_work(tmp_path, scene):
    with pytest.raises(ValueError, match="scene: got .*, expected a name without slashes"):
        fuse_rgbd(tmp_path / "absent", tmp_path / "out", scene=scene)
    assert not (tmp_path / "out").exists()


def test_fragments_of_other_people_are_not_overwritten(recording, tmp_path):
    (tmp_path / "out" / "box-room").mkdir(parents=True)
    (tmp_path / "out" / "box-room" / "cloud_bin_0.ply").write_text("mine")
    with pytest.raises(ValueError, match="is there already, of another origin"):
        fuse_rgbd(recording, tmp_path / "out", frames=3, voxel_size=0.03)
    assert (tmp_path / "out" / "box-room" / "cloud_bin_0.ply").read_text() == "mine"
