"""The geometry channels: known shapes give known numbers, and turning a shape changes little or nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from sparsefeat import create_model
from sparsefeat.models.geometry import BINS, FITS, SHELLS, LocalGeometry
from sparsefeat.sparse import SparseTensor


def geometry(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Channels of the first point of every voxel of edge 1; returns them and the rows of these points."""
    cells = np.floor(points).astype(np.int64)
    _, rows = np.unique(cells, axis=0, return_index=True)
    coordinates = torch.nn.functional.pad(torch.from_numpy(cells[rows]).int(), (1, 0))
    offsets = torch.from_numpy(points[rows] - cells[rows] - 0.5).float()
    return LocalGeometry()(SparseTensor(offsets, coordinates, reduce="error")).features.numpy(), rows


def surface(rng: np.random.Generator, count: int = 30000) -> np.ndarray:
    """A bumpy sheet, in voxels."""
    xy = rng.uniform(-20, 20, (count, 2))
    return np.column_stack([xy, 3 * np.sin(xy[:, 0] / 4) * np.cos(xy[:, 1] / 5)])


def test_a_plane_is_flat_full_and_its_normals_agree():
    x, y = np.meshgrid(np.arange(15.0), np.arange(15.0))
    points = np.column_stack([x.ravel(), y.ravel(), np.zeros(225)]) + 0.5
    channels, rows = geometry(points)
    middle = channels[rows == 7 * 15 + 7][0]
    for fit in range(len(FITS)):
        linearity, planarity, scatter, fill, off, across = middle[6 * fit : 6 * fit + 6]
        assert linearity == pytest.approx(0, abs=1e-5) and planarity == pytest.approx(1, abs=1e-5)
        assert scatter == pytest.approx(0, abs=1e-5)
        assert 0.5 < fill < 1.5 and off == pytest.approx(0, abs=1e-5) and across == pytest.approx(0, abs=1e-5)
    shells = middle[6 * len(FITS) :].reshape(len(SHELLS), 3 * BINS + 1)
    for between_normals, mine, theirs in shells[:, :-1].reshape(len(SHELLS), 3, BINS):
        assert between_normals[0] == pytest.approx(1, abs=1e-3)  # parallel
        assert mine[-1] == pytest.approx(1, abs=1e-3) and theirs[-1] == pytest.approx(1, abs=1e-3)


def test_a_line_is_linear_and_a_single_voxel_gives_finite_numbers():
    channels, rows = geometry(np.column_stack([np.arange(15) + 0.5, np.full(15, 0.5), np.full(15, 0.5)]))
    assert channels[rows == 7][0][0] == pytest.approx(1, abs=1e-5)
    alone, _ = geometry(np.array([[0.2, 0.3, 0.4]]))
    assert np.isfinite(alone).all()


def test_quarter_turns_and_mirrors_change_nothing():
    rng = np.random.default_rng(0)
    points = surface(rng, 4000)
    first, rows = geometry(points)
    turned, rows_turned = geometry(points[:, [1, 2, 0]] * (1, 1, 1))
    a, b = np.full((len(points), first.shape[1]), np.nan), np.full((len(points), first.shape[1]), np.nan)
    a[rows], b[rows_turned] = first, turned
    both = np.isfinite(a[:, 0]) & np.isfinite(b[:, 0])
    assert both.sum() == len(rows)
    np.testing.assert_allclose(a[both], b[both], atol=2e-3)


def test_any_turn_changes_the_channels_less_than_going_elsewhere_on_the_surface():
    rng = np.random.default_rng(1)
    points = surface(rng)
    first, rows = geometry(points)
    rotation = Rotation.random(random_state=2).as_matrix()
    turned, rows_turned = geometry(points @ rotation.T)
    interior = np.abs(points[rows, :2]).max(1) < 14
    _, nearest = cKDTree(points[rows_turned]).query(points[rows])
    moved = np.linalg.norm(first - turned[nearest], axis=1)[interior].mean()
    elsewhere = np.linalg.norm(first - first[rng.permutation(len(first))], axis=1)[interior].mean()
    assert moved < 0.75 * elsewhere


def test_a_network_with_geometry_takes_three_channels_and_builds_again_from_its_configuration():
    options = {"in_channels": 3, "out_channels": 8, "depth": 1, "channels": [8, 8], "tr_channels": [8, 8]}
    model = create_model("ResUNetBN2C", geometry=True, **options)
    again = create_model(**model.config)
    again.load_state_dict(model.state_dict())
    cells = torch.randint(0, 6, (80, 3)).unique(dim=0).int()
    x = SparseTensor(torch.zeros(len(cells), 3), torch.nn.functional.pad(cells, (1, 0)))
    assert torch.equal(model.eval()(x).F, again.eval()(x).F)
    with pytest.raises(ValueError, match="3 input channels"):
        create_model("ResUNetBN2C", geometry=True, **(options | {"in_channels": 1}))
