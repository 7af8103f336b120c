"""What is made once and shared, what is freed, and what does not depend on order, run or thread."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from engine_oracle import PATHS, assert_close, cloud, numbers, rows_at, sparse, take_path

from sparsefeat.sparse import CoordinateManager, Kernel, SparseTensor, TensorField, slice_field
from sparsefeat.sparse import functional as fn
from sparsefeat.sparse import manager as manager_module
from sparsefeat.sparse import modules as m

ROOT = Path(__file__).resolve().parents[2]


class UNet(torch.nn.Module):
    """Three levels down and up with skips."""

    def __init__(self, channels: int = 8):
        super().__init__()
        self.first = m.Convolution(3, channels, 5)
        self.norm = m.BatchNorm(channels)
        self.down1 = m.Convolution(channels, channels, 3, 2)
        self.down2 = m.Convolution(channels, channels, 3, 2)
        self.same = m.Convolution(channels, channels, 3)
        self.up2 = m.ConvolutionTranspose(channels, channels, 3, 2)
        self.up1 = m.ConvolutionTranspose(channels, channels, 3, 2)
        self.last = m.Convolution(2 * channels, 4, 1, bias=True)

    def forward(self, x: SparseTensor) -> SparseTensor:
        fine = self.norm(self.first(x))
        middle = self.down1(fine)
        coarse = self.same(self.down2(middle))
        middle = middle + self.up2(coarse)
        return self.last(fn.cat(fine, self.up1(middle)))


def unet(**keywords) -> UNet:
    torch.manual_seed(0)
    return UNet(**keywords).double()


@pytest.fixture
def built(monkeypatch) -> list:
    """Every kernel map that is built."""
    maps = []
    build = CoordinateManager._build

    def counted(self, *arguments):
        maps.append(arguments)
        return build(self, *arguments)

    monkeypatch.setattr(manager_module.CoordinateManager, "_build", counted)
    return maps


def test_layers_that_ask_for_the_same_map_get_the_same_object(built):
    x = sparse(cloud(60, side=8))
    kernel = Kernel.of(3)
    plan = x.manager.kernel_map(x.key, x.key, kernel)
    assert plan is x.manager.kernel_map(x.key, x.key, Kernel.of((3, 3, 3)))
    assert plan is not x.manager.kernel_map(x.key, x.key, Kernel.of(3, 2))
    assert len(built) == 2
    m.Convolution(3, 4, 3).double()(m.Convolution(3, 3, 3).double()(x))
    m.MaxPooling(3)(m.ChannelwiseConvolution(3, 3).double()(x))
    assert len(built) == 2


def test_backward_and_transposed_layers_use_the_map_of_the_forward_pass(built):
    x = sparse(cloud(60, side=8), grad=True)
    down, up = m.Convolution(3, 3, 3, 2).double(), m.ConvolutionTranspose(3, 3, 3, 2).double()
    y = down(x)
    plan = x.manager.kernel_map(x.key, y.key, down.window)
    z = up(y)
    torch.autograd.grad(z.F.square().sum(), [x.F, down.kernel, up.kernel])
    assert len(built) == 1
    assert z.F.grad_fn is not None and z.key == x.key
    back = plan.transpose
    assert (
        back.in_rows is plan.out_rows and back.out_rows is plan.in_rows and back.cells is plan.cells
    )
    assert back.transpose.out_order is plan.out_order and plan.transpose.out_order is back.out_order


def test_a_network_builds_each_of_its_maps_once_and_none_in_later_steps(built):
    x, network = sparse(cloud(120, side=12), grad=True), unet()
    network(x).F.sum().backward()
    assert len(built) == 5, (
        "5^3 on the first level, 3^3 down twice, 3^3 on the third level, and the last layer's cell"
    )
    maps, keys = dict(x.manager._kernel_maps), list(x.manager.maps)
    for step in range(2):
        y = network(x.replace(numbers(len(x), 3, seed=step)))
        y.F.sum().backward()
    assert len(built) == 5 and list(x.manager.maps) == keys
    assert all(x.manager._kernel_maps[name] is plan for name, plan in maps.items())


@pytest.mark.parametrize("dimension", [1, 3])
def test_a_tensor_can_be_pickled_whatever_its_manager_has_made(dimension):
    def run(x):
        d = {"dimension": dimension}
        y = m.Convolution(3, 3, 3, 2, **d).double()(m.ChannelwiseConvolution(3, 3, **d).double()(x))
        for layer in (m.MaxPooling, m.AvgPooling, m.PoolingTranspose):
            y = layer(2, 2, **d)(y)
        y = fn.broadcast(y, m.GlobalSumPooling()(y), "add")
        return fn.union(y, fn.prune(y, torch.arange(len(y)) % 2 == 0))

    x = sparse(cloud(60, side=8, dimension=dimension), grad=True)
    torch.manual_seed(0)
    expected = run(x)
    expected.F.square().sum().backward()
    again = pickle.loads(pickle.dumps(x.replace(x.F.detach())))
    assert torch.equal(again.C, x.C) and again.manager.maps.keys() == x.manager.maps.keys()
    torch.manual_seed(0)
    assert_close(run(again).F, expected.F, tolerance=0)


def test_generated_and_expanded_coordinates_are_made_once():
    x = sparse(cloud(20), tensor_stride=2)
    generate = m.GenerativeConvolutionTranspose(3, 2, 2, 2)
    expand = m.Convolution(3, 2, 3, expand_coordinates=True)
    for layer in (generate, expand):
        first, second = layer.double()(x), layer(x)
        assert first.key == second.key and first.coordinate_map is second.coordinate_map
        fn.cat(first, second)
    assert len(x.manager.maps) == 3


def test_unions_are_made_once():
    a = sparse(cloud(20))
    b = sparse(cloud(20, seed=1), manager=a.manager)
    assert (a + b).key == (a * b).key == fn.union(a, b).key
    assert fn.cat(a + b, fn.union(a, b)).F.shape[1] == 6


def test_maps_made_during_inference_serve_training():
    x = sparse(cloud(40, side=6))
    layers = [
        unet(),
        m.MaxPooling(3),
        m.AvgPooling(2, 2),
        m.ChannelwiseConvolution(3, 3).double(),
        m.GlobalMaxPooling(),
        m.InstanceNorm(3).double(),
    ]
    other = sparse(cloud(40, seed=1), manager=x.manager)
    with torch.inference_mode():
        fresh = SparseTensor(x.F.clone(), x.C.clone(), manager=x.manager)
        outside = [layer(fresh).F.clone() for layer in layers]
        fresh + other
    leaf = numbers(len(x), 3).requires_grad_()
    for layer, before in zip(layers, outside):
        y = layer(fresh.replace(leaf)).F
        assert_close(y, before)
        assert torch.autograd.grad(y.sum(), leaf)[0].isfinite().all()
    assert torch.autograd.grad((fresh.replace(leaf) + other).F.sum(), leaf)[0].eq(1).all()


def test_a_wider_index_frees_the_table_of_the_narrower_one():
    x = sparse(cloud(60, side=8))
    weight = numbers(27, 3, 2, seed=1)
    near, far = Kernel.of(3), Kernel.of(3, 9)
    before = fn.convolution(x, weight, None, near).F
    narrow = x.coordinate_map.index()
    table = weakref.ref(narrow.table)
    assert table() is not None
    fn.convolution(x, weight, None, far)
    assert x.coordinate_map.index() is not narrow and table() is None
    assert torch.equal(fn.convolution(x, weight, None, near).F, before)
    rows, counts = x.manager.kernel_map(x.key, x.key, near).by_output()
    assert len(rows) == counts.sum() == x.manager.kernel_map(x.key, x.key, near).n_pairs


def test_coordinates_made_during_inference_serve_training():
    coordinates = cloud(40, side=6)
    with torch.inference_mode():
        x = SparseTensor(torch.ones(len(coordinates), 3), coordinates.clone(), reduce="error")
        fn.pool(x, "sum", Kernel.of(2), 2)
        fn.global_pool(x, "sum")
        fn.convolution(x, torch.ones(27, 3, 3), None, Kernel.of(3), expand_coordinates=True)
        fn.prune(x, torch.arange(len(x)) > 3)
    assert len(x.manager.maps) == 5
    for key, each in x.manager.maps.items():
        leaf = torch.rand(len(each), 3, requires_grad=True)
        (grad,) = torch.autograd.grad((leaf * each.coordinates[:, 1:]).sum(), leaf)
        assert torch.equal(grad, x.manager[key].coordinates[:, 1:].float())


def test_a_field_keeps_its_points_whatever_becomes_of_the_callers_tensor():
    points = torch.tensor([[0, 0.5, 0, 0], [0, 3.5, 0, 0]])
    field = TensorField(torch.tensor([[1.0], [2.0]]), points)
    before = points.clone()
    points += 10
    assert torch.equal(field.C, before)
    assert slice_field(field.sparse(), field).C.tolist() == before.tolist()


def test_tensors_and_maps_are_freed_with_the_last_tensor_that_needs_them():
    """By reference counting alone: a cycle would keep a step's memory until the garbage collector runs."""
    gc.collect()
    gc.disable()
    try:
        x, network = sparse(cloud(120, side=12), grad=True), unet()
        y = network(x)
        pooled = fn.broadcast(y, m.GlobalMaxPooling()(y), "add")
        joined = fn.prune(pooled, torch.arange(len(y)) % 2 == 0) + y
        joined.F.sum().backward()
        manager = x.manager
        plans = [weakref.ref(plan) for plan in manager._kernel_maps.values()]
        indices = [weakref.ref(plan.in_rows) for plan in manager._kernel_maps.values()]
        maps = [weakref.ref(each) for each in manager.maps.values()]
        features = [weakref.ref(t) for t in (x.F, y.F, pooled.F, joined.F)]
        assert plans and maps and all(ref() is not None for ref in (*plans, *maps, *features))
        gone = weakref.ref(manager)
        del manager, pooled, joined
        assert gone() is not None
        del x, y
        alive = [ref for ref in (gone, *plans, *indices, *maps, *features) if ref() is not None]
        assert not alive, [type(ref()) for ref in alive]
    finally:
        gc.enable()


def test_a_graph_that_waits_for_backward_keeps_its_map_and_no_more():
    x = sparse(cloud(30), grad=True)
    y = m.Convolution(3, 4, 3).double()(x)
    loss, leaf, manager = y.F.sum(), x.F, weakref.ref(x.manager)
    del x, y
    assert manager() is None, "the graph holds the kernel map, not the manager with all of its maps"
    assert torch.autograd.grad(loss, leaf)[0].shape == leaf.shape


def test_output_row_i_belongs_to_input_row_i():
    x = sparse(cloud(120, side=12))
    y = unet()(x)
    assert y.key == x.key and torch.equal(y.C, x.C)
    for layer in (
        m.Convolution(3, 4, 3),
        m.ConvolutionTranspose(3, 4, 3),
        m.ChannelwiseConvolution(3, 3),
    ):
        assert layer.double()(x).key == x.key


@pytest.mark.parametrize("path", PATHS)
def test_permuted_rows_give_permuted_features(monkeypatch, path):
    take_path(monkeypatch, path)
    x, network = sparse(cloud(120, side=12)), unet()
    y = network(x)
    for seed in range(2):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        z = network(SparseTensor(x.F[order], x.C[order], reduce="error"))
        assert torch.equal(z.C, x.C[order])
        assert_close(z.F, y.F[order], tolerance=1e-12)


def test_clouds_of_a_batch_do_not_meet():
    x, network = sparse(cloud(150, side=7, batches=3)), unet().eval()
    y = network(x)
    for batch in range(3):
        mine = x.C[:, 0] == batch
        alone = network(SparseTensor(x.F[mine], x.C[mine]))
        assert_close(alone.F, y.F[mine], tolerance=1e-12)


def test_up_sampling_finds_the_finer_level_of_what_a_tensor_was_derived_from():
    x = sparse(cloud(100, side=10))
    coarse = m.SumPooling(2, 2)(x)
    up = m.ConvolutionTranspose(3, 3, 2, 2).double()
    assert up(coarse).key == x.key
    assert up(coarse + coarse).key == x.key
    pruned = fn.prune(coarse, torch.arange(len(coarse)) % 3 > 0)
    assert up(pruned).key == x.key, "a part of a level goes up to the whole finer level"
    own = fn.prune(x, torch.arange(len(x)) % 2 == 0)
    assert up(m.SumPooling(2, 2)(own)).key == own.key, "its own finer level comes first"
    generated = m.GenerativeConvolutionTranspose(3, 3, 2, 2).double()(coarse)
    assert generated.key != x.key and up(m.SumPooling(2, 2)(generated)).key == generated.key
    assert up(coarse).key == x.key, (
        "what was generated does not become the finer level of its input"
    )
    joined = coarse + m.SumPooling(2, 2)(generated)
    assert up(joined).key == x.key, "a union follows its first operand"


def gradients(network, x) -> list[torch.Tensor]:
    network.zero_grad()
    y = network(x).F
    y.square().sum().backward()
    return [y.detach().clone(), *(p.grad.clone() for p in network.parameters())]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("path", PATHS)
def test_the_same_input_gives_the_same_bits(monkeypatch, path, dtype):
    take_path(monkeypatch, path)
    network = unet().to(dtype)
    coordinates = cloud(150, side=10)
    features = numbers(len(coordinates), 3, dtype=dtype)
    first = gradients(network, SparseTensor(features, coordinates))
    for _ in range(2):
        again = gradients(network, SparseTensor(features, coordinates))
        assert all(torch.equal(a, b) for a, b in zip(first, again))


@pytest.fixture
def threads():
    """Sets the number of threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def float32_gradients() -> list[torch.Tensor]:
    coordinates = cloud(300, side=16)
    x = SparseTensor(numbers(len(coordinates), 3, dtype=torch.float32), coordinates)
    return gradients(unet(channels=16).float(), x)


def test_more_threads_give_the_same_numbers(threads):
    """To the bit only with the same number of threads: the matrix library splits its sums among them."""
    threads(1)
    one = float32_gradients()
    threads(2)
    two = float32_gradients()
    assert all(torch.equal(a, b) for a, b in zip(two, float32_gradients()))
    for a, b in zip(one, two):
        assert_close(a, b)


def test_another_process_gives_the_same_bits(tmp_path, threads):
    path = tmp_path / "gradients.pt"
    code = f"""
import sys, torch
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}, {str(ROOT / "tests" / "sparse")!r}]
torch.set_num_threads(1)
from test_engine_sharing import float32_gradients
torch.save(float32_gradients(), {str(path)!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    threads(1)
    for a, b in zip(float32_gradients(), torch.load(path, weights_only=True)):
        assert torch.equal(a, b)


@pytest.mark.parametrize("c_in, c_out, stride", [(3, 5, 1), (8, 5, 2), (8, 8, 1)])
def test_all_ways_to_convolve_agree(monkeypatch, c_in, c_out, stride):
    x = sparse(cloud(200, side=9), channels=c_in, grad=True)
    layer = m.Convolution(c_in, c_out, 3, stride).double()
    results = []
    for path in PATHS:
        with monkeypatch.context() as patch:
            take_path(patch, path)
            y = layer(x).F
            results.append([y, *torch.autograd.grad(y.square().sum(), [x.F, layer.kernel])])
    for result in results[1:]:
        for a, b in zip(result, results[0]):
            assert_close(a, b, tolerance=1e-12)


def test_strided_rows_follow_the_coordinates_and_not_the_input_order():
    x = sparse(cloud(100, side=10))
    flipped = SparseTensor(x.F.flip(0), x.C.flip(0))
    y, z = m.SumPooling(2, 2)(x), m.SumPooling(2, 2)(flipped)
    assert torch.equal(y.C, z.C) and torch.equal(rows_at(y.C, z.C), torch.arange(len(y)))
