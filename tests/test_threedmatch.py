"""3DMatch's two layouts are read as they are on disk, and every broken file is named with its line."""

from __future__ import annotations

import math
import os
import pickle

import numpy as np
import pytest
import torch

from sparsefeat.data import threedmatch
from sparsefeat.data.fragments import FragmentCache, load_fragment
from sparsefeat.data.pointcloud import write_ply
from sparsefeat.data.threedmatch import LogBlock, read_info, read_log, write_info, write_log


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
            np.savez(root / f"{sequence}_{k:03d}.npz", pcd=rng.random((10 + k, 3)), color=np.zeros((10 + k, 3)))
        lines = [f"{sequence}_{a:03d}.npz {sequence}_{b:03d}.npz {o}" for a, b, o in [(0, 1, 0.8), (0, 2, 0.35)]]
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
    write_log(root / "hotel1-evaluation" / "gt.log", [(i, j, 4, rigid(i + 4 * j)) for i, j in pairs])
    write_info(root / "hotel1-evaluation" / "gt.info", [(i, j, 4, np.eye(6) * (1 + i + j)) for i, j in pairs])
    (root / "hotel1-evaluation" / "gt_overlap.log").write_text("0,1,0.8017\n0,2,0.0\n0,3,0.5\n")
    return root


# fragments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_pickled_array_of_predator_is_read(tmp_path, dtype, legacy):
    points = np.random.default_rng(0).random((7, 3)).astype(dtype)
    torch.save(points, tmp_path / "cloud.pth", _use_new_zipfile_serialization=not legacy)
    loaded = load_fragment(tmp_path / "cloud.pth")
    assert loaded.dtype == np.float64 and np.array_equal(loaded, points)


def test_a_pickle_written_with_the_other_major_version_of_numpy_is_read(tmp_path):
    points = np.random.default_rng(0).random((7, 3))
    torch.save(points, tmp_path / "new.pth", _use_new_zipfile_serialization=False)
    raw = (tmp_path / "new.pth").read_bytes()
    old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
    assert old in raw or new in raw
    other = raw.replace(new, old) if new in raw else raw.replace(old, new)
    (tmp_path / "other.pth").write_bytes(other)
    assert np.array_equal(load_fragment(tmp_path / "other.pth"), points)


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_malicious_pickle_is_refused_by_name_and_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Malicious(), "evil.pth")
    with pytest.raises(ValueError, match=r"evil.pth: refused: it asks for \w+\.mkdir"):
        load_fragment("evil.pth")
    assert not (tmp_path / "executed").exists()


def test_broken_fragments_are_named(tmp_path):
    points = np.random.default_rng(0).random((100, 3))
    np.savez(tmp_path / "whole.npz", pcd=points)
    torch.save(points, tmp_path / "whole.pth")
    for suffix in ("npz", "pth"):
        raw = (tmp_path / f"whole.{suffix}").read_bytes()
        (tmp_path / f"cut.{suffix}").write_bytes(raw[: len(raw) // 2])
        (tmp_path / f"text.{suffix}").write_text("hello")
        (tmp_path / f"empty.{suffix}").write_bytes(b"")
    bad = points.copy()
    bad[[3, 5], 1] = np.nan
    np.savez(tmp_path / "nan.npz", pcd=bad)
    torch.save(bad, tmp_path / "nan.pth")
    np.savez(tmp_path / "zero.npz", pcd=np.empty((0, 3)))
    np.savez(tmp_path / "key.npz", cloud=points)
    np.savez(tmp_path / "shape.npz", pcd=points[:, :2])
    np.savez(tmp_path / "object.npz", pcd=np.array([[None] * 3]))
    torch.save({"a": 1}, tmp_path / "dict.pth")
    torch.save(points[:, :2], tmp_path / "shape.pth")
    torch.save(np.array([[None] * 3]), tmp_path / "object.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(points, protocol=2))
    for name, said in [
        ("cut.npz", "not a complete npz"),
        ("text.npz", "not a complete npz"),
        ("empty.npz", "not a complete npz"),
        ("nan.npz", "2 of 100 points have a NaN or infinite coordinate, first in row 3"),
        ("zero.npz", "the fragment has no points"),
        ("key.npz", "no points; it has the keys cloud"),
        ("shape.npz", "shape (100, 2), expected (N, 3)"),
        ("object.npz", "cannot be read"),
        ("absent.npz", "no such file"),
        ("cut.pth", "not a file that torch.save wrote, or cut off"),
        ("text.pth", "not a file that torch.save wrote, or cut off"),
        ("empty.pth", "not a file that torch.save wrote, or cut off"),
        ("plain.pth", "not a file that torch.save wrote, or cut off"),
        ("nan.pth", "2 of 100 points have a NaN or infinite coordinate, first in row 3"),
        ("shape.pth", "shape (100, 2), expected numbers, (N, 3)"),
        ("object.pth", "refused"),
        ("dict.pth", "holds a dict"),
        ("absent.pth", "no such file"),
    ]:
        with pytest.raises(ValueError) as error:
            load_fragment(tmp_path / name)
        assert said in str(error.value) and name in str(error.value) and "\n" not in str(error.value)


def test_a_cache_reads_a_fragment_once_and_forgets_beyond_its_size(tmp_path):
    for k in range(3):
        np.savez(tmp_path / f"{k}.npz", pcd=np.full((10, 3), float(k)))
    cache = FragmentCache()
    first = cache(tmp_path / "0.npz")
    assert first is cache(tmp_path / "0.npz") and first.dtype == np.float32
    with pytest.raises(ValueError):
        first[0] = 1
    assert len(pickle.loads(pickle.dumps(cache))) == 0
    small = FragmentCache(max_bytes=2 * first.nbytes)
    for k in (0, 1, 0, 2):
        assert small(tmp_path / f"{k}.npz")[0, 0] == k
    kept = small(tmp_path / "0.npz")
    assert len(small) == 2 and small.bytes == 2 * first.nbytes and small(tmp_path / "0.npz") is kept
    assert len(none := FragmentCache(0)) == 0 and none(tmp_path / "1.npz")[0, 0] == 1 and len(none) == 0


# gt.log and gt.info ---------------------------------------------------------------------------------------


def test_what_is_written_is_read_back_bit_for_bit(tmp_path):
    poses = [LogBlock(0, 1, 9, rigid(1)), LogBlock(3, 8, 9, rigid(2))]
    write_log(tmp_path / "gt.log", poses)
    for read, given in zip(read_log(tmp_path / "gt.log"), poses, strict=True):
        assert read[:3] == given[:3] and np.array_equal(read.matrix, given.matrix)
    write_info(tmp_path / "gt.info", [(0, 1, 9, np.diag(np.arange(1.0, 7) / 3))])
    assert np.array_equal(read_info(tmp_path / "gt.info")[0].matrix, np.diag(np.arange(1.0, 7) / 3))


def test_separators_and_blank_lines_do_not_matter(tmp_path):
    rows = ["1 0 0 0.5", "0\t1 \t0\t0\t", " 0   0 1 0 ", "0 0 0 1"]
    (tmp_path / "gt.log").write_text("0\t 7\t 60\t\n" + "\n".join(rows) + "\n\n1 2 60\r\n" + "\r\n".join(rows))
    blocks = read_log(tmp_path / "gt.log")
    assert [block[:3] for block in blocks] == [(0, 7, 60), (1, 2, 60)]
    assert [block.line for block in blocks] == [1, 7] and blocks[1].matrix[0, 3] == 0.5


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (lambda lines: lines[:8], "line 8: the file ends inside block '1 2 4', after 2 of 4 matrix rows"),
        (lambda lines: lines[:6], "line 6: the file ends inside block '1 2 4', after 0 of 4 matrix rows"),
        (lambda lines: [*lines[:8], "0.1 0.2"], "line 9: expected a matrix row of 4 numbers in block '1 2 4', got '0.1 0.2'"),
        (lambda lines: [*lines[:5], "1 2"], "line 6: expected a block header 'i j n' of three whole numbers, got '1 2'"),
        (lambda lines: lines[:2] + lines[3:], "line 5: expected a matrix row of 4 numbers in block '0 1 4', got '1 2 4'"),
        (lambda lines: lines[1:], "line 1: expected a block header"),
        (lambda lines: ["0 1.5 4", *lines[1:]], "line 1: expected a block header"),
        (lambda lines: [lines[0], "1 0 0 nan", *lines[2:]], "line 2: NaN or infinity"),
        (lambda lines: [lines[0], "1 0 0 x", *lines[2:]], "line 2: expected a matrix row of 4 numbers"),
        (lambda lines: [lines[0], "2 0 0 0", *lines[2:]], "line 2: the matrix of block '0 1 4' is not a rigid motion"),
        (lambda lines: [lines[0], "-1 0 0 0", *lines[2:]], "is a reflection"),
        (lambda lines: [*lines[:4], "0 0 0 2"], "its last row is"),
        (lambda lines: [], "the file is empty"),
    ],
)  # fmt: skip
def test_a_broken_log_says_which_line(tmp_path, cut, said):
    rows = ["1 0 0 0", "0 1 0 0", "0 0 1 0", "0 0 0 1"]
    (tmp_path / "gt.log").write_text("\n".join(cut(["0 1 4", *rows, "1 2 4", *rows])))
    with pytest.raises(ValueError) as error:
        read_log(tmp_path / "gt.log")
    assert said in str(error.value) and "gt.log" in str(error.value)


def test_broken_information_and_files_are_named(tmp_path):
    write_info(tmp_path / "gt.info", [(0, 1, 9, np.eye(6))])
    (tmp_path / "zero.info").write_text((tmp_path / "gt.info").read_text().replace(" 1.0", " 0.0"))
    with pytest.raises(ValueError, match="zero.info, line 2: .* expected the number of corresponding points"):
        read_info(tmp_path / "zero.info")
    with pytest.raises(ValueError, match="line 2: expected a matrix row of 4 numbers"):
        read_log(tmp_path / "gt.info")
    with pytest.raises(ValueError, match="absent.log: cannot be read"):
        read_log(tmp_path / "absent.log")
    (tmp_path / "binary.log").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not a text file"):
        read_log(tmp_path / "binary.log")


def test_what_cannot_be_read_again_is_not_written(tmp_path):
    for matrix, said in [(np.eye(3), "shape"), (np.eye(4) * 2, "rigid"), (np.full((4, 4), np.nan), "NaN")]:
        with pytest.raises(ValueError, match=said):
            write_log(tmp_path / "gt.log", [(0, 1, 2, matrix)])
    assert not list(tmp_path.iterdir())


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
    assert count(threedmatch.read_scene_list(train_root / "train_3dmatch.txt")) == 4
    assert count(None, 0.5) == 3 and count(None, 0.0) == 6


def test_a_wrong_training_folder_says_what_was_looked_for_and_what_is_there(train_root, scenes_root, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "readme.md").touch()
    for call, said in [
        (lambda: threedmatch.train_pairs(tmp_path / "absent"), "absent: no such folder, expected a folder of fragments"),
        (lambda: threedmatch.train_pairs(train_root / "train_3dmatch.txt"), "is a file, expected a folder"),
        (lambda: threedmatch.train_pairs(tmp_path / "empty"), "the folder is empty, expected fragments"),
        (lambda: threedmatch.train_pairs(tmp_path / "other"), "no overlap list '<scene>@<seq>-0.30.txt' here, it has readme.md"),
        (lambda: threedmatch.train_pairs(scenes_root), "this is the test layout, which test_pairs reads"),
        (lambda: threedmatch.train_pairs(train_root, ["kitchne"]), "no scene 'kitchne', the nearest is 'kitchen'"),
        (lambda: threedmatch.train_pairs(train_root, ["i"]), "'i' fits 2 scenes: kitchen, office"),
        (lambda: threedmatch.train_pairs(train_root, []), "the list of scenes is empty"),
        (lambda: threedmatch.train_pairs(train_root, None, 0.9), "no pair of overlap 0.9 or more in 3 overlap lists; the largest overlap is 0.8"),
        (lambda: threedmatch.read_scene_list(tmp_path / "other" / "readme.md"), "names no scene"),
    ]:  # fmt: skip
        with pytest.raises(ValueError) as error:
            call()
        assert said in str(error.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a.npz kitchen@seq-01_000.npz 0.5", "names 1 file (a.npz in line 3)"),
        ("../x.npz kitchen@seq-01_000.npz 0.5", "names 1 file (../x.npz in line 3)"),
        ("a.npz b.npz 0.5\nc.npz d.npz 0.5", "names 4 files (a.npz in line 3, b.npz in line 3, c.npz in line 4, ...)"),
        ("kitchen@seq-01_000.npz kitchen@seq-01_001.npz", "line 3: expected 'a.npz b.npz overlap'"),
        ("kitchen@seq-01_000.npz kitchen@seq-01_001.npz 80", "line 3: expected 'a.npz b.npz overlap' with a share"),
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


def test_a_wrong_test_folder_says_what_was_looked_for_and_what_is_there(train_root, scenes_root, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare" / "hotel1").mkdir(parents=True)
    (tmp_path / "nofragments" / "hotel1").mkdir(parents=True)
    (tmp_path / "nofragments" / "hotel1-evaluation").mkdir()
    write_log(tmp_path / "nofragments" / "hotel1-evaluation" / "gt.log", [(0, 1, 2, rigid())])
    for call, said in [
        (lambda: threedmatch.test_pairs(tmp_path / "absent"), "no such folder, expected a folder of scenes"),
        (lambda: threedmatch.test_pairs(tmp_path / "empty"), "the folder is empty, expected scenes"),
        (lambda: threedmatch.test_pairs(tmp_path / "bare"), "no scene here, expected folders"),
        (lambda: threedmatch.test_pairs(tmp_path / "bare"), "it has hotel1/"),
        (lambda: threedmatch.test_pairs(train_root), "this is the training layout, which train_pairs reads"),
        (lambda: threedmatch.test_pairs(tmp_path / "nofragments"), "no fragment 'cloud_bin_<k>.ply' here, it is empty"),
        (lambda: threedmatch.test_pairs(scenes_root, ["hotel3"]), "no scene 'hotel3', the nearest is 'hotel1'"),
        (lambda: threedmatch.test_pairs(scenes_root, pairs="3DLoMatch"), "hotel1-evaluation-lo"),
        (lambda: threedmatch.test_pairs(scenes_root, pairs="3dmatch"), "expected one of 3DMatch, 3DLoMatch"),
    ]:
        with pytest.raises(ValueError) as error:
            call()
        assert said in str(error.value)


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ([(0, 4, 4)], "gt.log, line 6: fragment 4 is out of range, the scene has 4 (0 to 3)"),
        ([(-1, 1, 4)], "fragment -1 is out of range"),
        ([(0, 4, 9), (5, 6, 9)], "names 3 fragments (cloud_bin_4 in line 6, cloud_bin_5 in line 11, cloud_bin_6 in line 11)"),
        ([(2, 2, 4)], "line 6: fragment 2 is paired with itself"),
        ([(0, 1, 4)], "line 6: pair 0 1 was given before, in line 1"),
        ([(0, 2, 4)], "gt.info: lacks 1 pair (0 2 in line 6) of gt.log"),
        (None, "gt.info, line 1: pair 0 1 is not in gt.log"),
    ],
)  # fmt: skip
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

    pair = threedmatch.test_pairs(dataset("threedmatch_test"), ["hotel1"])["sun3d-hotel_umd-maryland_hotel1"][0]
    source, target = load_fragment(pair.source), load_fragment(pair.target)
    moved = source @ pair.transform[:3, :3].T + pair.transform[:3, 3]
    near = (cKDTree(target).query(moved)[0] < 0.05).mean()
    assert near > 0.3 and near > 2 * (cKDTree(target).query(source)[0] < 0.05).mean()
