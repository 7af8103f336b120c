"""Maps between shapes: an isometric copy, a mirrored start, a cloud, a part, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import connected_components
from scipy.spatial.transform import Rotation

import sparsefeat
from sparsefeat.cli.match import main
from sparsefeat.errors import InputError
from sparsefeat.heads import functional_map, map_from_points, orientation_agreement
from sparsefeat.heads.commuting_map import common_functions, commuting_functional_map
from sparsefeat.heads.functional_map import points_from_map
from sparsefeat.match import calibrate_maps, measure_maps
from sparsefeat.match.consistent import ConsistentMaps
from sparsefeat.match.correspond import _Pair, correspond_shapes, describe_pair
from sparsefeat.match.map_confidence import map_confidence
from sparsefeat.match.shapes import describe_shape, shape_extractor
from sparsefeat.mesh.geodesic import correspondence_error, geodesic_distances, geodesic_graph
from sparsefeat.synthetic.creatures import make_creature
from sparsefeat.synthetic.damage import cloud, damage_mesh

pytest.importorskip("robust_laplacian")


@pytest.fixture(scope="module")
def person():
    made = make_creature(
        "humanoid", "human", "walk", *np.random.SeedSequence(5).spawn(2), 2500, 2500
    )
    coarse = damage_mesh("remeshed", made.vertices, made.faces)
    return coarse.vertices, coarse.faces


@pytest.fixture(scope="module")
def copy(person):
    """The person turned, scaled, with vertices in another order: row k is row ``order[k]`` of the person."""
    vertices, faces = person
    order = np.random.default_rng(0).permutation(len(vertices))
    place = np.argsort(order)
    turn = Rotation.random(random_state=3).as_matrix()
    return (2.5 * vertices @ turn.T)[order], place[faces], order


@pytest.fixture(scope="module")
def described(person, copy):
    return describe_pair(person, copy[:2], shape_extractor(None))


@pytest.fixture(scope="module")
def found(described):
    return correspond_shapes(*described)


def test_an_isometric_copy_is_mapped_vertex_by_vertex(found, copy):
    order = copy[2]
    assert (order[found.vertices] == np.arange(len(order))).mean() > 0.95
    assert (found.back_vertices == order).mean() > 0.95
    assert found.confidence.shape == found.back_confidence.shape == order.shape
    assert found.confidence.min() >= 0 and found.confidence.max() <= 1
    assert found.confidence.mean() > 0.8


def test_the_mirrored_hypothesis_is_kept_and_loses(found):
    assert [h.score for h in found.hypotheses] == sorted(h.score for h in found.hypotheses)[::-1]
    direct = found.hypotheses[0]
    (mirrored,) = (h for h in found.hypotheses if h.name == "mirrored")
    assert direct.name == "direct" and mirrored.score < direct.score
    # Descriptors that know left from right draw the mirrored one back.
    assert direct.orientation > 0.9 and mirrored.orientation < 0


def test_a_mirrored_first_map_is_corrected(described, found, copy):
    a, b = described
    (mirrored,) = (h for h in found.hypotheses if h.name == "mirrored")
    start = points_from_map(mirrored.forth, b.basis, a.basis).numpy()
    order = copy[2]
    assert (order[start] == np.arange(len(order))).mean() < 0.2
    again = correspond_shapes(a, b, initial=[start])
    assert {h.name for h in again.hypotheses} == {
        "direct",
        "mirrored",
        "consistent",
        "given",
    }
    assert (order[again.vertices] == np.arange(len(order))).mean() > 0.95


def test_values_are_carried_both_ways(found, copy):
    order = copy[2]
    names = np.array([f"v{k}" for k in order])
    assert (found.carry(names) == [f"v{k}" for k in range(len(order))]).mean() > 0.95
    colors = np.random.default_rng(1).random((len(order), 3))
    assert np.isclose(found.carry_back(colors), colors[order]).all(1).mean() > 0.95
    with pytest.raises(
        InputError, match=r"values \(3,\), expected one for each of \d+ vertices of b"
    ):
        found.carry(np.zeros(3))


def test_an_orientation_of_one_is_that_of_the_same_surface_and_minus_one_of_its_mirror_image(
    described,
):
    a, _ = described
    rows = torch.arange(len(a.vertices))
    same = map_from_points(rows, a.basis.truncate(40), a.basis.truncate(40))
    assert orientation_agreement(same, rows, a.basis, a.basis).mean() > 0.99
    image = describe_shape(
        (a.vertices * [-1.0, 1.0, 1.0], a.faces[:, ::-1]), shape_extractor(None), scales=(1.0,)
    )
    matrix = map_from_points(rows, a.basis.truncate(40), image.basis.truncate(40))
    agreement = orientation_agreement(matrix, rows, a.basis, image.basis)
    assert agreement.mean() < -0.99


def test_faces_that_are_wound_inwards_change_nothing(described):
    a, _ = described
    inwards = describe_shape((a.vertices, a.faces[:, ::-1]), shape_extractor(None), scales=(1.0,))
    rows = torch.arange(len(a.vertices))
    matrix = map_from_points(rows, a.basis.truncate(40), inwards.basis.truncate(40))
    assert orientation_agreement(matrix, rows, a.basis, inwards.basis).mean() > 0.99


def test_without_operators_a_commuting_map_is_the_plain_one(described):
    a, b = described
    of_a, of_b = a.features(), b.features()
    functions = common_functions([of_a, of_b], 2)
    plain = functional_map(of_a, a.basis, of_b, b.basis, 10)
    commuting = commuting_functional_map(
        of_a, a.basis, of_b, b.basis, *functions, 10, multiplication=0, orientation=0
    )
    torch.testing.assert_close(commuting, plain, rtol=1e-6, atol=1e-6)
    with pytest.raises(InputError, match="sign 2, expected 1 or -1"):
        commuting_functional_map(of_a, a.basis, of_b, b.basis, *functions, 10, sign=2)


def test_a_cloud_is_mapped_to_a_mesh(person):
    vertices, faces = person
    scan = cloud(vertices, faces, np.random.default_rng(1), count=1200, noise=0.002)
    result = sparsefeat.correspond(scan.vertices, person, a_normals=scan.normals)
    errors = correspondence_error(vertices, faces, result.vertices, scan.kept)
    assert errors.mean() < 6


def test_a_part_is_mapped_to_its_whole_and_what_it_lacks_is_doubtful(person):
    vertices, faces = person
    part = damage_mesh("cut", vertices, faces, seed=2)
    result = sparsefeat.correspond((part.vertices, part.faces), person, partial=True)
    errors = correspondence_error(vertices, faces, result.vertices, part.kept)
    assert np.median(errors) < 6
    there = part.place >= 0
    assert result.back_confidence[there].mean() > result.back_confidence[~there].mean()
    turned = sparsefeat.correspond(person, (part.vertices, part.faces), partial=True)
    assert np.array_equal(turned.back_vertices, result.vertices)


def test_maps_of_a_part_are_found_by_distances_along_the_surface(person):
    vertices, faces = person
    part = damage_mesh("cut", vertices, faces, seed=2)
    a, b = describe_pair((part.vertices, part.faces), person, shape_extractor(None), partial=True)
    search = ConsistentMaps(a, b, (a.features(b), b.features()))
    truth = part.kept[search.here]
    along = geodesic_distances(b.unit, faces, truth)[:, truth]
    # Every path on the part is one on the whole; bounds from below leave the part at its rim and come back.
    assert (along <= search.up.numpy() + 1e-4).all()
    assert (along >= search.low.numpy() - 1e-4).all()
    images, best = search.maps(1)[0]
    assert np.median(correspondence_error(vertices, faces, best, truth)) < 6
    near = search.there[images.numpy()]
    assert np.median(correspondence_error(vertices, faces, near, best)) < 6
    right = torch.from_numpy(part.kept)
    away = torch.from_numpy(np.roll(part.kept, len(part.kept) // 3))
    assert search.score_of(right) > search.score_of(away)


def test_maps_of_a_part_stay_near_where_their_samples_were_placed(person):
    vertices, faces = person
    part = damage_mesh("cut", vertices, faces, seed=2)
    a, b = describe_pair((part.vertices, part.faces), person, shape_extractor(None), partial=True)
    pair = _Pair(a, b, 60, True)
    name, forth, back, near = next(f for f in pair.first_maps(()) if f[0] == "consistent")
    placed = torch.from_numpy(pair.consistent.nearest) >= 0
    centres = near[torch.from_numpy(pair.consistent.nearest)]
    rows, _ = pair.points(pair.polished(pair.refined(name, forth, back, near)))
    assert pair.consistent.whole[centres, torch.from_numpy(rows)][placed].max() < 0.2
    # A first map of nonsense stays there as well.
    wrong = pair.refined(name, torch.zeros_like(forth), torch.zeros_like(back), near)
    rows, _ = pair.points(wrong)
    assert pair.consistent.whole[centres, torch.from_numpy(rows)][placed].max() < 0.2


@pytest.fixture(scope="module")
def in_pieces(person):
    """The person cut to a large piece, a smaller one and a speck, and both described."""
    vertices, faces = person
    part = damage_mesh("cut", vertices, faces, seed=12)
    mesh = part.vertices, part.faces
    return part, *describe_pair(mesh, person, shape_extractor(None), partial=True)


def test_each_piece_of_a_part_is_mapped_to_its_place(person, in_pieces):
    part, a, b = in_pieces
    label = connected_components(geodesic_graph(part.vertices, part.faces), directed=False)[1]
    count = np.bincount(label)
    assert sorted(count)[:-1] == [8, 81]
    found = correspond_shapes(a, b, partial=True)
    errors = correspondence_error(*person, found.vertices, part.kept)
    for piece in np.flatnonzero(count > 20):
        assert np.median(errors[label == piece]) < 6
    # Eight vertices do not tell where they belong.
    assert (found.confidence[label == count.argmin()] == 0).all()


def test_pieces_of_a_part_keep_their_distance(person, in_pieces):
    part, a, b = in_pieces
    search = ConsistentMaps(a, b, (a.features(b), b.features()))
    large, small = search.pieces
    assert len(large) > len(small) and len(large) + len(small) == len(search.here)
    truth = part.kept[search.here]
    along = geodesic_distances(b.unit, b.faces, truth)[:, truth]
    low, up = search.low.numpy(), search.up.numpy()
    # A path between two pieces leaves one at its rim, enters the other at its rim, and is no shorter than a straight one.
    assert (along >= low - 1e-4).all() and (along <= up + 1e-4).all()
    assert (low[large][:, small] > 0).all() and np.isinf(up[large][:, small]).all()
    right = search.images_of(torch.from_numpy(part.kept))
    assert search.clash(large, right[large], small, right[small]) < 0.01
    onto = right[large][torch.arange(len(small))]
    assert search.clash(large, right[large], small, onto) > 0.05


def test_a_place_is_doubtful_if_a_better_one_was_found(in_pieces):
    part, a, b = in_pieces
    search = ConsistentMaps(a, b, (a.features(b), b.features()))
    right = search.certainty(torch.from_numpy(part.kept))
    moved = part.kept.copy()
    piece = np.isin(search.nearest, search.pieces[1])
    moved[piece] = part.kept[search.nearest == int(search.pieces[0][0])][0]
    wrong = search.certainty(torch.from_numpy(moved))
    assert (right[piece] > 0.5).mean() > 0.9 and (wrong[piece] < 0.5).all()
    assert (right[search.nearest < 0] == 0).all()


def test_confidence_falls_with_every_doubt():
    none = np.zeros((1, 4))
    for column in range(4):
        doubt = none.copy()
        doubt[0, column] = 0.2
        assert map_confidence(doubt) <= map_confidence(none)
    assert map_confidence(none) > 0.9


def write_off(path, vertices, faces):
    lines = ["OFF", f"{len(vertices)} {len(faces)} 0"]
    lines += [" ".join(f"{value:.9g}" for value in row) for row in vertices]
    lines += [f"3 {a} {b} {c}" for a, b, c in faces]
    path.write_text("\n".join(lines) + "\n")


def test_the_tool_writes_the_map_carries_labels_and_a_page(tmp_path, person, copy, capsys):
    write_off(tmp_path / "a.off", *person)
    write_off(tmp_path / "b.off", *copy[:2])
    (tmp_path / "labels.txt").write_text("".join(f"{k}\n" for k in copy[2]))
    out = tmp_path / "out"
    files = [str(tmp_path / "a.off"), str(tmp_path / "b.off")]
    page = str(tmp_path / "page.html")
    options = ["--shapes", "--output", str(out), "--transfer", str(tmp_path / "labels.txt")]
    assert main([*files, *options, "--html", page]) == 0
    carried = np.loadtxt(out / "carried_labels.txt", dtype=int)
    assert (carried == np.arange(len(carried))).mean() > 0.95
    saved = np.load(out / "map.npz")
    assert saved["vertices"].shape == saved["confidence"].shape == carried.shape
    assert {"carried.ply", "map.png", "match.json"} <= {path.name for path in out.iterdir()}
    assert json.loads((out / "match.json").read_text())["orientation"] > 0.4
    assert "mean confidence" in capsys.readouterr().out
    assert "<html" in (tmp_path / "page.html").read_text()[:500].lower()


def test_maps_of_a_data_set_are_measured_and_confidence_is_fitted(
    tmp_path, person, copy, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for folder in ("off", "corres"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    rows = np.arange(len(copy[2]))
    same_unit = copy[0] / 2.5, copy[1]
    for name, mesh, place in (("a", person, rows), ("b", same_unit, np.argsort(copy[2]))):
        write_off(tmp_path / "set" / "off" / f"{name}.off", *mesh)
        text = "".join(f"{row + 1}\n" for row in place)
        (tmp_path / "set" / "corres" / f"{name}.vts").write_text(text)
    (tmp_path / "set" / "splits.yaml").write_text("test: [a, b]\n")
    assert measure_maps.main(["folder", "set", "--points", "100", "--result", "copies"]) == 0
    options = ["--even", "--cut", "--pairs", "1", "--json", "cut.json"]
    assert measure_maps.main(["folder", "set", "--points", "100", *options]) == 0
    cut = json.loads((tmp_path / "cut.json").read_text())["pairs"][0]
    assert cut["pieces"] >= 1 and cut["median"] < 10
    with pytest.raises(InputError, match="--in-pieces: for --cut without --even"):
        measure_maps.main(["folder", "set", "--in-pieces", "1"])
    numbers = json.loads((tmp_path / "results" / "maps" / "copies.json").read_text())["numbers"]
    assert numbers["error"] < 0.5 and numbers["pairs"][0]["right"] == 1
    assert calibrate_maps.main(["set", "--pairs", "1"]) == 0
    assert "INTERCEPT = " in capsys.readouterr().out


def test_every_class_has_its_share_of_pairs_or_is_named():
    pairs = [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
    spread = measure_maps.spread_over_classes
    assert spread(pairs, ["a", "b", "b", "b", "b"], 2) == [(0, 1), (6, 7)]
    assert spread(pairs, ["a"] * 5, 5) == pairs
    with pytest.raises(InputError, match="--even: a has 1 pairs, expected 2 of 4"):
        spread(pairs, ["a", "b", "b", "b", "b"], 4)
    for tool, start in ((measure_maps, ["folder", "set"]), (calibrate_maps, ["set"])):
        with pytest.raises(InputError, match="--pairs 0, expected a whole number"):
            tool.main([*start, "--pairs", "0"])


def test_no_statistic_speaks_for_a_vertex():
    rng = np.random.default_rng(0)
    values = rng.random((500, 4))
    intercept, coefficients = calibrate_maps.fit(values, values[:, 0] < 0.5)
    assert intercept > 0 and coefficients[0] < -10
    assert (coefficients <= 0).all() and (coefficients[1:] > -3).all()
    helpful = calibrate_maps.fit(values, values[:, 0] > 0.5)[1]
    assert helpful[0] == 0


def test_wrong_input_is_one_line(tmp_path, described, person, capsys, monkeypatch):
    with pytest.raises(InputError, match="a: 10 vertices, expected at least 60 to make maps of"):
        sparsefeat.correspond(np.random.default_rng(0).random((10, 3)), person)
    with pytest.raises(
        InputError, match=r"normals \(3, 3\), expected .* for a cloud and none for a mesh"
    ):
        sparsefeat.correspond(person, person, a_normals=np.eye(3))
    a, b = described
    with pytest.raises(InputError, match=r"initial map: int64 \(2,\), expected whole numbers"):
        correspond_shapes(a, b, initial=[np.array([0, 1])])
    with (
        monkeypatch.context() as patch,
        pytest.raises(InputError, match=r"initial map: int64 \(2,\)"),
    ):
        patch.setattr("sparsefeat.match.correspond.describe_pair", None)  # said before it is called
        sparsefeat.correspond(person, person, initial=[[0, 1]])
    far = np.full(len(a.vertices), len(b.vertices))
    with pytest.raises(InputError, match="initial map: rows .* expected 0 to"):
        correspond_shapes(a, b, initial=[far])
    flat = np.zeros((100, 3))
    with pytest.raises(
        InputError, match="a: 100 points at 1 places, each of them taken more than 8 times"
    ):
        sparsefeat.correspond(flat, person)
    write_off(tmp_path / "a.off", *person)
    one = str(tmp_path / "a.off")
    (tmp_path / "short.txt").write_text("1\n2\n")
    short = str(tmp_path / "short.txt")
    for arguments, line in (
        ([one, "--shapes"], "match --shapes: 1 inputs, expected two shapes"),
        ([one, one, "--transfer", short], "--transfer: for --shapes alone"),
        ([one, one, "--partial"], "--partial: for --shapes alone"),
        ([one, one, "--shapes", "--viewpoint", "0", "0", "0"], "--viewpoint: for scans alone"),
        ([one, one, "--shapes", "--unit", "mm"], "--unit: for scans alone"),
        ([one, one, "--shapes", "--transfer", short], "short.txt: 2 labels for"),
    ):
        assert main([*arguments, "--output", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert line in error and error.count("\n") == 1
