"""Input that must be refused, each with one clear error that says what was given and what was expected."""

from __future__ import annotations

import pytest
import torch
from engine_oracle import cloud, sparse
from test_engine_edges import rows

from sparsefeat.sparse import (
    CoordinateManager,
    CoordinateMapKey,
    Kernel,
    SparseTensor,
    TensorField,
    collate,
    modules,
    quantize,
    slice_field,
)
from sparsefeat.sparse import functional as fn


def test_duplicates_are_refused_where_asked_for_by_their_rows():
    coordinates = rows((0, 5, 5, 5), (0, 1, 1, 1), (0, 2, 2, 2), (0, 1, 1, 1))
    with pytest.raises(ValueError, match=r"\[0, 1, 1, 1\] occurs twice \(rows 1 and 3\)"):
        SparseTensor(torch.zeros(4, 1), coordinates, reduce="error")
    with pytest.raises(ValueError, match="occurs twice"):
        modules.Convolution(3, 3, 3).double()(sparse(cloud(9)), coordinates)
    with pytest.raises(ValueError, match="1 of 4 rows are duplicates"):
        quantize(coordinates[:, 1:], reduce="error")
    with pytest.raises(ValueError, match="expected one of first"):
        SparseTensor(torch.zeros(4, 1), coordinates, reduce="mean")


def test_output_coordinates_from_elsewhere_are_refused():
    x, layer = sparse(cloud(9)), modules.Convolution(3, 3, 3).double()
    with pytest.raises(ValueError, match="must share a coordinate manager"):
        layer(x, sparse(cloud(9)))
    with pytest.raises(ValueError, match="not in this manager"):
        layer(x, CoordinateMapKey((5, 5, 5), ""))
    with pytest.raises(ValueError, match="3 spatial axes, got 2"):
        layer(x, cloud(9, dimension=2))
    with pytest.raises(ValueError, match="must share a coordinate manager"):
        x + sparse(cloud(9))
    with pytest.raises(ValueError, match="must share a coordinate manager"):
        fn.union(x, sparse(cloud(9)))
    with pytest.raises(ValueError, match="one coordinate map"):
        fn.cat(x, modules.SumPooling(2, 2)(x))
    with pytest.raises(ValueError, match="equal tensor strides"):
        x + modules.SumPooling(2, 2)(x)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_coordinates_that_are_not_finite_are_refused_with_their_row(bad):
    coordinates = torch.zeros(3, 4)
    coordinates[2, 1] = bad
    features = torch.ones(3, 1)
    x = SparseTensor(features, torch.zeros(3, 4))
    field = TensorField(features, coordinates)
    for call in (
        lambda: SparseTensor(features, coordinates),
        lambda: quantize(coordinates[:, 1:], voxel_size=0.1),
        lambda: collate([coordinates[:, 1:]]),
        lambda: field.sparse(),
        lambda: field.splat(),
        lambda: slice_field(x, field),
        lambda: fn.interpolate(x, coordinates),
    ):
        with pytest.raises(ValueError, match="(row|point) 2 is not finite"):
            call()


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**40, -(2**63), 3e9, -3e9, 1e30], ids=str)
def test_coordinates_beyond_int32_are_refused(value):
    dtype = torch.int64 if isinstance(value, int) else torch.float32
    coordinates = torch.tensor([[0, 0, 0, 0], [0, value, 0, 0]], dtype=dtype)
    with pytest.raises(ValueError, match="must fit int32"):
        SparseTensor(torch.ones(2, 1), coordinates)


def test_a_negative_batch_index_is_refused_with_its_row():
    with pytest.raises(ValueError, match=r"negative in row 1: \[-1, 0, 0, 0\]"):
        SparseTensor(torch.ones(2, 1), rows((0, 0, 0, 0), (-1, 0, 0, 0)))


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: SparseTensor(torch.ones(3), torch.zeros(3, 4)),
            r"features: expected shape \(V, C\), got \(3,\)",
        ),
        (lambda: SparseTensor(torch.ones(3, 1), torch.zeros(3)), r"coordinates: expected shape"),
        (lambda: SparseTensor(torch.ones(3, 1), torch.zeros(3, 1)), r"coordinates: expected shape"),
        (lambda: SparseTensor(torch.ones(3, 1), torch.zeros(2, 4)), "2 coordinates but 3 features"),
        (lambda: SparseTensor(torch.ones(3, 1)), "expected coordinates, or a manager and a key"),
        (
            lambda: SparseTensor(torch.ones(3, 1), torch.zeros(3, 4).bool()),
            "expected integers or floats",
        ),
        (
            lambda: SparseTensor(torch.ones(3, 1), torch.zeros(3, 4).cfloat()),
            "expected integers or floats",
        ),
        (
            lambda: SparseTensor(torch.ones(1, 1), torch.zeros(1, 4), (1, 2)),
            "tensor_stride: expected one value or 3",
        ),
        (
            lambda: SparseTensor(torch.ones(1, 1), torch.zeros(1, 4), -2),
            "tensor_stride: expected at least 0",
        ),
        (lambda: TensorField(torch.ones(2, 1), torch.zeros(3, 4)), "TensorField: expected"),
        (lambda: quantize(torch.zeros(3)), r"expected coordinates of shape \(N, D\), got \(3,\)"),
        (lambda: quantize(torch.zeros(3, 3), torch.ones(2, 1)), "3 coordinates but 2 features"),
        (lambda: quantize(torch.zeros(3, 3), labels=torch.ones(2)), "3 coordinates but 2 labels"),
        (
            lambda: quantize(torch.zeros(3, 3), voxel_size=0.0),
            "voxel_size: expected a positive length, got 0.0",
        ),
        (
            lambda: quantize(torch.zeros(3, 3), voxel_size=float("nan")),
            "voxel_size: expected a positive length",
        ),
        (
            lambda: quantize(torch.zeros(3, 3), voxel_size=float("inf")),
            "voxel_size: expected a positive length, got inf",
        ),
        (
            lambda: quantize(torch.zeros(3, 3), voxel_size="0.1"),
            "voxel_size: expected a positive length, got '0.1'",
        ),
        (
            lambda: quantize(torch.zeros(3, 3), labels=torch.full((3,), torch.nan)),
            r"labels \(3,\) of torch.float32, expected integers",
        ),
        (
            lambda: quantize(torch.zeros(3, 3), torch.zeros(3), reduce="average"),
            r"expected features of shape \(N, C\), got \(3,\)",
        ),
        (lambda: collate([]), "at least one cloud"),
        (lambda: collate([torch.zeros(3)]), r"cloud 0: expected shape"),
        (lambda: collate([torch.zeros(3, 3), torch.zeros(3, 2)]), r"cloud 1: expected shape"),
        (lambda: collate([torch.zeros(3, 3)], [torch.zeros(2, 1)]), "differ in length"),
        (lambda: Kernel.of(0), "kernel_size: expected at least 1"),
        (lambda: Kernel.of(3, 0), "dilation: expected at least 1"),
        (lambda: Kernel.of(2.5), "kernel_size: expected integers, got 2.5"),
        (lambda: Kernel.of((3, 3)), "kernel_size: expected one value or 3, got 2"),
        (lambda: Kernel((2, 2, 2), (1, 1, 1), "cross"), "a cross needs odd sizes"),
        (lambda: Kernel((3, 3, 3), (1, 1, 1), "ball"), "region: expected"),
        (lambda: Kernel((3, 3, 3), (1, 1, 1), "custom"), "'custom' needs offsets"),
        (lambda: modules.Convolution(3, 4, 3, stride=0), "stride: expected at least 1"),
        (lambda: modules.Convolution(0, 4, 3), "channels must be positive"),
        (
            lambda: modules.Convolution(4, 4, 3).double()(sparse(cloud(5))),
            "expected 4 channels, got 3",
        ),
        (
            lambda: modules.ChannelwiseConvolution(1, 3).double()(sparse(cloud(5))),
            r"expected a kernel \[27, 3\]",
        ),
        (lambda: modules.InstanceNorm(4).double()(sparse(cloud(5))), "4 channels expected, got 3"),
        (
            lambda: modules.Convolution(3, 4, 3, dimension=2).double()(sparse(cloud(5))),
            "expected one value or 3",
        ),
        (
            lambda: modules.Convolution(3, 4, 3)(sparse(cloud(5))),
            "features are torch.float64, the kernel is",
        ),
        (
            lambda: fn.convolution(sparse(cloud(5)), torch.ones(9, 3, 1), None, Kernel.of(3)),
            "expected a kernel",
        ),
        (
            lambda: fn.pool(sparse(cloud(5)), "mean", Kernel.of(2)),
            "'max', 'average' or 'sum', got 'mean'",
        ),
        (lambda: fn.prune(sparse(rows((0, 0, 0, 0))), torch.ones(2).bool()), "expected 1 booleans"),
        (lambda: fn.interpolate(sparse(cloud(5)), torch.zeros(3, 3)), r"points of shape \(N, 4\)"),
        (
            lambda: modules.ConvolutionTranspose(3, 3, 2, 2).double()(sparse(cloud(5))),
            "not divisible by stride",
        ),
        (lambda: fn.cat(), "at least one tensor"),
        (lambda: fn.union(), "at least one tensor"),
        (lambda: sparse(cloud(5)).dense(shape=(1, 3, 1, 1, 1)), "lie outside"),
        (lambda: sparse(cloud(5)).dense(shape=(9, 2, 9, 9, 9)), "for 3 channels"),
        (lambda: sparse(cloud(9), tensor_stride=2).dense(), "not all multiples"),
        (lambda: sparse(rows()[:0].reshape(0, 4)).dense(), "no extent"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_operands_of_different_width_are_refused_across_maps():
    x = sparse(cloud(9))
    other = sparse(cloud(9, seed=1), channels=2, manager=x.manager)
    for call in (lambda: x + other, lambda: x * other, lambda: fn.union(x, other)):
        with pytest.raises(ValueError, match="channels"):
            call()


def test_devices_are_not_mixed():
    """The meta device stands for another one."""
    x = sparse(cloud(9))
    with pytest.raises(ValueError, match="coordinates on cpu, features on meta"):
        SparseTensor(torch.ones(9, 1, device="meta"), torch.zeros(9, 4))
    with pytest.raises(ValueError, match="map on cpu, features on meta"):
        x.replace(x.F.to("meta"))
    with pytest.raises(ValueError, match="features on cpu, the kernel on meta"):
        modules.Convolution(3, 3, 3).double().to("meta")(x)
    with pytest.raises(ValueError, match="features on cpu, points on meta"):
        fn.interpolate(x, torch.zeros(2, 4, device="meta"))
    with pytest.raises(ValueError, match="features on meta, coordinates on cpu"):
        TensorField(torch.ones(2, 1, device="meta"), torch.zeros(2, 4))


def test_a_manager_refuses_coordinates_of_another_dimension():
    manager = CoordinateManager(3)
    with pytest.raises(ValueError, match="3 spatial axes, got 2"):
        manager.insert(cloud(5, dimension=2))
