"""3DMatch's two layouts are read as they are on disk, and what is wrong is named with file and line."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sparsefeat.data import threedmatch
from sparsefeat.data.fragments import load_fragment
from sparsefeat.io.gtlog import read_info, write_info, write_log
from sparsefeat.io.pointcloud import write_ply


def rigid(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * np.sign(np.linalg.det(rotation))
    matrix[:3, 3] = rng.standard_normal(3)
    return matrix


@pytest.fixture
def train_root(tmp_path):
    """Two scenes, three sequences, three fragments each."""
    root = tmp_path / "train"
    root.mkdir()
    rng = np.random.default_rng(0)
    for sequence in ("kitchen@seq-01", "kitchen@seq-02", "office@seq-01"):
        for k in range(3):
            np.savez(
                root / f"{sequence}_{k:03d}.npz",
                pcd=rng.random((10 + k, 3)),
                color=np.zeros((10 + k, 3)),
            )
        lines = [
            f"{sequence}_{a:03d}.npz {sequence}_{b:03d}.npz {o}"
            for a, b, o in [(0, 1, 0.8), (0, 2, 0.35)]
        ]
        (root / f"{sequence}-0.30.txt").write_text("\n".join(lines) + "\n")
        (root / f"{sequence}-0.50.txt").write_text(lines[0] + "\n")
    (root / "train_3dmatch.txt").write_text("kitchen\n")
    return root


@pytest.fixture
def scenes_root(tmp_path):
    """One scene of four fragments and three pairs, with gt.info and overlaps."""
    root = tmp_path / "test"
    for folder in ("hotel1", "hotel1-evaluation"):
        (root / folder).mkdir(parents=True)
    for k in range(4):
        write_ply(root / "hotel1" / f"cloud_bin_{k}.ply", np.full((5, 3), float(k)))
    pairs = [(0, 1), (0, 3), (1, 2)]
    write_log(
        root / "hotel1-evaluation" / "gt.log", [(i, j, 4, rigid(i + 4 * j)) for i, j in pairs]
    )
    write_info(
        root / "hotel1-evaluation" / "gt.info",
        [(i, j, 4, np.eye(6) * (1 + i + j)) for i, j in pairs],
    )
    (root / "hotel1-evaluation" / "gt_overlap.log").write_text("0,1,0.8017\n0,2,0.0\n0,3,0.5\n")
    return root


# the training layout --------------------------------------------------------------------------------------


def test_the_training_layout_gives_pairs_with_identity_poses(train_root):
    pairs = threedmatch.train_pairs(train_root)
    assert len(pairs) == 6 and {pair.scene for pair in pairs} == {"kitchen", "office"}
    assert [pair.overlap for pair in pairs[:2]] == [0.8, 0.35]
    assert (pairs[1].j, pairs[1].i) == (0, 2) and np.array_equal(pairs[1].transform, np.eye(4))
    assert load_fragment(pairs[1].target).shape == (12, 3)


def test_training_pairs_are_chosen_by_scene_sequence_part_of_a_name_and_overlap(train_root):
    def count(*args):
        return len(threedmatch.train_pairs(train_root, *args))

    assert count(["kitchen"]) == 4 and count(["kitchen@seq-02"]) == 2 and count(["off"]) == 2
    assert count(["chen@seq-02"]) == 2 and count(["seq-02"]) == 2 and count(["kit"]) == 4
    assert count(threedmatch.read_scene_list(train_root / "train_3dmatch.txt")) == 4
    assert count(None, 0.5) == 3 and count(None, 0.0) == 6


def test_a_wrong_training_folder_says_what_was_looked_for_and_what_is_there(
    train_root, scenes_root, tmp_path
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "readme.md").touch()
    for call, said in [
        (
            lambda: threedmatch.train_pairs(tmp_path / "absent"),
            "absent: no such folder, expected a folder of fragments",
        ),
        (
            lambda: threedmatch.train_pairs(train_root / "train_3dmatch.txt"),
            "is a file, expected a folder",
        ),
        (
            lambda: threedmatch.train_pairs(tmp_path / "empty"),
            "the folder is empty, expected fragments",
        ),
        (
            lambda: threedmatch.train_pairs(tmp_path / "other"),
            "no overlap list '<scene>@<seq>-0.30.txt' here, it has readme.md",
        ),
        (
            lambda: threedmatch.train_pairs(scenes_root),
            "this is the test layout, which test_pairs reads",
        ),
        (
            lambda: threedmatch.train_pairs(train_root, ["kitchne"]),
            "no scene 'kitchne', the nearest is 'kitchen'",
        ),
        (lambda: threedmatch.train_pairs(train_root, ["i"]), "'i' fits 2 scenes: kitchen, office"),
        (lambda: threedmatch.train_pairs(train_root, []), "the list of scenes is empty"),
        (
            lambda: threedmatch.train_pairs(train_root, None, 0.9),
            "no pair of overlap 0.9 or more in 3 overlap lists; the largest",
        ),
        (lambda: threedmatch.read_scene_list(tmp_path / "other" / "readme.md"), "names no scene"),
    ]:
        with pytest.raises(ValueError) as error:
            call()
        assert said in str(error.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a.npz kitchen@seq-01_000.npz 0.5", "names 1 file (a.npz in line 3)"),
        ("../x.npz kitchen@seq-01_000.npz 0.5", "names 1 file (../x.npz in line 3)"),
        (
            "a.npz b.npz 0.5\nc.npz d.npz 0.5",
            "names 4 files (a.npz in line 3, b.npz in line 3, c.npz in line 4, ...)",
        ),
        ("kitchen@seq-01_000.npz kitchen@seq-01_001.npz", "line 3: expected 'a.npz b.npz overlap'"),
        (
            "kitchen@seq-01_000.npz kitchen@seq-01_001.npz 80",
            "line 3: expected 'a.npz b.npz overlap' with a share",
        ),
        ("kitchen@seq-01_000.npz kitchen@seq-01_001.npz nan", "line 3"),
        ("kitchen@seq-01_000.npz kitchen@seq-01_001.npz 0.5 1", "line 3"),
    ],
)
def test_a_wrong_overlap_list_names_line_and_files(train_root, line, said):
    with open(train_root / "kitchen@seq-01-0.30.txt", "a") as file:
        file.write(line)
    with pytest.raises(ValueError) as error:
        threedmatch.train_pairs(train_root)
    assert said in str(error.value) and "kitchen@seq-01-0.30.txt" in str(error.value)


# the test layout ------------------------------------------------------------------------------------------


def test_the_test_layout_maps_fragment_j_into_the_frame_of_i(scenes_root):
    pairs = threedmatch.test_pairs(scenes_root)["hotel1"]
    assert [(pair.i, pair.j) for pair in pairs] == [(0, 1), (0, 3), (1, 2)]
    assert pairs[1].source.name == "cloud_bin_3.ply" and pairs[1].target.name == "cloud_bin_0.ply"
    assert np.array_equal(pairs[1].transform, rigid(12)) and pairs[1].information[5, 5] == 4
    assert [pair.overlap for pair in pairs[:2]] == [0.8017, 0.5] and math.isnan(pairs[2].overlap)


def test_information_and_overlaps_are_optional_and_may_come_in_another_order(scenes_root):
    folder = scenes_root / "hotel1-evaluation"
    write_info(folder / "gt.info", reversed(read_info(folder / "gt.info")))
    assert threedmatch.test_pairs(scenes_root)["hotel1"][0].information[0, 0] == 2
    (folder / "gt.info").unlink()
    (folder / "gt_overlap.log").unlink()
    pair = threedmatch.test_pairs(scenes_root, ["hotel"])["hotel1"][0]
    assert pair.information is None and math.isnan(pair.overlap)


def test_fragments_of_the_test_layout_may_be_npz_or_pth(scenes_root):
    (scenes_root / "hotel1" / "cloud_bin_1.ply").unlink()
    np.savez(scenes_root / "hotel1" / "cloud_bin_1.npz", pcd=np.ones((4, 3)))
    (scenes_root / "hotel1" / "cloud_bin_2.ply").unlink()
    torch.save(np.ones((6, 3)), scenes_root / "hotel1" / "cloud_bin_2.pth")
    (scenes_root / "hotel1" / "cloud_bin_3.info.txt").write_text("frames 100 to 149\n")
    pair = threedmatch.test_pairs(scenes_root)["hotel1"][2]
    assert len(load_fragment(pair.target)) == 4 and len(load_fragment(pair.source)) == 6


def test_either_layout_serves_training(train_root, scenes_root):
    assert len(threedmatch.find_pairs(train_root, ["kitchen"])) == 4
    assert len(threedmatch.find_pairs(scenes_root)) == 3  # the pair of unknown overlap is kept
    assert len(threedmatch.find_pairs(scenes_root, min_overlap=0.6)) == 2
    lower = scenes_root / "hotel1-evaluation-lo"
    lower.mkdir()
    write_log(lower / "gt.log", [(0, 2, 4, rigid()), (0, 1, 4, rigid())])
    assert len(threedmatch.find_pairs(scenes_root)) == 3
    found = threedmatch.find_pairs(scenes_root, min_overlap=0.1)
    assert [(pair.i, pair.j) for pair in found] == [(0, 1), (0, 3), (1, 2), (0, 2)]


def test_a_wrong_test_folder_says_what_was_looked_for_and_what_is_there(
    train_root, scenes_root, tmp_path
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare" / "hotel1").mkdir(parents=True)
    (tmp_path / "nofragments" / "hotel1").mkdir(parents=True)
    (tmp_path / "nofragments" / "hotel1-evaluation").mkdir()
    write_log(tmp_path / "nofragments" / "hotel1-evaluation" / "gt.log", [(0, 1, 2, rigid())])
    for call, said in [
        (
            lambda: threedmatch.test_pairs(tmp_path / "absent"),
            "no such folder, expected a folder of scenes",
        ),
        (
            lambda: threedmatch.test_pairs(tmp_path / "empty"),
            "the folder is empty, expected scenes",
        ),
        (lambda: threedmatch.test_pairs(tmp_path / "bare"), "no scene here, expected folders"),
        (lambda: threedmatch.test_pairs(tmp_path / "bare"), "it has hotel1/"),
        (
            lambda: threedmatch.test_pairs(train_root),
            "this is the training layout, which train_pairs reads",
        ),
        (
            lambda: threedmatch.test_pairs(tmp_path / "nofragments"),
            "no fragment 'cloud_bin_<k>.ply' here, it is empty",
        ),
        (
            lambda: threedmatch.test_pairs(scenes_root, ["hotel3"]),
            "no scene 'hotel3', the nearest is 'hotel1'",
        ),
        (lambda: threedmatch.test_pairs(scenes_root, pairs="3DLoMatch"), "hotel1-evaluation-lo"),
        (
            lambda: threedmatch.test_pairs(scenes_root, pairs="3dmatch"),
            "expected one of 3DMatch, 3DLoMatch",
        ),
    ]:
        with pytest.raises(ValueError) as error:
            call()
        assert said in str(error.value)


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ([(0, 4, 4)], "gt.log, line 6: fragment 4 is out of range, the scene has 4 (0 to 3)"),
        ([(-1, 1, 4)], "fragment -1 is out of range"),
        (
            [(0, 4, 9), (5, 6, 9)],
            "names 3 fragments (cloud_bin_4 in line 6, cloud_bin_5 in line 11, cloud_bin_6 in line 11)",
        ),
        ([(2, 2, 4)], "line 6: fragment 2 is paired with itself"),
        ([(0, 1, 4)], "line 6: pair 0 1 was given before, in line 1"),
        ([(0, 2, 4)], "gt.info: lacks 1 pair (0 2 in line 6) of gt.log"),
        (None, "gt.info, line 1: pair 0 1 is not in gt.log"),
    ],
)
def test_a_log_that_disagrees_with_the_folder_is_an_error(scenes_root, blocks, said):
    given = [(0, 1, 4)] + blocks if blocks is not None else [(0, 3, 4)]
    folder = scenes_root / "hotel1-evaluation"
    write_log(folder / "gt.log", [(*block, rigid()) for block in given])
    write_info(folder / "gt.info", [(0, 1, 4, np.eye(6))])
    with pytest.raises(ValueError) as error:
        threedmatch.test_pairs(scenes_root)
    assert said in str(error.value)


def test_a_log_or_overlap_list_that_was_cut_off_is_an_error_of_the_layout_too(scenes_root):
    path = scenes_root / "hotel1-evaluation" / "gt.log"
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match=r"gt.log, line 8"):
        threedmatch.test_pairs(scenes_root)
    path.write_text(text)
    (path.parent / "gt_overlap.log").write_text("0,1,0.8\n0,2")
    with pytest.raises(ValueError, match=r"gt_overlap.log, line 2: expected 'i,j,overlap'"):
        threedmatch.test_pairs(scenes_root)


# the real files -------------------------------------------------------------------------------------------


def test_the_real_test_scenes_have_the_published_numbers_of_pairs(dataset):
    root = dataset("threedmatch_test")
    scenes = ["redkitchen", "home_md", "hotel1", "mit_lab"]
    high, low = (threedmatch.test_pairs(root, scenes, pairs) for pairs in ("3DMatch", "3DLoMatch"))
    assert [len(pairs) for pairs in high.values()] == [506, 208, 104, 77]
    assert [len(pairs) for pairs in low.values()] == [525, 230, 158, 72]
    assert all(pair.information is not None for pairs in high.values() for pair in pairs)
    assert all(0.1 <= pair.overlap < 0.3 for pairs in low.values() for pair in pairs)


def test_real_poses_bring_neighbouring_fragments_together(dataset):
    from scipy.spatial import cKDTree

    pair = threedmatch.test_pairs(dataset("threedmatch_test"), ["hotel1"])[
        "sun3d-hotel_umd-maryland_hotel1"
    ][0]
    source, target = load_fragment(pair.source), load_fragment(pair.target)
    moved = source @ pair.transform[:3, :3].T + pair.transform[:3, 3]
    near = (cKDTree(target).query(moved)[0] < 0.05).mean()
    assert near > 0.3 and near > 2 * (cKDTree(target).query(source)[0] < 0.05).mean()
