"""What is written is read: any points, faces and values, in every way that a format can be written."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import numpy as np
import torch
from corpus import Config
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sparsefeat.checkpoint import read_state
from sparsefeat.data.fragments import load_fragment, load_viewpoint
from sparsefeat.data.shape_files import read_integers, read_landmarks, read_names, read_pairs
from sparsefeat.data.threedmatch import read_scene_list
from sparsefeat.io import yaml12
from sparsefeat.io.config import load_config, save_config
from sparsefeat.io.gtlog import read_info, read_log, read_overlaps, write_info, write_log
from sparsefeat.io.meshes import read_mesh
from sparsefeat.io.pointcloud import read_points, write_ply
from sparsefeat.io.torchfile import read_torch_file

settings.register_profile("readers", max_examples=40, deadline=None, derandomize=True)
settings.load_profile("readers")

COORDINATE = st.floats(-1e6, 1e6, allow_nan=False, width=32)
POINTS = st.integers(1, 12).flatmap(lambda n: arrays(np.float64, (n, 3), elements=COORDINATE))
LINE_END = st.sampled_from(["\n", "\r\n", "\r"])
MARK = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])


@st.composite
def meshes(draw, most: int = 5, least: int = 3):
    """Vertices and polygons, each of which has different corners."""
    count = draw(st.integers(most, 12))
    vertices = draw(arrays(np.float64, (count, 3), elements=COORDINATE))
    corners = st.lists(st.integers(0, count - 1), min_size=least, max_size=most, unique=True)
    return vertices, draw(st.lists(corners, min_size=1, max_size=8))


def fans(polygons: list[list[int]]) -> list[list[int]]:
    return [[p[0], p[i], p[i + 1]] for p in polygons for i in range(1, len(p) - 1)]


@st.composite
def wrapped(draw, numbers: list[str]) -> str:
    """Numbers with any white space between them: a format in which numbers count, and not lines."""
    gaps = draw(
        st.lists(
            st.sampled_from([" ", "\n", "\t", "  ", " \n "]),
            min_size=len(numbers),
            max_size=len(numbers),
        )
    )
    return "".join(number + gap for number, gap in zip(numbers, gaps, strict=True))


def read(reader, name: str, data: bytes):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        return reader(path)


def written(reader, name: str, write):
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return reader(Path(folder) / name)


def flat(vertices, polygons=()) -> list[str]:
    numbers = [repr(float(value)) for value in np.ravel(vertices)]
    return numbers + [str(value) for polygon in polygons for value in (len(polygon), *polygon)]


@given(POINTS, st.booleans())
def test_our_own_ply(points, colored):
    colors = (
        np.random.default_rng(0).integers(0, 256, points.shape).astype(np.uint8)
        if colored
        else None
    )
    cloud = written(read_points, "a.ply", lambda path: write_ply(path, points, colors))
    np.testing.assert_array_equal(cloud.points, points)
    assert (cloud.colors is None) if colors is None else np.array_equal(cloud.colors, colors)


@given(meshes(), st.data(), LINE_END, MARK)
def test_a_ply_in_text_wrapped_anywhere(mesh, data, end, mark):
    vertices, polygons = mesh
    header = f"ply\nformat ascii 1.0\nelement vertex {len(vertices)}\nproperty double x\nproperty double y\n"
    header += f"property double z\nelement face {len(polygons)}\nproperty list uchar int vertex_indices\nend_header\n"
    text = (header + data.draw(wrapped(flat(vertices, polygons)))).replace("\n", end)
    found = read(read_mesh, "a.ply", text.encode(mark))
    np.testing.assert_array_equal(found.vertices, vertices)
    assert found.faces.tolist() == fans(polygons)
    np.testing.assert_array_equal(read(read_points, "a.ply", text.encode(mark)).points, vertices)


@given(
    meshes(),
    st.sampled_from(["<", ">"]),
    st.booleans(),
    st.sampled_from("BHIi"),
    st.binary(max_size=9),
    LINE_END,
)
def test_a_binary_ply(mesh, order, faces_first, count, behind, end):
    vertices, polygons = mesh
    kinds = {"B": "uchar", "H": "ushort", "I": "uint", "i": "int"}
    vertex = f"element vertex {len(vertices)}\nproperty float x\nproperty float y\nproperty uchar k\nproperty float z\n"
    face = f"element face {len(polygons)}\nproperty short s\nproperty list {kinds[count]} int vertex_index\n"
    bodies = [
        b"".join(struct.pack(f"{order}ffBf", x, y, 7, z) for x, y, z in vertices),
        b"".join(struct.pack(f"{order}h{count}{len(p)}i", -1, len(p), *p) for p in polygons),
    ]
    names = {"<": "binary_little_endian", ">": "binary_big_endian"}
    header = (
        f"ply\nformat {names[order]} 1.0\n"
        + (face + vertex if faces_first else vertex + face)
        + "end_header\n"
    )
    data = (
        header.replace("\n", end).encode()
        + b"".join(bodies[::-1] if faces_first else bodies)
        + behind
    )
    found = read(read_mesh, "a.ply", data)
    np.testing.assert_array_equal(found.vertices, vertices)
    assert found.faces.tolist() == fans(polygons)
    np.testing.assert_array_equal(read(read_points, "a.ply", data).points, vertices)


@given(meshes(), st.data(), LINE_END, MARK, st.booleans())
def test_an_off_wrapped_anywhere(mesh, data, end, mark, edges):
    vertices, polygons = mesh
    head = f"OFF\n{len(vertices)} {len(polygons)} {'0' if edges else ''}\n"
    body = (
        data.draw(wrapped(flat(vertices)))
        + "\n"
        + "".join(" ".join(flat([], [p])) + "\n" for p in polygons)
    )
    if not edges and len(body.partition("\n")[0].split()) == 1:
        return  # a number alone on the line below two counts is taken for a third
    text = (head + body).replace("\n", end).encode(mark)
    found = read(read_mesh, "a.off", text)
    np.testing.assert_array_equal(found.vertices, vertices)
    assert found.faces.tolist() == fans(polygons)
    np.testing.assert_array_equal(read(read_points, "a.off", text).points, vertices)


@given(meshes(), st.data(), LINE_END, MARK)
def test_an_obj_with_blanks_colours_comments_and_continued_lines(mesh, data, end, mark):
    vertices, polygons = mesh
    lines = []
    for kind, rows in (
        ("v", vertices.tolist()),
        ("f", [[index + 1 for index in p] for p in polygons]),
    ):
        for row in rows:
            words = [kind, *map(repr, row)]
            if kind == "v" and data.draw(st.booleans()):
                words += ["0.5", "0.25", "1"]
            if kind == "f" and data.draw(st.booleans()):
                words = [words[0], *(f"{word}/1/2" for word in words[1:])]
            if kind == "f" and data.draw(st.booleans()):
                words = [words[0], *(str(index - 1 - len(vertices)) for index in row)]
            gap = data.draw(st.sampled_from([" ", "\t", " \\\n "]))
            line = data.draw(st.sampled_from(["", " ", "\t"])) + gap.join(words)
            lines.append(
                line + data.draw(st.sampled_from(["", " ", " # v 1 2 3", "\nvt 0 0", "\ng a b"]))
            )
    text = "\n".join(lines).replace("\n", end).encode(mark)
    found = read(read_mesh, "a.obj", text)
    np.testing.assert_array_equal(found.vertices, vertices)
    assert found.faces.tolist() == fans(polygons)
    np.testing.assert_array_equal(read(read_points, "a.obj", text).points, vertices)


@given(
    POINTS, LINE_END, MARK, st.sampled_from([" ", "\t", ",", ", ", ";", " ; "]), st.sampled_from("eEdD"), st.booleans(),
    st.sampled_from(["", "x y z\n", "# points\n", "count\n", '"X"{0}"Y"{0}"Z"\n']), st.booleans(),
)  # fmt: skip
def test_a_table_of_points(points, end, mark, separator, exponent, decimal_comma, head, quoted):
    head = head.replace("count", str(len(points))).format(separator)
    rows = [[f"{value:.17e}".replace("e", exponent) for value in row] for row in points]
    if decimal_comma and "," not in separator:
        rows = [[word.replace(".", ",") for word in row] for row in rows]
    if quoted:
        rows = [[f'"{word}"' for word in row] for row in rows]
    text = (head + "".join(separator.join(row) + "\n" for row in rows)).replace("\n", end)
    np.testing.assert_array_equal(read(read_points, "a.xyz", text.encode(mark)).points, points)


def lzf(data: bytes) -> bytes:
    """LZF with a repetition wherever the last four bytes come again, and literal bytes elsewhere."""
    out, place = b"", 0
    while place < len(data):
        length = 0
        while (
            place >= 4
            and length < 200
            and data[place + length : place + length + 1]
            == data[place - 4 + length : place - 3 + length]
            != b""
        ):
            length += 1
        if length >= 9:
            out += bytes([7 << 5, length - 9, 3])
        else:
            length = min(4, len(data) - place)
            out += bytes([length - 1]) + data[place : place + length]
        place += length
    return out


@given(POINTS, st.sampled_from(["ascii", "binary", "binary_compressed", "stored"]), st.booleans())
def test_a_pcd(points, encoding, double):
    kind = "<f8" if double else "<f4"
    data = "binary_compressed" if encoding == "stored" else encoding
    header = f"VERSION .7\nFIELDS x _ y z\nSIZE {kind[2]} 1 {kind[2]} {kind[2]}\nTYPE F U F F\nCOUNT 1 3 1 1\n"
    header += f"WIDTH {len(points)}\nHEIGHT 1\nPOINTS {len(points)}\nDATA {data}\n"
    table = np.zeros(len(points), dtype=[("x", kind), ("_", "u1", 3), ("y", kind), ("z", kind)])
    for axis, name in enumerate("xyz"):
        table[name] = points[:, axis]
    columns = b"".join(table[name].tobytes() for name in table.dtype.names)
    body = {
        "ascii": "".join(f"{x!r} 0 0 0 {y!r} {z!r}\n" for x, y, z in points.tolist()).encode(),
        "binary": table.tobytes(),
        "binary_compressed": struct.pack("<II", len(lzf(columns)), len(columns)) + lzf(columns),
        "stored": struct.pack("<II", len(columns), len(columns)) + columns,
    }[encoding]
    np.testing.assert_array_equal(read(read_points, "a.pcd", header.encode() + body).points, points)


@given(meshes(most=3), st.booleans(), st.integers(0, 3), LINE_END)
def test_an_stl(mesh, binary, parts, end):
    vertices, faces = mesh
    soup = vertices[np.array(faces)].astype(np.float32)
    solids = np.array_split(soup, parts + 1)
    if binary:
        data = b"".join(
            bytes(80) + struct.pack("<I", len(s)) + b"".join(bytes(12) + t.tobytes() + bytes(2) for t in s)
            for s in solids if len(s)
        )  # fmt: skip
    else:
        text = ""
        for number, solid in enumerate(solids):
            text += f"solid größe {number}\n"
            for triangle in solid.tolist():
                text += "facet normal 0 0 1\nouter loop\n"
                text += (
                    "".join(f"vertex {x!r} {y!r} {z!r}\n" for x, y, z in triangle)
                    + "endloop\nendfacet\n"
                )
            text += f"endsolid größe {number}\n"
        data = text.replace("\n", end).encode("latin-1")
    found = read(read_mesh, "a.stl", data)
    np.testing.assert_array_equal(found.vertices[found.faces], soup)
    assert len(np.unique(found.vertices, axis=0)) == len(found.vertices)


@given(meshes(most=3), st.booleans(), st.sampled_from([np.float32, np.float64]))
def test_arrays(mesh, packed, kind):
    vertices, faces = mesh
    vertices = vertices.astype(kind)
    save = np.savez_compressed if packed else np.savez
    arguments = {"vertices": vertices, "faces": np.array(faces), "viewpoint": vertices[0]}
    found = written(read_mesh, "a.npz", lambda path: save(path, **arguments))
    np.testing.assert_array_equal(found.vertices, vertices)
    assert found.faces.tolist() == faces
    viewpoint = written(load_viewpoint, "a.npz", lambda path: save(path, **arguments))
    np.testing.assert_array_equal(viewpoint, vertices[0])
    for order in "CF":
        points = written(
            read_points,
            "a.npy",
            lambda path, order=order: np.save(path, np.asarray(vertices, order=order)),
        )
        np.testing.assert_array_equal(points.points, vertices)


@given(meshes(most=3))
def test_a_glb(mesh):
    import trimesh

    vertices, faces = mesh
    data = trimesh.Trimesh(vertices, faces, process=False).export(file_type="glb")
    found = read(read_mesh, "a.glb", data)
    np.testing.assert_array_equal(found.vertices, vertices.astype(np.float32))
    assert found.faces.tolist() == faces


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
LEAVES = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | TEXTS
)
KEYS = TEXTS | st.integers(-9, 9) | st.tuples(TEXTS, st.integers(0, 9))
VALUES = st.recursive(
    LEAVES | arrays(np.float32, st.integers(0, 4), elements=COORDINATE),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=8,
)


def assert_same(found, expected) -> None:
    if isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert type(found) is type(expected) and len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected and type(found) is type(expected)


@given(VALUES, st.booleans(), st.integers(2, 4))
def test_a_torch_file(value, zipped, protocol):
    def write(path):
        torch.save(
            {"a": value}, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol
        )

    assert_same(written(read_torch_file, "a.pth", write), {"a": value})


@given(POINTS, st.booleans(), st.booleans())
def test_a_pickled_fragment_and_weights(points, zipped, tensor):
    def save(what):
        return lambda path: torch.save(what, path, _use_new_zipfile_serialization=zipped)

    value = torch.from_numpy(points) if tensor else points
    np.testing.assert_array_equal(written(load_fragment, "a.pth", save(value)), points)
    state = written(read_state, "a.pth", save({"_orig_mod.a.weight": value, "empty": np.array([])}))
    assert list(state) == ["a.weight"]
    np.testing.assert_array_equal(state["a.weight"].numpy(), points)


@given(
    st.lists(
        st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 10**6)),
        min_size=1,
        max_size=5,
    ),
    MARK,
    LINE_END,
)
def test_logs(blocks, mark, end):
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation * np.linalg.det(rotation), [1e6, -1e-6, 0.1]
    information = rng.uniform(1, 2, (6, 6))
    for reader, writer, matrix in (
        (read_log, write_log, pose),
        (read_info, write_info, information),
    ):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "gt.log"
            writer(path, [(*block, matrix) for block in blocks])
            path.write_bytes(path.read_text().replace("\n", end).encode(mark))
            found = reader(path)
        assert [block[:3] for block in found] == blocks
        assert all(np.array_equal(block.matrix, matrix) for block in found)


@given(
    st.dictionaries(st.tuples(st.integers(0, 99), st.integers(0, 99)), st.floats(0, 1), min_size=1),
    MARK,
    LINE_END,
)
def test_lists_of_overlaps(overlaps, mark, end):
    text = "".join(f"{i},{j},{share!r}\n" for (i, j), share in overlaps.items()).replace("\n", end)
    assert read(read_overlaps, "gt_overlap.log", text.encode(mark)) == overlaps


NAMES = st.lists(st.text("abcdeé_-09", min_size=1, max_size=6), min_size=2, max_size=5, unique=True)


@given(NAMES, st.lists(st.integers(1, 2**40), min_size=1), MARK, LINE_END)
def test_lists_of_names_labels_landmarks_and_pairs(names, numbers, mark, end):
    text = "".join(name + end for name in names).encode(mark)
    assert read(read_names, "names.txt", text) == names
    assert read(read_scene_list, "scenes.txt", text) == names
    text = "".join(f"{number}{end}" for number in numbers).encode(mark)
    assert read(read_integers, "a.txt", text).tolist() == numbers
    assert (read(read_landmarks, "a.vts", text) + 1).tolist() == numbers
    text = f"{names[0]} {names[1]}{end}{names[-1]} {names[0]}{end}".encode(mark)
    assert read(lambda path: read_pairs(path, names), "pairs.txt", text) == (
        (0, 1),
        (len(names) - 1, 0),
    )


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False)
    | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(PLAIN)
def test_yaml(value):
    assert yaml12.parse(yaml12.dump(value), "a.yaml")[0] == value


@given(st.integers(), st.lists(st.text(max_size=5)), st.floats(allow_nan=False), PLAIN)
def test_configurations(seed, scenes, lr, anything):
    config = Config(seed=seed, scenes=scenes, anything=anything)
    config.optimizer.lr = lr
    assert (
        written(
            lambda path: load_config(Config, path), "a.yaml", lambda path: save_config(path, config)
        )
        == config
    )
