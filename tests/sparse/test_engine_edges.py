"""Coordinates at the edges of what there is, and input that must be refused with one clear error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_oracle import assert_close, cloud, neighbours, numbers, rows_at, sparse, window

from sparsefeat.sparse import (
    Kernel,
    SparseTensor,
    TensorField,
    collate,
    modules,
    quantize,
    slice_field,
)
from sparsefeat.sparse import functional as fn

EDGE = 2**31 - 1


def rows(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


class Network(torch.nn.Module):
    """Two levels with every kind of layer that a backbone has."""

    def __init__(self):
        super().__init__()
        self.conv = modules.Convolution(3, 4, 3)
        self.down = modules.Convolution(4, 4, 3, 2)
        self.norm = modules.BatchNorm(4)
        self.pool = modules.MaxPooling(2, 2)
        self.instance = modules.InstanceNorm(4)
        self.up = modules.ConvolutionTranspose(4, 4, 2, 2)
        self.double()

    def forward(self, x: SparseTensor) -> SparseTensor:
        fine = self.conv(x)
        coarse = self.norm(self.down(fine))
        up = modules.PoolingTranspose(2, 2)(self.instance(self.pool(coarse)))
        return fn.cat(self.up(up), fine)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network()


@pytest.mark.parametrize("far", [2**24, 2**30, EDGE - 40, -(2**24), -(2**31) + 64], ids=str)
def test_a_cloud_gives_the_same_features_wherever_it_lies(network, far):
    """Beyond 2^24 float32 could not tell neighbours apart."""
    x = sparse(cloud(80, side=9))
    moved = x.C.clone()
    moved[:, 1:] += far // 8 * 8
    y, z = network(x), network(SparseTensor(x.F, moved, reduce="error"))
    assert torch.equal(z.C, moved)
    assert_close(z.F, y.F, tolerance=1e-12)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_unsigned_coordinates_are_numbers_too(dtype):
    cells = np.array([[200, 1, 2], [200, 1, 4]], dtype=dtype)
    expected = rows((0, 200, 1, 2), (0, 200, 1, 4))
    assert torch.equal(collate([cells]), expected)
    assert torch.equal(quantize(cells).coordinates, expected[:, 1:])
    given = torch.as_tensor(np.pad(cells, ((0, 0), (1, 0))))
    assert torch.equal(SparseTensor(torch.ones(2, 1), given).C, expected)
    if dtype in (np.uint32, np.uint64):
        with pytest.raises(ValueError, match="must fit int32"):
            collate([np.full((1, 3), np.iinfo(dtype).max, dtype=dtype)])


def test_strided_coordinates_round_down_below_zero_too():
    x = sparse(rows((0, -1, -2, -3), (0, -4, 1, 0)))
    assert modules.SumPooling(2, 2)(x).C.tolist() == [[0, -4, 0, 0], [0, -2, -2, -4]]


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: modules.SumPooling(3, 3)(x),  # floor(-2^31 / 3) * 3 is below -2^31
        lambda x: modules.Convolution(3, 3, 3, expand_coordinates=True).double()(x),
        lambda x: modules.GenerativeConvolutionTranspose(3, 3, 3).double()(x),
    ],
    ids=["strided", "expanded", "generated"],
)
def test_new_coordinates_beyond_int32_are_refused_and_not_wrapped(operation):
    with pytest.raises(ValueError, match="must fit int32"):
        operation(sparse(rows((0, -(2**31), 0, 0))))


def test_a_point_beside_the_last_voxel_sees_it_and_one_beyond_does_not():
    x = SparseTensor(torch.tensor([[1.0]]).double(), rows((0, EDGE, 0, 0)))
    points = torch.zeros(5, 4, dtype=torch.float64)
    points[:, 1] = torch.tensor(
        [EDGE - 0.25, EDGE + 0.25, EDGE + 9, 1e300, -1e300], dtype=torch.float64
    )
    assert fn.interpolate(x, points).tolist() == [[0.75], [0.75], [0.0], [0.0], [0.0]]


def test_interpolation_in_float32_far_from_the_origin_finds_the_right_voxels():
    """16777218 is a multiple of 3 that float32 has; the next multiple, 16777221, it has not."""
    x = SparseTensor(
        torch.tensor([[1.0], [10.0]]),
        rows((0, 16777218, 0, 0), (0, 16777221, 0, 0)),
        tensor_stride=3,
    )
    plan, weights = fn.interpolation_map(x, torch.tensor([[0.0, 16777220.0, 0.0, 0.0]]))
    assert plan.in_rows.tolist() == [0, 1]
    assert weights.tolist() == pytest.approx([1 / 3, 2 / 3], abs=0.2), (
        "as near as float32 can say 5592406.67"
    )


def test_a_box_that_almost_fills_the_key_range():
    corner = torch.tensor([0, 2**30 - 1, 2**24, 3], dtype=torch.int32)
    coordinates = torch.stack(
        [corner, corner - rows(0, 1, 1, 1), -corner, -corner + rows(0, 0, 1, 0)]
    )
    x, kernel = sparse(coordinates), Kernel.of((3, 3, 2))
    target = torch.cat(
        [coordinates, coordinates + rows(0, 1, 0, 0), coordinates - rows(0, 1, 0, 1)]
    )
    with pytest.raises(ValueError, match="beyond the key range"):
        sparse(coordinates * rows(1, 1, 64, 1))
    offsets = window(kernel.size, kernel.dilation, (1, 1, 1))
    for key in (x.key, x.manager.insert(target), x.manager.stride(x.key, 2)):
        plan = x.manager.kernel_map(x.key, key, kernel)
        found = sorted(zip(plan.cells.tolist(), plan.in_rows.tolist(), plan.out_rows.tolist()))
        assert found == sorted(neighbours(x.C, x.manager[key].coordinates, offsets)) and found


def test_a_kernel_that_reaches_out_of_the_key_range_is_refused():
    half = 2**27
    x = sparse(rows((0, -half, -half, 0), (0, half, half, 0)))
    with pytest.raises(ValueError, match="beyond the key range"):
        modules.Convolution(3, 3, 3, dilation=2**30).double()(x)


@pytest.mark.parametrize(
    "reduce, expected",
    [
        ("first", [[1.0], [4.0]]),
        ("sum", [[6.0], [4.0]]),
        ("average", [[2.0], [4.0]]),
        ("max", [[3.0], [4.0]]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=str)
def test_duplicates_are_reduced(reduce, expected, dtype):
    coordinates = rows((1, 2, 3, 4), (1, 2, 3, 4), (0, 0, 0, 0), (1, 2, 3, 4))
    features = torch.tensor([[1.0], [2.0], [4.0], [3.0]]).to(dtype)
    x = SparseTensor(features, coordinates, reduce=reduce)
    assert x.C.tolist() == [[1, 2, 3, 4], [0, 0, 0, 0]], "order of first occurrence"
    assert x.F.tolist() == expected and x.dtype == dtype
    assert x.unique_index.tolist() == [0, 2] and x.inverse_mapping.tolist() == [0, 0, 1, 0]
    q = quantize(coordinates[:, 1:], features, reduce=reduce)
    assert q.features.tolist() == expected and q.inverse.tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("size", [2, 3])
def test_pooling_onto_the_map_of_a_global_pool_sees_the_window_at_its_origin(size):
    x = SparseTensor(
        torch.tensor([[1.0], [2.0], [4.0], [8.0]]),
        rows((0, 0, 0, 0), (0, 5, 0, 0), (3, 0, 0, 0), (3, 0, 9, 9)),
    )
    summary = modules.GlobalSumPooling()(x)
    found = modules.SumPooling(size, size)(x, summary.key)
    assert found.F.tolist() == [[1], [4]] and found.key == summary.key


def test_averages_of_colours_are_floats_and_sums_do_not_wrap_around():
    coordinates = rows((0, 0, 0, 0), (0, 0, 0, 0), (0, 5, 0, 0))
    colours = torch.tensor([[200], [221], [7]], dtype=torch.uint8)
    for reduce, expected, dtype in (
        ("average", [[210.5], [7]], torch.float32),
        ("sum", [[421], [7]], torch.int64),
        ("max", [[221], [7]], torch.uint8),
    ):
        found = [
            quantize(coordinates[:, 1:], colours, reduce=reduce).features,
            SparseTensor(colours, coordinates, reduce=reduce).F,
            TensorField(colours, coordinates.float()).sparse(reduce).F,
        ]
        for features in found:
            assert features.tolist() == expected and features.dtype == dtype
    x = SparseTensor(colours[:2], coordinates[1:], reduce="error")
    assert modules.GlobalAvgPooling()(x).F.tolist() == [[210.5]]
    assert modules.GlobalSumPooling()(x).F.tolist() == [[421]]
    assert modules.SumPooling(8, 8)(x).F.tolist() == [[421]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64], ids=str)
def test_labels_of_any_integer_type_hold_the_label_to_ignore(dtype):
    labels = torch.tensor([1, 0, 1]).to(dtype)
    cells = torch.tensor([[0, 0, 0], [0, 0, 0], [4, 0, 0]])
    assert quantize(cells, labels=labels).labels.tolist() == [-100, 1]


def test_a_batch_column_out_of_order_changes_nothing_but_the_rows(network):
    x = sparse(cloud(100, batches=4, side=7))
    order = torch.sort(x.C[:, 0], stable=True).indices
    assert not torch.equal(order, torch.arange(len(x)))
    y, ordered = network(x), network(SparseTensor(x.F[order], x.C[order], reduce="error"))
    assert_close(ordered.F, y.F[order], tolerance=1e-12)
    coordinates, features = x.decompose()
    for batch in range(4):
        mine = x.C[:, 0] == batch
        assert torch.equal(coordinates[batch], x.C[mine, 1:]) and torch.equal(
            features[batch], x.F[mine]
        )
    assert modules.GlobalSumPooling()(x).C[:, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("absent", [0, 1, 2], ids=["at the start", "in the middle", "at the end"])
def test_a_batch_with_an_empty_cloud(network, absent):
    clouds = [cloud(30, seed=i, batches=1, side=6)[:, 1:] for i in range(3)]
    clouds[absent] = clouds[absent][:0]
    features = [numbers(len(c), 3, seed=i) for i, c in enumerate(clouds)]
    coordinates, stacked = collate(clouds, features)
    x = SparseTensor(stacked, coordinates)
    network.eval()
    y = network(x)
    parts = y.decompose()[1]
    assert len(parts) == (2 if absent == 2 else 3), "clouds after the last voxel leave no trace"
    for batch, part in enumerate(parts):
        assert len(part) == len(clouds[batch])
        if batch != absent:
            alone = network(SparseTensor(features[batch], collate([clouds[batch]])))
            assert_close(part, alone.F, tolerance=1e-12)
    summary = modules.GlobalAvgPooling()(x)
    assert summary.C[:, 0].tolist() == [b for b in range(3) if b != absent]
    for row, batch in enumerate(summary.C[:, 0].tolist()):
        assert_close(summary.F[row], features[batch].mean(0), tolerance=1e-12)
    spread = modules.Broadcast()(x, summary)
    assert torch.equal(spread.F, summary.F[torch.unique(x.C[:, 0], return_inverse=True)[1]])


def test_a_summary_is_matched_by_batch_index_and_not_by_row():
    x = SparseTensor(torch.ones(3, 1), rows((4, 0, 0, 0), (1, 0, 0, 0), (4, 1, 1, 1)))
    summary = SparseTensor(
        torch.tensor([[40.0], [20.0], [10.0]]),
        rows((4, 0, 0, 0), (2, 0, 0, 0), (1, 0, 0, 0)),
        manager=x.manager,
    )
    assert modules.BroadcastAddition()(x, summary).F[:, 0].tolist() == [41.0, 11.0, 41.0]
    lacking = SparseTensor(torch.ones(2, 1), rows((0, 0, 0, 0), (4, 0, 0, 0)))
    with pytest.raises(ValueError, match=r"one summary row for each cloud \[1, 4\], got \[0, 4\]"):
        modules.Broadcast()(x, lacking)


@pytest.mark.parametrize("stride", [1, 2])
def test_output_coordinates_may_be_given_as_a_tensor_a_key_or_a_sparse_tensor(stride):
    x = sparse(cloud(60))
    target = cloud(40, seed=1, side=8, stride=stride)
    layer = modules.Convolution(3, 2, 3, stride).double()
    everywhere = modules.Convolution(3, 2, 3, stride, expand_coordinates=True).double()
    everywhere.load_state_dict(layer.state_dict())
    as_tensor = layer(x, target)
    assert torch.equal(as_tensor.C, target) and as_tensor.tensor_stride == (stride,) * 3
    full = everywhere(x)
    row = full.coordinate_map.find(target)
    assert_close(as_tensor.F, torch.where(row[:, None] >= 0, full.F[row], 0), tolerance=1e-12)
    as_key = layer(x, as_tensor.key)
    other = sparse(target, manager=x.manager, tensor_stride=stride)
    as_sparse = layer(x, other)
    assert as_key.key == as_tensor.key and as_sparse.key == other.key
    assert torch.equal(as_key.F, as_tensor.F) and torch.equal(as_sparse.F, as_tensor.F)


def test_float_coordinates_are_rounded_down():
    x = SparseTensor(
        torch.ones(3, 1),
        torch.tensor([[0.0, -0.1, 0.9, 1.0], [1.0, -1.0, 2.5, 0], [0, -0.9, 0, 1.9]]),
    )
    assert x.C.dtype == torch.int32
    assert x.C.tolist() == [[0, -1, 0, 1], [1, -1, 2, 0]]


def test_coordinates_at_the_ends_of_int32_are_accepted():
    for dtype in (torch.int64, torch.float64):
        x = SparseTensor(
            torch.ones(2, 1), torch.tensor([[0, -(2**31), 0, 0], [0, EDGE, 0, 0]], dtype=dtype)
        )
        assert x.C[:, 1].tolist() == [-(2**31), EDGE]


def test_what_a_caller_does_to_his_coordinates_later_does_not_reach_the_map():
    coordinates = cloud(9)
    x = sparse(coordinates)
    before = x.C.clone()
    coordinates += 1
    assert torch.equal(x.C, before)


def test_sizes_may_be_tuples_arrays_or_tensors():
    sizes = (1, 2, 3)
    for given in (list(sizes), np.array(sizes), torch.tensor(sizes)):
        assert Kernel.of(given).size == sizes
    assert Kernel.of(np.int64(3)).size == Kernel.of(torch.tensor(3)).size == (3, 3, 3)


def test_narrow_types_of_coordinates_hold_large_batches():
    coordinates = collate([torch.zeros(1, 3, dtype=torch.int8)] * 200)
    assert coordinates[:, 0].tolist() == list(range(200))


def test_slicing_by_position_and_by_the_recorded_rows_agree():
    positions = torch.cat([torch.zeros(40, 1), numbers(40, 3, dtype=torch.float32) * 3], 1)
    field = TensorField(numbers(40, 2), positions)
    x = field.sparse()
    recorded = slice_field(x, field)
    looked_up = slice_field(x, TensorField(field.F, positions))
    assert torch.equal(recorded.F, looked_up.F)
    coarse = modules.SumPooling(2, 2)(x)
    cells = torch.cat([positions[:, :1], torch.floor(positions[:, 1:] / 2) * 2], 1).int()
    assert torch.equal(slice_field(coarse, field).F, coarse.F[coarse.coordinate_map.find(cells)])
    summary = modules.GlobalSumPooling()(x)
    assert torch.equal(slice_field(summary, field).F, summary.F.expand(40, 2))
    with pytest.raises(ValueError, match=r"\(row 0\) lies in no voxel"):
        slice_field(x, TensorField(torch.ones(1, 1), torch.tensor([[0.0, 50.0, 0.0, 0.0]])))


def test_arithmetic_on_one_map_with_numbers_and_by_row():
    x = sparse(cloud(9))
    y = x.replace(x.F * 3)
    assert torch.equal((x + y).F, x.F * 4) and (x + y).key == x.key
    assert torch.equal((2 * x - x * 2).F, torch.zeros_like(x.F))
    assert torch.equal((-x / 2).F, -x.F / 2)
    order = rows_at(x.C, x.C.flip(0))
    assert torch.equal(order, torch.arange(len(x)).flip(0))
