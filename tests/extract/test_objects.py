"""Meshes and clouds of trimesh and Open3D, and points in other units, where arrays in metres are taken."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from networks import small_network
from surfaces import body

import sparsefeat
from sparsefeat import FeatureExtractor, InputError
from sparsefeat.extract.surfaces import vertex_features
from sparsefeat.io.meshes import Mesh
from sparsefeat.io.objects import object_arrays
from sparsefeat.match.scans import open_view
from sparsefeat.mesh.normals import outer_normals
from sparsefeat.receptive_field import SurfaceShape

trimesh = pytest.importorskip("trimesh")


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    model = small_network(8, kernels="pair", oriented=True, normalize_feature=True)
    return FeatureExtractor(model, 0.1)


@pytest.fixture(scope="module")
def mesh():
    return trimesh.Trimesh(*body(), process=False)


def open3d_cloud(points, normals=()):
    """Open3D's cloud, as its attributes look: without normals they are an empty array."""
    return SimpleNamespace(
        points=points, colors=np.zeros((0, 3)), normals=np.asarray(normals).reshape(-1, 3)
    )


def test_a_mesh_gives_what_its_arrays_and_outer_normals_give(extractor, mesh):
    vertices, faces = body()
    expected = extractor(vertices, normals=outer_normals(vertices, faces)[1])
    for given in (mesh, Mesh(vertices, faces), SimpleNamespace(vertices=vertices, triangles=faces)):
        np.testing.assert_array_equal(extractor(given), expected)


def test_vertex_features_take_a_mesh_in_place_of_two_arrays(extractor, mesh):
    np.testing.assert_array_equal(
        vertex_features(extractor, mesh), vertex_features(extractor, *body())
    )
    with pytest.raises(InputError, match="faces beside a mesh object"):
        vertex_features(extractor, mesh, body()[1])


def test_describe_and_the_tuning_take_them_too(extractor, mesh):
    np.testing.assert_array_equal(
        sparsefeat.describe(mesh, ("ours", "hks"), extractor),
        sparsefeat.describe(body(), ("ours", "hks"), extractor),
    )
    shape = SurfaceShape.of(mesh, 5, seed=0)
    np.testing.assert_array_equal(shape.faces, body()[1])
    assert SurfaceShape.of(trimesh.PointCloud(body()[0]), 5, seed=0).faces is None


def test_normals_of_a_cloud_are_taken_unless_others_are_given(extractor):
    vertices, faces = body()
    normals = outer_normals(vertices, faces)[1]
    expected = extractor(vertices, normals=normals)
    cloud = open3d_cloud(vertices, normals)
    np.testing.assert_array_equal(extractor(cloud), expected)
    found = vertex_features(extractor, cloud, interpolation="nearest", scales=(1.0,))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(
        extractor(open3d_cloud(vertices, -normals), normals=normals), expected
    )
    assert open_view(cloud).normals is not None
    assert open_view(open3d_cloud(vertices)).normals is None
    assert open_view(cloud, viewpoint=(0, 0, 9)).normals is None


def test_what_holds_no_points_is_no_object():
    for given in (body()[0], torch.zeros(3, 3), "file.ply", [1, 2, 3], None):
        assert object_arrays(given) is None
    assert object_arrays(SimpleNamespace(vertices=np.zeros((3, 3)), faces=())).faces is None


def test_millimetres_give_the_features_of_metres(extractor):
    vertices, faces = body()
    normals = outer_normals(vertices, faces)[1]
    inside = FeatureExtractor(extractor.model, extractor.voxel_size).in_unit("mm")
    assert inside.unit == "mm" and inside.voxel_size == pytest.approx(100)
    # A power of two apart, so that no point changes its voxel by rounding.
    grid = np.round(vertices * 1024) / 1024 + 2.0**-12
    np.testing.assert_allclose(
        inside(grid * 1000, normals=normals), extractor(grid, normals=normals), atol=1e-5
    )
    assert inside.in_unit("m").voxel_size == pytest.approx(0.1)


def test_the_voxel_size_of_a_checkpoint_is_converted_and_that_of_a_caller_is_not():
    name = "sparsefeat/rooms-5cm-v1"
    assert FeatureExtractor.from_pretrained(name, unit="cm").voxel_size == pytest.approx(5)
    assert FeatureExtractor.from_pretrained(name, 70, unit="mm").voxel_size == 70
    with pytest.raises(InputError, match="unit 'furlong', expected one of m, cm, mm, in, ft"):
        FeatureExtractor.from_pretrained(name, unit="furlong")
