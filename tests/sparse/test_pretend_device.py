"""The engine and what is built on it keep to one device, give what the CPU gives, and let the host wait seldom.

Run on a pretended CUDA (pretend_device.py) with plain PyTorch's arithmetic; Triton's has tests of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from local_grids import LocalGrids
from networks import small
from pretend_device import PretendDevice, Pretended
from torch import Tensor, nn
from torch.nn import functional as F

from sparsefeat.extract import FeatureExtractor
from sparsefeat.losses import LossConfig, PairFeatures, pair_loss
from sparsefeat.mesh import voxelize_mesh
from sparsefeat.models import create_model
from sparsefeat.receptive_field.soft import SoftNetwork
from sparsefeat.sparse import (
    Kernel,
    SparseTensor,
    TensorField,
    collate,
    functional,
    fuse,
    modules,
    quantize,
    slice_field,
)
from sparsefeat.sparse.arithmetic.tiles import tiles, units


@pytest.fixture(autouse=True)
def plain_arithmetic(monkeypatch):
    monkeypatch.setenv("SPARSEFEAT_ARITHMETIC", "torch")


@pytest.fixture
def cuda() -> Iterator[PretendDevice]:
    with PretendDevice() as device:
        yield device


def random(*shape: int, seed: int = 0, dtype=torch.float32) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def voxels(extent: int = 8, count: int = 250) -> Tensor:
    """Distinct voxels of two clouds in no order. Shape: (V, 4) int32"""
    cells = torch.unique((random(2 * count, 3) * extent).int(), dim=0)
    cells = cells[random(len(cells), seed=1).argsort()]
    return torch.cat([(torch.arange(len(cells)) % 2)[:, None], cells], 1).int()


def cloud(device: str, channels: int) -> SparseTensor:
    coordinates = voxels().to(device)
    features = random(len(coordinates), channels, seed=2).to(device).requires_grad_()
    return SparseTensor(features, coordinates)


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def agree(got: list[Tensor], expected: list[Tensor]) -> None:
    assert len(got) == len(expected) > 0
    for mine, other in zip(got, expected):
        assert isinstance(mine, Pretended), "a result that is not on the device"
        torch.testing.assert_close(mine.held.detach(), other.detach(), rtol=1e-4, atol=1e-4)


def passed(network: nn.Module, x: SparseTensor) -> list[Tensor]:
    """Output, and gradients of input and parameters."""
    out = network(x)
    leaves = (
        [x.features, *network.parameters()]
        if x.features.requires_grad
        else list(network.parameters())
    )
    return [
        out.features,
        out.coordinates,
        *torch.autograd.grad(out.features.square().mean(), leaves),
    ]


LAYERS = {
    "3^3": (lambda: modules.Convolution(4, 6, bias=True), 4),
    "1^3": (lambda: modules.Convolution(4, 6, 1), 4),
    "strided": (lambda: modules.Convolution(4, 6, 3, stride=2), 4),
    "2^3 strided": (lambda: modules.Convolution(4, 6, 2, stride=2), 4),
    "dilated": (lambda: modules.Convolution(40, 40, 3, dilation=2), 40),
    "many channels": (lambda: modules.Convolution(64, 64), 64),
    "first layer": (lambda: modules.Convolution(1, 6, 7), 1),
    "cross": (lambda: modules.Convolution(4, 6, kernel=Kernel((3, 3, 3), (1, 1, 1), "cross")), 4),
    "expanding": (lambda: modules.Convolution(4, 6, expand_coordinates=True), 4),
    "channelwise": (lambda: modules.ChannelwiseConvolution(4, bias=True), 4),
    "generative": (
        lambda: nn.Sequential(
            modules.Convolution(4, 4, 2, stride=2),
            modules.GenerativeConvolutionTranspose(4, 4, 2, stride=2),
        ),
        4,
    ),
    "transposed": (
        lambda: nn.Sequential(
            modules.Convolution(4, 4, stride=2),
            modules.ConvolutionTranspose(4, 4, stride=2, bias=True),
        ),
        4,
    ),
    "pooling": (lambda: nn.Sequential(modules.MaxPooling(3, 2), modules.AvgPooling(2, 2)), 4),
    "pooling transposed": (
        lambda: nn.Sequential(modules.SumPooling(2, 2), modules.PoolingTranspose(2, 2)),
        4,
    ),
    "max": (modules.GlobalMaxPooling, 4),
    "average": (modules.GlobalAvgPooling, 4),
    "instance norm": (lambda: modules.InstanceNorm(4), 4),
    "batch norm": (lambda: modules.BatchNorm(4), 4),
}

MAP, LEVEL, BLOCK = 4, 6, 2
"""Waits for a kernel map: its pairs, how many each cell has, and to put them in order by output, both ways.

For a level of coarser voxels: its bounds, their order and which differ, and the bounds and the order once more
when it is looked up in. For the blocks of a pooling: which voxels lie in one, both ways."""

WAITS = {
    "1^3": 0,
    "batch norm": 0,
    "max": 1,
    "average": 1,
    "instance norm": 1,
    "channelwise": 2,
    "strided": LEVEL + MAP,
    "2^3 strided": LEVEL + MAP,
    "transposed": LEVEL + MAP,
    "expanding": LEVEL + MAP,
    "generative": 2 * (LEVEL + MAP),
    "pooling transposed": LEVEL + BLOCK,
    "pooling": 2 * LEVEL + BLOCK + 2,  # the largest are looked for among as many rows at a time
}
"""Of a layer and its backward pass while maps are made; those not named here make one map."""


def test_the_pretended_device_refuses_what_cuda_refuses(cuda):
    x = torch.arange(6, device="cuda")
    for mixed in (
        lambda: x + torch.arange(6),
        lambda: x.index_select(0, torch.tensor([1])),
        lambda: x.float() @ torch.ones(6),
        lambda: torch.cat([x, torch.arange(2)]),
        lambda: torch.stack([x[0], torch.tensor(1)]),
        lambda: torch.zeros(6).index_add_(0, x, torch.ones(6)),
        lambda: torch.arange(3)[x[:2]],
    ):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()
    with pytest.raises(TypeError, match="numpy"):
        np.asarray(x)
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(3, device="cuda", generator=torch.Generator())
    assert (x * torch.tensor(2)).tolist() == [
        0,
        2,
        4,
        6,
        8,
        10,
    ]  # a single number may come from anywhere


def test_the_pretended_device_counts_what_the_host_waits_for(cuda):
    x = torch.arange(6, device="cuda")
    for reason, wait in {
        "download": x.cpu,
        "_local_scalar_dense": lambda: int(x[1]),
        "mask": lambda: x[x > 3],
        "nonzero": x.nonzero,
        "blocking upload": lambda: torch.tensor([1, 2], device="cuda"),
        "repeat_interleave": x.repeat_interleave,
        "bincount": x.bincount,
        "_unique2": x.unique,
        "equal": lambda: x.equal(x),
    }.items():
        cuda.waits.clear()
        wait() if reason != "repeat_interleave" else wait(x)
        assert {name: count for name, count in cuda.waits.items() if count} == {reason: 1}
    cuda.waits.clear()
    x[x > 3] = 0
    x.index_select(0, x), x.repeat_interleave(2), torch.tensor([1]).to("cuda", non_blocking=True)
    assert not cuda.waits.total() and cuda.uploads == 1


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_waits_while_its_maps_are_made_and_never_after(cuda, name):
    make, channels = LAYERS[name]
    network, x = seeded(make), cloud("cpu", channels)
    expected = passed(network, x)
    network, x = network.to("cuda"), cloud("cuda", channels)
    cuda.waits.clear()
    agree(passed(network, x), expected)
    assert cuda.waits.total() <= WAITS.get(name, MAP), cuda.waits
    cuda.waits.clear()
    cuda.uploads = 0
    agree(passed(network, x), expected)
    assert not cuda.waits.total() and not cuda.uploads, (cuda.waits, cuda.uploads)


SMALL = small(out_channels=8)
NETWORKS = {
    "ResUNetBN2C": {
        "in_channels": 1,
        "conv1_kernel_size": 7,
        "channels": [8, 8, 16, 16],
        "tr_channels": [8, 8, 8, 16],
    },
    "oriented": {
        "in_channels": 6,
        "conv1_kernel_size": 5,
        "channels": [4, 8, 8, 16],
        "tr_channels": [8, 8, 8, 16],
        "kernels": "pair",
        "oriented": True,
    },
    "small": {"in_channels": 1, **SMALL},
    "small with pairs": {"in_channels": 3, "kernels": "pair", **SMALL},
    "small oriented": {"in_channels": 6, "kernels": "pair", "oriented": True, **SMALL},
}


def network_of(name: str) -> nn.Module:
    return seeded(lambda: create_model("ResUNetBN2C", **{"out_channels": 8} | NETWORKS[name]))


@pytest.mark.parametrize(
    ("name", "making", "kept"),
    [
        ("ResUNetBN2C", 7 * MAP + 3 * LEVEL, 0),
        # Pair kernels need no more of their eleven maps than what they find, and of three levels.
        ("oriented", 11 * 2 + 3 * LEVEL, 0),
    ],
)
def test_a_network_waits_while_its_maps_are_made_and_hardly_after(cuda, name, making, kept):
    network = network_of(name).double()

    def input_on(device: str) -> SparseTensor:
        x = cloud(device, network.in_channels)
        return x.replace(x.features.detach().double() - 0.5)

    expected = passed(network, input_on("cpu"))
    network, x = network.to("cuda"), input_on("cuda")
    cuda.waits.clear()
    agree(passed(network, x), expected)
    assert cuda.waits.total() <= making, cuda.waits
    cuda.waits.clear()
    passed(network, x)
    assert cuda.waits.total() <= kept, cuda.waits


def test_the_tiles_and_units_of_tritons_kernels(cuda):
    kernel = Kernel.of(3)

    def made(device: str) -> list[Tensor]:
        x = cloud(device, 1)
        coarse = x.manager.stride(x.key, 2)
        out = []
        for target in (x.key, coarse):
            plan = x.manager.kernel_map(x.key, target, kernel)
            for each in (plan, plan.transpose):
                _ = each.n_pairs  # searched before waits are counted
                cuda.waits.clear()
                out += [
                    t for table in (tiles(each, 16), units(each, 64)) for t in vars(table).values()
                ]
                assert cuda.waits.total() <= 1, cuda.waits  # how many steps there are
        return [t for t in out if isinstance(t, Tensor)]

    on_both(made)


def test_folding_batch_norms(cuda):
    def work(device: str) -> list[Tensor]:
        x = cloud(device, 1)
        return [fuse(network_of("small").to(device))(x.replace(x.features.detach())).features]

    on_both(work)


def on_both(work: Callable[[str], list[Tensor]]) -> None:
    agree(work("cuda"), work("cpu"))


def test_quantizing_and_collating(cuda):
    def work(device: str) -> list[Tensor]:
        points, labels = random(300, 3).to(device) * 4, (random(300, seed=1) * 3).int().to(device)
        found = [
            quantize(points, points, labels, voxel_size=0.7, reduce=how)
            for how in ("first", "average", "max")
        ]
        return [part for one in found for part in one] + [
            *collate([points, points[:50]], [points, points[:50]])
        ]

    on_both(work)


def test_tensors_of_points(cuda):
    def work(device: str) -> list[Tensor]:
        points = F.pad(random(100, 3).to(device) * 6, (1, 0))
        field = TensorField(random(100, 4, seed=1).to(device).requires_grad_(), points)
        x, splat = field.sparse(), field.splat()
        kept = functional.prune(x, x.features[:, 0] > 0.4)
        moved = points.clone().requires_grad_()
        out = [
            x.features,
            splat.features,
            slice_field(x, field).features,
            kept.features,
            kept.coordinates,
            functional.interpolate(x, moved),
            functional.union(x, kept).features,
            (x / kept).features,
            functional.normalize(x).features,
            functional.broadcast(x, functional.global_pool(x, "max"), "cat").features,
            x.dense()[0],
            SparseTensor.from_dense(x.dense()[0]).features,
            *x.decompose()[1],
            *x.decompose()[0],
        ]
        total = sum(part.sum() for part in out if part.requires_grad)
        return [*out, *torch.autograd.grad(total, [field.features, moved])]

    on_both(work)


def test_voxels_of_a_mesh(cuda):
    angles = random(60, 2, dtype=torch.float64) * 6
    vertices = torch.stack([angles[:, 0].cos(), angles[:, 1].sin(), angles.sum(1).cos()], 1) * 3
    faces = (random(25, 3, seed=3) * 60).long()

    def work(device: str) -> list[Tensor]:
        one = voxelize_mesh(
            vertices, faces, 0.4, area=True, normal=True, triangle=True, device=device
        )
        more = voxelize_mesh([vertices, vertices * 2], faces, 0.5, device=device)
        return [one.coordinates, one.area, one.normal, one.triangle, more.batched_coordinates]

    on_both(work)


@pytest.mark.parametrize("name", ["cycle", "point_info_nce", "hardest_contrastive"])
def test_losses(cuda, name):
    def work(device: str) -> list[Tensor]:
        features = [F.normalize(random(80, 8, seed=s)).to(device).requires_grad_() for s in (0, 1)]
        points = random(80, 3).to(device)
        rows = torch.arange(80, device=device)
        pair = PairFeatures(*features, points, points + 0.001, torch.stack([rows, rows], 1))
        loss = pair_loss(pair, LossConfig(name, points=50), 0.05, torch.Generator().manual_seed(0))
        return [loss, *torch.autograd.grad(loss, features)]

    on_both(work)


@pytest.mark.parametrize("name", ["small", "small with pairs", "small oriented"])
def test_features_by_the_voxel_size(cuda, name):
    network = network_of(name).eval().double()

    def work(device: str) -> list[Tensor]:
        points = (random(60, 3, dtype=torch.float64) * 3).to(device)
        size = torch.tensor(0.6, dtype=torch.float64, device=device).requires_grad_()
        normals = F.normalize(points - 1.5) if "oriented" in name else None
        out = []
        for soft in (SoftNetwork(network.to(device)), LocalGrids(network, radius=2)):
            features = soft(points, size, points[:2].clone(), normals)
            out += [features, *torch.autograd.grad(features.sum(), size)]
        return out

    on_both(work)


@pytest.mark.parametrize(
    ("name", "max_voxels"),
    [("ResUNetBN2C", 1000), ("small oriented", 1000), ("small oriented", 70)],
)
def test_features_of_points(cuda, name, max_voxels):
    points = random(100, 3, dtype=torch.float64) * 2

    def work(device: str) -> list[Tensor]:
        extractor = FeatureExtractor(network_of(name), 0.25, device)
        options = {"viewpoint": (9.0, 9.0, 9.0)} if "oriented" in name else {}
        options |= {"max_voxels": max_voxels, "halo": 1, "views": 2}
        return [extractor(points.to(device), how, **options) for how in ("nearest", "trilinear")]

    on_both(work)


def test_points_stay_where_they_are_while_the_network_is_on_the_device(cuda):
    extractor, points = (
        FeatureExtractor(network_of("small oriented"), 0.25, "cuda"),
        random(50, 3) * 2,
    )
    found = extractor(points), extractor(points.numpy(), "trilinear", views=2)
    assert not isinstance(found[0], Pretended) and isinstance(found[1], np.ndarray)


def test_without_a_driver_convolutions_on_cuda_use_plain_torch(cuda, monkeypatch):
    from sparsefeat.sparse import arithmetic

    monkeypatch.delenv("SPARSEFEAT_ARITHMETIC")
    network = seeded(lambda: modules.Convolution(4, 6))
    expected = passed(network, cloud("cpu", 4))
    for found in (True, False):
        arithmetic._runs_on_cuda.cache_clear()
        monkeypatch.setattr(arithmetic, "_has_triton", lambda: found)
        with (
            pytest.warns(UserWarning, match="Triton cannot run here")
            if found
            else contextlib.nullcontext()
        ):
            agree(passed(network.to("cuda"), cloud("cuda", 4)), expected)
    arithmetic._runs_on_cuda.cache_clear()
