"""No voxel at all, and a single one, through every operation, forward and backward."""

from __future__ import annotations

import pytest
import torch
from engine_oracle import PATHS, assert_close, cloud, numbers, sparse, take_path

from sparsefeat.sparse import Kernel, SparseTensor, TensorField, collate, quantize, slice_field
from sparsefeat.sparse import functional as fn
from sparsefeat.sparse import modules as m

LAYERS = {
    "pointwise convolution": lambda: m.Convolution(4, 4, 1, bias=True),
    "convolution": lambda: m.Convolution(4, 5, 3, bias=True),
    "even convolution": lambda: m.Convolution(4, 5, 2),
    "strided convolution": lambda: m.Convolution(4, 5, 3, 2),
    "expanded convolution": lambda: m.Convolution(4, 5, 3, expand_coordinates=True),
    "transposed convolution": lambda: m.ConvolutionTranspose(4, 5, 2, 1),
    "generative convolution": lambda: m.GenerativeConvolutionTranspose(4, 5, 3),
    "down and up": lambda: torch.nn.Sequential(
        m.Convolution(4, 4, 2, 2), m.ConvolutionTranspose(4, 4, 2, 2)
    ),
    "channelwise convolution": lambda: m.ChannelwiseConvolution(4, 3, bias=True),
    "batch norm": lambda: m.BatchNorm(4),
    "batch norm without statistics": lambda: m.BatchNorm(4, track_running_stats=False),
    "batch norm without parameters": lambda: m.BatchNorm(4, affine=False),
    "batch norm in eval mode": lambda: m.BatchNorm(4).eval(),
    "batch norm without statistics in eval mode": lambda: m.BatchNorm(
        4, track_running_stats=False
    ).eval(),
    "sync batch norm": lambda: m.SyncBatchNorm(4),
    "instance norm": lambda: m.InstanceNorm(4),
    "max pooling": lambda: m.MaxPooling(2, 2),
    "overlapping max pooling": lambda: m.MaxPooling(3, 1),
    "average pooling": lambda: m.AvgPooling(3, 2),
    "sum pooling": lambda: m.SumPooling(2, 2),
    "transposed pooling": lambda: torch.nn.Sequential(m.SumPooling(2, 2), m.PoolingTranspose(2, 2)),
    "global maximum": m.GlobalMaxPooling,
    "global average": m.GlobalAvgPooling,
    "global sum": m.GlobalSumPooling,
    "relu": m.ReLU,
    "leaky relu": m.LeakyReLU,
    "prelu": m.PReLU,
    "elu": m.ELU,
    "gelu": m.GELU,
    "silu": m.SiLU,
    "sigmoid": m.Sigmoid,
    "tanh": m.Tanh,
    "softplus": m.Softplus,
    "softmax": m.Softmax,
    "dropout": lambda: m.Dropout(0.5),
    "linear": lambda: m.Linear(4, 7),
}

OPERATIONS = {
    "broadcast": lambda x: fn.broadcast(x, fn.global_pool(x, "sum"), "copy").F,
    "broadcast addition": lambda x: fn.broadcast(x, fn.global_pool(x, "max"), "add").F,
    "broadcast product": lambda x: fn.broadcast(x, fn.global_pool(x, "average"), "multiply").F,
    "broadcast concatenation": lambda x: fn.broadcast(x, fn.global_pool(x, "sum"), "cat").F,
    "normalize": lambda x: fn.normalize(x).F,
    "cat": lambda x: fn.cat(x, x).F,
    "sum": lambda x: (x + x * 2 - x).F,
    "union with all voxels": lambda x: fn.union(x, sparse(cloud(9), 4, manager=x.manager)).F,
    "sum with all voxels": lambda x: (sparse(cloud(9), 4, manager=x.manager) + x).F,
    "product with all voxels": lambda x: (x * sparse(cloud(9), 4, manager=x.manager)).F,
    "quotient by all voxels": lambda x: (x / sparse(cloud(9), 4, manager=x.manager)).F,
    "pruning to nothing": lambda x: fn.prune(x, torch.zeros(len(x), dtype=torch.bool)).F,
    "pruning nothing": lambda x: fn.prune(x, torch.ones(len(x), dtype=torch.bool)).F,
    "interpolation": lambda x: fn.interpolate(x, numbers(5, 4).abs()),
    "interpolation nowhere": lambda x: fn.interpolate(x, torch.zeros(0, 4)),
    "convolution onto coordinates": lambda x: m.Convolution(4, 4, 3).double()(x, cloud(9)).F,
    "convolution onto none": lambda x: m.Convolution(4, 4, 3).double()(x, cloud(9)[:0]).F,
    "pooling onto coordinates": lambda x: m.MaxPooling(3)(x, cloud(9)).F,
    "average onto coordinates": lambda x: m.AvgPooling(2, 2)(x, cloud(9, stride=2)).F,
    "dense": lambda x: x.dense(shape=(3, 4, 20, 20, 20), min_coordinate=torch.tensor([-9, -9, -9]))[
        0
    ],
    "decompose": lambda x: sum((f.sum() for f in x.decompose()[1]), start=x.F.sum()),
    "splat": lambda x: TensorField(x.F, x.C + 0.25).splat().F,
    "field and back": lambda x: (
        slice_field(TensorField(x.F, x.C + 0.25).sparse(), TensorField(x.F, x.C + 0.25)).F
    ),
}


def check_backward(y: torch.Tensor, leaves: list[torch.Tensor]) -> None:
    """There is a gradient for every leaf, of its shape and finite."""
    assert y.isfinite().all()
    grads = torch.autograd.grad(y.sum(), leaves, allow_unused=True)
    for leaf, grad in zip(leaves, grads):
        assert grad is None or (grad.shape == leaf.shape and grad.isfinite().all())
    assert grads[0] is not None


def tensor(voxels: int) -> SparseTensor:
    coordinates = torch.tensor([[2, -3, 5, 1]], dtype=torch.int32)[:voxels]
    return SparseTensor(numbers(voxels, 4).requires_grad_(), coordinates)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("voxels", [0, 1], ids=["no voxel", "one voxel"])
@pytest.mark.parametrize(
    "name", [name for name in LAYERS if "convolution" in name or "down" in name]
)
def test_convolutions(monkeypatch, name, voxels, path):
    take_path(monkeypatch, path)
    torch.manual_seed(0)
    x, layer = tensor(voxels), LAYERS[name]().double()
    y = layer(x)
    assert voxels > 0 or len(y) == 0
    check_backward(y.F, [x.F, *layer.parameters()])


@pytest.mark.parametrize("voxels", [0, 1], ids=["no voxel", "one voxel"])
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, voxels):
    torch.manual_seed(0)
    x, layer = tensor(voxels), LAYERS[name]().double()
    y = layer(x)
    assert len(y) == len(y.C) and y.F.dtype == torch.float64
    assert voxels > 0 or len(y) == 0
    check_backward(y.F, [x.F, *layer.parameters()])


@pytest.mark.parametrize("voxels", [0, 1], ids=["no voxel", "one voxel"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name, voxels):
    x = tensor(voxels)
    check_backward(OPERATIONS[name](x), [x.F])


@pytest.mark.parametrize("reduce", ["first", "average", "sum", "max"])
def test_empty_clouds_are_quantized_and_collated(reduce):
    out = quantize(
        torch.zeros(0, 3), torch.zeros(0, 2), torch.zeros(0).long(), voxel_size=0.1, reduce=reduce
    )
    assert out.coordinates.shape == (0, 3) and out.features.shape == (0, 2) and len(out.labels) == 0
    coordinates, features = collate([out.coordinates] * 2, [out.features] * 2)
    assert coordinates.shape == (0, 4) and features.shape == (0, 2)
    x = SparseTensor(features, coordinates, reduce=reduce)
    assert len(x) == 0 and x.decompose() == ([], [])


def test_a_convolution_of_one_voxel_is_the_product_with_its_own_cell():
    x = tensor(1)
    layer = m.Convolution(4, 5, 7).double()
    assert_close(layer(x).F, x.F @ layer.kernel[343 // 2], tolerance=1e-12)


def test_a_kernel_larger_than_the_cloud_sees_all_of_it():
    x = sparse(torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]], dtype=torch.int32))
    y = fn.pool(x, "sum", Kernel.of((51, 3, 5)))
    assert_close(y.F, x.F.sum(0).expand(3, 3), tolerance=1e-12)
    layer = m.Convolution(3, 2, 15).double()
    weight = layer.kernel.view(15, 15, 15, 3, 2)  # z, y, x
    by_hand = [
        sum(
            x.F[i] @ weight[tuple(7 + d for d in (x.C[i] - x.C[o])[1:].flip(0).tolist())]
            for i in range(3)
        )
        for o in range(3)
    ]
    assert_close(layer(x).F, torch.stack(by_hand), tolerance=1e-12)


def test_one_voxel_in_training_leaves_the_running_statistics_alone():
    """There is no variance to learn from; torch itself refuses a single row."""
    layer = m.BatchNorm(4).double()
    with torch.no_grad():
        layer.bn.running_mean += 2
        layer.bn.running_var *= 9
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    x = tensor(1)
    assert_close(layer(x).F, (x.F - 2) / (9 + 1e-5) ** 0.5, tolerance=1e-9)
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


def test_a_maximum_of_voxels_that_are_not_numbers_is_not_a_number():
    """A diverged network must not look healthy behind a pooling layer."""
    x = sparse(torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0], [0, 4, 0, 0]], dtype=torch.int32), 2)
    features = x.F.clone()
    features[1, 0] = torch.nan
    y = m.MaxPooling(2, 2)(x.replace(features))
    assert y.F.isnan().tolist() == [[True, False], [False, False]]
    assert m.MaxPooling(3)(
        x.replace(x.F * torch.inf), torch.tensor([[0, 50, 0, 0]]).int()
    ).F.tolist() == [[0.0, 0.0]]
