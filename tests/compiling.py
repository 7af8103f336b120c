"""What the tests of torch.compile share."""

from __future__ import annotations

import pytest
import torch
from engine_oracle import assert_close, numbers

from sparsefeat.sparse import SparseTensor, functional, modules, operators

pytestmark = pytest.mark.skipif(not operators.AVAILABLE, reason="needs torch 2.4")


class UNet(torch.nn.Module):
    """Strided, transposed, concatenated and added: each kind of map once."""

    def __init__(self):
        super().__init__()
        self.in_channels = 2
        self.enter = modules.Convolution(2, 4, 3)
        self.norm = modules.BatchNorm(4)
        self.down = modules.Convolution(4, 5, 3, 2, bias=True)
        self.up = modules.ConvolutionTranspose(5, 4, 2, 2)
        self.leave = modules.Convolution(8, 3, 1)
        self.relu = modules.ReLU()

    def forward(self, x: SparseTensor) -> SparseTensor:
        fine = self.relu(self.norm(self.enter(x)))
        return self.leave(functional.cat(self.up(self.down(fine)) + fine, fine))


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def graphs() -> int:
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def breaks() -> list[str]:
    return list(torch._dynamo.utils.counters["graph_break"])


def network(seed: int = 0) -> UNet:
    torch.manual_seed(seed)
    return UNet().double()


def step(model, shared: torch.nn.Module, x: SparseTensor) -> list[torch.Tensor]:
    """Output, and gradients of parameters, of a training step."""
    shared.zero_grad()
    y = model(x)
    features = y.F
    loss = (features * numbers(*features.shape, seed=5)).sum()
    del x, y
    loss.backward()
    return [features.detach(), *(p.grad for p in shared.parameters())]


def same(got: list[torch.Tensor], wanted: list[torch.Tensor]) -> None:
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted):
        assert_close(a, b, 1e-12)
