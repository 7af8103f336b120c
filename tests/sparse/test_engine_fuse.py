"""Networks whose batch norms are folded away compute what they computed before."""

from __future__ import annotations

import pytest
import torch
from engine_oracle import cloud
from torch import nn

from sparsefeat.models import create_model
from sparsefeat.sparse import SparseTensor, fuse, modules


def trained(network: nn.Module) -> nn.Module:
    """As after training: no batch norm is the identity, and some have negative scales."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.2, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(m, modules.BatchNorm) for m in network.modules())


def voxels(channels: int = 1) -> SparseTensor:
    coordinates = cloud(200, side=10)
    features = torch.rand(len(coordinates), channels, generator=torch.Generator().manual_seed(1))
    return SparseTensor(features, coordinates)


@pytest.mark.parametrize("name", ["ResUNetBN2C", "SimpleNetBN2C", "Res16UNet34C"])
def test_a_fused_network_computes_the_same_without_batch_norms(name):
    network = trained(create_model(name, in_channels=1, out_channels=8).double())
    fused, x = fuse(network), voxels()
    x = x.replace(x.F.double())
    with torch.no_grad():
        wanted, found = network(x).F, fused(x).F
    assert norms(network) > 0 and norms(fused) == 0
    assert (found - wanted).abs().max() <= 1e-10 * wanted.abs().max()
    assert not any(p.requires_grad for p in fused.parameters()) and not fused.training


def test_the_network_itself_is_left_as_it_is():
    network = trained(create_model("ResUNetBN2C", in_channels=1, out_channels=4)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fuse(network)
    assert network.training and network.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.requires_grad for p in network.parameters())


class Branching(nn.Module):
    """The convolution's output goes to its norm and past it."""

    in_channels = 2

    def __init__(self):
        super().__init__()
        self.conv, self.norm = modules.Convolution(2, 3, 3), modules.BatchNorm(3)

    def forward(self, x):
        y = self.conv(x)
        return y + self.norm(y)


def test_a_norm_that_is_not_alone_is_refused():
    with pytest.raises(ValueError, match="beside its norm"):
        fuse(trained(Branching()))


class Shared(nn.Module):
    """One convolution before two norms: neither can be folded into it."""

    in_channels = 2

    def __init__(self):
        super().__init__()
        self.conv = modules.Convolution(2, 2, 3)
        self.first, self.second = modules.BatchNorm(2), modules.BatchNorm(2)

    def forward(self, x):
        return self.second(self.conv(self.first(self.conv(x))))


def test_a_convolution_that_runs_twice_keeps_its_norms():
    network, x = trained(Shared()), voxels(2)
    fused = fuse(network)
    assert norms(fused) == 2
    with torch.no_grad():
        assert torch.equal(fused(x).F, network(x).F)


def test_a_network_that_does_not_say_its_channels_needs_an_example():
    network = trained(nn.Sequential(modules.Convolution(2, 3, 3, bias=True), modules.BatchNorm(3)))
    with pytest.raises(ValueError, match="in_channels"):
        fuse(network)
    fused, x = fuse(network, voxels(2)), voxels(2)
    assert norms(fused) == 0 and isinstance(fused[1], nn.Identity)
    with torch.no_grad():
        assert (fused(x).F - network(x).F).abs().max() < 1e-5
