"""Joined descriptors of a mesh, a cloud or a file."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from networks import small_network
from surfaces import body

import sparsefeat
from sparsefeat import FeatureExtractor, InputError, describe
from sparsefeat.extract.descriptors import as_shape, cloud_area
from sparsefeat.io.meshes import Mesh
from sparsefeat.mesh.sampling import sample_surface


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return FeatureExtractor(small_network(8, kernels="pair", normalize_feature=True), 0.1)


def test_blocks_count_alike(extractor):
    vertices, faces = body()
    joined = describe(
        (vertices, faces), ("ours", "hks", "wks", "fpfh"), extractor, scales=(1.0, 2.0)
    )
    assert joined.shape == (len(vertices), 16 + 32 + 32 + 99) and joined.dtype == np.float32
    blocks = np.split(joined, [16, 48, 80], axis=1)
    alive = [block[:, block.std(0) > 0] for block in blocks]
    for block, values in zip(blocks, alive):
        np.testing.assert_allclose(
            (values**2).sum() / len(vertices), values.shape[1] / block.shape[1] / 4, rtol=1e-3
        )


def test_every_way_to_give_a_mesh_is_the_same(extractor, tmp_path):
    vertices, faces = body()
    first = describe((vertices, faces), extractor=extractor)
    np.testing.assert_array_equal(first, describe(Mesh(vertices, faces), extractor=extractor))
    np.testing.assert_array_equal(
        first, describe(SimpleNamespace(vertices=vertices, faces=faces), extractor=extractor)
    )
    lines = [
        "OFF",
        f"{len(vertices)} {len(faces)} 0",
        *(" ".join(map(repr, map(float, v))) for v in vertices),
    ]
    (tmp_path / "body.off").write_text(
        "\n".join(lines + [f"3 {a} {b} {c}" for a, b, c in faces]) + "\n"
    )
    np.testing.assert_array_equal(first, describe(tmp_path / "body.off", extractor=extractor))


@pytest.mark.parametrize("suffix", [".ply", ".npz", ".off"])
def test_a_broken_mesh_is_no_cloud(tmp_path, suffix):
    vertices, faces = body()
    file = tmp_path / f"body{suffix}"

    def write(faces: np.ndarray) -> None:
        if suffix == ".npz":
            np.savez(file, vertices=vertices, points=vertices, faces=faces)
            return
        header = f"OFF\n{len(vertices)} {len(faces)} 0"
        if suffix == ".ply":
            places = "".join(f"property double {axis}\n" for axis in "xyz")
            lists = f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header"
            header = f"ply\nformat ascii 1.0\nelement vertex {len(vertices)}\n{places}{lists}"
        rows = [*(" ".join(map(repr, map(float, v))) for v in vertices)]
        rows += [f"3 {a} {b} {c}" for a, b, c in faces]
        file.write_text("\n".join([header, *rows]) + "\n")

    write(np.concatenate([faces, [[0, 1, len(vertices)]]]))
    with pytest.raises(InputError, match="faces name a vertex that is not there"):
        as_shape(file)
    write(faces[:0])
    points, none = as_shape(file)
    assert none is None
    np.testing.assert_array_equal(points, vertices)


def test_neither_size_nor_place_matters(extractor):
    vertices, faces = body()
    for name, close in (("hks", 1e-4), ("wks", 1e-3), ("fpfh", 1e-4)):
        first, second = (
            describe((vertices, faces), [name]),
            describe((30 * vertices + 7, faces), [name]),
        )
        assert np.mean(np.abs(first - second) > close) < 0.01, name


def test_a_cloud_has_descriptors_like_its_surface(extractor):
    vertices, faces = body()
    points = sample_surface(vertices, faces, 1500).points
    cloud = describe(points, ("ours", "hks", "wks", "fpfh"), extractor)
    assert cloud.shape[0] == 1500 and np.isfinite(cloud).all()
    mesh_area = sparsefeat.mesh.geodesic.surface_area(vertices, faces)
    assert cloud_area(points) == pytest.approx(mesh_area, rel=0.2)


def test_signatures_of_a_part_are_those_of_the_whole_if_its_area_is_said():
    vertices, faces = body()
    left = vertices[:, 1] < 0.6
    part = faces[left[faces].all(1)]
    rows = np.unique(part)
    new = np.full(len(vertices), -1)
    new[rows] = np.arange(len(rows))
    area = sparsefeat.mesh.geodesic.surface_area(vertices, faces)
    far = rows[vertices[rows, 1] < -0.6]
    for name in ("hks", "wks"):
        errors = []
        for whole_area in (None, area):
            whole = describe((vertices, faces), [name], whole_area=whole_area, balanced=False)[far]
            piece = describe(
                (vertices[rows], new[part]), [name], whole_area=whole_area, balanced=False
            )[new[far]]
            errors.append(np.median(np.abs(piece - whole) / whole.std(0)))
        assert errors[1] < 0.7 * errors[0], name


def test_what_is_no_shape_is_refused(extractor):
    with pytest.raises(InputError, match="expected some of ours, hks"):
        describe(body(), ["shot"])
    with pytest.raises(InputError, match="expected some of"):
        describe(body(), [])
    with pytest.raises(InputError, match="expected finite points"):
        describe(np.zeros((5, 2)), ["hks"])
    with pytest.raises(InputError, match="normals of a mesh"):
        describe(body(), ["ours"], extractor, normals=np.ones((642, 3)))
    for member in ("hks", "fpfh"):
        with pytest.raises(InputError, match="normals of a mesh"):
            describe(body(), [member], normals=np.ones((642, 3)))
    with pytest.raises(InputError, match="no such file"):
        describe("nowhere.off")


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        (None, {}, "shape: NoneType of object, expected a mesh or points"),
        (np.array([["a", "b", "c"]]), {}, "shape: ndarray of <U1, expected a mesh or points"),
        (([[0, 0, 0], [1, 1]], [[0, 1, 2]]), {}, "shape: vertices: list that is no array"),
        ((np.eye(3), [[0, 1, 2], [0, 1, 2, 2]]), {}, "shape: faces: list that is no array"),
        ((np.eye(3), 5), {}, "shape: faces are"),
        (np.ma.masked_less(np.eye(3), 1), {}, "shape: 6 of 9 values are masked"),
        (np.eye(3), {"join": None}, "join None, expected some of ours"),
        (np.eye(3), {"whole_area": "1"}, "whole_area '1', expected a positive number"),
        (np.eye(3), {"whole_area": np.inf}, "whole_area inf, expected a positive number"),
        (np.ones((20, 3)), {"normals": np.ones((19, 3))}, r"normals of shape \(19, 3\), expected"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(shape, options, message):
    with pytest.raises(InputError, match=message):
        describe(shape, **{"join": ["hks"], **options})


def test_a_cloud_whose_points_are_all_repeated_is_named():
    cloud = np.random.default_rng(0).normal(size=(30, 3))
    with pytest.raises(InputError, match="600 points at 30 places, each of them taken more than 8"):
        describe(np.repeat(cloud, 20, 0), ["hks"])


def test_tensors_with_gradients_and_of_half_precision_are_taken():
    vertices, faces = body()
    tensor = torch.tensor(vertices, requires_grad=True)
    np.testing.assert_array_equal(as_shape((tensor, torch.from_numpy(faces)))[0], vertices)
    np.testing.assert_array_equal(as_shape(tensor)[0], vertices)
    half = torch.from_numpy(vertices).bfloat16()
    found = as_shape((half, faces))[0]
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, half.double().numpy())
    cloud = vertices[::4]
    normals = torch.tensor(cloud - cloud.mean(0), requires_grad=True)
    given = describe(torch.from_numpy(cloud).requires_grad_(), ["fpfh"], normals=normals)
    expected = describe(cloud, ["fpfh"], normals=normals.detach().numpy())
    np.testing.assert_array_equal(given, expected)


def test_an_extractor_may_be_a_name():
    with pytest.raises(InputError, match="sparsefeat/room: no such checkpoint"):
        describe(body(), ["ours"], "sparsefeat/room")
    with pytest.raises(InputError, match="checkpoint 3, expected a path, a name"):
        describe(body(), ["ours"], 3)
