"""Networks in the style of published code, on sparsefeat.minkowski, against sparsefeat.models."""

from __future__ import annotations

import pytest
import sparsefeat.minkowski.MinkowskiFunctional as MEF
import torch
from engine_oracle import assert_close, cloud, numbers
from torch import nn

import sparsefeat.minkowski as ME
from sparsefeat import models
from sparsefeat.sparse import SparseTensor

CHANNELS, TR_CHANNELS = (4, 6, 8, 10), (12, 6, 8, 10)
PLANES = (4, 6, 8, 10, 8, 6, 4, 4)
AXES = [ME.RegionType.HYPERCUBE] * 3


class FCGFBlock(nn.Module):
    """FCGF's residual block: the sum is made in place, nonlinearities are functions."""

    def __init__(self, channels: int, norm: str, momentum: float):
        super().__init__()
        self.conv1 = ME.MinkowskiConvolution(
            channels, channels, kernel_size=3, stride=1, dimension=3
        )
        self.norm1 = fcgf_norm(norm, channels, momentum)
        self.conv2 = ME.MinkowskiConvolution(
            channels, channels, kernel_size=3, stride=1, dilation=1, bias=False, dimension=3
        )
        self.norm2 = fcgf_norm(norm, channels, momentum)

    def forward(self, x):
        out = MEF.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        out += x
        return MEF.relu(out)


def fcgf_norm(norm: str, channels: int, momentum: float) -> nn.Module:
    if norm == "BN":
        return ME.MinkowskiBatchNorm(channels, momentum=momentum)
    return ME.MinkowskiInstanceNorm(channels)


class FCGFNet(ME.MinkowskiNetwork):
    """A ResUNet as FCGF writes it, with the layers' published names."""

    def __init__(self, block_norm: str, momentum: float = 0.05):
        ME.MinkowskiNetwork.__init__(self, 3)

        def level(name, kind, channels_in, channels_out, **keywords):
            setattr(
                self,
                f"conv{name}",
                kind(channels_in, channels_out, dimension=3, bias=False, **keywords),
            )
            setattr(self, f"norm{name}", fcgf_norm("BN", channels_out, momentum))
            setattr(self, f"block{name}", FCGFBlock(channels_out, block_norm, momentum))

        down, up = ME.MinkowskiConvolution, ME.MinkowskiConvolutionTranspose
        c, t = CHANNELS, TR_CHANNELS
        level("1", down, 2, c[0], kernel_size=5, stride=1, dilation=1)
        level("2", down, c[0], c[1], kernel_size=3, stride=2, dilation=1)
        level("3", down, c[1], c[2], kernel_size=3, stride=2, dilation=1)
        level("4", down, c[2], c[3], kernel_size=3, stride=2, dilation=1)
        level("4_tr", up, c[3], t[3], kernel_size=3, stride=2, dilation=1)
        level("3_tr", up, c[2] + t[3], t[2], kernel_size=3, stride=2, dilation=1)
        level("2_tr", up, c[1] + t[2], t[1], kernel_size=3, stride=2, dilation=1)
        self.conv1_tr = down(
            c[0] + t[1], t[0], kernel_size=1, stride=1, dilation=1, bias=False, dimension=3
        )
        self.final = down(t[0], 7, kernel_size=1, stride=1, dilation=1, bias=True, dimension=3)

    def forward(self, x):
        s1 = self.block1(self.norm1(self.conv1(x)))
        s2 = self.block2(self.norm2(self.conv2(MEF.relu(s1))))
        s4 = self.block3(self.norm3(self.conv3(MEF.relu(s2))))
        s8 = self.block4(self.norm4(self.conv4(MEF.relu(s4))))
        out = MEF.relu(self.block4_tr(self.norm4_tr(self.conv4_tr(MEF.relu(s8)))))
        out = ME.cat(out, s4)
        out = MEF.relu(self.block3_tr(self.norm3_tr(self.conv3_tr(out))))
        out = ME.cat(out, s2)
        out = MEF.relu(self.block2_tr(self.norm2_tr(self.conv2_tr(out))))
        out = ME.cat(out, s1)
        out = self.final(MEF.relu(self.conv1_tr(out)))
        return ME.SparseTensor(
            out.F / torch.norm(out.F, p=2, dim=1, keepdim=True),
            coordinate_map_key=out.coordinate_map_key,
            coordinate_manager=out.coordinate_manager,
        )


def conv(
    channels_in, channels_out, kernel_size, stride=1, bias=False, hybrid=False, transpose=False
):
    """As SpatioTemporalSegmentation builds its layers, with the names of version 0.4."""
    region_type = ME.RegionType.HYBRID if hybrid else ME.RegionType.HYPERCUBE
    generator = ME.KernelGenerator(
        kernel_size,
        stride,
        1,
        region_type=region_type,
        axis_types=AXES if hybrid else None,
        dimension=3,
    )
    kind = ME.MinkowskiConvolutionTranspose if transpose else ME.MinkowskiConvolution
    return kind(
        in_channels=channels_in, out_channels=channels_out, kernel_size=kernel_size, stride=stride,
        dilation=1, has_bias=bias, kernel_generator=generator, dimension=3,
    )  # fmt: skip


class PointContrastBlock(nn.Module):
    """A residual block whose kernels are hybrid ones, that is cubes in another order."""

    def __init__(self, channels_in: int, channels: int):
        super().__init__()
        self.conv1 = conv(channels_in, channels, 3, hybrid=True)
        self.norm1 = ME.MinkowskiBatchNorm(channels, momentum=0.1)
        self.conv2 = conv(channels, channels, 3, hybrid=True)
        self.norm2 = ME.MinkowskiBatchNorm(channels, momentum=0.1)
        self.relu = ME.MinkowskiReLU(inplace=True)
        self.downsample = None
        if channels_in != channels:
            norm = ME.MinkowskiBatchNorm(channels, momentum=0.1)
            self.downsample = nn.Sequential(conv(channels_in, channels, 1), norm)

    def forward(self, x):
        out = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class PointContrastNet(ME.MinkowskiNetwork):
    """A Res16UNet14 as PointContrast writes it, with the layers' published names."""

    def __init__(self):
        super().__init__(3)
        self.conv0p1s1 = conv(2, 4, 3)
        self.bn0 = ME.MinkowskiBatchNorm(4, momentum=0.05)
        width, widths = 4, [4, *PLANES[:4]]
        for level in range(1, 5):
            setattr(self, f"conv{level}p{2 ** (level - 1)}s2", conv(width, width, 2, stride=2))
            setattr(self, f"bn{level}", ME.MinkowskiBatchNorm(width, momentum=0.05))
            setattr(self, f"block{level}", nn.Sequential(PointContrastBlock(width, widths[level])))
            width = widths[level]
        for place in range(4, 8):
            up = conv(width, PLANES[place], 2, stride=2, transpose=True)
            setattr(self, f"convtr{place}p{2 ** (8 - place)}s2", up)
            setattr(self, f"bntr{place}", ME.MinkowskiBatchNorm(PLANES[place], momentum=0.05))
            block = PointContrastBlock(PLANES[place] + widths[7 - place], PLANES[place])
            setattr(self, f"block{place + 1}", nn.Sequential(block))
            width = PLANES[place]
        self.final = conv(width, 7, 1, bias=True)
        self.relu = ME.MinkowskiReLU(inplace=True)

    def forward(self, x):
        out = self.relu(self.bn0(self.conv0p1s1(x)))
        skips = [out]
        for level in range(1, 5):
            out = getattr(self, f"conv{level}p{2 ** (level - 1)}s2")(out)
            out = getattr(self, f"block{level}")(self.relu(getattr(self, f"bn{level}")(out)))
            skips.append(out)
        for place in range(4, 8):
            out = getattr(self, f"convtr{place}p{2 ** (8 - place)}s2")(out)
            out = ME.MinkowskiOps.cat(
                self.relu(getattr(self, f"bntr{place}")(out)), skips[7 - place]
            )
            out = getattr(self, f"block{place + 1}")(out)
        out = self.final(out)
        return ME.SparseTensor(
            out.F / torch.norm(out.F, p=2, dim=1, keepdim=True),
            coords_key=out.coords_key,
            coords_manager=out.coords_man,
        )


def make_input() -> tuple[torch.Tensor, torch.Tensor]:
    coordinates = cloud(300, dimension=3, side=12)
    return numbers(len(coordinates), 2), coordinates


def check_same(theirs: nn.Module, ours: nn.Module, to_ours) -> None:
    """Same weights, outputs, gradients and running statistics; ``to_ours`` orders the cells of a kernel."""
    features, coordinates = make_input()
    weights = theirs.state_dict()
    assert list(weights) == list(ours.state_dict())
    ours.load_state_dict({name: to_ours(name, value) for name, value in weights.items()})
    target = numbers(len(features), 7, seed=1)
    for training in (True, False):
        theirs.train(training)
        ours.train(training)
        x = ME.SparseTensor(features, coordinates=coordinates.int())
        y, expected = theirs(x), ours(SparseTensor(features, coordinates))
        assert y.coordinate_map_key == x.coordinate_map_key and torch.equal(y.C, coordinates)
        assert_close(y.F, expected.F, 1e-9)
        if training:
            for out in (y, expected):
                (out.F * target).sum().backward()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert_close(to_ours(name, other.grad), mine.grad, 1e-8)
    for (name, mine), other in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        assert_close(other.double(), mine.double(), 1e-9)


@pytest.mark.parametrize("name, block_norm", [("ResUNetBN2C", "BN"), ("ResUNetIN2C", "IN")])
def test_a_network_in_fcgf_style_is_our_resunet(name, block_norm):
    ours = models.create_model(
        name, in_channels=2, out_channels=7, bn_momentum=0.05, normalize_feature=True,
        conv1_kernel_size=5, channels=CHANNELS, tr_channels=TR_CHANNELS,
    )  # fmt: skip
    check_same(FCGFNet(block_norm).double(), ours.double(), lambda layer, value: value)


def test_a_network_in_pointcontrast_style_is_our_res16unet_but_for_the_order_of_cells():
    hybrid = ME.KernelGenerator(3, region_type=ME.RegionType.HYBRID, axis_types=AXES, dimension=3)
    cube = ME.KernelGenerator(3, dimension=3)
    cells, wanted = (generator.window.cells for generator in (hybrid, cube))
    assert sorted(cells) == sorted(wanted) and cells != wanted
    order = [cells.index(cell) for cell in wanted]

    def to_ours(layer: str, value: torch.Tensor) -> torch.Tensor:
        return value[order] if layer.startswith("block") and value.ndim == 3 else value

    ours = models.create_model(
        "Res16UNet14A", in_channels=2, out_channels=7, bn_momentum=0.05, normalize_feature=True,
        planes=PLANES, initial=4,
    )  # fmt: skip
    check_same(PointContrastNet().double(), ours.double(), to_ours)


@pytest.mark.parametrize("name", ["ResUNetBN2C", "Res16UNet14A", "SimpleNetIN2"])
def test_the_minkowski_backend_on_an_installation_of_ours(name):
    narrow = (
        {"planes": PLANES, "initial": 4} if name.startswith("Res16") else {"channels": CHANNELS}
    )
    config = {"in_channels": 2, "out_channels": 7, "normalize_feature": True, **narrow}
    ours = models.create_model(name, **config).double()
    features, coordinates = make_input()
    x = SparseTensor(features, coordinates)
    with ME.installed():
        theirs = models.create_model(name, backend="minkowski", **config).double()
        assert isinstance(
            theirs.final if hasattr(theirs, "final") else theirs.conv1, ME.MinkowskiConvolution
        )
        theirs.load_state_dict(ours.state_dict())
        y = theirs(x)
    expected = ours(x)
    assert type(y) is SparseTensor and y.key == x.key
    assert_close(y.F, expected.F, 1e-9)


@pytest.mark.parametrize("make", [lambda: FCGFNet("BN"), lambda: FCGFNet("IN"), PointContrastNet])
def test_networks_run_with_float64_as_the_default_type(make):
    torch.set_default_dtype(torch.float64)
    try:
        net = make()
        features, coordinates = make_input()
        field = ME.TensorField(features, coordinates + 0.5)
        y = net(field.sparse())
        y.F.sum().backward()
        assert y.F.dtype == y.slice(field).F.dtype == torch.float64
        assert all(p.dtype == p.grad.dtype == torch.float64 for p in net.parameters())
        assert ME.MinkowskiInterpolation()(y, field.C[:5]).dtype == torch.float64
        narrow = net.float()(field.sparse().float())
        assert narrow.F.dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(narrow.F, net(field.sparse().float()).F)


@pytest.mark.parametrize("make", [lambda: FCGFNet("BN"), lambda: FCGFNet("IN"), PointContrastNet])
def test_a_cloud_has_the_same_features_alone_and_in_a_batch(make):
    net = make().double().eval()
    features, coordinates = make_input()
    together = net(ME.SparseTensor(features, coordinates))
    for batch in coordinates[:, 0].unique():
        here = coordinates[:, 0] == batch
        alone = net(ME.SparseTensor(features[here], coordinates[here]))
        assert_close(together.F[here], alone.F, 1e-9)


def test_a_training_step_lowers_the_loss():
    torch.manual_seed(0)
    net = FCGFNet("BN").double()
    features, coordinates = make_input()
    target = torch.nn.functional.normalize(numbers(len(features), 7, seed=1), dim=1)
    losses = []
    for _ in range(4):
        loss = (net(ME.SparseTensor(features, coordinates)).F - target).square().sum(1).mean()
        with torch.no_grad():
            parameters = list(net.parameters())
            for parameter, grad in zip(parameters, torch.autograd.grad(loss, parameters)):
                parameter -= 0.1 * grad
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.02, losses
