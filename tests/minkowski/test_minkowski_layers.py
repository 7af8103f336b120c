"""sparsefeat.minkowski: layers, functions and operations under MinkowskiEngine's names."""

from __future__ import annotations

import pytest
import sparsefeat.minkowski.MinkowskiFunctional as MEF
import torch
from engine_oracle import Record, assert_close, cloud, numbers, rows_at
from torch import nn

import sparsefeat.minkowski as ME
from sparsefeat.minkowski.modules.resnet_block import BasicBlock, Bottleneck
from sparsefeat.minkowski.modules.senet_block import SEBasicBlock, SEBottleneck
from sparsefeat.minkowski.utils.gradcheck import gradcheck

CUBE, CROSS = ME.RegionType.HYPER_CUBE, ME.RegionType.HYPER_CROSS


def tensor(
    count: int = 40, channels: int = 2, seed: int = 0, dimension: int = 2, **keywords
) -> ME.SparseTensor:
    coordinates = cloud(count, seed=seed, dimension=dimension)
    features = numbers(len(coordinates), channels, seed=seed).requires_grad_()
    return ME.SparseTensor(features, coordinates, **keywords)


def check_recorded(y: ME.SparseTensor, record: Record, gradients: dict) -> None:
    """Compare output and gradients by coordinate; ``gradients``: name in the record -> leaf."""
    rows = rows_at(y.C, record["out_coords"])
    assert_close(y.F[rows], record["out_feats"])
    for name, grad in zip(
        gradients, torch.autograd.grad(y.F[rows], list(gradients.values()), record["grad_out"])
    ):
        assert_close(grad, record[name])


CONVOLUTIONS = {
    "conv_k3s1_bias": {"kernel_size": 3, "bias": True},
    "conv_k123s1": {"kernel_size": [1, 2, 3]},
    "conv_k2s3": {"kernel_size": 2, "stride": 3},
    "conv_k3s1d2_ts2": {"kernel_size": 3, "dilation": 2},
    "conv_k1s2": {"kernel_size": 1, "stride": 2},
    "conv_k3s2_expand": {"kernel_size": 3, "stride": 2, "expand_coordinates": True},
    "conv_k3s1_cross": {"kernel_generator": {"kernel_size": 3, "region_type": CROSS}},
    "conv_k5s1_cross": {"kernel_generator": {"kernel_size": 5, "region_type": CROSS}},
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_as_recorded(golden, name):
    record = Record(golden, name)
    arguments = dict(CONVOLUTIONS[name])
    if "kernel_generator" in arguments:
        arguments["kernel_generator"] = ME.KernelGenerator(
            dimension=3, **arguments["kernel_generator"]
        )
    weight = record["weight"]
    conv = ME.MinkowskiConvolution(
        weight.shape[-2], weight.shape[-1], dimension=3, **arguments
    ).double()
    assert conv.kernel.shape == weight.shape
    with torch.no_grad():
        conv.kernel.copy_(weight)
        if conv.bias is not None:
            conv.bias.copy_(record["bias"])
    leaf = record.leaf("feats")
    y = conv(ME.SparseTensor(leaf, record["coords"], tensor_stride=record.meta["in_tensor_stride"]))
    assert y.tensor_stride == record.meta["out_tensor_stride"]
    check_recorded(y, record, {"grad_feats": leaf, "grad_weight": conv.kernel})


@pytest.mark.parametrize("name", ["generative_convtr_k2s2", "generative_convtr_k3s2"])
def test_generative_convolutions_as_recorded(golden, name):
    record = Record(golden, name)
    weight = record["weight"]
    conv = ME.MinkowskiGenerativeConvolutionTranspose(
        weight.shape[1],
        weight.shape[2],
        kernel_size=record.meta["kernel_size"],
        stride=2,
        dimension=3,
    ).double()
    with torch.no_grad():
        conv.kernel.copy_(weight)
    leaf = record.leaf("feats")
    y = conv(ME.SparseTensor(leaf, record["coords"], tensor_stride=record.meta["in_tensor_stride"]))
    check_recorded(y, record, {"grad_feats": leaf, "grad_weight": conv.kernel})


@pytest.mark.parametrize(
    "name", ["pool_max_k3s2", "pool_avg_k2s2", "pool_sum_k3s1d2", "pool_avg_k3s3"]
)
def test_pooling_as_recorded(golden, name):
    record = Record(golden, name)
    kind = {
        "max": ME.MinkowskiMaxPooling,
        "avg": ME.MinkowskiAvgPooling,
        "sum": ME.MinkowskiSumPooling,
    }[name[5:8]]
    leaf = record.leaf("feats")
    meta = record.meta
    pool = kind(
        kernel_size=meta["kernel_size"],
        stride=meta["stride"],
        dilation=meta["dilation"],
        dimension=3,
    )
    check_recorded(pool(ME.SparseTensor(leaf, record["coords"])), record, {"grad_feats": leaf})


@pytest.mark.parametrize(
    "name", ["broadcast_add", "broadcast_cat", "broadcast_copy", "broadcast_mul"]
)
def test_broadcasts_as_recorded(golden, name):
    record = Record(golden, name)
    kind = {
        "broadcast_add": ME.MinkowskiBroadcastAddition,
        "broadcast_cat": ME.MinkowskiBroadcastConcatenation,
        "broadcast_copy": ME.MinkowskiBroadcast,
        "broadcast_mul": ME.MinkowskiBroadcastMultiplication,
    }[name]
    leaf, summary = record.leaf("feats"), record.leaf("glob_feats")
    x = ME.SparseTensor(leaf, record["coords"])
    m = x.coordinate_manager
    rows = rows_at(record["glob_coords"], m.get_coordinates(m.origin()))
    y = kind()(
        x, ME.SparseTensor(summary[rows], coordinate_map_key=m.origin(), coordinate_manager=m)
    )
    assert torch.equal(y.C, record["out_coords"])
    gradients = {"grad_glob": summary} | ({"grad_feats": leaf} if "grad_feats" in record else {})
    check_recorded(y, record, gradients)


@pytest.mark.parametrize("name", ["union", "binary_add_union", "binary_sub_union"])
def test_union_and_arithmetic_as_recorded(golden, name):
    record = Record(golden, name)
    a, b = record.leaf("feats_a"), record.leaf("feats_b")
    x = ME.SparseTensor(a, record["coords_a"])
    y = ME.SparseTensor(b, record["coords_b"], coordinate_manager=x.coordinate_manager)
    if name == "union":
        check_recorded(ME.MinkowskiUnion()(x, y), record, {"grad_a": a, "grad_b": b})
        return
    z = x + y if name == "binary_add_union" else x - y
    assert_close(z.F[rows_at(z.C, record["out_coords"])], record["out_feats"])


def test_cat_and_pruning_as_recorded(golden):
    record = Record(golden, "cat")
    a, b = record.leaf("feats_a"), record.leaf("feats_b")
    x = ME.SparseTensor(a, record["coords"])
    y = ME.SparseTensor(
        b, coordinate_map_key=x.coordinate_map_key, coordinate_manager=x.coordinate_manager
    )
    check_recorded(ME.cat(x, y), record, {"grad_a": a, "grad_b": b})
    record = Record(golden, "pruning")
    leaf = record.leaf("feats")
    y = ME.MinkowskiPruning()(ME.SparseTensor(leaf, record["coords"]), record["keep"])
    check_recorded(y, record, {"grad_feats": leaf})


def test_instance_norm_as_recorded_and_with_the_dimension_fcgf_gives(golden):
    record = Record(golden, "instancenorm")
    leaf = record.leaf("feats")
    norm = ME.MinkowskiInstanceNorm(6, dimension=3).double()
    norm.load_state_dict({"weight": record["gamma"], "bias": record["beta"]})
    y = norm(ME.SparseTensor(leaf, record["coords"]))
    assert torch.equal(y.C, record["out_coords"])
    assert_close(y.F, record["out_feats"])
    stable = ME.MinkowskiStableInstanceNorm(6).double()
    assert (
        stable(ME.SparseTensor(leaf, record["coords"])).F * record["gamma"] + record["beta"] - y.F
    ).abs().max() < 1e-3
    with pytest.raises(TypeError, match="size"):
        ME.MinkowskiInstanceNorm(6, size=3)


def test_functions_have_the_right_gradients_and_fill_empty_keys():
    x = tensor()
    m, key = x.coordinate_manager, x.coordinate_map_key
    conv = ME.MinkowskiConvolution(2, 3, kernel_size=3, stride=2, dimension=2).double()
    up = ME.MinkowskiConvolutionTranspose(3, 2, kernel_size=3, stride=2, dimension=2).double()
    out = ME.CoordinateMapKey(3)
    arguments = (x.F, conv.kernel, conv.kernel_generator, conv.convolution_mode, key)
    features = ME.MinkowskiConvolutionFunction.apply(*arguments, out, m)
    assert out.get_tensor_stride() == [2, 2] and torch.equal(features, conv(x).F)
    assert gradcheck(ME.MinkowskiConvolutionFunction(), (*arguments, None, m))
    y = conv(x)
    arguments = (
        y.F,
        up.kernel,
        up.kernel_generator,
        up.convolution_mode,
        y.coordinate_map_key,
        key,
        m,
    )
    assert gradcheck(ME.MinkowskiConvolutionTransposeFunction(), arguments)
    for kind in (ME.MinkowskiMaxPooling, ME.MinkowskiAvgPooling, ME.MinkowskiSumPooling):
        pool = kind(kernel_size=2, stride=2, dimension=2)
        arguments = (x.F, pool.pooling_mode, pool.kernel_generator, key, None, m)
        assert gradcheck(ME.MinkowskiLocalPoolingFunction(), arguments)
    unpool = ME.MinkowskiPoolingTranspose(kernel_size=3, stride=2, dimension=2)
    arguments = (y.F, unpool.pooling_mode, unpool.kernel_generator, y.coordinate_map_key, None, m)
    assert gradcheck(ME.MinkowskiLocalPoolingTransposeFunction(), arguments)
    for kind in (
        ME.MinkowskiGlobalMaxPooling,
        ME.MinkowskiGlobalAvgPooling,
        ME.MinkowskiGlobalSumPooling,
    ):
        assert gradcheck(
            ME.MinkowskiGlobalPoolingFunction(), (x.F, kind().pooling_mode, key, None, m)
        )
    pooled = ME.MinkowskiGlobalSumPooling()(x).detach().requires_grad_()
    for mode in ME.BroadcastMode:
        arguments = (x.F, pooled.F, mode, key, pooled.coordinate_map_key, m)
        assert gradcheck(ME.MinkowskiBroadcastFunction(), arguments)
    assert gradcheck(ME.MinkowskiInstanceNormFunction(), (x.F, key, None, m))
    keep = torch.arange(len(x)) % 2 == 0
    assert gradcheck(ME.MinkowskiPruningFunction(), (x.F, keep, key, None, m))
    points = torch.tensor([[0, 0.3, 1.2], [1, -1.5, 0.25]], dtype=torch.float64)
    assert gradcheck(ME.MinkowskiInterpolationFunction(), (x.F, points, key, m))
    other = tensor(seed=1, coordinate_manager=m)
    keys = [key, other.coordinate_map_key]
    union = ME.CoordinateMapKey(3)
    total = ME.MinkowskiUnionFunction.apply(keys, union, m, x.F, other.F)
    assert torch.equal(total, (x + other).F) and m.size(union) == len(total)


def test_sparse_matrix_products_have_the_right_gradients():
    rows, cols, vals = (
        torch.tensor([0, 0, 2]),
        torch.tensor([0, 1, 3]),
        torch.tensor([1.0, 2.0, 3.0]).double(),
    )
    mat = numbers(4, 2).requires_grad_()
    expected = torch.zeros(3, 4).double().index_put((rows, cols), vals)
    assert torch.allclose(ME.spmm(rows.int(), cols.int(), vals, [3, 4], mat), expected @ mat)
    assert gradcheck(ME.MinkowskiSPMMFunction(), (rows, cols, vals, [3, 4], mat))
    assert gradcheck(ME.MinkowskiSPMMAverageFunction(), (rows, cols, [3, 4], mat))
    mean = ME.MinkowskiSPMMAverageFunction.apply(rows, cols, [3, 4], mat)
    assert torch.allclose(mean[0], mat[:2].mean(0)) and not mean[1].any()
    assert gradcheck(ME.MinkowskiDirectMaxPoolingFunction(), (cols, rows, mat, 3))


@pytest.mark.parametrize("layer", [
    ME.MinkowskiConvolution(2, 3, kernel_size=3, bias=True, dimension=2),
    ME.MinkowskiConvolution(2, 3, kernel_size=2, stride=2, dimension=2),
    ME.MinkowskiConvolutionTranspose(2, 3, kernel_size=3, dimension=2),
    ME.MinkowskiGenerativeConvolutionTranspose(2, 3, kernel_size=3, dimension=2),
    ME.MinkowskiChannelwiseConvolution(2, kernel_size=3, dimension=2),
], ids=repr)  # fmt: skip
def test_a_convolution_of_the_input_goes_backward_twice(layer):
    """As in the engine, without ``retain_graph``; but not once the kernel is another."""
    layer, x = layer.double(), tensor()
    y = layer(x)
    y.F.square().sum().backward(retain_graph=True)
    once = [p.grad.clone() for p in (x.F, *layer.parameters())]
    for _ in range(2):
        layer.zero_grad()
        x.F.grad = None
        torch.autograd.backward(y.F, 2 * y.F.detach())
        assert all(torch.equal(p.grad, g) for p, g in zip((x.F, *layer.parameters()), once))
    with torch.no_grad():
        layer.kernel.mul_(2)
    with pytest.raises(RuntimeError, match="second time|modified by an inplace operation"):
        torch.autograd.backward(y.F, y.F.detach())


def test_deeper_graphs_are_freed_by_the_first_backward_as_torchs_are():
    first = ME.MinkowskiConvolution(2, 3, kernel_size=3, dimension=2).double()
    second = ME.MinkowskiConvolution(3, 3, kernel_size=3, dimension=2).double()
    y = second(first(tensor()))
    y.F.sum().backward()
    with pytest.raises(RuntimeError, match="retain_graph"):
        y.F.sum().backward()


def test_target_coordinates_get_the_stride_that_was_asked_for():
    x = tensor()
    target = torch.cat([x.C[:5], x.C[:5]])
    conv = ME.MinkowskiConvolution(2, 3, kernel_size=3, dimension=2).double()
    y = conv(x, target)
    assert (
        y.tensor_stride == [1, 1]
        and torch.equal(y.C, x.C[:5])
        and torch.allclose(y.F, conv(x).F[:5])
    )
    other = tensor(seed=1, coordinate_manager=x.coordinate_manager)
    assert torch.equal(conv(x, other).C, other.C) and torch.equal(
        conv(x, other.coordinate_map_key).C, other.C
    )
    strided = ME.MinkowskiMaxPooling(kernel_size=3, stride=2, dimension=2)
    coarse = torch.div(x.C, torch.tensor([1, 2, 2]), rounding_mode="floor") * torch.tensor(
        [1, 2, 2]
    )
    assert strided(x, coarse.int()).tensor_stride == [2, 2]
    down = ME.MinkowskiConvolution(2, 2, kernel_size=2, stride=2, dimension=2).double()(x)
    up = ME.MinkowskiConvolutionTranspose(2, 2, kernel_size=2, stride=2, dimension=2).double()
    assert up(down, x.C).tensor_stride == [1, 1] and torch.allclose(up(down, x.C).F, up(down).F)


def test_a_one_cell_layer_with_stride_is_strided_in_one_dimension_too():
    x = tensor(dimension=1, count=12)
    conv = ME.MinkowskiConvolution(2, 3, kernel_size=1, stride=2, dimension=1).double()
    assert not conv.use_mm and conv.kernel.shape == (1, 2, 3) and conv(x).tensor_stride == [2]
    assert ME.MinkowskiConvolution(2, 3, kernel_size=1, dimension=1).kernel.shape == (2, 3)


def test_channelwise_convolution_is_a_diagonal_kernel():
    x = tensor(channels=3)
    layer = ME.MinkowskiChannelwiseConvolution(
        3, kernel_size=3, stride=2, bias=True, dimension=2
    ).double()
    full = ME.MinkowskiConvolution(3, 3, kernel_size=3, stride=2, bias=True, dimension=2).double()
    with torch.no_grad():
        full.kernel.copy_(torch.diag_embed(layer.kernel))
        full.bias.copy_(layer.bias)
    assert torch.allclose(layer(x).F, full(x).F)


ELEMENTWISE = [
    "ELU", "Hardshrink", "Hardsigmoid", "Hardtanh", "Hardswish", "LeakyReLU", "LogSigmoid", "PReLU", "ReLU",
    "ReLU6", "RReLU", "SELU", "CELU", "GELU", "Sigmoid", "SiLU", "Softplus", "Softshrink", "Softsign", "Tanh",
    "Tanhshrink", "Softmin", "Softmax", "LogSoftmax", "Dropout", "AlphaDropout",
]  # fmt: skip


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_element_wise_layers_are_torchs(name):
    x = tensor()
    layer = getattr(ME, f"Minkowski{name}")().double().eval()
    twin = (
        getattr(nn, name)(**({"dim": 1} if "Softm" in name or name == "LogSoftmax" else {}))
        .double()
        .eval()
    )
    y = layer(x)
    assert torch.equal(y.F, twin(x.F)) and y.coordinate_map_key == x.coordinate_map_key
    assert [key.removeprefix("module.") for key in layer.state_dict()] == list(twin.state_dict())
    assert repr(layer) == f"Minkowski{name}()"


def test_functional_acts_on_features_and_losses_return_torchs_tensor():
    x = tensor(channels=4)
    torch_functional = nn.functional
    for name in ("relu", "leaky_relu", "elu", "sigmoid", "tanh", "gelu", "normalize"):
        assert torch.equal(getattr(MEF, name)(x).F, getattr(torch_functional, name)(x.F))
    assert torch.equal(MEF.softmax(x, dim=1).F, torch.softmax(x.F, 1))
    assert torch.equal(MEF.dropout(x, 0.5, training=False).F, x.F)
    target = torch.arange(len(x)) % 4
    assert torch.equal(MEF.cross_entropy(x, target), torch_functional.cross_entropy(x.F, target))
    assert torch.equal(MEF.mse_loss(x, x.F * 0), x.F.square().mean())
    wrapped = MEF._wrap_tensor(x, x.F * 2)
    assert isinstance(wrapped, ME.SparseTensor) and torch.equal(wrapped.F, 2 * x.F)
    assert wrapped.coordinate_map_key == x.coordinate_map_key
    field = ME.TensorField(x.F, x.C + 0.5)
    assert torch.equal(MEF._wrap_tensor(field, x.F * 2).C, field.C)
    assert len(MEF.__all__) == 46 and all(callable(getattr(MEF, name)) for name in MEF.__all__)


def test_stacks_and_sums_of_tensors():
    x = tensor()
    y = x.replace(numbers(len(x), 2, seed=1))
    assert torch.equal(ME.sum(x, y).F, x.F + y.F)
    assert torch.allclose(ME.mean(x, y, x).F, (2 * x.F + y.F) / 3)
    assert torch.allclose(ME.var(x, y).F, torch.stack([x.F, y.F]).var(0, unbiased=False))
    stack = [ME.MinkowskiStackSum, ME.MinkowskiStackMean, ME.MinkowskiStackVar]
    for kind, expected in zip(stack, (3 * x.F, 1.5 * x.F, 0.25 * x.F**2)):
        layer = kind(nn.Identity(), ME.MinkowskiLinear(2, 2, bias=False).double())
        nn.init.eye_(layer[1].linear.weight).data.mul_(2)
        assert torch.allclose(layer(x).F, expected)
    assert ME.MinkowskiStackCat(nn.Identity(), nn.Identity())(x).F.shape[1] == 4
    with pytest.raises(ValueError, match="manager"):
        ME.cat(x, tensor())
    with pytest.raises(ValueError, match="at least two"):
        ME.cat(x)


def test_dense_grids_to_voxels_and_back():
    grid = torch.zeros(2, 3, 4, 5)
    grid[0, 1, 2, 3], grid[1, 2, 0, 4] = 1.0, -2.0
    grid.requires_grad_()
    x = ME.to_sparse(grid)
    assert x.C.tolist() == [[0, 2, 3], [1, 0, 4]]
    assert torch.equal(ME.MinkowskiToDenseTensor(grid.shape)(x), grid)
    assert torch.equal(ME.to_sparse(grid.movedim(1, -1), format="BXXC").F, x.F)
    every = ME.MinkowskiToSparseTensor(remove_zeros=False)(grid)
    assert len(every) == 2 * 4 * 5 and torch.equal(
        ME.MinkowskiToDenseTensor(grid.shape)(every), grid
    )
    kept = ME.MinkowskiToSparseTensor(coordinates=ME.dense_coordinates(grid.shape))(grid)
    assert torch.equal(kept.C, every.C)
    x.F.sum().backward()
    assert grid.grad.sum() == 6
    with pytest.raises(ValueError, match="format"):
        ME.to_sparse(grid, format="XBXC")


@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck, SEBasicBlock, SEBottleneck])
def test_residual_blocks(kind):
    x = tensor(channels=32, count=60)
    wide = 32 * kind.expansion
    down = nn.Sequential(
        ME.MinkowskiConvolution(32, wide, kernel_size=1, stride=2, dimension=2),
        ME.MinkowskiBatchNorm(wide),
    )
    dimension = {"D": 2} if kind.__name__.startswith("SE") else {"dimension": 2}
    block = kind(32, 32, stride=2, downsample=down, **dimension).double()
    y = block(x)
    assert y.F.shape[1] == wide and y.tensor_stride == [2, 2] and (y.F >= 0).all()
    y.F.sum().backward()
    assert all(p.grad is not None for p in block.parameters())
    assert "conv2.kernel" in block.state_dict() and "norm2.bn.running_var" in block.state_dict()


def test_sync_batch_norm_takes_over_the_same_parameters():
    net = nn.Sequential(
        ME.MinkowskiConvolution(2, 3, kernel_size=3, dimension=2), ME.MinkowskiBatchNorm(3)
    ).double()
    x = tensor()
    before = net(x).F
    weight, statistics = net[1].bn.weight, net[1].bn.running_mean
    converted = ME.MinkowskiSyncBatchNorm.convert_sync_batchnorm(net)
    assert isinstance(converted[1], ME.MinkowskiSyncBatchNorm) and converted[1].bn.weight is weight
    assert converted[1].bn.running_mean is statistics and torch.allclose(converted(x).F, before)
    assert isinstance(converted[1], ME.MinkowskiBatchNorm)


def test_layers_print_as_the_engines_do():
    conv = ME.MinkowskiConvolution(2, 3, kernel_size=3, stride=2, dimension=2)
    assert (
        repr(conv)
        == "MinkowskiConvolution(in=2, out=3, kernel_size=[3, 3], stride=[2, 2], dilation=[1, 1])"
    )
    assert (
        repr(ME.MinkowskiLinear(2, 3))
        == "MinkowskiLinear(in_features=2, out_features=3, bias=True)"
    )
    assert repr(ME.MinkowskiBatchNorm(3)) == (
        "MinkowskiBatchNorm(3, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)"
    )
    assert str(ME.RegionType.HYPER_CUBE) == "RegionType.HYPER_CUBE"


def test_initialisation_is_uniform_within_the_fan():
    torch.manual_seed(0)
    conv = ME.MinkowskiConvolution(8, 16, kernel_size=3, bias=True, dimension=3)
    up = ME.MinkowskiConvolutionTranspose(8, 16, kernel_size=3, dimension=3)
    for values, fan in ((conv.kernel, 8 * 27), (conv.bias, 8 * 27), (up.kernel, 16 * 27)):
        assert 0.8 * fan**-0.5 < values.abs().max() <= fan**-0.5
