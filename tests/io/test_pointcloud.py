"""Reading point clouds: every format gives the same points in the same order, or one clear error."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from sparsefeat.io.pointcloud import POINT_SUFFIXES, read_points, write_ply

# Row 1 and 2 are equal, row 4 belongs to no face: what merging or face-wise reading would lose.
POINTS = np.array([[0, 0, 0], [1, 0, 0], [1, 0, 0], [-0.5, 2.25, 8], [5, 5, 5]], dtype=np.float64)
COLORS = np.array([[0, 1, 2], [255, 0, 0], [0, 255, 0], [7, 8, 9], [250, 251, 252]], dtype=np.uint8)


def ply_header(form: str, *extra: str, rows: int = len(POINTS), kind: str = "float") -> bytes:
    axes = [f"property {kind} {axis}" for axis in "xyz"]
    lines = [
        "ply",
        f"format {form} 1.0",
        "comment made by a test",
        f"element vertex {rows}",
        *axes,
        *extra,
    ]
    return ("\n".join([*lines, "end_header"]) + "\n").encode()


FACES = ("element face 2", "property list uchar int vertex_indices")
COLOR_PROPERTIES = tuple(f"property uchar {name}" for name in ("red", "green", "blue"))
TEXT = "".join("{:g} {:g} {:g}\n".format(*p) for p in POINTS)
LITTLE = POINTS.astype("<f4").tobytes()
BIG = POINTS.astype(">f4").tobytes()
MIXED_FACES = struct.pack("<B3iB4i", 3, 0, 1, 3, 4, 0, 1, 2, 3)
COLORED = np.zeros(5, dtype=[("p", "<f4", 3), ("c", "u1", 3)])
COLORED["p"], COLORED["c"] = POINTS, COLORS

PCD = "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 5\nHEIGHT 1\n"
PCD += "VIEWPOINT 0 0 0 1 0 0 0\nPOINTS 5\nDATA {}\n"


def literal_lzf(data: bytes) -> bytes:
    """LZF without any repetition."""
    blocks = [data[i : i + 32] for i in range(0, len(data), 32)]
    return b"".join(bytes([len(block) - 1]) + block for block in blocks)


def compressed(data: bytes, size: int) -> bytes:
    return struct.pack("<II", len(data), size) + data


COLUMNS = np.ascontiguousarray(POINTS.T, dtype="<f4").tobytes()

FILES = {
    "ascii.ply": ply_header("ascii") + TEXT.encode(),
    "crlf.ply": (ply_header("ascii") + TEXT.encode()).replace(b"\n", b"\r\n"),
    "little.ply": ply_header("binary_little_endian") + LITTLE,
    "big.PLY": ply_header("binary_big_endian") + BIG,
    "double.ply": ply_header("binary_little_endian", kind="double") + POINTS.astype("<f8").tobytes(),
    "mesh.ply": ply_header("binary_little_endian", *FACES) + LITTLE + MIXED_FACES,
    "ascii_mesh.ply": ply_header("ascii", *FACES) + TEXT.encode() + b"3 0 1 3\n4 0 1 2 3\n",
    "list_property.ply": ply_header("binary_little_endian", "property list uchar int q")
    + b"".join(struct.pack("<3fB2i", *p, 2, 7, 8) for p in POINTS),
    "ascii_list_property.ply": ply_header("ascii", "property list uchar int q")
    + TEXT.replace("\n", " 2 7 8\n").encode(),
    "faces_first.ply": b"ply\nformat binary_little_endian 1.0\nelement face 2\nproperty list uchar int i\n"
    + ply_header("binary_little_endian").partition(b"test\n")[2] + MIXED_FACES + LITTLE,
    "camera_first.ply": b"ply\nformat ascii 1.0\nelement camera 1\nproperty float f\n"
    + ply_header("ascii").partition(b"test\n")[2] + b"9\n" + TEXT.encode(),
    "ascii.pcd": PCD.format("ascii").encode() + TEXT.encode(),
    "binary.pcd": PCD.format("binary").encode() + LITTLE,
    "compressed.pcd": PCD.format("binary_compressed").encode()
    + compressed(literal_lzf(COLUMNS), len(COLUMNS)),
    "table.xyz": TEXT.encode(),
    "commas.txt": b"x,y,z\n# a comment\n" + TEXT.replace(" ", ",").encode(),
    "counted.xyz": b"5\n" + TEXT.encode(),
    "with_normals.xyz": TEXT.replace("\n", " 0 0 1\n").encode(),
    "mesh.off": b"OFF\n# a comment\n5 1 0\n" + TEXT.encode() + b"3 0 1 3\n",
    "modelnet.off": b"OFF5 1 0\n" + TEXT.encode() + b"3 0 1 3\n",
    "mesh.obj": b"o thing\nvn 0 0 1\nvt 0 0\nvt 1 1\n"
    + "".join(f"v {line}\n" for line in TEXT.splitlines()).encode() + b"f 1/1 2/2 4/1\nf 1/2 2/1 4/2\n",
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_points_in_file_order(tmp_path, name):
    (tmp_path / name).write_bytes(FILES[name])
    cloud = read_points(tmp_path / name)
    assert cloud.points.dtype == np.float64 and cloud.path == tmp_path / name
    np.testing.assert_array_equal(cloud.points, POINTS)
    assert cloud.colors is None and cloud.rows is None and len(cloud) == 5


@pytest.mark.parametrize("key", ["pcd", "points", "xyz", "arr_0"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_npz_and_npy_arrays_are_read(tmp_path, key, dtype):
    points = np.round(POINTS).astype(dtype)
    np.savez(tmp_path / "a.npz", other=np.zeros(3), **{key: points})
    np.save(tmp_path / "a.npy", points)
    for name in ("a.npz", "a.npy"):
        np.testing.assert_array_equal(read_points(tmp_path / name).points, np.round(POINTS))


def colored_files() -> dict[str, bytes]:
    packed = (COLORS.astype("u4") << [16, 8, 0]).sum(1).astype("<u4")
    pcd = PCD.replace("x y z", "x y z _ _ rgb").replace("4 4 4", "4 4 4 1 1 4")
    pcd = pcd.replace("F F F", "F F F U U F").replace("COUNT 1 1 1", "COUNT 1 1 1 4 2 1")
    record = np.zeros(5, dtype=[("p", "<f4", 3), ("pad", "u1", 6), ("c", "<u4")])
    record["p"], record["c"] = POINTS, packed
    unsigned = (
        PCD.replace("x y z", "rgba x y z").replace("4 4 4", "4 4 4 4").replace("F F F", "U F F F")
    )
    rows = [f"{p[0]:g} {p[1]:g} {p[2]:g} {c[0]} {c[1]} {c[2]}\n" for p, c in zip(POINTS, COLORS)]
    shares = "".join(
        f"v {row.rsplit(' ', 3)[0]} {c[0]:.6f} {c[1]:.6f} {c[2]:.6f}\n"
        for row, c in zip(rows, COLORS / 255)
    )
    floats = tuple(f"property float {name}" for name in ("red", "green", "blue"))
    return {
        "binary.ply": ply_header("binary_little_endian", *COLOR_PROPERTIES) + COLORED.tobytes(),
        "ascii.ply": ply_header("ascii", *COLOR_PROPERTIES) + "".join(rows).encode(),
        "floats.ply": ply_header("ascii", *floats) + shares.replace("v ", "").encode(),
        "binary.pcd": pcd.format("binary").encode() + record.tobytes(),
        "ascii.pcd": unsigned.replace("COUNT 1 1 1", "COUNT 1 1 1 1").format("ascii").encode()
        + "".join(f"{c} {line}\n" for c, line in zip(packed, TEXT.splitlines())).encode(),
        "table.xyz": "".join(rows).encode(),
        "mesh.obj": shares.encode(),
    }


@pytest.mark.parametrize("name", colored_files())
def test_colors_are_read_as_bytes(tmp_path, name):
    (tmp_path / name).write_bytes(colored_files()[name])
    cloud = read_points(tmp_path / name)
    np.testing.assert_array_equal(cloud.points, POINTS)
    assert cloud.colors.dtype == np.uint8
    np.testing.assert_array_equal(cloud.colors, COLORS)


def test_16_bit_fields_may_hold_16_or_8_bits(tmp_path):
    for factor in (1, 256):
        np.savez(tmp_path / "a.npz", points=POINTS, colors=COLORS.astype(np.uint16) * factor)
        np.testing.assert_array_equal(read_points(tmp_path / "a.npz").colors, COLORS)


def test_fcgf_npz_gives_points_and_colors(tmp_path):
    np.savez(tmp_path / "fragment.npz", pcd=POINTS, color=COLORS / 255)
    cloud = read_points(tmp_path / "fragment.npz")
    np.testing.assert_array_equal(cloud.colors, COLORS)


EMPTY = {
    "ascii.ply": ply_header("ascii", rows=0),
    "binary.ply": ply_header("binary_big_endian", rows=0),
    "binary.pcd": PCD.replace("5", "0").format("binary").encode(),
    "compressed.pcd": PCD.replace("5", "0").format("binary_compressed").encode() + bytes(8),
    "a.xyz": b"0\n",
    "a.off": b"OFF\n0 0 0\n",
}


@pytest.mark.parametrize("name", EMPTY)
def test_a_file_without_points_is_an_empty_cloud(tmp_path, name):
    (tmp_path / name).write_bytes(EMPTY[name])
    assert read_points(tmp_path / name).points.shape == (0, 3)


def test_lzf_repetitions_are_expanded(tmp_path):
    # 60 bytes: the 4 of 1.0, then repetitions at distance 4 (overlapping): a short and a long one.
    one = struct.pack("<f", 1.0)
    packed = bytes([3]) + one + bytes([(2 << 5), 3]) + bytes([(7 << 5), 43, 3])
    (tmp_path / "a.pcd").write_bytes(
        PCD.format("binary_compressed").encode() + compressed(packed, 60)
    )
    np.testing.assert_array_equal(read_points(tmp_path / "a.pcd").points, np.ones((5, 3)))


BROKEN = {
    "empty.ply": (b"", "not a PLY file"),
    "junk.ply": (b"hello\n", "not a PLY file"),
    "header.ply": (ply_header("ascii")[:40], "header is cut off in line 3"),
    "property.ply": (ply_header("ascii", "property quaternion q"), "line 8: not a line of a PLY header"),
    "format.ply": (ply_header("binary_middle_endian"), "unknown format 'binary_middle_endian'"),
    "axes.ply": (ply_header("ascii").replace(b"float z", b"float w"), "no property z"),
    "vertex.ply": (b"ply\nformat ascii 1.0\nend_header\n", "no 'element vertex'"),
    "cut.ply": (ply_header("binary_little_endian") + LITTLE[:-5], "cut off, 4 of 5 vertices"),
    "cut_ascii.ply": (ply_header("ascii") + TEXT[:14].encode(), "vertex .* (2|3)"),
    "cut_faces.ply": (ply_header("binary_little_endian", *FACES) + LITTLE, "cut off after the vertices"),
    "cut_list.ply": (FILES["list_property.ply"][:-12], "cut off in vertex 4 of 5|cut off in the last vertex"),
    "huge.ply": (ply_header("binary_little_endian", rows=10**15) + LITTLE, "cut off, 5 of 1000000000000000"),
    "huge_list.ply": (ply_header("binary_big_endian", "property list uchar int q", rows=10**15), "cut off"),
    "word.ply": (ply_header("ascii") + TEXT.replace("-0.5", "abc").encode(), "3 is malformed: 'abc 2.25 8'"),
    "header.pcd": (PCD.encode()[:55], "without a DATA line"),
    "data.pcd": (PCD.format("zip").encode(), "DATA 'zip'"),
    "fields.pcd": (PCD.replace("x y z", "x y q").format("ascii").encode(), "no field z"),
    "sizes.pcd": (PCD.replace("4 4 4", "4 4").format("ascii").encode(), "SIZE has 2 values for 3 FIELDS"),
    "cut.pcd": (FILES["binary.pcd"][:-5], "cut off, 4 of 5 points"),
    "cut_ascii.pcd": (FILES["ascii.pcd"][:-7], "4: cut off, expected 5|4 is malformed"),
    "cut_compressed.pcd": (FILES["compressed.pcd"][:-5], "cut off, 57 of 62 compressed bytes"),
    "damaged.pcd": (PCD.format("binary_compressed").encode() + compressed(b"\x40\x09", 60), "damaged"),
    "short.pcd": (PCD.format("binary_compressed").encode() + compressed(b"\x00a", 60), "1 bytes, expected"),
    "empty.npz": (b"", "not a complete npz file"),
    "junk.npz": (b"hello, this is no zip", "not a complete npz file"),
    "junk.npy": (b"hello, this is no npy", "not a complete npy file"),
    "columns.xyz": (b"1 2\n3 4\n", "2 columns"),
    "ragged.xyz": (b"1 2 3\n4 5 6\n7 8\n", "row 2 is malformed: '7 8'"),
    "word.xyz": (b"1 2 3\n4 abc 6\n", "row 1 is malformed: '4 abc 6'"),
    "junk.off": (b"hello\n", "not an OFF file"),
    "counts.off": (b"OFF\na b\n", "malformed"),
    "cut.off": (b"OFF\n5 1 0\n0 0 0\n1 1 1\n", "2: cut off, expected 5"),
    "nothing.xyz": (b"# nothing\n", "no number in it"),
    "words.txt": (b"to do: scan the hall\n", "no number in it"),
    "nothing.obj": (b"o nothing\n", "no vertices"),
    "short.obj": (b"v 1 2\n", "malformed: '1 2'"),
    "points.las": (b"", "unknown suffix '.las', expected one of .ply, .pcd, .npz"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_by_name_and_place(tmp_path, name):
    data, message = BROKEN[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message) as error:
        read_points(tmp_path / name)
    assert name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_truncated_npz_is_refused(tmp_path, keep):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, pcd=np.random.default_rng(0).normal(size=(1000, 3)))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(ValueError, match="a.npz: not a complete npz file"):
        read_points(path)


def test_a_damaged_npz_member_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, pcd=np.random.default_rng(0).normal(size=(1000, 3)))
    data = bytearray(path.read_bytes())
    data[2000:2100] = bytes(100)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="key 'pcd' cannot be read"):
        read_points(path)


def test_pickled_arrays_are_never_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([object()]))
    np.savez(tmp_path / "a.npz", pcd=np.array([{"a": 1}], dtype=object))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(ValueError, match="allow_pickle"):
            read_points(tmp_path / name)


def test_an_npz_without_points_lists_its_keys(tmp_path):
    np.savez(tmp_path / "a.npz", features=np.zeros((5, 3)), labels=np.zeros(5))
    with pytest.raises(
        ValueError, match="it has the keys features, labels, expected one of pcd, points"
    ):
        read_points(tmp_path / "a.npz")


@pytest.mark.parametrize("shape", [(5,), (5, 2), (5, 4), (1, 5, 3)])
def test_arrays_of_another_shape_are_refused(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape))
    with pytest.raises(ValueError, match=r"expected \(N, 3\)"):
        read_points(tmp_path / "a.npy")


def test_more_columns_have_their_place_in_an_npz(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 6)))
    with pytest.raises(ValueError, match="an npz may hold points, colors and normals"):
        read_points(tmp_path / "a.npy")


def test_text_arrays_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([["a", "b", "c"]]))
    with pytest.raises(ValueError, match="expected numbers"):
        read_points(tmp_path / "a.npy")


def test_a_ply_that_is_cut_off_within_its_faces_gives_its_points(tmp_path):
    path = tmp_path / "a.ply"
    path.write_bytes(ply_header("binary_little_endian", *FACES) + LITTLE + MIXED_FACES[:-4])
    np.testing.assert_allclose(read_points(path).points, POINTS, rtol=1e-6)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_points(tmp_path / "absent.ply")
    with pytest.raises(ValueError, match="is a folder"):
        read_points(tmp_path)


def test_invalid_coordinates_are_counted_or_dropped(tmp_path):
    points = POINTS.copy()
    points[1, 2], points[3, 0] = np.nan, np.inf
    data = PCD.replace("WIDTH 5\nHEIGHT 1", "WIDTH 1\nHEIGHT 5").format("binary").encode()
    (tmp_path / "organised.pcd").write_bytes(data + points.astype("<f4").tobytes())
    with pytest.raises(
        ValueError, match=r"2 of 5 points have a NaN or infinite coordinate, first in row 1"
    ):
        read_points(tmp_path / "organised.pcd")
    cloud = read_points(tmp_path / "organised.pcd", drop_invalid=True)
    np.testing.assert_array_equal(cloud.rows, [0, 2, 4])
    np.testing.assert_array_equal(cloud.points, points[[0, 2, 4]])


@pytest.mark.parametrize("scale", [1.0, 1 / 3, 1e7 + 0.1])
@pytest.mark.parametrize("colors", [None, COLORS, COLORS / 255])
def test_a_written_ply_is_read_back_without_loss(tmp_path, scale, colors):
    write_ply(tmp_path / "a.ply", POINTS * scale, colors)
    cloud = read_points(tmp_path / "a.ply")
    np.testing.assert_array_equal(cloud.points, POINTS * scale)
    assert (cloud.colors is None) == (colors is None)
    if colors is not None:
        np.testing.assert_array_equal(cloud.colors, COLORS)


def test_an_empty_ply_can_be_written(tmp_path):
    write_ply(tmp_path / "a.ply", np.empty((0, 3)), np.empty((0, 3)))
    assert read_points(tmp_path / "a.ply").colors.shape == (0, 3)


@pytest.mark.parametrize(
    ("points", "colors"),
    [
        (np.zeros((5, 2)), None),
        (np.zeros((5, 3)), np.zeros((4, 3))),
        (np.zeros((5, 3)), np.full((5, 3), -1.0)),
        (np.zeros((5, 3)), np.full((5, 3), 256)),
    ],
)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, points, colors):
    (tmp_path / "a.ply").write_text("old")
    with pytest.raises(ValueError, match="a.ply"):
        write_ply(tmp_path / "a.ply", points, colors)
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"]
    assert (tmp_path / "a.ply").read_text() == "old"


def test_suffixes_are_listed():
    assert set(POINT_SUFFIXES) == {".ply", ".pcd", ".npz", ".npy", ".xyz", ".txt", ".off", ".obj"}


def test_real_fragments_are_read(dataset):
    path = next(dataset("threedmatch_dense").glob("*.ply"))
    cloud = read_points(path)
    assert len(cloud) > 100_000
    assert 1 < np.ptp(cloud.points, axis=0).max() < 20


@pytest.mark.parametrize("kind", ["I", "U"])
@pytest.mark.parametrize("opaque_blue", [4278190335, 4278190335 - 2**32])
def test_packed_colours_of_a_text_pcd_may_have_a_sign_or_none(tmp_path, kind, opaque_blue):
    header = PCD.replace("x y z", "x y z rgb").replace("4 4 4", "4 4 4 4").replace("5", "2")
    header = header.replace("F F F", f"F F F {kind}").replace("COUNT 1 1 1", "COUNT 1 1 1 1")
    body = f"0 0 0 {opaque_blue}\n1 1 1 16711680\n"
    (tmp_path / "a.pcd").write_text(header.format("ascii") + body)
    assert read_points(tmp_path / "a.pcd").colors.tolist() == [[0, 0, 255], [255, 0, 0]]


def test_a_stored_block_and_line_ends_of_pcd(tmp_path):
    header = PCD.format("binary_compressed").encode()
    stored = compressed(COLUMNS, len(COLUMNS))
    crlf, mark = FILES["binary.pcd"].replace(LITTLE, b"").replace(b"\n", b"\r\n"), b"\xef\xbb\xbf"
    for data in (header + stored, crlf + LITTLE, mark + FILES["binary.pcd"], mark + FILES["ascii.pcd"],
                 FILES["ascii.pcd"].replace(b"\n", b"\r"), FILES["ascii.pcd"].replace(b"\n", b"\r\n")):  # fmt: skip
        (tmp_path / "a.pcd").write_bytes(data)
        np.testing.assert_array_equal(read_points(tmp_path / "a.pcd").points, POINTS)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (PCD.replace("POINTS 5", "POINTS 6").format("binary").encode() + LITTLE * 2, "POINTS is 6, expected WIDTH 5"),
        (PCD.replace("COUNT 1 1 1", "COUNT 1 1 99999999999").format("binary").encode() + LITTLE, "no field z"),
        (PCD.replace("5", "99999999999").format("binary").encode() + LITTLE, "cut off, 5 of 99999999999"),
        (PCD.replace("5", "99999999999").format("ascii").encode() + TEXT.encode(), "cut off, expected 99999999999"),
        (PCD.format("binary_compressed").encode() + struct.pack("<II", 8, 4294967295) + bytes(8), "cannot hold"),
        (PCD.format("ascii").encode() + TEXT.replace("-0.5", "abc").encode(), "point .* 3 is malformed: 'abc 2.25 8'"),
        (PCD.format("ascii").encode() + TEXT.replace("\n", " 9\n").encode(), "a line is longer than a point"),
        (PCD.replace("x y z", "x y z _ _ x _3 3").replace("4 4 4", "4 4 4 1 1 4 4 4").replace("F F F", "F F F U U F F F")
         .replace("COUNT 1 1 1", "COUNT 1 1 1 1 1 1 1 1").format("binary").encode() + LITTLE, "cut off, 2 of 5 points"),
    ],
)  # fmt: skip
def test_a_pcd_header_that_promises_more_than_there_is_or_contradicts_itself_is_refused(
    tmp_path, data, said
):
    (tmp_path / "a.pcd").write_bytes(data)
    with pytest.raises(ValueError, match=said):
        read_points(tmp_path / "a.pcd")


def test_colours_that_exceed_1_by_rounding_are_not_black(tmp_path):
    colors = np.array([[0.5, 0.5, 0.5], [0.2, 0.9, 1.0000001], [1, 1, 1]])
    write_ply(tmp_path / "a.ply", np.eye(3), colors)
    assert read_points(tmp_path / "a.ply").colors.tolist() == [[128] * 3, [51, 230, 255], [255] * 3]


def test_what_stands_behind_the_vertices_of_an_obj_is_no_colour_where_it_is_negative(tmp_path):
    (tmp_path / "a.obj").write_text("v 0 0 0 0 0 -1\nv 1 0 0 0 1 0\n")
    read = read_points(tmp_path / "a.obj")
    assert read.colors is None and read.points.tolist() == [[0, 0, 0], [1, 0, 0]]


def test_invalid_rows_can_be_kept(tmp_path):
    points = np.array([[0.0, 0, 0], [np.nan, 0, 0], [1, 1, 1]])
    np.save(tmp_path / "a.npy", points)
    kept = read_points(tmp_path / "a.npy", keep_invalid=True)
    np.testing.assert_array_equal(kept.points, points)
    assert kept.rows is None
