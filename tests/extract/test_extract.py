"""FeatureExtractor: every point gets the feature of its place, whole or in tiles."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from networks import small_network
from torch import nn

from sparsefeat.checkpoint import save_checkpoint
from sparsefeat.errors import InputError
from sparsefeat.extract import FeatureExtractor
from sparsefeat.extract.tiling import split_into_tiles
from sparsefeat.io.pointcloud import read_points, write_ply
from sparsefeat.models import create_model
from sparsefeat.models.reach import measure_reach
from sparsefeat.sparse import SparseTensor, functional, quantize
from sparsefeat.sparse import modules as layers

VOXEL = 0.1


class TwoLevels(nn.Module):
    """A U-Net that goes down twice: stride 4, a reach of 2 + 1 + 2 + 4 + 2 + 1 = 12 voxels."""

    def __init__(self, in_channels: int = 1):
        super().__init__()
        self.config = {"in_channels": in_channels}
        self.first = layers.Convolution(in_channels, 8, 5)
        self.norm = layers.BatchNorm(8)
        self.down1 = layers.Convolution(8, 8, 3, stride=2)
        self.down2 = layers.Convolution(8, 8, 3, stride=2)
        self.bottom = layers.Convolution(8, 8, 3)
        self.up2 = layers.ConvolutionTranspose(8, 8, 3, stride=2)
        self.up1 = layers.ConvolutionTranspose(16, 8, 3, stride=2)
        self.last = layers.Convolution(16, 4, 1, bias=True)
        self.relu = layers.ReLU()

    def forward(self, x):
        a = self.relu(self.norm(self.first(x)))
        b = self.relu(self.down1(a))
        c = self.relu(self.bottom(self.down2(b)))
        d = functional.cat(self.up2(c), b)
        return self.last(functional.cat(self.up1(d), a))


class OneLayer(nn.Module):
    """A layer, and a count of how often it runs."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x)


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FeatureExtractor(TwoLevels(), VOXEL)


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    """A floor of 6 m x 5 m with a step, on both sides of the origin."""
    rng = np.random.default_rng(0)
    cloud = rng.random((6000, 3)) * [6, 5, 0.15] - [2.03, 1.51, 0.07]
    cloud[cloud[:, 0] > 1, 2] += 0.4
    return cloud


def test_features_are_those_of_the_network_at_the_voxel_of_each_point(extractor, points):
    voxels = quantize(torch.tensor(points), voxel_size=VOXEL)
    coordinates = torch.nn.functional.pad(voxels.coordinates, (1, 0))
    with torch.no_grad():
        direct = extractor.model.eval()(
            SparseTensor(torch.ones(len(coordinates), 1), coordinates)
        ).F
    features = extractor(points)
    assert features.shape == (len(points), 4) and features.dtype == np.float32
    np.testing.assert_allclose(features, direct[voxels.inverse].numpy(), atol=1e-6)


def test_the_order_of_the_points_does_not_matter(extractor, points):
    order = np.random.default_rng(1).permutation(len(points))
    np.testing.assert_array_equal(extractor(points[order]), extractor(points)[order])


@pytest.mark.parametrize("interpolation", ["nearest", "trilinear"])
def test_rows_are_those_of_all_features(extractor, points, interpolation):
    features = extractor(points, interpolation, views=2)
    odd = np.arange(len(points)) % 2 == 1
    backwards = np.arange(9, dtype=np.uint32)[::-1]
    for rows in (
        slice(100),
        slice(9, 2, -3),
        np.array([7, 3, 7]),
        torch.tensor([5, 0]),
        odd,
        [4, 2],
        backwards,
    ):
        expected = features[np.asarray(rows) if isinstance(rows, torch.Tensor) else rows]
        np.testing.assert_array_equal(
            extractor(points, interpolation, views=2, rows=rows), expected
        )
    assert extractor(points, interpolation, rows=[]).shape == (0, features.shape[1])


@pytest.mark.parametrize(
    ("interpolation", "max_voxels"), [("nearest", 1200), ("trilinear", 2500), ("nearest", 1100)]
)
def test_tiles_give_what_one_pass_gives(extractor, points, interpolation, max_voxels):
    seen = []
    tiled = extractor(
        points, interpolation, max_voxels=max_voxels, progress=lambda *done: seen.append(done)
    )
    assert len(seen) > 1 and seen[-1][0] == seen[-1][1]
    np.testing.assert_allclose(tiled, extractor(points, interpolation), atol=1e-5)


def test_no_more_voxels_than_allowed_run_at_once(extractor, points, monkeypatch):
    run, sizes = FeatureExtractor._run, []
    monkeypatch.setattr(
        FeatureExtractor,
        "_run",
        lambda self, cloud, inputs: sizes.append(len(cloud)) or run(self, cloud, inputs),
    )
    whole = extractor(points)
    with pytest.raises(InputError, match=r"max_voxels 1, expected at least \d+: ") as error:
        extractor(points, max_voxels=1)
    least = int(re.search(r"at least (\d+)", str(error.value))[1])
    assert least < len(points) / 4
    for max_voxels in (least, 2 * least):
        sizes.clear()
        np.testing.assert_allclose(extractor(points, max_voxels=max_voxels), whole, atol=1e-5)
        assert len(sizes) > 1 and max(sizes) <= max_voxels
    with pytest.raises(InputError, match=f"expected at least {least}: "):
        extractor(points, max_voxels=least - 1)


def test_a_halo_short_of_the_reach_is_approximate(extractor, points):
    difference = np.abs(extractor(points, max_voxels=1200, halo=4) - extractor(points)).max()
    assert difference > 1e-4


def test_tiles_also_take_input_features(points):
    extractor = FeatureExtractor(TwoLevels(in_channels=2), VOXEL)
    inputs = np.random.default_rng(2).random((len(points), 2))
    tiled = extractor(points, features=inputs, max_voxels=1200)
    np.testing.assert_allclose(tiled, extractor(points, features=inputs), atol=1e-5)


def test_a_voxel_takes_the_mean_of_its_points_inputs():
    layer = layers.Convolution(2, 2, 1)
    extractor = FeatureExtractor(OneLayer(layer), 1.0)
    extractor.model.config = {"in_channels": 2}
    with torch.no_grad():
        layer.kernel.copy_(torch.eye(2))
    points = np.array([[0.1, 0, 0], [0.2, 0, 0], [5, 5, 5]])
    features = extractor(points, features=np.array([[1, 2], [3, 4], [7, 8]], dtype=np.float32))
    np.testing.assert_allclose(features, [[2, 3], [2, 3], [7, 8]])


def test_tiles_cover_each_row_once_and_keep_to_their_size():
    rng = np.random.default_rng(0)
    cells = torch.tensor(
        np.unique(rng.integers([-300, -300, -6], [300, 300, 6], (20000, 3)), axis=0)
    )
    counts = torch.zeros(len(cells), dtype=torch.int64)
    for tile in split_into_tiles(cells, max_voxels=4000, halo=20, stride=8):
        assert len(tile.rows) <= 4000
        counts[tile.rows[tile.core]] += 1
        core = cells[tile.rows[tile.core]]
        near = ((cells >= core.amin(0) - 20) & (cells <= core.amax(0) + 20)).all(1).nonzero()[:, 0]
        assert torch.isin(near, tile.rows).all()
    assert (counts == 1).all()


def test_reach_adds_up_over_layers():
    reach = measure_reach(TwoLevels().eval(), 1)
    assert (reach.radius, reach.stride, reach.layers, reach.unbounded) == (12, 4, 7, ())


def test_reach_knows_dilation_and_even_kernels():
    dilated = layers.Convolution(1, 2, 3, dilation=5)
    model = nn.Sequential(dilated, layers.MaxPooling(4), layers.Convolution(2, 2, 3))
    assert measure_reach(model, 1).radius == 5 + 3 + 1


def test_networks_that_look_at_the_whole_cloud_are_not_tiled(points):
    model = nn.Sequential(layers.Convolution(1, 2, 3), layers.InstanceNorm(2))
    extractor = FeatureExtractor(model, VOXEL)
    assert np.isfinite(extractor(points)).all()
    with pytest.raises(
        ValueError, match="exceed max_voxels 100, and InstanceNorm .* cannot run in tiles"
    ):
        extractor(points, max_voxels=100)


class RowSoftmax(nn.Softmax):
    def forward(self, x):
        return x.replace(super().forward(x.F))


@pytest.mark.parametrize(
    "layer",
    [layers.BatchNorm(2, track_running_stats=False), RowSoftmax(0)],
    ids=["no running statistics", "softmax over rows"],
)
def test_layers_that_take_their_statistics_from_all_rows_look_at_the_whole_cloud(points, layer):
    model = nn.Sequential(layers.Convolution(1, 2, 3), layer)
    assert measure_reach(model, 1).unbounded == (type(layer).__name__,)
    with pytest.raises(InputError, match="cannot run in tiles"):
        FeatureExtractor(model, VOXEL)(points, max_voxels=100)
    for near in (layers.BatchNorm(2), RowSoftmax(1)):
        assert not measure_reach(nn.Sequential(layers.Convolution(1, 2, 3), near), 1).unbounded


def test_networks_of_unknown_reach_need_a_halo(points):
    class Unknown(nn.Module):
        def forward(self, x):
            return x.replace(2 * x.F)

    extractor = FeatureExtractor(Unknown(), VOXEL)
    with pytest.raises(ValueError, match="give halo="):
        extractor(points, max_voxels=100)
    assert (extractor(points, max_voxels=100, halo=0) == 2).all()


def test_small_clouds_run_in_one_pass(points):
    extractor = FeatureExtractor(OneLayer(layers.Convolution(1, 2, 3)), VOXEL)
    extractor(points)
    calls = extractor.model.calls
    extractor(points)
    assert extractor.model.calls == calls + 1


def brute_force_trilinear(points, table):
    """The definition, one point at a time; ``table`` maps cells to features."""
    result = []
    for point in points:
        total, weights = 0, 0
        for cell, feature in table.items():
            centre = (np.array(cell) + 0.5) * VOXEL
            weight = np.clip(1 - np.abs(point - centre) / VOXEL, 0, None).prod()
            total, weights = total + weight * feature, weights + weight
        result.append(total / weights)
    return np.array(result)


def test_trilinear_is_the_weighted_mean_over_existing_voxel_centres(extractor):
    points = np.random.default_rng(3).random((60, 3)) * 0.4 - 0.2
    cells = np.floor(points / VOXEL).astype(int)
    table = dict(zip(map(tuple, cells), extractor(points), strict=True))
    expected = brute_force_trilinear(points, table)
    np.testing.assert_allclose(extractor(points, "trilinear"), expected, atol=1e-5)


def test_trilinear_equals_nearest_at_voxel_centres(extractor, points):
    centres = (np.floor(points / VOXEL) + 0.5) * VOXEL
    np.testing.assert_allclose(extractor(centres, "trilinear"), extractor(centres), atol=1e-5)


def test_the_result_is_of_the_kind_that_was_given(extractor, points, tmp_path):
    tensor = extractor(torch.tensor(points))
    assert (
        isinstance(tensor, torch.Tensor)
        and tensor.dtype == torch.float32
        and not tensor.requires_grad
    )
    write_ply(tmp_path / "a.ply", points)
    swapped, reversed_twice = points.astype(">f8"), points[::-1][::-1]
    for given in (points, swapped, reversed_twice, points.tolist(), tmp_path / "a.ply"):
        np.testing.assert_array_equal(extractor(given), tensor.numpy())
    np.testing.assert_array_equal(extractor(str(tmp_path / "a.ply")), tensor.numpy())


def test_arrays_that_may_not_be_written_and_gradients_are_accepted(extractor, points):
    fixed = points.copy()
    fixed.setflags(write=False)
    expected = extractor(points)
    np.testing.assert_array_equal(extractor(fixed), expected)
    tensor = torch.tensor(points, requires_grad=True)
    np.testing.assert_array_equal(extractor(tensor).numpy(), expected)


def test_points_on_a_grid_fall_into_the_voxel_that_float64_says():
    layer = layers.Convolution(1, 1, 1)
    extractor = FeatureExtractor(OneLayer(layer), 0.025)
    points = (
        np.arange(200, dtype=np.float32)[:, None] * np.float32(0.025) * np.ones(3, dtype=np.float32)
    )
    voxels = len(np.unique(np.floor(points.astype(np.float64) / 0.025), axis=0))
    seen = []
    extractor(points, progress=lambda done, total: seen.append(total))
    assert seen == [voxels]


@pytest.mark.parametrize("interpolation", ["nearest", "trilinear"])
def test_an_empty_cloud_has_no_features_and_one_point_has_one(extractor, interpolation):
    assert extractor(np.empty((0, 3)), interpolation).shape == (0, 4)
    assert extractor(torch.empty(0, 3), interpolation).shape == (0, 4)
    assert np.isfinite(extractor(np.ones((1, 3)), interpolation)).all()


@pytest.mark.parametrize("shift", [1e7, -1e9])
def test_a_cloud_far_from_the_origin_has_the_same_features(extractor, points, shift):
    cells = np.floor(points / VOXEL) + 0.5
    near = extractor(cells * VOXEL)
    far = extractor((cells + np.round(shift / 8) * 8) * VOXEL)
    np.testing.assert_allclose(far, near, atol=1e-6)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((5, 2)), r"shape \(5, 2\), expected \(N, 3\)"),
        (np.zeros(3), r"shape \(3,\), expected \(N, 3\)"),
        (torch.zeros(2, 5, 3), r"expected \(N, 3\)"),
        (np.array([[0, 0, 0], [0, np.nan, 0], [0, 0, np.inf]]), "2 of 3 points .* first in row 1"),
        (np.array([[0, 0, 0], [1e12, 0, 0]]), r"1e\+13 voxels of 0.1 along x"),
        (np.array([[0, 0, 0], [1e7, 1e7, 1e7]]), "beyond the key range"),
        (np.array([["a", "b", "c"]]), "expected numbers"),
        (torch.zeros(5, 3, dtype=torch.bool), "expected numbers"),
        ("absent.ply", "absent.ply: no such file"),
        ((np.zeros((5, 3)), np.zeros((4, 3), int)), "points: tuple that is no array"),
        ([[0, 0, 0], [1, 1]], "points: list that is no array"),
        (np.ma.masked_greater(np.arange(6.0).reshape(2, 3), 3), "points: 2 of 6 values are masked"),
    ],
)
def test_wrong_points_are_refused(extractor, points, message):
    with pytest.raises(ValueError, match=message):
        extractor(points)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interpolation": "cubic"}, "interpolation 'cubic', expected one of nearest, trilinear"),
        ({"max_voxels": 0}, "max_voxels 0"),
        ({"max_voxels": 9.5}, "max_voxels 9.5, expected a whole number of at least 1"),
        ({"halo": -1}, "halo -1"),
        ({"views": 2.0}, "views 2.0, expected a whole number of at least 1"),
        ({"views": "2"}, "views '2', expected a whole number of at least 1"),
        ({"features": np.ones((3, 1))}, r"features have shape \(3, 1\), expected \(6000, 1\)"),
        ({"features": np.full((6000, 1), np.nan)}, "NaN"),
        ({"rows": [0, 6000]}, "rows: 0 to 6000, expected 0 to 5999"),
        ({"rows": np.ones(5, dtype=bool)}, r"a mask of shape \(5,\), expected \(6000,\)"),
        ({"rows": [0.5]}, r"expected indices \(M,\), a mask or a slice"),
        ({"rows": "all"}, "expected indices"),
    ],
)
def test_wrong_options_are_refused(extractor, points, options, message):
    with pytest.raises(ValueError, match=message):
        extractor(points, **options)


def test_a_network_with_several_inputs_asks_for_features(points):
    with pytest.raises(ValueError, match=r"give features= of \(N, 3\)"):
        FeatureExtractor(TwoLevels(in_channels=3), VOXEL)(points)


def test_a_network_that_loses_voxels_is_refused(points):
    with pytest.raises(ValueError, match="expected an output at each input voxel"):
        FeatureExtractor(OneLayer(layers.Convolution(1, 2, 3, stride=2)), VOXEL)(points)


@pytest.mark.parametrize("voxel_size", [0, -1, np.nan, np.inf, None, "small"])
def test_a_voxel_size_is_a_positive_number(voxel_size):
    with pytest.raises(ValueError, match="voxel size .* expected a positive number"):
        FeatureExtractor(TwoLevels(), voxel_size)


@pytest.mark.parametrize("name", [None, 3])
def test_a_checkpoint_is_a_name_or_a_path(name):
    with pytest.raises(InputError, match=f"checkpoint {name}, expected a path, a name"):
        FeatureExtractor.from_pretrained(name)


def test_an_array_with_no_value_masked_is_taken(extractor, points):
    np.testing.assert_array_equal(extractor(np.ma.masked_array(points)), extractor(points))


def test_an_unknown_device_is_refused():
    with pytest.raises(ValueError, match="device 'quantum' cannot be used"):
        FeatureExtractor(TwoLevels(), VOXEL, device="quantum")


def test_training_mode_is_restored_and_statistics_are_kept(points):
    model = TwoLevels()
    model.train()
    model.norm.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    FeatureExtractor(model, VOXEL)(points)
    assert model.training and model.down1.training and not model.norm.training
    with pytest.raises(ValueError):
        FeatureExtractor(model, VOXEL)(points[:, :2])
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.fixture
def checkpoint(tmp_path):
    """Returns a function that writes a checkpoint of random weights with a given voxel size."""

    def write(voxel_size):
        save_checkpoint(tmp_path / "small.safetensors", small_network(), voxel_size)
        return tmp_path / "small.safetensors"

    return write


def test_the_checkpoint_says_the_voxel_size_unless_the_call_does(checkpoint, points):
    path = checkpoint(0.25)
    assert FeatureExtractor.from_pretrained(path).voxel_size == 0.25
    extractor = FeatureExtractor.from_pretrained(path, voxel_size=0.1, device="cpu")
    assert extractor.voxel_size == 0.1 and extractor(points).shape == (len(points), 4)


def test_a_checkpoint_without_a_voxel_size_asks_for_one(checkpoint):
    path = checkpoint(None)
    with pytest.raises(ValueError, match="small.safetensors: .* voxel size.* give voxel_size="):
        FeatureExtractor.from_pretrained(path)
    assert FeatureExtractor.from_pretrained(path, voxel_size=1).voxel_size == 1


def test_real_fragments_in_tiles_are_as_in_one_pass(dataset):
    room = read_points(next(dataset("threedmatch_dense").glob("*.ply"))).points[::8]
    rooms = np.concatenate([room, room + [4, 0, 0]])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model(
            "ResUNetBN2C", in_channels=1, normalize_feature=True, conv1_kernel_size=7
        )
    extractor = FeatureExtractor(model, 0.05)
    # The receptive field, 123 voxels, that FCGF's architecture has.
    assert 2 * extractor.reach.radius + 1 == 123
    whole = extractor(rooms)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    seen = []
    tiled = extractor(rooms, max_voxels=8300, progress=lambda *done: seen.append(done))
    assert len(seen) > 1
    np.testing.assert_allclose(tiled, whole, atol=1e-4)


def test_views_average_poses_and_give_the_same_bits_again(extractor):
    points = np.random.default_rng(5).random((200, 3)) * 2
    one, four = extractor(points), extractor(points, views=4)
    assert four.shape == one.shape
    assert np.array_equal(four, extractor(points, views=4))
    assert not np.allclose(four, one)


def test_views_of_a_network_with_unit_features_have_unit_length():
    model = small_network(kernels="pair", normalize_feature=True)
    points = np.random.default_rng(6).random((300, 3))
    features = FeatureExtractor(model, VOXEL)(points, "trilinear", views=3)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)


def test_fewer_than_one_view_is_an_error(extractor):
    with pytest.raises(ValueError, match="views 0"):
        extractor(np.zeros((1, 3)), views=0)


def test_scales_are_put_side_by_side_and_unit_vectors_stay_such(points):
    model = small_network(normalize_feature=True)
    one = FeatureExtractor(model, 0.1)
    both = one(points, scales=(1.0, 2.0))
    expected = np.concatenate([one(points), FeatureExtractor(model, 0.2)(points)], 1) / 2**0.5
    np.testing.assert_allclose(both, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1, atol=1e-5)
    assert one(points[:0], scales=(1.0, 2.0)).shape == (0, both.shape[1]) and one.voxel_size == 0.1
    for scales in ((), (1.0, 0.0), 1.5, ("a",)):
        with pytest.raises(ValueError, match="positive factors"):
            one(points, scales=scales)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_points_of_half_types_are_turned_as_the_numbers_that_they_hold(extractor, points, dtype):
    rounded = torch.from_numpy(points).to(dtype)
    found, expected = (extractor(p, views=2).numpy() for p in (rounded, rounded.double()))
    # Of a few points a voxel's border lies within the rounding of float32.
    assert (np.abs(found - expected).max(1) < 1e-5).mean() > 0.9
