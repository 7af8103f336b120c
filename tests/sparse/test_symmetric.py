"""Symmetric kernels compute what an ordinary kernel with the same cells computes, and ignore turns of the grid."""

from __future__ import annotations

import itertools

import pytest
import torch

from sparsefeat.sparse import Kernel, SparseTensor
from sparsefeat.sparse import functional as fn
from sparsefeat.sparse.modules import Convolution, ConvolutionTranspose, set_symmetric
from sparsefeat.sparse.symmetric import orbits


def cloud(seed: int = 0, channels: int = 3) -> SparseTensor:
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randint(-4, 4, (160, 3), generator=generator, dtype=torch.int32)
    batch = torch.randint(0, 2, (160, 1), generator=generator, dtype=torch.int32)
    features = torch.randn(160, channels, generator=generator, dtype=torch.float64)
    return SparseTensor(features, torch.cat([batch, cells], 1))


@pytest.mark.parametrize(("edge", "count"), [(3, 4), (5, 10), (7, 20)])
def test_orbits_are_the_classes_of_distances_along_the_axes(edge, count):
    orbit = orbits(Kernel.of(edge))
    assert max(orbit) + 1 == count
    by_orbit = {o: {tuple(sorted(map(abs, c))) for c, k in zip(Kernel.of(edge).cells, orbit) if k == o} for o in orbit}
    assert all(len(shapes) == 1 for shapes in by_orbit.values())


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("edge", "stride", "dilation"), [(3, 1, 1), (5, 1, 1), (3, 2, 1), (3, 1, 2)])
def test_a_symmetric_layer_equals_an_ordinary_one_with_its_kernel(edge, stride, dilation, transposed):
    torch.manual_seed(0)
    x = cloud()
    if transposed:
        coarse = Convolution(3, 3, 3, stride=stride).double()(x)
        x = coarse.replace(coarse.features.detach())
    layer = (ConvolutionTranspose if transposed else Convolution)(3, 4, edge, stride, dilation, bias=True).double()
    layer.symmetrize()
    results = []
    for symmetric in (False, True):
        layer.symmetric = symmetric
        features = x.features.clone().requires_grad_()
        y = layer(x.replace(features))
        grads = torch.autograd.grad(y.features.pow(3).sum(), [features, layer.bias])
        results.append((y.features, *grads))
    for ordinary, grouped in zip(*results):
        torch.testing.assert_close(grouped, ordinary, rtol=1e-11, atol=1e-11)


def test_the_layer_uses_only_the_symmetric_part_and_keeps_its_function_when_the_constraint_goes():
    torch.manual_seed(1)
    x = cloud(1)
    layer = Convolution(3, 4, 3).double()
    free = layer(x).features
    set_symmetric(layer, True)
    constrained = layer(x).features
    assert not torch.allclose(free, constrained)
    set_symmetric(layer, False)
    torch.testing.assert_close(layer(x).features, constrained, rtol=1e-12, atol=1e-12)


def test_gradients_to_second_order_agree_with_finite_differences():
    x = cloud(2, channels=2)
    plan = x.manager.kernel_map(x.key, x.key, Kernel.of(3))
    strided = x.manager.kernel_map(x.key, x.manager.stride(x.key, 2), Kernel.of(3))
    weight = torch.randn(27, 2, 2, dtype=torch.float64, requires_grad=True)
    features = x.features.clone().requires_grad_()
    for p in (plan, strided, strided.transpose):
        given = features if p.n_in == len(features) else features[: p.n_in]

        def convolve(f, w, p=p):
            return fn.convolve_rows(f, w, p, orbits(Kernel.of(3))).sum(0)

        assert torch.autograd.gradcheck(convolve, (given.detach().requires_grad_(), weight))
        assert torch.autograd.gradgradcheck(
            lambda f, w, c=convolve: c(f, w).pow(2), (given.detach().requires_grad_(), weight)
        )


def test_all_48_symmetries_of_the_cube_leave_the_output_alone():
    torch.manual_seed(3)
    x = cloud(3)
    layer = Convolution(3, 4, 5).double()
    layer.symmetric = True
    expected = layer(x).features
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            turned = x.coordinates[:, 1:][:, list(order)] * torch.tensor(signs, dtype=torch.int32)
            moved = SparseTensor(x.features, torch.cat([x.coordinates[:, :1], turned], 1))
            torch.testing.assert_close(layer(moved).features, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("edge", [2, (3, 3, 1), 1])
def test_windows_without_the_symmetry_are_refused(edge):
    with pytest.raises(ValueError, match="odd edge"):
        Convolution(2, 2, edge).symmetric = True
