"""The Triton arithmetic, run by Triton's interpreter on the CPU: the same numbers as everything else here.

The kernels are compiled or interpreted as their module finds the environment when it is imported, so the
fixture imports a copy of its own and puts back what was there. They use none of Triton's own functions, which
were made one way or the other when Triton itself was imported.
"""

from __future__ import annotations

import importlib
import sys

import pytest
import test_engine_dense_oracle as oracle
import torch
from engine_oracle import Record, assert_close, cloud, numbers, rows_at, sparse
from test_engine_golden import coarse_tensor, layer_of

from sparsefeat.sparse import CoordinateManager, Kernel, SparseTensor, arithmetic, modules
from sparsefeat.sparse import functional as fn
from sparsefeat.sparse.arithmetic import plain

pytest.importorskip("triton", minversion="3", reason="needs triton 3, which comes with torch 2.4")

HALVES = {torch.float16: 2e-3, torch.bfloat16: 2e-2}
TOLERANCE = {torch.float32: 1e-6, **HALVES}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=["float32", "float16", "bfloat16"])


@pytest.fixture(scope="module")
def fast():
    """arithmetic/triton.py with interpreted kernels, which all convolutions use meanwhile."""
    names = ("triton_kernels", "triton")
    kept = {name: sys.modules.pop(f"{arithmetic.__name__}.{name}", None) for name in names}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        patch.setenv(arithmetic.VARIABLE, "triton")
        for name in names:
            patch.delattr(arithmetic, name, raising=False)
        yield importlib.import_module(f"{arithmetic.__name__}.triton")
    for name, module in kept.items():
        sys.modules.pop(f"{arithmetic.__name__}.{name}", None)
        if module is not None:
            sys.modules[f"{arithmetic.__name__}.{name}"] = module
            setattr(arithmetic, name, module)


@pytest.fixture
def used(fast, monkeypatch):
    """Launches of each kernel so far."""
    calls = {"convolve_tiles": 0, "multiply_units": 0}
    for name, run in (("convolve_tiles", "_convolve"), ("multiply_units", "_weight_gradient")):

        def counted(*args, name=name, original=getattr(fast, run)):
            calls[name] += 1
            return original(*args)

        monkeypatch.setattr(fast, run, counted)
    return calls


def low_tiles(fast, monkeypatch, parts: int = 1, length: int = 4096) -> None:
    """Tiles of 16 outputs, their cells in ``parts``; units of ``length`` pairs."""

    def tile_configs(x, w, plan):
        return [fast.TileConfig(16, 16, 32 if x.shape[1] <= 8 else 16, parts, 4, 2)]

    monkeypatch.setattr(fast, "tile_configs", tile_configs)
    monkeypatch.setattr(
        fast, "unit_configs", lambda *_: [fast.UnitConfig(length, 16, 16, 16, 4, 2)]
    )


def both_gradients(y, leaves, seed: int = 9) -> list[torch.Tensor]:
    return list(torch.autograd.grad(y, leaves, numbers(*y.shape, seed=seed, dtype=y.dtype)))


@pytest.mark.parametrize(
    "size, stride, dilation, tensor_stride",
    [(3, 1, 1, 1), (3, 1, 2, 2), (2, 2, 1, 1), (4, 2, 1, 1), ((3, 2, 1), (1, 2, 1), 1, 1)],
)
@pytest.mark.parametrize("transposed", [False, True], ids=["forth", "back"])
def test_convolution_is_dense_convolution(
    monkeypatch, used, size, stride, dilation, tensor_stride, transposed
):
    monkeypatch.setattr(oracle, "SIDES", (3, 4, 2))
    size, stride, dilation = (oracle.per_axis(v, 3) for v in (size, stride, dilation))
    grid = oracle.Grid(3, tensor_stride, 0.7, stride=stride)
    kernel = Kernel(size, dilation)
    key = grid.x.key if set(stride) == {1} else grid.x.manager.stride(grid.x.key, stride)
    unit = key.tensor_stride
    if not transposed:
        weight = numbers(kernel.volume, 3, 2, seed=1).requires_grad_()
        leaf = grid.features
        x = SparseTensor(leaf.float(), manager=grid.x.manager, key=grid.x.key)
        y = fn.convolution(x, weight.float(), None, kernel, stride)
        padded = oracle.pad_windows(grid.dense(), size, stride, dilation)
        dense = oracle.CONVOLVE[3](
            padded, oracle.dense_weight(weight, size), None, stride, 0, dilation
        )
        expected = grid.read(dense, y.C, unit)
    else:
        coordinates = grid.x.manager[key].coordinates
        weight = numbers(kernel.volume, 2, 3, seed=1).requires_grad_()
        leaf = numbers(len(coordinates), 2, seed=4).requires_grad_()
        x = SparseTensor(leaf.float(), manager=grid.x.manager, key=key)
        y = fn.convolution_transpose(x, weight.float(), None, kernel, stride)
        cells = (coordinates[:, 1:].long() - torch.tensor(grid.low)) // torch.tensor(unit)
        coarse = leaf.new_zeros(2, *(-(-n // s) for n, s in zip(grid.sides, stride)), 2)
        coarse = coarse.index_put((coordinates[:, 0].long(), *cells.unbind(1)), leaf).movedim(-1, 1)
        dense = oracle.transposed_dense(
            coarse,
            oracle.dense_weight(weight, size).transpose(0, 1),
            size,
            stride,
            dilation,
            grid.sides,
        )
        expected = grid.read(dense, y.C, grid.unit)
    assert_close(y.F, expected, TOLERANCE[torch.float32])
    for ours, exact in zip(
        both_gradients(y.F, [leaf, weight]), both_gradients(expected, [leaf, weight])
    ):
        assert_close(ours, exact, TOLERANCE[torch.float32])
    assert used == {"convolve_tiles": 2, "multiply_units": 1}


@pytest.mark.parametrize(
    "name", ["conv_k2s1d2", "conv_k3s1_cross", "conv_k7s1", "convtr_k3s2_back_bias"]
)
def test_outputs_and_input_gradients_are_those_recorded(golden, used, name):
    """Among them kernels whose masks take several words."""
    record = Record(golden, name, torch.float32)
    if name.startswith("convtr"):
        x, leaf = coarse_tensor(record)
        layer = layer_of(record, modules.ConvolutionTranspose)
    else:
        leaf = record.leaf("feats")
        x = SparseTensor(leaf, record["coords"], record.meta["in_tensor_stride"])
        layer = layer_of(record, modules.Convolution)
    y = layer.requires_grad_(False)(x)
    rows = rows_at(y.C, record["out_coords"])
    assert_close(y.F[rows], record["out_feats"])
    (grad,) = torch.autograd.grad(y.F[rows], leaf, record["grad_out"])
    assert_close(grad, record["grad_feats"])
    assert used == {"convolve_tiles": 2, "multiply_units": 0}


@pytest.mark.parametrize(
    "c_in, c_out, dtype",
    [
        (1, 16, torch.float32),
        (5, 32, torch.float32),
        (96, 1, torch.float32),
        (3, 5, torch.float16),
        (20, 40, torch.float16),
        (3, 5, torch.bfloat16),
        (32, 3, torch.bfloat16),
    ],
    ids=str,
)
def test_any_number_of_channels(fast, monkeypatch, dtype, c_in, c_out):
    low_tiles(fast, monkeypatch)
    manager = CoordinateManager(3)
    fine = manager.insert(cloud(30))
    plan = manager.kernel_map(fine, manager.stride(fine, 2), Kernel.of(2))
    x, g = numbers(plan.n_in, c_in, dtype=dtype), numbers(plan.n_out, c_out, seed=1, dtype=dtype)
    w, b = numbers(8, c_in, c_out, seed=2, dtype=dtype), numbers(1, c_out, seed=3, dtype=dtype)
    y = fast.convolve(x, w, plan, b)
    assert y.dtype == dtype
    assert_close(y, plain.convolve(x.double(), w.double(), plan, b.double()), TOLERANCE[dtype])
    exact = plain.gradients(x.double(), w.double(), g.double(), plan)
    for got, wanted in zip(fast.gradients(x, w, g, plan), exact):
        assert got.dtype == dtype
        assert_close(got, wanted, TOLERANCE[dtype])


def test_half_types_are_summed_in_float32(fast, monkeypatch):
    """2048 + 1 is 2048 in float16: a sum kept in it would stand still."""
    low_tiles(fast, monkeypatch, length=16)
    plan = line(64)
    x = torch.ones(64, 16, dtype=torch.float16)
    gradient = fast.weight_gradient(128 * x, x, plan)
    assert torch.equal(gradient[1], torch.full((16, 16), 128.0 * 64, dtype=torch.float16))
    assert torch.equal(gradient[0], torch.full((16, 16), 128.0 * 63, dtype=torch.float16))


@DTYPES
def test_sharing_cells_and_splitting_pairs_change_nothing_but_the_rounding(
    fast, monkeypatch, dtype
):
    plan = line(40)
    x, w = numbers(40, 16, dtype=dtype), numbers(3, 16, 16, seed=1, dtype=dtype)
    g, b = numbers(40, 16, seed=2, dtype=dtype), numbers(1, 16, seed=3, dtype=dtype)
    results = []
    for parts, length in ((1, 4096), (2, 16), (2, 16), (4, 32)):
        low_tiles(fast, monkeypatch, parts, length)
        results.append([fast.convolve(x, w, plan, b), *fast.gradients(x, w, g, plan)])
    for whole, split, again, finer in zip(*results):
        assert torch.equal(split, again)
        assert_close(split, whole, TOLERANCE[dtype])
        assert_close(finer, whole, TOLERANCE[dtype])


def test_tuning_leaves_the_tiles_and_units_of_its_choice_alone(fast, monkeypatch, tmp_path):
    triton_tuning = sys.modules[fast.tuned.__module__]
    monkeypatch.setenv(triton_tuning.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(triton_tuning, "_chosen", {})
    monkeypatch.setattr(triton_tuning, "may_measure", lambda device: True)
    made = []
    monkeypatch.setattr(
        triton_tuning, "measure", lambda call: made.append(call()) or 1 / len(made)
    )  # the last wins
    tiles = [fast.TileConfig(height, 16, 16, 1, 4, 2) for height in (16, 32, 64)]
    monkeypatch.setattr(fast, "tile_configs", lambda *_: tiles)
    units = [fast.UnitConfig(length, 16, 16, 16, 4, 2) for length in (32, 16)]
    monkeypatch.setattr(fast, "unit_configs", lambda *_: units)
    plan = line(20)
    fast.gradients(torch.ones(20, 16), torch.ones(3, 16, 16), torch.ones(20, 16), plan)
    assert len(made) == 5
    for side in (
        plan,
        plan.transpose,
    ):  # whose tiles are the same, their cells the other way around
        assert [side.has(("tiles", height)) for height in (16, 32, 64)] == [False, False, True]
    assert [plan.has(("units", length)) for length in (32, 16)] == [False, True]


def line(voxels: int):
    """The map of a 3-cell kernel on a line of voxels, in random row order."""
    manager = CoordinateManager(1)
    rows = torch.randperm(voxels, generator=torch.Generator().manual_seed(0))
    key = manager.insert(torch.nn.functional.pad(rows[:, None], (1, 0)).int())
    return manager.kernel_map(key, key, Kernel.of(3, dimension=1))


def test_outputs_that_see_nothing_are_zero_or_the_bias(fast):
    manager = CoordinateManager(3)
    here = manager.insert(cloud(9))
    there = manager.insert(cloud(20) + torch.tensor([0, 100, 0, 0]).int(), parent=here)
    plan = manager.kernel_map(here, there, Kernel.of(3))
    x, w, b = torch.ones(plan.n_in, 4), torch.ones(27, 4, 6), torch.arange(6.0)[None]
    assert plan.n_pairs == 0 and not fast.convolve(x, w, plan).any()
    assert torch.equal(fast.convolve(x, w, plan, b), b.expand(plan.n_out, 6))
    to_features, to_weight = fast.gradients(x, w, torch.ones(plan.n_out, 6), plan)
    assert to_features.shape == x.shape and to_weight.shape == w.shape
    assert not to_features.any() and not to_weight.any()


@pytest.mark.parametrize("voxels", [0, 1])
def test_a_network_takes_no_voxel_and_one(fast, voxels):
    x = sparse(cloud(9)[:voxels], channels=1).to(torch.float32)
    network = torch.nn.Sequential(
        modules.Convolution(1, 4, 3),
        modules.Convolution(4, 4, 2, 2, bias=True),
        modules.ConvolutionTranspose(4, 3, 2, 2),
    )
    y = network(x)
    y.F.sum().backward()
    assert y.F.shape == (voxels, 3) and all(p.grad.shape == p.shape for p in network.parameters())
    assert voxels or not any(p.grad.any() for p in network[:1].parameters())


def test_float64_and_plain_products_are_left_to_torch(used):
    x = sparse(cloud(20), grad=True)
    assert torch.autograd.gradgradcheck(
        lambda f, w: fn.convolution(x.replace(f), w, None, Kernel.of(2), 2).F,
        (x.F, numbers(8, 3, 2).requires_grad_()),
    )
    modules.Convolution(3, 4, 1)(x.to(torch.float32)).F.sum().backward()
    assert used == {"convolve_tiles": 0, "multiply_units": 0}


def test_a_second_derivative(used, monkeypatch, fast):
    """The gradient of a gradient's norm, as in a gradient penalty."""
    low_tiles(fast, monkeypatch)
    coordinates, results = cloud(20), []
    for dtype in (torch.float32, torch.float64):
        leaf = numbers(len(coordinates), 3, dtype=dtype).requires_grad_()
        weight = numbers(8, 3, 2, seed=1, dtype=dtype).requires_grad_()
        y = fn.convolution(
            SparseTensor(leaf, coordinates, reduce="error"), weight, None, Kernel.of(2), 2
        )
        grads = torch.autograd.grad(y.F.square().sum(), [leaf, weight], create_graph=True)
        results.append(torch.autograd.grad(sum(g.square().sum() for g in grads), [leaf, weight]))
    for got, exact in zip(*results):
        assert_close(got, exact, TOLERANCE[torch.float32])
    assert used["convolve_tiles"] >= 5


def test_tf32_only_where_torch_allows_it(fast):
    before, newer = (
        torch.get_float32_matmul_precision(),
        hasattr(torch.backends.cuda.matmul, "fp32_precision"),
    )
    try:
        torch.set_float32_matmul_precision("highest")
        assert fast._precision(torch.float32) == "ieee"
        torch.backends.cuda.matmul.allow_tf32 = True
        assert fast._precision(torch.float32) == "tf32"
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.set_float32_matmul_precision(before)
        if newer:
            torch.backends.cuda.matmul.fp32_precision = "none"


@pytest.mark.parametrize(
    "voxels, c_in, c_out, cells", [(100, 256, 256, 27), (10**5, 64, 64, 27), (10**6, 1, 32, 343)]
)
@DTYPES
def test_every_configuration_covers_the_layer_and_shares_cells_where_voxels_are_few(
    fast, monkeypatch, voxels, c_in, c_out, cells, dtype
):
    monkeypatch.setattr(fast, "_processors", lambda device: 132)
    plan = Sizes(voxels, cells)
    x, w = torch.empty(0, c_in, dtype=dtype), torch.empty(cells, c_in, c_out, device="meta")
    configs = fast.tile_configs(x, w, plan)
    assert len(set(configs)) == len(configs) > 4
    for c in configs:
        assert all(
            v == 1 << (v.bit_length() - 1)
            for v in (c.height, c.block_n, c.block_k, c.parts, c.warps)
        )
        assert min(c.height, c.block_n, c.block_k) >= 16
        shared = c.stages * (c.height + c.block_n) * c.block_k * x.element_size()
        assert shared <= 160 * 2**10, "more than an A100's multiprocessor has"
    assert (configs[0].parts > 1) == (voxels == 100)
    assert any(
        (c.height, c.stages) == (configs[0].height, configs[0].stages + 1) for c in configs
    ), "deeper pipelines"
    shape = (cells, c_in, c_out)
    for c in fast.unit_configs(x, shape, plan):
        assert c.length % c.block_p == 0
        assert c.length * 132 * 16 * 2 >= plan.n_pairs, "partial sums stay few"


class Sizes:
    """What choosing a configuration asks of a kernel map."""

    def __init__(self, voxels: int, cells: int):
        self.n_out, self.volume, self.n_pairs = voxels, cells, voxels * cells // 2
