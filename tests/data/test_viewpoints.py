"""What files, and a list of viewpoints beside them, say about the outer side."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from surfaces import sphere

from sparsefeat.data.orientation import agreement, load_orientation, read_viewpoints
from sparsefeat.errors import InputError, InputWarning
from sparsefeat.io.pointcloud import read_points

LIST = """# where the sensor stood
a.ply 1 2 3
b.ply 0 0 0
b.ply 1 0 0
room 2/a.ply unknown
scan_*.ply 0 0 -1.5
"""


@pytest.fixture
def viewpoints(tmp_path):
    (tmp_path / "list.txt").write_text(LIST)
    return read_viewpoints(tmp_path / "list.txt")


def test_a_list_says_one_viewpoint_several_or_that_there_is_none(viewpoints):
    assert viewpoints.of("anywhere/a.ply")[1].tolist() == [[1, 2, 3]]
    assert viewpoints.of("b.ply")[1].tolist() == [[0, 0, 0], [1, 0, 0]]
    assert viewpoints.of("scans/scan_7.ply")[1].tolist() == [[0, 0, -1.5]]
    assert viewpoints.of("c.ply") == (False, None)
    assert viewpoints.of("ba.ply") == (False, None)


def test_the_longer_name_is_not_hidden_by_a_shorter_one(viewpoints):
    assert viewpoints.of("x/room 2/a.ply") == (True, None)


@pytest.mark.parametrize(
    "line", ["a.ply 1 2", "a.ply 1 2 x", "a.ply 1 2 nan", "1 2 3", "unknown", "a.ply"]
)
def test_a_line_that_says_nothing_is_named(tmp_path, line):
    (tmp_path / "list.txt").write_text(f"b.ply 0 0 0\n{line}\n")
    with pytest.raises(InputError, match="line 2: expected NAME X Y Z"):
        read_viewpoints(tmp_path / "list.txt")


@pytest.mark.parametrize("text", ["a 0 0 0\na unknown\n", "a unknown\nb 0 0 0\na 1 2 3\n"])
def test_a_name_that_has_a_viewpoint_and_none_is_refused(tmp_path, text):
    (tmp_path / "list.txt").write_text(text)
    said = (
        f"list.txt: a has a viewpoint and is unknown in lines 1 and {text.count(chr(10))}, expected"
    )
    with pytest.raises(InputError, match=said):
        read_viewpoints(tmp_path / "list.txt")


def test_names_are_what_the_file_says_to_the_letter(tmp_path):
    (tmp_path / "list.txt").write_text("a.ply 1 2 3\r\nb  c.ply 4 5\t6\r\n", encoding="utf-8-sig")
    listed = read_viewpoints(tmp_path / "list.txt")
    assert listed.of("a.ply")[1].tolist() == [[1, 2, 3]]
    assert listed.of("b  c.ply")[1].tolist() == [[4, 5, 6]]
    assert listed.of("b c.ply") == (False, None)
    (tmp_path / "list.txt").write_text("caf\u00e9.ply 1 2 3\n", encoding="latin-1")
    with pytest.raises(InputError, match=r"list.txt: not a text file in UTF-8 \(byte 3\)"):
        read_viewpoints(tmp_path / "list.txt")


def test_lines_that_fit_no_input_are_named(viewpoints):
    with pytest.warns(InputWarning, match=r"list.txt: no input fits b.ply \(line 3\)$"):
        viewpoints.warn_of_unused(["x/a.ply", "room 2/a.ply", "scan_3.ply"])
    with pytest.warns(InputWarning, match=r"a.ply \(line 2\), b.ply \(line 3\), .* and 1 more$"):
        viewpoints.warn_of_unused(["scans.npz"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        viewpoints.warn_of_unused(["room 2/a.ply", "b.ply", "scan_3.ply"])


def test_a_list_that_is_absent_or_empty_is_refused(tmp_path):
    with pytest.raises(InputError, match="absent"):
        read_viewpoints(tmp_path / "absent.txt")
    (tmp_path / "list.txt").write_text("# nothing\n")
    with pytest.raises(InputError, match="no line"):
        read_viewpoints(tmp_path / "list.txt")


def flat(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(0, 1, (count, 2)), np.zeros((count, 1))], 1)
    return points, np.tile([0.0, 0, 2], (count, 1))


def test_normals_of_a_file_are_read_and_used(tmp_path):
    points, normals = flat()
    np.savez(tmp_path / "a.npz", points=points, normals=normals, viewpoint=[0, 0, 1.0])
    rows = "\n".join(" ".join(map(str, row)) for row in np.concatenate([points, normals], 1))
    header = f"ply\nformat ascii 1.0\nelement vertex {len(points)}\n" + "".join(
        f"property float {name}\n" for name in ("x", "y", "z", "nx", "ny", "nz")
    )
    (tmp_path / "a.ply").write_text(f"{header}end_header\n{rows}\n")
    for name in ("a.npz", "a.ply"):
        read = read_points(tmp_path / name)
        np.testing.assert_allclose(read.normals, normals)
        known = load_orientation(tmp_path / name, read.points, read.normals)
        assert known.viewpoint is None and known.normals is read.normals
    np.savez(tmp_path / "b.npz", points=points, normals=normals[:5])
    with pytest.raises(InputError, match="normals"):
        read_points(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", points=points)
    assert read_points(tmp_path / "c.npz").normals is None


def test_normals_that_nobody_turned_are_not_used(tmp_path):
    points, normals = flat()
    turned = normals * np.random.default_rng(1).choice([-1, 1], len(normals))[:, None]
    assert agreement(points, normals) == 1 and 0.3 < agreement(points, turned) < 0.7
    np.savez(tmp_path / "a.npz", points=points, normals=turned, viewpoint=[0, 0, 1.0])
    with pytest.warns(InputWarning, match="normals are not used"):
        known = load_orientation(tmp_path / "a.npz", points, turned)
    assert known.normals is None and known.viewpoint.tolist() == [0, 0, 1]


def write_off(path, vertices, faces):
    lines = [" ".join(map(str, row)) for row in (*vertices, *(np.insert(f, 0, 3) for f in faces))]
    path.write_text(f"OFF\n{len(vertices)} {len(faces)} 0\n" + "\n".join(lines) + "\n")


@pytest.mark.parametrize("winding", [1, -1], ids=["outwards", "inwards"])
def test_faces_say_which_side_is_outside(tmp_path, winding):
    vertices, faces = sphere(3)
    write_off(tmp_path / "a.off", vertices, faces[:, ::winding])
    points = read_points(tmp_path / "a.off").points
    known = load_orientation(tmp_path / "a.off", points)
    assert known.viewpoint is None
    np.testing.assert_allclose(known.normals, vertices, atol=0.02)
    # What is said of the file goes first, and rows that are left out leave nothing to go by.
    given = load_orientation(tmp_path / "a.off", points, viewpoint=(0, 0, 9))
    assert given.normals is None and given.viewpoint.tolist() == [0, 0, 9]
    assert load_orientation(tmp_path / "a.off", points[1:]) == (None, None)


def test_faces_that_do_not_say_it_are_not_used(tmp_path):
    vertices, faces = sphere(3)
    write_off(tmp_path / "few.off", vertices, faces[:9])
    with pytest.warns(InputWarning, match=r"few.off: its faces are not used: 9\d% of its points"):
        assert load_orientation(tmp_path / "few.off", vertices) == (None, None)
    # A thin shell: neighbours face opposite sides.
    shell = np.concatenate([vertices, 0.999 * vertices])
    write_off(tmp_path / "shell.off", shell, [*faces, *(faces[:, ::-1] + len(vertices))])
    with pytest.warns(InputWarning, match=r"shell.off: its faces are not used: of neighbours"):
        assert load_orientation(tmp_path / "shell.off", shell) == (None, None)


def test_who_gives_a_viewpoint_is_not_overruled_by_a_name(tmp_path, viewpoints):
    path = tmp_path / "cloud_bin_0.ply"
    assert load_orientation(path).viewpoint.tolist() == [0, 0, 0]
    assert load_orientation(path, viewpoint=(1, 2, 3)).viewpoint.tolist() == [1, 2, 3]
    (tmp_path / "list.txt").write_text("*.ply unknown\n")
    listed = read_viewpoints(tmp_path / "list.txt")
    assert load_orientation(path, viewpoints=listed, viewpoint=(1, 2, 3)) == (None, None)


def test_a_list_may_say_whole_paths_and_dots(tmp_path):
    (tmp_path / "list.txt").write_text(
        f"{tmp_path}/a.ply 1 2 3\n./b.ply 4 5 6\n{tmp_path}/*.pcd unknown\n"
    )
    listed = read_viewpoints(tmp_path / "list.txt")
    assert listed.of(tmp_path / "a.ply")[1].tolist() == [[1, 2, 3]]
    assert listed.of("./b.ply")[1].tolist() == listed.of("b.ply")[1].tolist() == [[4, 5, 6]]
    assert listed.of(tmp_path / "c.pcd") == (True, None)
    assert listed.of("/elsewhere/a.ply") == (False, None)


def test_normals_that_are_zero_are_not_used(tmp_path):
    points, normals = flat()
    np.savez(tmp_path / "a.npz", points=points, normals=0 * normals, viewpoint=[0, 0, 1.0])
    with pytest.warns(InputWarning, match="normals are not used: 100% of its points"):
        known = load_orientation(tmp_path / "a.npz", points, 0 * normals)
    assert known.normals is None and known.viewpoint.tolist() == [0, 0, 1]
