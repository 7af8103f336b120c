"""torch.compile over sparse convolutions: the operators, and how long kernel maps live meanwhile."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
from compiling import breaks, fresh_compiler, graphs, network, pytestmark, same, step  # noqa: F401
from engine_oracle import cloud, numbers, sparse

from sparsefeat.sparse import (
    CoordinateManager,
    Kernel,
    compile_network,
    derivatives,
    kernel_map,
    modules,
    operators,
)
from sparsefeat.sparse.channelwise import convolve_channels
from sparsefeat.sparse.convolve import convolve_rows


@pytest.fixture
def plan():
    manager = CoordinateManager(3)
    fine = manager.insert(cloud(15))
    return manager.kernel_map(fine, manager.stride(fine, 2), Kernel.of(3))


def test_operators_are_registered_as_torch_wants_them(plan):
    x, w = numbers(plan.n_in, 3).requires_grad_(), numbers(27, 3, 2, seed=1).requires_grad_()
    g = numbers(plan.n_out, 2, seed=2).requires_grad_()
    ops, opcheck = torch.ops.sparsefeat, torch.library.opcheck
    opcheck(ops.convolve, (x, w, plan.handles[1], False, plan.n_out))
    opcheck(ops.convolve_gradients, (x, w, g, plan.handles[1], False))
    opcheck(ops.convolve_weight_gradient, (x, g, plan.handles[1], False, 27))
    groups = [k % 2 for k in range(27)]
    opcheck(ops.group_sums, (x, plan.handles[1], False, groups, False, plan.n_out))
    sums = numbers(plan.n_out, 6).requires_grad_()
    opcheck(ops.group_sums, (sums, plan.handles[1], False, groups, True, plan.n_in))
    opcheck(ops.largest, (x.detach(), plan.handles[1], False, plan.n_out))
    each, h = (
        numbers(27, 3, seed=3).requires_grad_(),
        numbers(plan.n_out, 3, seed=4).requires_grad_(),
    )
    opcheck(ops.convolve_channels, (x, each, plan.handles[1], False, plan.n_out))
    opcheck(ops.convolve_channels_weight_gradient, (x, h, plan.handles[1], False, 27))


def test_operators_have_first_and_second_derivatives(plan):
    plan = plan.transpose
    x, w = numbers(plan.n_in, 2).requires_grad_(), numbers(27, 2, 2, seed=1).requires_grad_()
    run = lambda x, w: operators.convolve(x, w, plan, None)  # noqa: E731
    assert torch.equal(run(x, w), convolve_rows(x, w, plan))
    assert torch.autograd.gradcheck(run, (x, w)) and torch.autograd.gradgradcheck(run, (x, w))


def test_channelwise_convolution_has_them_inside_a_graph(plan):
    x, w = numbers(plan.n_in, 2).requires_grad_(), numbers(27, 2, seed=1).requires_grad_()
    compiled = torch.compile(convolve_channels, backend="eager", fullgraph=True)

    def derivatives(run):
        first = torch.autograd.grad(run(x, w, plan).pow(3).sum(), (x, w), create_graph=True)
        return *first, *torch.autograd.grad(sum(g.square().sum() for g in first), (x, w))

    same(derivatives(compiled), derivatives(convolve_channels))
    run = lambda x, w: compiled(x, w, plan)  # noqa: E731
    assert torch.autograd.gradgradcheck(run, (x, w), fast_mode=True)


@pytest.mark.parametrize("needs", [(True, False), (False, True)])
def test_only_what_is_asked_for_is_computed(plan, needs):
    x = numbers(plan.n_in, 2).requires_grad_(needs[0])
    w = numbers(27, 2, 2, seed=1).requires_grad_(needs[1])
    done = []
    do = derivatives.Operations(
        lambda *_: done.append("convolve"),
        lambda *_: done.append("both"),
        lambda *_: done.append("weight"),
    )
    derivatives.of_convolve(do, needs, x, w, numbers(plan.n_out, 2), plan)
    assert done == (["convolve"] if needs[0] else ["weight"])
    ours, eager = operators.convolve(x, w, plan, None), convolve_rows(x, w, plan)
    leaf = x if needs[0] else w
    same(torch.autograd.grad(ours.sum(), [leaf]), torch.autograd.grad(eager.sum(), [leaf]))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_convolution_is_one_node(backend):
    layer = modules.Convolution(3, 4, 3, bias=True).double()
    x = sparse(cloud(30))
    expected = layer(x)
    nodes = []

    def spy(graph, inputs):
        nodes.extend(node.target for node in graph.graph.nodes if node.op == "call_function")
        return torch._dynamo.lookup_backend(backend)(graph, inputs)

    assert torch.equal(torch.compile(layer, backend=spy, fullgraph=True)(x).F, expected.F)
    assert [str(node) for node in nodes if "sparsefeat" in str(node)] == ["sparsefeat.convolve"]
    assert len(nodes) <= 2, "the convolution, and its bias"


def test_a_graph_keeps_its_maps_alive_and_nothing_else_does():
    gc.collect()
    before = set(kernel_map._with_handle)
    gc.disable()
    try:
        shared = network()
        x = sparse(cloud(40), channels=2)
        loss = compile_network(shared, backend="aot_eager")(x).F.sum()
        del x
        assert set(kernel_map._with_handle) - before
        loss.backward()
        del loss
        for parameter in shared.parameters():
            assert parameter.grad is not None
        gc.enable()
        gc.collect()
        assert set(kernel_map._with_handle) == before
    finally:
        gc.enable()


def test_maps_are_freed_with_their_manager_without_the_garbage_collector():
    gc.collect()
    before = set(kernel_map._with_handle)
    gc.disable()
    try:
        x = sparse(cloud(40), channels=2)
        network()(x).F.sum().backward()
        assert len(kernel_map._with_handle) > len(before)
        del x
        assert set(kernel_map._with_handle) == before
    finally:
        gc.enable()


def test_a_copied_map_has_handles_of_its_own(plan):
    copied = copy.deepcopy(plan)
    assert int(copied.handles[0][0]) != int(plan.handles[0][0])
    behind = kernel_map.KernelMap.behind(copied.handles[1], True)
    assert behind.n_in == plan.n_out and torch.equal(behind.in_rows, plan.out_rows)


def test_autocast_inside_a_graph():
    layer = modules.Convolution(2, 4, 3)
    x = sparse(cloud(30), channels=2).to(torch.float32)

    def run(x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return layer(x).F

    expected = run(x)
    got = torch.compile(run, backend="aot_eager")(x)
    assert got.dtype == expected.dtype == torch.bfloat16 and torch.equal(got, expected)


def test_inference_mode_makes_maps_that_train():
    shared = network()
    compiled = compile_network(shared, backend="aot_eager")
    x = sparse(cloud(40), channels=2)
    with torch.inference_mode():
        compiled(x)
    same(step(compiled, shared, x), step(shared, shared, sparse(cloud(40), channels=2)))
