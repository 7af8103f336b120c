"""float64, float32, bfloat16 and float16, autocast, and CUDA where there is one."""

from __future__ import annotations

import pytest
import torch
from engine_oracle import PATHS, assert_close, cloud, numbers, rows_at, sparse, take_path
from test_engine_empty import LAYERS
from test_engine_sharing import UNet, unet

from sparsefeat.sparse import Kernel, SparseTensor, TensorField, slice_field
from sparsefeat.sparse import functional as fn
from sparsefeat.sparse import modules as m

# A product sums up to 27 x 4 terms of about 1, each rounded once: a few units in the last place.
ROUNDING = {torch.float32: 2e-6, torch.float16: 6e-3, torch.bfloat16: 4e-2}
DTYPES = pytest.mark.parametrize("dtype", ROUNDING, ids=["float32", "float16", "bfloat16"])

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def run(layer: torch.nn.Module, x: SparseTensor, leaf: torch.Tensor) -> list[torch.Tensor]:
    """Output and gradients of input and parameters."""
    y = layer(x).F
    grad_out = numbers(*y.shape, seed=9).to(y)
    used = [leaf, *layer.parameters()]
    return [y, *torch.autograd.grad(y, used, grad_out)]


def twins(name: str, dtype: torch.dtype):
    """A layer in float64 and one in ``dtype``, and an input for each, of the same rounded values."""
    torch.manual_seed(0)
    narrow = LAYERS[name]().to(dtype)
    wide = LAYERS[name]().double()
    wide.load_state_dict(narrow.state_dict())
    coordinates = cloud(120, side=7)
    values = numbers(len(coordinates), 4).to(dtype)
    leaves = [values.double().requires_grad_(), values.clone().requires_grad_()]
    return [
        (layer, SparseTensor(leaf, coordinates), leaf)
        for layer, leaf in zip((wide, narrow), leaves)
    ]


@DTYPES
@pytest.mark.parametrize("name", [name for name in LAYERS if name not in ("dropout",)])
def test_layers_in_lower_precision(name, dtype):
    expected, got = (run(*twin) for twin in twins(name, dtype))
    for a, b in zip(got, expected):
        assert a.dtype == dtype
        assert_close(a, b, tolerance=ROUNDING[dtype])


@DTYPES
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["convolution", "strided convolution", "down and up"])
def test_convolutions_in_lower_precision(monkeypatch, name, path, dtype):
    take_path(monkeypatch, path)
    expected, got = (run(*twin) for twin in twins(name, dtype))
    for a, b in zip(got, expected):
        assert a.dtype == dtype
        assert_close(a, b, tolerance=ROUNDING[dtype])


OPERATIONS = {
    "cat": lambda x: fn.cat(x, x).F,
    "sum across maps": lambda x: (x + fn.prune(x, x.C[:, 1] > 0)).F,
    "union": lambda x: fn.union(x, fn.prune(x, x.C[:, 1] > 0)).F,
    "quotient": lambda x: (x / x.replace(x.F.abs() + 1)).F,
    "broadcast": lambda x: fn.broadcast(x, fn.global_pool(x, "average"), "multiply").F,
    "normalize": lambda x: fn.normalize(x).F,
    "interpolation": lambda x: fn.interpolate(x, numbers(50, 4, dtype=torch.float32).abs()),
    "field": lambda x: TensorField(x.F, x.C // 2 + 0.5).sparse().F,
    "maximum of a field": lambda x: TensorField(x.F, x.C // 2 + 0.5).sparse("max").F,
    "splat": lambda x: TensorField(x.F, x.C + 0.25).splat().F,
    "slice": lambda x: slice_field(x, TensorField(x.F, x.C + 0.25)).F,
    "dense": lambda x: x.dense()[0],
}


@DTYPES
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_in_lower_precision(name, dtype):
    coordinates = cloud(120, side=7)
    results = []
    for kind in (torch.float64, dtype):
        leaf = numbers(len(coordinates), 4).to(dtype).to(kind).requires_grad_()
        y = OPERATIONS[name](SparseTensor(leaf, coordinates))
        assert y.dtype == kind
        results.append((y, torch.autograd.grad(y, leaf, numbers(*y.shape, seed=9).to(kind))[0]))
    for a, b in zip(results[1], results[0]):
        assert_close(a, b, tolerance=ROUNDING[dtype])


@pytest.fixture
def float64_by_default():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", [name for name in LAYERS if name not in ("dropout",)])
def test_layers_do_not_depend_on_the_default_type(name, dtype, float64_by_default):
    layer = LAYERS[name]()
    assert all(p.dtype == torch.float64 for p in layer.parameters())
    layer.to(dtype)
    coordinates = cloud(120, side=7)
    found = []
    for default in (torch.float64, torch.float32):
        torch.set_default_dtype(default)
        leaf = numbers(len(coordinates), 4, dtype=dtype).requires_grad_()
        found.append(run(layer, SparseTensor(leaf, coordinates), leaf))
    for one, other in zip(*found):
        assert one.dtype == dtype and torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_do_not_depend_on_the_default_type(name, dtype, float64_by_default):
    coordinates = cloud(120, side=7)
    x = SparseTensor(numbers(len(coordinates), 4, dtype=dtype), coordinates)
    y = OPERATIONS[name](x)
    torch.set_default_dtype(torch.float32)
    assert y.dtype == dtype
    assert_close(
        y, OPERATIONS[name](x), 1e-5
    )  # a field's points at half voxels have the default type themselves


@pytest.mark.parametrize(
    "name", [name for name in LAYERS if name not in ("dropout", "batch norm", "sync batch norm")]
)
def test_a_cloud_gives_the_same_alone_and_in_a_batch(name):
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    if "batch norm" in name and "statistics" not in name:
        layer.eval()
    elif name.startswith("batch norm without statistics"):
        pytest.skip("its statistics are those of the batch")
    coordinates = cloud(200, side=7, batches=3)
    features = numbers(len(coordinates), 4)
    together = layer(SparseTensor(features, coordinates))
    for batch in range(3):
        mine, here = coordinates[:, 0] == batch, together.C[:, 0] == batch
        alone = layer(SparseTensor(features[mine], coordinates[mine]))
        rows = rows_at(alone.C, together.C[here])
        assert_close(alone.F[rows], together.F[here], tolerance=1e-12)


def test_averages_of_many_voxels_in_float16():
    """70,000 is more than float16 can count, and the sum more than it can hold."""
    coordinates = torch.zeros(70_000, 4, dtype=torch.int32)
    coordinates[:, 1] = torch.arange(70_000)
    x = SparseTensor(torch.full((70_000, 1), 3.0, dtype=torch.float16), coordinates, reduce="error")
    assert m.GlobalAvgPooling()(x).F.item() == 3.0
    assert m.InstanceNorm(1).half()(x).F.abs().max() == 0.0
    assert SparseTensor(x.F, coordinates // 70_000, reduce="average").F.item() == 3.0


def test_rows_of_zeros_and_of_large_numbers_are_normalized_in_float16():
    x = sparse(torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.int32), 2)
    y = fn.normalize(x.replace(torch.tensor([[0.0, 0.0], [6e4, 6e4]], dtype=torch.float16)))
    assert y.F.tolist() == [[0.0, 0.0], [pytest.approx(0.7071, abs=1e-3)] * 2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_on_the_cpu(dtype):
    network = unet().float()
    coordinates = cloud(300, side=14)
    leaf = numbers(len(coordinates), 3, dtype=torch.float32).requires_grad_()
    x = SparseTensor(leaf, coordinates)
    expected = run(network, x, leaf)
    with torch.autocast("cpu", dtype=dtype):
        y = network.first(x)
        assert y.dtype == dtype
        assert m.Convolution(3, 4, 1)(x).dtype == dtype
        assert m.ConvolutionTranspose(3, 4, 3)(x).dtype == dtype
        network.zero_grad()
        out = network(x)
    grads = torch.autograd.grad(
        out.F, [leaf, *network.parameters()], numbers(*out.F.shape, seed=9).to(out.F)
    )
    for a, b in zip([out.F, *grads], expected):
        assert a.dtype == (dtype if a is out.F else torch.float32), (
            "parameters stay in float32, and so do gradients"
        )
        assert (a.double() - b.double()).norm() <= 0.05 * b.double().norm()
    with torch.autocast("cpu", dtype=dtype, enabled=False):
        assert network.first(x).dtype == torch.float32


def test_autocast_leaves_float64_alone():
    x = sparse(cloud(9))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert m.Convolution(3, 4, 3).double()(x).dtype == torch.float64


def test_tensors_of_different_precision_meet():
    """Under autocast a branch may be in bfloat16 and another in float32."""
    x = sparse(cloud(20), 2)
    half = x.replace(x.F.bfloat16())
    other = fn.prune(x, x.C[:, 1] > 0)
    for y in (
        x + half,
        half + x,
        fn.cat(half, x),
        fn.union(half, other),
        half + other,
        half * other,
    ):
        assert y.dtype == torch.float64


def test_moving_a_tensor_to_another_precision_keeps_its_map():
    x = sparse(cloud(9))
    assert x.to(torch.float16).key == x.key and x.to(torch.float16).dtype == torch.float16


class TestSyncBatchNorm:
    def test_conversion_keeps_the_very_parameters_and_statistics(self):
        network = UNet().double()
        network.norm.bn.running_mean += 3
        network.eval()
        before = dict(network.named_parameters())
        x = sparse(cloud(50, side=9))
        expected = network(x).F
        converted = m.SyncBatchNorm.convert_sync_batchnorm(network)
        assert isinstance(converted.norm, m.SyncBatchNorm) and not converted.norm.training
        assert all(before[name] is parameter for name, parameter in converted.named_parameters())
        assert torch.equal(converted(x).F, expected)
        assert list(converted.state_dict()) == list(UNet().state_dict())
        again = m.SyncBatchNorm.convert_sync_batchnorm(converted)
        assert again.norm is converted.norm

    def test_a_layer_without_parameters_converts(self):
        layer = m.SyncBatchNorm.convert_sync_batchnorm(m.BatchNorm(3, affine=False).double())
        assert layer.bn.weight is None and layer.bn.running_mean.dtype == torch.float64

    def test_a_rank_with_one_voxel_or_none_takes_part_in_the_sum(self, monkeypatch):
        """The others wait for it: leaving it out would hang the run."""
        layer = m.SyncBatchNorm(3).double()
        calls = []
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(
            torch.nn.SyncBatchNorm, "forward", lambda self, rows: calls.append(len(rows)) or rows
        )
        for voxels in (0, 1):
            layer(sparse(cloud(9)[:voxels]))
        assert calls == [0, 1]


@needs_cuda
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)
@pytest.mark.parametrize("path", PATHS)
def test_cuda_gives_what_the_cpu_gives(monkeypatch, path, dtype):
    take_path(monkeypatch, path)
    network = unet()
    coordinates = cloud(300, side=14)
    leaf = numbers(len(coordinates), 3).requires_grad_()
    expected = run(network, SparseTensor(leaf, coordinates), leaf)
    network = network.to("cuda", dtype)
    leaf = leaf.detach().to("cuda", dtype).requires_grad_()
    x = SparseTensor(leaf, coordinates.cuda())
    got = run(network, x, leaf)
    assert torch.equal(network(x).C.cpu(), coordinates)
    for a, b in zip(got, expected):
        error = (a.double().cpu() - b).norm() / b.norm()
        assert error <= {torch.float64: 1e-10, torch.float32: 1e-4}.get(dtype, 0.08)


@needs_cuda
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("voxels", [0, 1, 100])
def test_layers_on_cuda(name, voxels):
    if name == "dropout":
        pytest.skip("random")
    torch.manual_seed(0)
    coordinates = cloud(100)[:voxels]
    leaf = numbers(len(coordinates), 4).requires_grad_()
    layer = LAYERS[name]().double()
    expected = layer(SparseTensor(leaf, coordinates))
    got = layer.cuda()(SparseTensor(leaf.cuda(), coordinates.cuda()))
    assert torch.equal(got.C.cpu(), expected.C)
    assert_close(got.F.cpu(), expected.F, tolerance=1e-9)


@needs_cuda
def test_devices_are_not_mixed_on_cuda():
    x = sparse(cloud(9))
    with pytest.raises(ValueError, match="coordinates on cpu, features on cuda"):
        SparseTensor(x.F.cuda(), x.C)
    with pytest.raises(ValueError, match="those of this manager are on"):
        x.manager.insert(x.C.cuda())
    moved = x.to("cuda")
    assert moved.C.is_cuda and moved.manager is not x.manager
    assert SparseTensor(x.F, x.C, device="cuda").F.is_cuda


@needs_cuda
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_on_cuda(dtype):
    x = sparse(cloud(60)).to("cuda").to(torch.float32)
    layer = m.Convolution(3, 4, 3).cuda()
    with torch.autocast("cuda", dtype=dtype):
        y = layer(x)
    assert y.dtype == dtype
    assert_close(
        y.F.cpu(), fn.convolution(x, layer.kernel, None, Kernel.of(3)).F.cpu(), tolerance=4e-2
    )


@pytest.mark.parametrize(
    "pool", [m.SumPooling(3), m.AvgPooling(3), m.MaxPooling(3), m.PoolingTranspose(3)]
)
def test_integers_are_pooled_as_numbers(pool):
    coordinates = cloud(40, side=4)
    values = (8 * numbers(len(coordinates), 3)).round() * 27 * 4
    whole = pool(SparseTensor(values.long(), coordinates)).F
    assert whole.dtype == torch.int64
    assert torch.equal(whole, pool(SparseTensor(values.double(), coordinates)).F.long())


@pytest.mark.parametrize("pool", [m.SumPooling(3), m.AvgPooling(2, 2), m.GlobalSumPooling()])
def test_pools_of_no_channels_have_a_gradient_of_none(pool):
    coordinates = cloud(20, side=4)
    features = torch.zeros(len(coordinates), 0, requires_grad=True)
    pool(SparseTensor(features, coordinates)).F.sum().backward()
    assert features.grad.shape == features.shape
