"""Whole networks under torch.compile: one graph if their maps are made beforehand, right if they are not."""

from __future__ import annotations

import copy

import pytest
import torch
from compiling import breaks, fresh_compiler, graphs, network, pytestmark, same, step  # noqa: F401
from engine_oracle import cloud, numbers, sparse

from sparsefeat import models
from sparsefeat.sparse import (
    CoordinateManager,
    SparseTensor,
    TensorField,
    compile_network,
    functional,
    modules,
)
from sparsefeat.sparse.field import slice_field


def test_a_network_with_its_maps_is_one_graph_and_a_second_serves_every_size():
    shared, plain = network(), network()
    compiled = compile_network(shared, backend="aot_eager", fullgraph=True)
    for seed, voxels in enumerate((40, 60, 50)):
        x = lambda: sparse(cloud(voxels, seed), channels=2, seed=seed)  # noqa: B023, E731
        same(step(compiled, shared, x()), step(plain, plain, x()))
    same(list(shared.buffers()), list(plain.buffers()))
    assert graphs() == 2 and not breaks()


def test_a_network_whose_maps_are_not_made_yet_is_interrupted_and_right():
    shared, plain = network(), network()
    compiled = torch.compile(shared, backend="eager")
    same(
        *(
            step(run, of, sparse(cloud(40), channels=2))
            for run, of in ((compiled, shared), (plain, plain))
        )
    )
    assert breaks()


def test_the_same_sizes_with_other_voxels_are_another_input():
    shared = network().eval()
    compiled = compile_network(shared, backend="eager")
    coordinates = cloud(40)
    for moved in (0, 1, 2):
        turned = torch.cat([coordinates[:, :1], coordinates[:, 1:].roll(moved, 1)], 1)
        x = sparse(turned, channels=2)
        with torch.no_grad():
            assert torch.equal(compiled(x).F, shared(sparse(turned, channels=2)).F)


def test_no_voxel_and_one():
    shared, plain = network(), network()
    compiled = compile_network(shared, backend="eager")
    for voxels in (0, 1):
        x = lambda: sparse(cloud(30)[:voxels], channels=2)  # noqa: B023, E731
        same(step(compiled, shared, x()), step(plain, plain, x()))


def test_a_second_tensor_in_a_manager_gets_its_own_maps():
    shared = network().eval()
    compiled = compile_network(shared, backend="eager", fullgraph=True)
    manager = CoordinateManager(3)
    for seed in range(2):
        coordinates = cloud(30, seed)
        x = SparseTensor(numbers(len(coordinates), 2), coordinates, manager=manager, reduce="error")
        with torch.no_grad():
            assert torch.equal(compiled(x).F, shared(sparse(coordinates, channels=2)).F)


def test_a_network_that_does_not_say_its_channels_needs_an_example():
    layer = torch.nn.Sequential(modules.Convolution(2, 3, 3)).double()
    with pytest.raises(ValueError, match="give an example input"):
        compile_network(layer)
    x = sparse(cloud(20), channels=2)
    assert torch.equal(compile_network(layer, x, backend="eager", fullgraph=True)(x).F, layer(x).F)


class Pooled(torch.nn.Module):
    """Pooled over windows and blocks, back again, and scaled by a summary of each cloud."""

    in_channels = 2

    def __init__(self, kind: type[torch.nn.Module], whole: type[torch.nn.Module]):
        super().__init__()
        self.enter = modules.Convolution(2, 4, 3)
        self.window = kind(3, 1)
        self.block = kind(2, 2)
        self.strided = kind(3, 2)
        self.back = modules.PoolingTranspose(2, 2)
        self.whole = whole()
        self.scale = modules.BroadcastMultiplication()

    def forward(self, x: SparseTensor) -> SparseTensor:
        fine = self.window(self.enter(x))
        up = self.back(self.block(fine) + self.strided(fine))
        return self.scale(up, self.whole(fine))


class Normal(torch.nn.Module):
    """Instance norm on two levels."""

    in_channels = 2

    def __init__(self):
        super().__init__()
        self.fine, self.norm = modules.Convolution(2, 4, 3), modules.InstanceNorm(4)
        self.down, self.norm2 = modules.Convolution(4, 3, 3, 2), modules.InstanceNorm(3)

    def forward(self, x: SparseTensor) -> SparseTensor:
        return self.norm2(self.down(self.norm(self.fine(x))))


class Channelwise(torch.nn.Module):
    """Each channel by itself, onto the same voxels and onto coarser ones, then mixed."""

    in_channels = 2

    def __init__(self):
        super().__init__()
        self.each = modules.ChannelwiseConvolution(2, 3, bias=True)
        self.down = modules.ChannelwiseConvolution(2, 3, 2)
        self.mix = modules.Convolution(2, 4, 1)

    def forward(self, x: SparseTensor) -> SparseTensor:
        return self.mix(self.down(self.each(x)))


class Between(torch.nn.Module):
    """A convolution, an operation whose result's size or map depends on data, and what follows it."""

    def __init__(self, operation, after: torch.nn.Module):
        super().__init__()
        self.enter, self.operation, self.after = modules.Convolution(2, 2, 3), operation, after

    def forward(self, x: SparseTensor) -> SparseTensor | TensorField:
        return self.after(self.operation(self.enter(x)))


def points(x: SparseTensor) -> TensorField:
    return TensorField(
        torch.cat([x.F, -x.F]), torch.cat([x.C + 0.25, x.C + 0.75]).double(), x.manager
    )


BETWEEN = {
    "pruning": lambda y: functional.prune(y, y.F[:, 0] > 0),
    "interpolation": lambda y: y.replace(functional.interpolate(y, y.C + 0.4 * y.F[:, :1].tanh())),
    "slicing": lambda y: slice_field(y, points(y)),
    "voxels of points": lambda y: points(y).sparse(),
    "splatting": lambda y: points(y).splat(),
}


@pytest.mark.parametrize(
    "make",
    [
        Normal,
        Channelwise,
        lambda: Pooled(modules.MaxPooling, modules.GlobalMaxPooling),
        lambda: Pooled(modules.AvgPooling, modules.GlobalAvgPooling),
        lambda: Pooled(modules.SumPooling, modules.GlobalSumPooling),
    ],
    ids=["instance norm", "channelwise", "max", "average", "sum"],
)
def test_norms_pools_and_other_kernels_are_one_graph_too(make):
    torch.manual_seed(1)
    shared = make().double()
    plain = copy.deepcopy(shared)
    compiled = compile_network(shared, backend="aot_eager", fullgraph=True)
    for seed, voxels in enumerate((40, 60, 50)):
        x = lambda: sparse(cloud(voxels, seed), channels=2, seed=seed)  # noqa: B023, E731
        same(step(compiled, shared, x()), step(plain, plain, x()))
    assert graphs() == 2 and not breaks()


@pytest.mark.parametrize("operation", BETWEEN)
def test_what_depends_on_data_is_run_between_graphs_that_serve_every_size(operation):
    torch.manual_seed(1)
    after = torch.nn.Sequential(modules.Convolution(2, 3, 3), modules.Convolution(3, 2, 3, 2))
    shared = Between(
        BETWEEN[operation], after if operation == "pruning" else torch.nn.Identity()
    ).double()
    plain = copy.deepcopy(shared)
    compiled = compile_network(shared, sparse(cloud(30), channels=2), backend="aot_eager")
    made = []
    for seed, voxels in enumerate((40, 60, 50, 70, 45, 33)):
        x = lambda: sparse(cloud(voxels, seed), channels=2, seed=seed)  # noqa: B023, E731
        same(step(compiled, shared, x()), step(plain, plain, x()))
        made.append(graphs())
    assert breaks() and made[3:] == made[3:4] * 3


@pytest.mark.parametrize(
    "make", [Normal, Channelwise, lambda: Pooled(modules.AvgPooling, modules.GlobalMaxPooling)]
)
def test_norms_pools_and_kernels_of_nothing(make):
    torch.manual_seed(1)
    shared = make().double()
    compiled = compile_network(shared, backend="eager")
    for voxels in (0, 1):
        x = sparse(cloud(30)[:voxels], channels=2)
        with torch.no_grad():
            assert torch.equal(compiled(x).F, shared(sparse(cloud(30)[:voxels], channels=2)).F)


def test_fcgfs_network_is_one_graph():
    torch.manual_seed(0)
    shared = models.ResUNetBN2C(
        1, 32, bn_momentum=0.05, normalize_feature=True, conv1_kernel_size=3
    )
    plain = copy.deepcopy(shared)
    compiled = compile_network(shared, backend="eager", fullgraph=True)
    coordinates = cloud(60)
    outputs = []
    for run, parameters in ((compiled, shared), (plain, plain)):
        y = run(SparseTensor(torch.ones(len(coordinates), 1), coordinates)).F
        y[:, 0].sum().backward()
        outputs.append([y.detach(), *(p.grad for p in parameters.parameters())])
    same(*outputs)
    assert graphs() == 1 and not breaks()


@pytest.mark.slow
def test_a_network_of_pair_kernels_is_one_graph():
    torch.manual_seed(0)
    widths = {"channels": [4, 6], "tr_channels": [4, 4], "depth": 1, "conv1_kernel_size": 3}
    shared = models.ResUNetBN2C(6, 4, **widths, kernels="pair", oriented=True).double()
    plain = copy.deepcopy(shared)
    compiled = compile_network(shared, backend="eager", fullgraph=True)
    for seed, voxels in enumerate((60, 80)):
        results = []
        for run, of in ((compiled, shared), (plain, plain)):
            # Points move with what made them: their gradient is asked for too.
            x = sparse(cloud(voxels, seed), channels=6, seed=seed)
            points = (0.4 * x.F.tanh()).detach().requires_grad_()
            results.append([*step(run, of, x.replace(points)), points.grad])
        same(*results)
    assert graphs() == 2 and not breaks()
