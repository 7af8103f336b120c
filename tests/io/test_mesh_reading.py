"""Meshes from files: in the file's order, refused where they cannot be used, and repairs are said."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import trimesh

from sparsefeat.mesh import read_mesh

RNG = np.random.default_rng(0)
VERTICES = RNG.normal(size=(12, 3)).astype(np.float32).astype(np.float64)
FACES = np.array([[0, 1, 2], [2, 1, 3], [11, 10, 9], [4, 8, 5], [7, 6, 11]])


def write(path, vertices=VERTICES, faces=FACES) -> None:
    suffix = path.suffix
    if suffix == ".npz":
        np.savez(path, vertices=vertices, faces=faces)
    elif suffix == ".obj":
        lines = [f"v {x} {y} {z}" for x, y, z in vertices] + [
            f"f {a + 1} {b + 1} {c + 1}" for a, b, c in faces
        ]
        path.write_text("\n".join(lines))
    elif suffix == ".off":
        lines = [
            "OFF",
            f"{len(vertices)} {len(faces)} 0",
            *(" ".join(map(str, v)) for v in vertices),
        ]
        path.write_text("\n".join([*lines, *(" ".join(map(str, [len(f), *f])) for f in faces)]))
    else:
        trimesh.Trimesh(vertices, faces, process=False).export(path)


def write_ply(path, form: str, vertices=VERTICES, polygons=FACES) -> None:
    order = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}[form]
    header = f"ply\nformat {form} 1.0\nelement vertex {len(vertices)}\n"
    header += "".join(f"property double {axis}\n" for axis in "xyz")
    header += f"element face {len(polygons)}\nproperty list uchar int vertex_indices\nend_header\n"
    if order:
        body = b"".join(struct.pack(f"{order}3d", *v) for v in vertices)
        body += b"".join(struct.pack(f"{order}B{len(p)}i", len(p), *p) for p in polygons)
    else:
        lines = [" ".join(map(repr, map(float, v))) for v in vertices]
        lines += [" ".join(map(str, [len(p), *p])) for p in polygons]
        body = ("\n".join(lines) + "\n").encode()
    path.write_bytes(header.encode() + body)


@pytest.mark.parametrize("suffix", [".ply", ".off", ".obj", ".npz", ".glb", ".PLY"])
def test_every_format_keeps_the_order_of_vertices_and_faces(tmp_path, suffix):
    path = tmp_path / f"mesh{suffix.lower()}"
    write(path)
    path = path.rename(tmp_path / f"mesh{suffix}")
    mesh = read_mesh(path)
    np.testing.assert_allclose(mesh.vertices, VERTICES, atol=1e-7)
    np.testing.assert_array_equal(mesh.faces, FACES)
    assert mesh.vertices.dtype == np.float64 and mesh.faces.dtype == np.int64
    assert mesh.repairs == () and mesh.path == path


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_every_form_of_ply(tmp_path, form):
    write_ply(tmp_path / "a.ply", form)
    mesh = read_mesh(tmp_path / "a.ply")
    np.testing.assert_array_equal(mesh.vertices, VERTICES)
    np.testing.assert_array_equal(mesh.faces, FACES)


def test_stl_corners_are_welded_and_it_is_said(tmp_path):
    write(tmp_path / "a.stl")
    mesh = read_mesh(tmp_path / "a.stl")
    np.testing.assert_allclose(mesh.vertices[mesh.faces], VERTICES[FACES], atol=1e-7)
    assert len(mesh.vertices) == len(np.unique(FACES))
    assert mesh.repairs == ("15 corners of triangles welded to 12 vertices",)


QUADS = [[0, 1, 2, 3], [3, 2, 4, 5]]
MIXED = [[0, 1, 2, 3], [3, 2, 4], [6, 7, 8, 9, 10]]


@pytest.mark.parametrize("suffix", [".off", ".obj", ".ply"])
@pytest.mark.parametrize(("polygons", "triangles"), [(QUADS, 4), (MIXED, 6)])
def test_polygons_become_triangles_of_the_same_outline(tmp_path, suffix, polygons, triangles):
    path = tmp_path / f"a{suffix}"
    if suffix == ".ply":
        write_ply(path, "ascii", polygons=polygons)
    elif suffix == ".off":
        write(path, faces=polygons)
    else:
        lines = [f"v {x} {y} {z}" for x, y, z in VERTICES]
        path.write_text(
            "\n".join(lines + ["f " + " ".join(str(i + 1) for i in p) for p in polygons])
        )
    mesh = read_mesh(path)
    assert len(mesh.faces) == triangles and len(mesh.vertices) == 12
    assert (
        len(mesh.repairs) == 1 and f"cut into {triangles - (triangles > 4)} tri" in mesh.repairs[0]
    )
    # Edges within a polygon are used once in either direction; what remains is its outline.
    edges = {tuple(e) for f in mesh.faces for e in zip(f, np.roll(f, -1), strict=True)}
    outline = {(a, b) for a, b in edges if (b, a) not in edges}
    expected = {e for p in polygons for e in zip(p, [*p[1:], p[0]], strict=True)}
    assert outline == {(a, b) for a, b in expected if (b, a) not in expected}


def test_obj_with_textures_groups_and_relative_indices(tmp_path):
    (tmp_path / "a.obj").write_text(
        "mtllib other.mtl\n# a comment\nv 0 0 0\nv 1 0 0\nvt 0 0\nvt 1 1\nvn 0 0 1\no one\nusemtl red\n"
        "v 0 1 0\nv 0 0 1\nf 1/1/1 2/2/1 3/1/1\ng two\nusemtl blue\n"
        "f -1//1 -2//1 \\\n  -4//1\nv 9 9 9\nf 1 2 4 # end\n"
    )
    mesh = read_mesh(tmp_path / "a.obj")
    assert len(mesh.vertices) == 5 and mesh.faces.tolist() == [[0, 1, 2], [3, 2, 0], [0, 1, 3]]
    assert mesh.notes == ("1 vertex in no face, kept",)


def test_parts_of_a_glb_are_joined_where_the_scene_has_them(tmp_path):
    box = trimesh.creation.box()
    scene = trimesh.Scene()
    scene.add_geometry(box, geom_name="box", node_name="here")
    scene.add_geometry(
        box,
        geom_name="box",
        node_name="there",
        transform=trimesh.transformations.translation_matrix([5, 0, 0]),
    )
    scene.export(tmp_path / "a.glb")
    mesh = read_mesh(tmp_path / "a.glb")
    assert mesh.repairs == ("2 parts joined", "1 part moved to where the scene has it")
    np.testing.assert_allclose(
        [mesh.vertices.min(0), mesh.vertices.max(0)], [[-0.5] * 3, [5.5, 0.5, 0.5]]
    )
    assert len(mesh.faces) == 24


def glb(path, primitives, nodes) -> None:
    """A file of one mesh: (vertices, indices, mode) of its primitives."""
    arrays = [
        part
        for vertices, indices, _ in primitives
        for part in (np.asarray(vertices, "<f4"), np.asarray(indices, "<u4"))
    ]
    starts = np.cumsum([0, *(a.nbytes for a in arrays)]).tolist()
    content = {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": list(range(len(nodes)))}], "nodes": nodes,
        "meshes": [{"primitives": [
            {"attributes": {"POSITION": 2 * k}, "indices": 2 * k + 1, "mode": mode}
            for k, (_, _, mode) in enumerate(primitives)
        ]}],
        "buffers": [{"byteLength": starts[-1]}],
        "bufferViews": [
            {"buffer": 0, "byteOffset": start, "byteLength": a.nbytes} for start, a in zip(starts, arrays)
        ],
        "accessors": [
            {"bufferView": k, "componentType": 5125 if k % 2 else 5126, "count": len(a),
             "type": "SCALAR" if k % 2 else "VEC3"} for k, a in enumerate(arrays)
        ],
    }  # fmt: skip
    header = json.dumps(content).encode()
    header += b" " * (-len(header) % 4)
    body = b"".join(a.tobytes() for a in arrays)
    chunks = struct.pack("<I4s", len(header), b"JSON") + header
    chunks += struct.pack("<I4s", len(body), b"BIN\0") + body
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)


SQUARE = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
TRIANGLES, STRIP, FAN = 4, 5, 6


def test_parts_of_a_glb_come_in_the_order_of_the_file(tmp_path):
    path = tmp_path / "a.glb"
    heights = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]
    moved = [{"mesh": 0, "name": "same", "translation": [0, 0, z]} for z in heights]
    both = [(SQUARE[:3], [0, 1, 2], TRIANGLES), (np.add(SQUARE, [7, 0, 0]), [0, 1, 3, 2], STRIP)]
    glb(path, both, moved)
    mesh = read_mesh(path)
    expected = [
        np.add(part, [0, 0, z]) for z in heights for part in (SQUARE[:3], np.add(SQUARE, [7, 0, 0]))
    ]
    assert mesh.vertices.tolist() == np.concatenate(expected).tolist()
    assert mesh.faces[:3].tolist() == [[0, 1, 2], [3, 4, 6], [5, 6, 4]]


def test_primitives_of_a_glb_that_are_no_triangles_are_said_or_refused(tmp_path):
    path = tmp_path / "a.glb"
    triangle = (SQUARE[:3], [0, 1, 2], TRIANGLES)
    for mode in range(4):
        glb(path, [triangle, (SQUARE, [0, 1, 2, 3], mode)], [{"mesh": 0}])
        mesh = read_mesh(path)
        assert mesh.vertices.tolist() == SQUARE[:3] and mesh.faces.tolist() == [[0, 1, 2]]
        assert mesh.repairs == ("1 primitive of points or lines left out",)
    glb(path, [triangle, (SQUARE, [0, 1, 2, 3], FAN)], [{"mesh": 0}])
    with pytest.raises(ValueError, match=r"a.glb: triangle fans \(primitives of mode 6\)"):
        read_mesh(path)


def test_oddities_are_said_and_left_alone(tmp_path):
    vertices = np.array(
        [
            [0, 0, 0],
            [1, 0, 0],
            [0, 1, 0],
            [0, 0, 1],
            [2, 0, 0],
            [9, 9, 9],
            [5, 5, 5],
            [6, 5, 5],
            [5, 6, 5.0],
        ]
    )
    faces = [[0, 1, 2], [0, 1, 3], [1, 0, 4], [0, 1, 1], [6, 7, 8]]
    np.savez(tmp_path / "a.npz", vertices=vertices, faces=faces)
    mesh = read_mesh(tmp_path / "a.npz")
    assert mesh.notes == (
        "2 faces without area, kept",
        "1 vertex in no face, kept",
        "2 components that share no vertex",
        "1 edge of more than two faces (non-manifold)",
    )
    assert mesh.faces.tolist() == faces and mesh.repairs == () and len(mesh.vertices) == 9


@pytest.mark.parametrize("suffix", [".off", ".obj", ".npz", ".ply"])
@pytest.mark.parametrize(("index", "shown"), [(12, "12"), (-1, "-1")])
def test_indices_out_of_range_are_refused(tmp_path, suffix, index, shown):
    faces = FACES.copy()
    faces[3, 1] = index
    path = tmp_path / f"bad{suffix}"
    if suffix == ".ply":
        write_ply(path, "binary_little_endian", polygons=faces)
    elif suffix == ".obj":
        faces[3, 1] = index if index > 0 else -100
        lines = [f"v {x} {y} {z}" for x, y, z in VERTICES]
        texts = [[str(i + 1) if i >= 0 else str(i) for i in face] for face in faces]
        path.write_text("\n".join(lines + ["f " + " ".join(t) for t in texts]))
    else:
        write(path, faces=faces)
    with pytest.raises(ValueError, match=str(path)) as caught:
        read_mesh(path)
    assert "\n" not in str(caught.value)
    if suffix in (".npz", ".ply"):
        assert f"face 3 (from 0) with [4, {shown}, 5], expected 0 to 11" in str(caught.value)


@pytest.mark.parametrize("suffix", [".off", ".obj", ".npz", ".ply", ".glb", ".stl"])
def test_nan_is_refused(tmp_path, suffix):
    vertices = VERTICES.copy()
    vertices[10, 1] = np.nan
    write(tmp_path / f"bad{suffix}", vertices)
    with pytest.raises(
        ValueError, match=rf"bad{suffix}: .*(NaN|malformed|not a complete|were read for)"
    ):
        read_mesh(tmp_path / f"bad{suffix}")


@pytest.mark.parametrize("suffix", [".off", ".obj", ".ply"])
def test_files_without_faces_are_refused(tmp_path, suffix):
    path = tmp_path / f"cloud{suffix}"
    if suffix == ".ply":
        write_ply(path, "ascii", polygons=[])
    else:
        write(path, faces=[])
    with pytest.raises(ValueError, match="no faces, expected a triangle mesh"):
        read_mesh(path)


@pytest.mark.parametrize("suffix", [".off", ".ply", ".glb", ".stl", ".npz"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.97])
def test_files_that_are_cut_off_are_refused(tmp_path, suffix, share):
    path = tmp_path / f"cut{suffix}"
    write(path, np.tile(VERTICES, (5, 1)), np.concatenate([FACES] * 20))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=str(path)) as caught:
        read_mesh(path)
    assert "\n" not in str(caught.value)


def test_other_things_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_mesh(tmp_path / "absent.ply")
    with pytest.raises(ValueError, match="is a folder"):
        read_mesh(tmp_path)
    (tmp_path / "a.xyz").write_text("0 0 0")
    with pytest.raises(ValueError, match=r"unknown suffix '.xyz', expected one of .ply, .off"):
        read_mesh(tmp_path / "a.xyz")
    np.savez(tmp_path / "keys.npz", points=VERTICES, edges=FACES)
    with pytest.raises(ValueError, match="keys points, edges, expected one of faces, triangles"):
        read_mesh(tmp_path / "keys.npz")
    np.savez(tmp_path / "pickle.npz", vertices=np.array([{}], dtype=object), faces=FACES)
    with pytest.raises(ValueError, match="'vertices' cannot be read"):
        read_mesh(tmp_path / "pickle.npz")
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 x\n")
    with pytest.raises(ValueError, match="a.obj: line 4: malformed face 'f 1 2 x'"):
        read_mesh(tmp_path / "a.obj")
    (tmp_path / "b.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2\n")
    with pytest.raises(ValueError, match="line 4: face 'f 1 2', expected 3 or more"):
        read_mesh(tmp_path / "b.obj")


@pytest.mark.parametrize(
    ("name", "pattern", "vertices"),
    [
        ("faust", "registrations/tr_reg_00[01].ply", 6890),
        ("faust_r", "vtx_5k/tr_reg_00[01].off", None),
        ("tosca_isometric", "vtx_5k/cat[01].off", None),
        ("psb", "*/12[59].off", None),
        ("rna", "off/4V4*.off", None),
    ],
)
def test_real_meshes(dataset, name, pattern, vertices):
    paths = sorted(dataset(name).glob(pattern))[:2]
    assert paths
    for path in paths:
        mesh = read_mesh(path)
        loaded = trimesh.load(path, process=False)
        np.testing.assert_allclose(mesh.vertices, loaded.vertices, rtol=1e-6)
        np.testing.assert_array_equal(mesh.faces, loaded.faces)
        assert mesh.repairs == () and vertices in (None, len(mesh.vertices))


# --- stl ---


def ascii_stl(triangles, name: str = "thing") -> str:
    facets = "".join(
        " facet normal 0 0 0\n  outer loop\n"
        + "".join(f"   vertex {x:.9g} {y:.9g} {z:.9g}\n" for x, y, z in triangle)
        + "  endloop\n endfacet\n"
        for triangle in triangles
    )
    return f"solid {name}\n{facets}endsolid {name}\n"


def binary_stl(triangles, header: bytes = b"") -> bytes:
    body = b"".join(bytes(12) + np.asarray(t, "<f4").tobytes() + b"\1\2" for t in triangles)
    return header.ljust(80, b"\0") + struct.pack("<I", len(triangles)) + body


SOUP = VERTICES[FACES]


@pytest.mark.parametrize(
    "data",
    [
        ascii_stl(SOUP).encode(),
        (ascii_stl(SOUP[:2], "one") + ascii_stl(SOUP[2:], "two")).encode(),
        ascii_stl(SOUP, "Zahnrad größe 5 vertex 1 2 3").encode("latin-1"),
        ascii_stl(SOUP, "").upper().replace("ENDSOLID ", "endsolid").encode(),
        ascii_stl(SOUP).replace("\n", "\r\n").encode(),
        ascii_stl(SOUP).replace("\n", "\r").encode(),
        b"\xef\xbb\xbf" + ascii_stl(SOUP).encode(),
        ascii_stl(SOUP).replace("\n  ", " ").encode(),
        binary_stl(SOUP),
        binary_stl(SOUP, "solid größe".encode("latin-1")),
        binary_stl(SOUP[:2]) + binary_stl(SOUP[2:]),
        binary_stl(SOUP) + b"made by a program",
    ],
)  # fmt: skip
def test_all_solids_of_an_stl_are_one_mesh_whatever_their_names(tmp_path, data):
    (tmp_path / "a.stl").write_bytes(data)
    mesh = read_mesh(tmp_path / "a.stl")
    np.testing.assert_allclose(mesh.vertices[mesh.faces], SOUP, atol=1e-6)
    assert len(mesh.vertices) == len(np.unique(FACES))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the file is empty"),
        (b"\n", "the file is empty"),
        (b"solid a\nendsolid a\n", "no vertices"),
        (binary_stl(SOUP)[:-1], "cut off, 5 triangles promised, 249 bytes are there, expected 250"),
        (binary_stl(SOUP)[:83], "cut off, 83 bytes"),
        (binary_stl([]), "no vertices"),
        (bytes(80) + b"\xff\xff\xff\xff" + bytes(50), "cut off, 4294967295 triangles promised"),
        (ascii_stl(SOUP).encode()[:-20], "cut off"),
        (ascii_stl(SOUP).encode()[:300], "cut off"),
        (ascii_stl(SOUP).partition("endsolid")[0].encode(), "cut off"),
        (ascii_stl(SOUP).replace("endloop", "vertex 1 2 3\nendloop", 1).encode(), "line 7: .*expected 'endloop'"),
        (ascii_stl([[[0, 0, 0], [1, 0, 0], [0, 1, 0]]]).replace("0 1 0", "0 l 0").encode(), "line 6: .*three numbers"),
        (b"hello, this is no stl", "cut off"),
    ],
)  # fmt: skip
def test_an_stl_that_is_cut_or_empty_says_so(tmp_path, data, said):
    (tmp_path / "a.stl").write_bytes(data)
    with pytest.raises(ValueError, match=said) as caught:
        read_mesh(tmp_path / "a.stl")
    assert "a.stl" in str(caught.value) and "\n" not in str(caught.value)


# --- ply as other programs write it ---


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("polygons", [FACES.tolist(), MIXED])
def test_headers_with_blank_lines_other_line_ends_and_bytes_behind_the_faces(
    tmp_path, form, polygons
):
    path = tmp_path / "a.ply"
    write_ply(path, form, polygons=polygons)
    expected = read_mesh(path)
    head, _, body = path.read_bytes().partition(b"end_header\n")
    variants = [
        head.replace(b"element face", b"\n\nelement face") + b"end_header\n" + body,
        (head + b"end_header\n").replace(b"\n", b"\r\n") + body,
        (head + b"end_header\n").replace(b"\n", b"\r") + body,
        b"\xef\xbb\xbf" + head + b"end_header\n" + body,
        head + b"comment TextureFile absent.png\nobj_info scanned\nend_header\n" + body,
        head + b"end_header\n" + body + (b"\0\1\2" if form != "ascii" else b"\n\n"),
    ]
    if form == "ascii":
        variants.append(head + b"end_header\n\xef\xbb\xbf" + body)
    for data in variants:
        path.write_bytes(data)
        mesh = read_mesh(path)
        np.testing.assert_array_equal(mesh.vertices, expected.vertices)
        np.testing.assert_array_equal(mesh.faces, expected.faces)


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian"])
def test_strips_of_triangles_have_one_side_out(tmp_path, form):
    strips = [[0, 1, 2, 3, 4, -1, 5, 6, 7], [8, 9, 9, 10, 11]]
    write_ply(tmp_path / "a.ply", form, polygons=strips)
    data = (tmp_path / "a.ply").read_bytes()
    (tmp_path / "a.ply").write_bytes(data.replace(b"element face", b"element tristrips"))
    mesh = read_mesh(tmp_path / "a.ply")
    # Every second triangle of a strip is turned; the triangles without area are not there.
    assert mesh.faces.tolist() == [[0, 1, 2], [2, 1, 3], [2, 3, 4], [5, 6, 7], [9, 10, 11]]
    assert mesh.repairs == ("strips of triangles cut into 5 triangles",)


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian"])
def test_faces_with_colours_and_textures_and_several_lists(tmp_path, form):
    path = tmp_path / "a.ply"
    order = "" if form == "ascii" else "<"
    header = f"ply\nformat {form} 1.0\nelement vertex 12\n" + "".join(
        f"property double {a}\n" for a in "xyz"
    )
    header += "element face 5\nproperty uchar red\nproperty list uchar uint vertex_index\n"
    header += "property list uchar float texcoord\nend_header\n"
    polygons = [[0, 1, 2], [2, 1, 3, 4], [11, 10, 9], [4, 8, 5], [7, 6, 11]]
    data = header.encode()
    if form == "ascii":
        data += "".join(" ".join(map(repr, map(float, v))) + "\n" for v in VERTICES).encode()
        data += "".join(
            f"9 {len(p)} {' '.join(map(str, p))} 2 0.5 0.5\n" for p in polygons
        ).encode()
    else:
        data += VERTICES.astype("<f8").tobytes()
        data += b"".join(
            struct.pack(f"{order}BB{len(p)}IB2f", 9, len(p), *p, 2, 0.5, 0.5) for p in polygons
        )
    path.write_bytes(data)
    mesh = read_mesh(path)
    np.testing.assert_array_equal(mesh.vertices, VERTICES)
    assert mesh.faces.tolist() == [
        [0, 1, 2],
        [2, 1, 3],
        [2, 3, 4],
        [11, 10, 9],
        [4, 8, 5],
        [7, 6, 11],
    ]


def test_faces_of_two_corners_and_faces_without_a_list_are_refused(tmp_path):
    write_ply(tmp_path / "a.ply", "ascii", polygons=[[0, 1, 2], [3, 4]])
    with pytest.raises(ValueError, match="a.ply: face 1 has 2 corners, expected 3 or more"):
        read_mesh(tmp_path / "a.ply")
    write_ply(tmp_path / "b.ply", "ascii", polygons=[[0], [1]])
    text = (
        (tmp_path / "b.ply")
        .read_text()
        .replace("list uchar int vertex_indices", "int a\nproperty int b")
    )
    (tmp_path / "b.ply").write_text(text)
    with pytest.raises(
        ValueError, match="b.ply: element face has no list vertex_indices; it has a, b"
    ):
        read_mesh(tmp_path / "b.ply")


def test_a_mirrored_part_of_a_glb_stays_the_right_side_out(tmp_path):
    ball = trimesh.creation.icosphere(1)
    scene = trimesh.Scene()
    scene.add_geometry(ball, transform=np.diag([-1.0, 1, 1, 1]))
    scene.export(tmp_path / "a.glb")
    mesh = read_mesh(tmp_path / "a.glb")
    corners = mesh.vertices[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (np.einsum("fi,fi->f", normals, corners.mean(1)) > 0).all()
