"""Warnings where features will be poor: the unit, the voxel size, the orientation, the size of tiles."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from networks import small_network

from sparsefeat.errors import InputError, InputWarning
from sparsefeat.extract import FeatureExtractor
from sparsefeat.extract.orientation import outward_vectors
from sparsefeat.extract.plausibility import neighbour_share, rounding_step, typical_spacing
from sparsefeat.extract.surfaces import SHAPE_SCALES, expected_voxels, vertex_features
from sparsefeat.extract.tiling import split_into_tiles


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return FeatureExtractor(small_network(), 0.05)


def sheet(count: int = 2000) -> np.ndarray:
    """Points of a square of 2 m, about 4.5 cm apart."""
    return np.random.default_rng(0).random((count, 3)) * [2, 2, 0.01]


def said(call) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(w.message) for w in caught if issubclass(w.category, InputWarning)]


def test_a_cloud_that_fits_its_voxels_gives_no_warning(extractor):
    assert said(lambda: extractor(sheet())) == []
    assert said(lambda: extractor(np.zeros((0, 3)))) == []
    assert (
        said(lambda: extractor(np.ones((5, 3)) * np.arange(5)[:, None])) == []
    )  # too few points to judge


def test_millimetres_against_a_checkpoint_in_metres_are_said(extractor):
    (line,) = said(lambda: extractor(sheet() * 1000))
    assert "0% of 2000 voxels of 0.05 have a neighbour" in line
    assert "for coordinates in mm give unit 'mm'" in line


def test_a_voxel_size_far_below_the_spacing_is_said_with_one_that_fits(extractor):
    (line,) = said(lambda: extractor.at(0.002)(sheet()))
    assert "have a neighbour" in line and "voxel size of about" in line


def test_a_cloud_in_a_few_voxels_is_said(extractor):
    (line,) = said(lambda: extractor.at(2.0)(sheet()))
    assert "2000 points fall into" in line and "2 wide" in line


def test_points_that_are_all_at_one_place_are_said_without_a_voxel_size(extractor):
    (line,) = said(lambda: extractor(np.ones((600, 3))))
    assert line == "points: 600 points are all at one place: their features are equal"


def test_coordinates_that_were_rounded_more_coarsely_than_voxels_are_said(extractor):
    dense = np.random.default_rng(0).random((3000, 3)) * [2, 2, 0.01]
    utm = dense + [500_000, 4_649_776, 0]
    assert said(lambda: extractor(utm)) == []
    for rounded in (utm.astype(np.float32), utm.astype(np.float32).astype(np.float64)):
        lines = said(lambda: extractor(rounded))
        assert "points: coordinates up to 4649778 are rounded to steps of 0.5" in lines[0]
    assert said(lambda: extractor(dense.astype(np.float32))) == []
    half = torch.from_numpy(dense + [200, 0, 0]).half()  # steps of 1/8 m at 200 m
    assert "rounded to steps of 0.12" in said(lambda: extractor(half))[0]


@pytest.mark.parametrize("value", [1.0, 3.0, 4_649_776.0, 1023.5, 1e-3])
def test_the_rounding_step_is_the_spacing_of_numbers(value):
    points = torch.tensor([[value, 0, 0]], dtype=torch.float64)
    assert rounding_step(points.float()) == np.spacing(np.float32(value))
    exact = float(np.float32(value)) == value
    assert rounding_step(points) == np.spacing(np.float32(value) if exact else value)


@pytest.mark.parametrize("length", [1e-200, 1e-13, 1.0, 1e200])
def test_normals_of_any_length_say_the_same(length):
    points = torch.from_numpy(sheet(300))
    normals = np.random.default_rng(1).normal(size=(300, 3))
    found = outward_vectors(points, normals * length, None, 0.05)
    unit = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    np.testing.assert_allclose(found.numpy(), unit, atol=1e-6)


def test_many_zero_normals_are_said():
    points, normals = torch.from_numpy(sheet(300)), np.tile([0.0, 0, 1], (300, 1))
    normals[:200] = 0
    found = []
    (line,) = said(lambda: found.append(outward_vectors(points, normals, None, 0.05)))
    assert line.startswith("points: 200 of 300 normals are zero vectors")
    np.testing.assert_array_equal(found[0].numpy(), normals)


def test_the_warning_points_to_the_caller(extractor):
    with pytest.warns(InputWarning) as caught:
        extractor(sheet() * 1000)
    assert caught[0].filename == __file__


def test_the_share_of_voxels_with_a_neighbour_counts_corners_and_not_the_other_side_of_the_box():
    cells = torch.tensor([[0, 0, 0], [0, 0, 5], [1, 1, 1], [3, 0, 0], [5, 5, 5]])
    assert neighbour_share(cells) == 2 / 5
    # A key without a margin would make the last cell of a row the neighbour of the next row's first.
    assert neighbour_share(torch.tensor([[0, 0, 5], [0, 1, 0]])) == 0


def test_the_spacing_of_points_leaves_copies_out():
    grid = np.stack(np.meshgrid(*[np.arange(5.0)] * 3), -1).reshape(-1, 3) * 3
    assert typical_spacing(torch.from_numpy(np.concatenate([grid, grid]))) == 3


def test_an_oriented_network_without_orientation_says_that_it_is_estimated():
    oriented = FeatureExtractor.from_pretrained("sparsefeat/rooms-5cm-oriented-v1")
    points, up = sheet(300), np.tile([0.0, 0, 1], (300, 1))
    for call in (lambda: oriented(points), lambda: vertex_features(oriented, points, None)):
        (line,) = said(call)
        assert "estimated" in line and "viewpoint= or normals=" in line
    assert said(lambda: oriented(points, normals=up)) == []
    assert said(lambda: oriented(points, viewpoint=(0, 0, 9))) == []
    given = []
    assert said(lambda: given.append(vertex_features(oriented, points, None, normals=up))) == []
    expected = oriented(points, "trilinear", normals=up, scales=SHAPE_SCALES)
    np.testing.assert_array_equal(given[0], expected)


def test_normals_beside_faces_are_refused(extractor):
    triangle = np.eye(3)
    with pytest.raises(InputError, match="normals of a mesh are those of its faces"):
        vertex_features(extractor, triangle, np.array([[0, 1, 2]]), normals=triangle)


def test_the_number_of_voxels_of_a_surface_is_about_what_voxelising_gives():
    from sparsefeat.mesh.voxelization import voxelize_mesh

    corners = np.array([[0.1, 0.2, 0.3], [1.0, 0.4, 0.1], [0.3, 1.1, 0.9]])
    found = len(voxelize_mesh(corners, np.array([[0, 1, 2]]), 0.01).coordinates)
    assert 0.7 < expected_voxels(corners, np.array([[0, 1, 2]]), 0.01) / found < 1.4


def test_tiles_that_mostly_overlap_are_said(extractor):
    points = sheet(20_000)
    cells, reach = _cells(points), extractor.reach
    tiles = split_into_tiles(cells, 1, reach.radius, reach.stride)
    least = max(len(tile.rows) for tile in tiles)
    runs = sum(
        len(tile.rows) for tile in split_into_tiles(cells, least, reach.radius, reach.stride)
    )
    (line,) = said(lambda: extractor(points, max_voxels=least))
    assert f"each voxel runs {runs / len(cells):.0f} times" in line
    assert said(lambda: extractor(points, max_voxels=1500)) == []


def _cells(points: np.ndarray) -> torch.Tensor:
    return torch.unique(torch.from_numpy(np.floor(points / 0.05)).long(), dim=0)
