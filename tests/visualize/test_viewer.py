"""The viewer's page, without a browser: what it holds, what it says, who may ask for it."""

from __future__ import annotations

import base64
import html
import html.parser
import http.client
import json
import re
import socket
import struct
import zlib

import numpy as np
import pytest

import sparsefeat
from sparsefeat.cli import view as tool
from sparsefeat.io.meshes import Mesh
from sparsefeat.io.pointcloud import PointCloud, write_ply
from sparsefeat.visualize.viewer import Matches, Page, ReceptiveField, view
from sparsefeat.visualize.viewer.page import script_json
from sparsefeat.visualize.viewer.quantize import NO_FEATURE, quantize_features
from sparsefeat.visualize.viewer.scene import build_scene, thin_evenly
from sparsefeat.visualize.viewer.serve import PageServer
from sparsefeat.visualize.viewer.shapes import as_shapes

RNG = np.random.default_rng(0)
POINTS = RNG.random((300, 3)) * [4.0, 2.0, 3.0] + [500_000.0, 0.0, 0.0]
CORNERS = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
EVIL = "</script><script>alert(1)</script><!--&\"'"


def contents(page: str) -> tuple[dict, list[np.ndarray]]:
    """The description and the arrays of a page, read as a browser reads them."""
    elements = {}

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag, attributes):
            self.current = dict(attributes).get("id") if tag == "script" else None

        def handle_data(self, data):
            if self.current:
                elements[self.current] = elements.get(self.current, "") + data

        def handle_endtag(self, tag):
            self.current = None

    reader = Reader()
    reader.current = None
    reader.feed(page)
    description = json.loads(elements["description"])
    raw = zlib.decompress(base64.b64decode(elements["data"]))
    arrays = []
    for entry in description["arrays"]:
        count = int(np.prod(entry["shape"]))
        kind = np.dtype(entry["type"]).newbyteorder("<")
        assert entry["offset"] % kind.itemsize == 0
        arrays.append(np.frombuffer(raw, kind, count, entry["offset"]).reshape(entry["shape"]))
    return description, arrays


def page_of(*args, **options) -> tuple[dict, list[np.ndarray]]:
    return contents(Page(build_scene(*args, **options)).html)


# ---- what is carried


def test_points_and_faces_arrive_as_they_were_given():
    description, arrays = page_of([POINTS, (CORNERS, FACES)], names=["cloud", "mesh"])
    cloud, mesh = description["shapes"]
    for shape, expected in ((cloud, POINTS), (mesh, CORNERS)):
        found = arrays[shape["position"]] + np.array(shape["center"])
        assert np.abs(found - expected).max() < 1e-6
    assert cloud["index"] is None
    assert np.array_equal(arrays[mesh["index"]], FACES)
    assert [s["note"] for s in description["shapes"]] == ["", ""]


def test_distances_of_the_codes_are_those_of_the_features_within_the_error_that_is_said():
    features = [RNG.normal(size=(n, 64)) @ np.diag(0.9 ** np.arange(64)) for n in (400, 300)]
    description, arrays = page_of([RNG.random((400, 3)), RNG.random((300, 3))], features)
    said = description["features"]
    codes = [arrays[k].astype(float) * said["steps"] for k in said["arrays"]]
    assert codes[0].shape == (400, 32) and said["channels"] == 64
    exact = np.linalg.norm(features[0][:, None] - features[1][None], axis=2)
    found = np.linalg.norm(codes[0][:, None] - codes[1][None], axis=2)
    error = np.abs(found - exact).mean() / exact.mean()
    assert error == pytest.approx(said["error"], rel=0.2)
    centred = np.concatenate(features) - np.concatenate(features).mean(0)
    energy = np.linalg.eigvalsh(centred.T @ centred)[::-1]
    assert said["variance"] == pytest.approx(energy[:32].sum() / energy.sum())


def test_few_channels_lose_only_the_rounding():
    features = RNG.normal(size=(500, 3))
    coded = quantize_features([features])
    found = coded.codes[0] * coded.steps
    exact = np.linalg.norm(features - features[0], axis=1)
    inside = np.abs(coded.codes[0]).max(1) < 127
    error = np.abs(np.linalg.norm(found - found[0], axis=1) - exact)[inside]
    assert error.max() <= 2 * np.linalg.norm(coded.steps)
    assert coded.variance == pytest.approx(1)


def test_a_row_without_a_feature_is_marked():
    features = RNG.normal(size=(50, 4))
    features[7, 2] = np.nan
    codes = quantize_features([features]).codes[0]
    assert (codes[:, 0] == NO_FEATURE).nonzero()[0].tolist() == [7]


def test_equal_features_do_not_divide_by_zero():
    description, arrays = page_of(POINTS, np.ones((300, 5)))
    assert description["features"]["variance"] == 1 and description["features"]["error"] == 0
    assert (arrays[description["features"]["arrays"][0]] == 0).all()


def test_labels_have_names_and_colours_and_no_empty_classes():
    labels = np.repeat([4, -1, 2], 100)
    names = ["a", "b", "two", "c", "four"]
    description, arrays = page_of(POINTS, labels=labels, label_names=names)
    layer = next(k for k in description["layers"] if k["kind"] == "labels")
    assert [c["name"] for c in layer["classes"]] == ["no label", "two", "four"]
    shown = [layer["classes"][k]["name"] for k in arrays[layer["arrays"][0]]]
    assert shown == ["four"] * 100 + ["no label"] * 100 + ["two"] * 100
    assert len({tuple(c["color"]) for c in layer["classes"]}) == 3


def test_labels_may_be_words_and_several_layers():
    words = np.array(["leg", "arm"] * 150)
    description, arrays = page_of(POINTS, labels={"true": words, "predicted": words[::-1]})
    first, second = (k for k in description["layers"] if k["kind"] == "labels")
    assert [first["name"], second["name"]] == ["true", "predicted"]
    assert [c["name"] for c in first["classes"]] == ["arm", "leg"]
    assert arrays[first["arrays"][0]][0] == 1 and arrays[second["arrays"][0]][0] == 0


def test_a_map_carries_the_colours_of_places():
    source, target = POINTS[:100], POINTS[100:]
    rows = RNG.integers(0, 200, 100)
    rows[3] = -1
    description, arrays = page_of([source, target], maps=rows)
    layer = next(k for k in description["layers"] if k["name"] == "Map")
    carried, own = (arrays[k] for k in layer["arrays"])
    known = rows >= 0
    assert np.array_equal(carried[known], own[rows[known]])
    assert description["map"]["reference"] == 1
    assert np.array_equal(arrays[description["map"]["arrays"][0]], rows)


def test_matches_end_at_their_points_whatever_is_thinned_out():
    clouds = [RNG.random((2000, 3)), RNG.random((2500, 3))]
    rows = RNG.integers(0, 2000, (40, 2))
    matches = Matches(
        rows, confidence=RNG.random(40), correct=RNG.random(40) < 0.5, source=1, target=0
    )
    description, arrays = page_of(clouds, matches=matches, max_points=500)
    found = description["matches"]
    ends = arrays[found["ends"]].reshape(40, 2, 3)
    centers = np.array([s["center"] for s in description["shapes"]])
    assert np.abs(ends[:, 0] + centers[1] - clouds[1][rows[:, 0]]).max() < 1e-6
    assert np.abs(ends[:, 1] + centers[0] - clouds[0][rows[:, 1]]).max() < 1e-6
    assert np.array_equal(arrays[found["correct"]], matches.correct)
    assert np.allclose(arrays[found["confidence"]], matches.confidence)


def test_more_matches_than_can_be_seen_are_counted():
    rows = RNG.integers(0, 300, (8000, 2))
    description, arrays = page_of([POINTS, POINTS], matches=rows)
    assert description["matches"]["total"] == 8000
    assert len(arrays[description["matches"]["confidence"]]) == 5000


# ---- thinning


def test_a_large_cloud_is_thinned_evenly_and_the_page_says_so():
    points = RNG.random((40_000, 3)) * [1, 1, 0]
    features = RNG.normal(size=(40_000, 8))
    description, arrays = page_of(points, features, max_points=5000)
    shape = description["shapes"][0]
    rows = arrays[shape["rows"]]
    shown = f"{len(rows):,}".replace(",", "\u202f")
    assert shape["note"] == f"thinned: {shown} of 40\u202f000 points drawn"
    assert shape["points"] == 40_000 and 4500 < len(rows) <= 5000
    assert np.abs(arrays[shape["position"]] + shape["center"] - points[rows]).max() < 1e-6
    assert len(arrays[description["features"]["arrays"][0]]) == len(rows)
    # Evenly: of the squares of a board, none is empty (with 12 points to a square, by chance 6 in a million are).
    assert np.unique(np.floor(points[rows, :2] * 20) @ [20, 1]).size == 400


@pytest.mark.parametrize("most", [1, 7, 999])
def test_thinning_keeps_at_most_what_was_asked_for(most):
    points = RNG.random((1000, 3))
    rows = thin_evenly(points, most)
    assert 1 <= len(rows) <= most and (np.diff(rows) > 0).all()
    assert np.array_equal(thin_evenly(points, 1000), np.arange(1000))
    assert len(thin_evenly(np.zeros((50, 3)), 10)) == 1


@pytest.mark.parametrize("away", [1e5, 1e9])
def test_a_stray_point_far_away_leaves_the_others_in_the_page(away):
    points = np.random.default_rng(1).random((20_000, 3))
    points[7] = away
    rows = thin_evenly(points, 2000)
    assert 1900 <= len(rows) <= 2000 and 7 in rows and len(np.unique(rows)) == len(rows)
    description, arrays = page_of(points, max_points=2000)
    shape = description["shapes"][0]
    shown = arrays[shape["position"]] + np.array(shape["center"])
    rows = arrays[shape["rows"]]
    np.testing.assert_allclose(shown[rows != 7], points[rows[rows != 7]], atol=1e-6)


def test_a_mesh_too_large_to_draw_becomes_points_and_says_so():
    grid = np.stack(np.meshgrid(np.arange(50.0), np.arange(50.0), [0.0]), -1).reshape(-1, 3)
    faces = np.array([[k, k + 1, k + 50] for k in range(2400)])
    shape = page_of((grid, faces), max_points=1200)[0]["shapes"][0]
    assert shape["index"] is None and "vertices, without faces" in shape["note"]


def test_points_without_coordinates_are_left_out_and_counted():
    points = POINTS.copy()
    points[[5, 9]] = np.nan
    description, arrays = page_of(points, RNG.normal(size=(300, 4)))
    shape = description["shapes"][0]
    assert shape["note"] == "2 points without coordinates left out"
    assert np.array_equal(arrays[shape["rows"]], np.delete(np.arange(300), [5, 9]))


# ---- what may be a shape


class TrimeshLike:
    vertices, faces = CORNERS, FACES

    class visual:
        kind = "vertex"
        vertex_colors = np.full((4, 4), 200, dtype=np.uint8)


class Open3dMesh:
    vertices, triangles, vertex_colors = CORNERS, FACES, np.ones((4, 3))


class Open3dCloud:
    points, colors = POINTS, np.zeros((300, 3))


@pytest.mark.parametrize(
    ("given", "faces", "color"),
    [
        (POINTS, False, None),
        (POINTS.tolist(), False, None),
        ((CORNERS, FACES), True, None),
        (Mesh(CORNERS, FACES), True, None),
        (PointCloud(POINTS, np.full((300, 3), 9, np.uint8), "a/b.ply"), False, 9),
        (TrimeshLike(), True, 200),
        (Open3dMesh(), True, 255),
        (Open3dCloud(), False, 0),
    ],
)
def test_shapes_of_any_library(given, faces, color):
    (shape,) = as_shapes(given)
    assert (shape.faces is not None) == faces
    assert shape.colors is None if color is None else (shape.colors == color).all()


def test_tensors_and_a_list_of_clouds():
    torch = pytest.importorskip("torch")
    shapes = as_shapes(
        [torch.from_numpy(POINTS), (torch.from_numpy(CORNERS), torch.from_numpy(FACES))]
    )
    assert [s.faces is None for s in shapes] == [True, False]
    # Two clouds in a tuple are two clouds, since coordinates have fractions.
    assert len(as_shapes((POINTS, POINTS))) == 2


def test_files_are_clouds_or_meshes_as_they_have_faces(tmp_path):
    write_ply(tmp_path / "cloud.ply", CORNERS, np.full((4, 3), 7, np.uint8))
    np.savez(tmp_path / "features.npz", points=CORNERS, features=np.arange(8.0).reshape(4, 2))
    np.savez(tmp_path / "mesh.npz", vertices=CORNERS, faces=FACES)
    lines = [f"v {x} {y} {z}" for x, y, z in CORNERS]
    (tmp_path / "cloud.obj").write_text("\n".join(lines))
    (tmp_path / "mesh.obj").write_text(
        "\n".join(lines + [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in FACES])
    )
    names = ["cloud.ply", "features.npz", "mesh.npz", "cloud.obj", "mesh.obj"]
    shapes = as_shapes([tmp_path / name for name in names])
    assert [s.faces is not None for s in shapes] == [False, False, True, False, True]
    assert [s.name for s in shapes] == names
    assert (shapes[0].colors == 7).all() and shapes[1].features.shape == (4, 2)


def test_meshes_have_the_colours_and_features_of_their_files(tmp_path):
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [51, 102, 204]], np.uint8)
    features = np.arange(8.0).reshape(4, 2)
    corners = [" ".join(map(str, row)) for row in CORNERS]
    rows = ["{} {} {}".format(*row) for row in colors]
    off = [f"{c} {r} 255" for c, r in zip(corners, rows, strict=True)]
    off += [f"3 {a} {b} {c}" for a, b, c in FACES]
    (tmp_path / "mesh.off").write_text("COFF\n4 4 0\n" + "\n".join(off) + "\n")
    obj = [f"v {c} {' '.join(map(str, r))}" for c, r in zip(corners, colors / 255, strict=True)]
    obj += [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in FACES]
    (tmp_path / "mesh.obj").write_text("\n".join(obj))
    np.savez(tmp_path / "mesh.npz", vertices=CORNERS, faces=FACES, colors=colors, features=features)
    np.savez(
        tmp_path / "two.npz", points=CORNERS[:2], vertices=CORNERS, faces=FACES, colors=colors[:2]
    )
    shapes = as_shapes(
        [tmp_path / name for name in ("mesh.off", "mesh.obj", "mesh.npz", "two.npz")]
    )
    assert all(len(shape.faces) == 4 for shape in shapes)
    for shape in shapes[:3]:
        np.testing.assert_array_equal(shape.colors, colors)
    assert shapes[3].colors is None
    np.testing.assert_array_equal(shapes[2].features, features)
    assert shapes[0].features is None


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ([], {}, "no shape given"),
        (np.zeros((4, 2)), {}, r"\(4, 2\) of float64, expected points \(N, 3\)"),
        (np.full((4, 3), np.nan), {}, "no finite point"),
        ("nowhere.ply", {}, "nowhere.ply: no such file"),
        ("thing.doc", {}, "unknown suffix '.doc'"),
        (object(), {}, "object, expected a path, points"),
        ((CORNERS, FACES + 9), {}, "name a vertex that is not there"),
        (
            POINTS,
            {"features": np.ones((3, 4))},
            r"features of shape 0: shape \(3, 4\), expected \(300, C\)",
        ),
        (POINTS, {"features": np.full((300, 4), np.nan)}, "no finite row"),
        ([POINTS, POINTS], {"features": POINTS}, "a list of 2, one per shape"),
        ([POINTS, POINTS], {"features": [POINTS, POINTS[:, :2]]}, r"\[2, 3\] channels"),
        (POINTS, {"labels": np.full(300, 0.5)}, "labels have fractions"),
        (
            POINTS,
            {"labels": np.zeros(2, int)},
            r"Labels of shape 0: shape \(2,\), expected \(300,\)",
        ),
        (POINTS, {"values": {"error": np.zeros(2)}}, "error of shape 0"),
        ([POINTS, POINTS], {"matches": [[0, 300]]}, "beyond the 300 points of shape 1"),
        (POINTS, {"matches": [[0, 0]]}, "shape 1, expected 0 to 0"),
        ([POINTS, POINTS], {"matches": [[0, 0]], "confidence": [1, 2]}, "one per match"),
        ([POINTS, POINTS], {"matches": [[0, 0]], "confidence": [np.inf]}, "not finite"),
        ([POINTS, POINTS], {"maps": np.full(300, 300)}, "rows 0 to 299 of shape 1"),
        ([POINTS, POINTS], {"transforms": [np.eye(4)]}, "2 shapes but 1 transforms"),
        (POINTS, {"transforms": np.ones((4, 4))}, "end in the row 0 0 0 1"),
        (POINTS, {"receptive_field": -1}, "expected a positive size"),
        (POINTS, {"receptive_field": ReceptiveField(1, form="egg")}, "expected cube or sphere"),
        (POINTS, {"up": "w"}, "up: expected one of"),
        (POINTS, {"names": ["a", "b"]}, "1 shapes but 2 names"),
        (POINTS, {"max_points": 0}, "expected at least 1"),
    ],
)
def test_what_cannot_be_shown_is_said_in_one_line(tmp_path, given, options, message):
    with pytest.raises(sparsefeat.InputError, match=message) as error:
        view(given, html=tmp_path / "page.html", **options)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


# ---- the page


def test_no_text_of_the_data_can_become_markup():
    page = Page(
        build_scene(POINTS, names=[EVIL], title=EVIL, unit=EVIL, labels=np.repeat([EVIL], 300))
    ).html
    assert "alert(1)</script>" not in page and "<!--&" not in page
    description, _ = contents(page)
    assert description["title"] == EVIL and description["shapes"][0]["name"] == EVIL
    assert json.loads(script_json(EVIL)) == EVIL
    assert not set("<>&") & set(script_json(EVIL))


def test_every_script_is_one_of_ours_and_nothing_is_fetched():
    page = Page(build_scene(POINTS)).html
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "connect-src" not in policy
    nonce = re.search(r"script-src 'nonce-([0-9a-f]{32})'", policy)[1]
    scripts = re.findall(r"<script([^>]*)>", page)
    assert len(scripts) == 4
    for attributes in scripts:
        data = 'type="application/json"' in attributes or 'type="text/plain"' in attributes
        assert data or f'nonce="{nonce}"' in attributes
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "Permission is hereby granted" in page


def test_equal_data_give_equal_pages_and_other_data_another_nonce():
    first, again, other = (Page(build_scene(p)).html for p in (POINTS, POINTS, POINTS + 1))
    assert first == again
    nonces = [re.search(r"nonce-(\w+)", page)[1] for page in (first, other)]
    assert nonces[0] != nonces[1]


def test_in_a_notebook_the_page_is_a_frame_that_cannot_reach_out():
    page = Page(build_scene(POINTS))
    frame = page._repr_html_()
    assert html.unescape(re.search(r'srcdoc="([^"]*)"', frame)[1]) == page.html
    assert re.search(r'sandbox="([^"]*)"', frame)[1].split() == ["allow-scripts", "allow-downloads"]


def test_html_writes_one_file(tmp_path):
    page = sparsefeat.view(POINTS, html=tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page.html
    with pytest.raises(sparsefeat.InputError, match="nowhere"):
        sparsefeat.view(POINTS, html=tmp_path / "nowhere" / "page.html")


# ---- served


def get(port: int, path: str, host: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers={"Host": host})
    answer = connection.getresponse()
    answer.body = answer.read()
    connection.close()
    return answer


def test_the_page_is_served_to_this_machine_only():
    page = Page(build_scene(POINTS))
    with page.serve() as server:
        assert server._server.server_address[0] == "127.0.0.1"
        path = "/" + server.url.split("/", 3)[3]
        answer = get(server.port, path, f"127.0.0.1:{server.port}")
        assert answer.status == 200 and answer.body.decode() == page.html
        # Another user of the machine does not know the path; a web site comes under its own name.
        assert get(server.port, "/", f"localhost:{server.port}").status == 404
        assert get(server.port, path, f"example.org:{server.port}").status == 403
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=2)


def test_a_browser_that_leaves_is_no_error(capfd):
    with PageServer("x" * 20_000_000) as server:
        path = "/" + server.url.split("/", 3)[3]
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost:1\r\n\r\n".encode())
            assert connection.recv(15) == b"HTTP/1.0 200 OK"
            hang_up = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, hang_up)
        assert get(server.port, path, "localhost:1").status == 200
    assert capfd.readouterr().err == ""


def test_a_port_that_is_taken_is_said():
    page = Page(build_scene(POINTS))
    with page.serve() as server, pytest.raises(sparsefeat.InputError, match=f"port {server.port}"):
        page.serve(server.port)
    with pytest.raises(sparsefeat.InputError, match="port 70000"):
        page.serve(70000)


# ---- the tool


def test_the_tool_writes_a_page_with_features_and_labels(tmp_path, capsys):
    write_ply(tmp_path / "a.ply", POINTS)
    np.savez(tmp_path / "a.npz", features=RNG.normal(size=(300, 6)))
    (tmp_path / "labels.txt").write_text("\n".join(["leg"] * 200 + ["arm"] * 100) + "\n")
    options = ["--features", f"{tmp_path}/a.npz", "--labels", f"{tmp_path}/labels.txt"]
    assert tool.main([f"{tmp_path}/a.ply", "--html", f"{tmp_path}/page.html", *options]) == 0
    description, arrays = contents((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert description["features"]["channels"] == 6
    layer = next(k for k in description["layers"] if k["kind"] == "labels")
    assert [c["name"] for c in layer["classes"]] == ["arm", "leg"]
    assert arrays[layer["arrays"][0]].tolist() == [1] * 200 + [0] * 100
    assert capsys.readouterr().out.strip() == f"{tmp_path}/page.html written"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nowhere.ply"], "nowhere.ply: no such file"),
        (
            ["{a}", "--labels", "nowhere.txt"],
            "nowhere.txt: cannot be read .No such file or directory",
        ),
        (["{a}", "--features", "{a}"], "not a complete npy file of numbers"),
        (["{a}", "{a}", "--labels", "{labels}"], "--labels: 1 files for 2 inputs"),
        (["{a}", "--labels", "{labels}"], r"Labels of a.ply: shape \(2,\), expected \(300,\)"),
        (["{a}", "--features", "{empty}"], "it has the keys points, expected features"),
    ],
)
def test_the_tool_says_in_one_line_what_is_wrong(tmp_path, capsys, options, message):
    write_ply(tmp_path / "a.ply", POINTS)
    (tmp_path / "labels.txt").write_text("1\n2\n")
    np.savez(tmp_path / "empty.npz", points=POINTS)
    paths = {
        "a": tmp_path / "a.ply",
        "labels": tmp_path / "labels.txt",
        "empty": tmp_path / "empty.npz",
    }
    assert (
        tool.main([*(o.format(**paths) for o in options), "--html", f"{tmp_path}/page.html"]) == 2
    )
    said = capsys.readouterr().err.strip()
    assert re.search(message, said) and "\n" not in said
    assert not (tmp_path / "page.html").exists()


def test_a_label_of_many_digits_is_a_name(tmp_path):
    (tmp_path / "labels.txt").write_text("1\n99999999999999999999\n")
    assert tool.read_labels(tmp_path / "labels.txt").tolist() == ["1", "99999999999999999999"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--html", "no/such/folder/page.html"], "expected a file in a folder that exists"),
        (["--html", "a.ply"], "--html a.ply: expected a name that ends in .html or .htm"),
        (
            ["--html", "page.html", "--checkpoint", "", "--device", "cpu"],
            "--device: for --checkpoint alone",
        ),
        (["--html", "page.html", "--port", "5"], "--port: not with --html"),
        (["--checkpoint", "x", "--voxel-size", "0"], "--voxel-size 0.0, expected a positive"),
        (["--html", "page.html", "--max-points", "0"], "--max-points 0, expected at least 1"),
        (["--html", "page.html", "--up", "q"], "--up: invalid choice: 'q'"),
        (["--html", "page.html", "--labels", "absent.txt"], "absent.txt: cannot be read"),
    ],
)
def test_what_is_wrong_is_said_before_features_are_computed(
    tmp_path, monkeypatch, capsys, options, message
):
    def extract(*_):
        raise AssertionError("features were computed")

    monkeypatch.setattr(tool, "_extract", extract)
    monkeypatch.chdir(tmp_path)
    write_ply("a.ply", POINTS)
    try:
        code = tool.main(["a.ply", "--checkpoint", "sparsefeat/rooms-5cm-v1", *options])
    except SystemExit as error:
        code = error.code
    assert code == 2 and message in capsys.readouterr().err


def test_rows_of_a_file_stay_where_points_are_invalid(tmp_path):
    points = np.arange(12.0).reshape(4, 3)
    points[1] = np.nan
    np.savez(tmp_path / "a.npz", points=points)
    (shape,) = as_shapes([tmp_path / "a.npz"])
    np.testing.assert_array_equal(shape.vertices, points)
    np.savez(tmp_path / "b.npz", points=points[[1, 1]])
    with pytest.raises(ValueError, match=r"b.npz: no points"):
        as_shapes([tmp_path / "b.npz"])


def test_features_of_a_file_with_invalid_points_leave_these_out(tmp_path):
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.random((2000, 2)), np.zeros((2000, 1))], 1)
    points[::10] = np.nan
    np.savez(tmp_path / "a.npz", points=points, viewpoint=[0.5, 0.5, 2.0])
    page = tmp_path / "a.html"
    command = [str(tmp_path / "a.npz"), "--checkpoint", "sparsefeat/rooms-5cm-oriented-v2"]
    assert tool.main([*command, "--html", str(page)]) == 0
    shape = sparsefeat.io.pointcloud.read_points(tmp_path / "a.npz", keep_invalid=True)
    args = tool.parse([*command, "--html", str(page)])
    (features,), _ = tool._extract(args, as_shapes([tmp_path / "a.npz"]))
    valid = np.isfinite(shape.points).all(1)
    assert np.isfinite(features[valid]).all() and np.isnan(features[~valid]).all()
