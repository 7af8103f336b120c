"""Element-wise layers: torch's modules on features of tensors and fields (MinkowskiNonlinearity)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparsefeat.minkowski.common import MinkowskiModuleBase


class MinkowskiNonlinearityBase(MinkowskiModuleBase):
    """Apply ``MODULE``, a torch class, to the features; its arguments, its parameters under ``module``."""

    MODULE: type[nn.Module]

    def __init__(self, *args, **kwargs):
        super().__init__()
        self.module = self.MODULE(*args, **kwargs)

    def forward(self, input):
        return input.replace(self.module(input.F))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _layer(module: type[nn.Module]) -> type[MinkowskiNonlinearityBase]:
    name = f"Minkowski{module.__name__}"
    doc = f"torch.nn.{module.__name__} on the features of a sparse tensor or field."
    return type(
        name,
        (MinkowskiNonlinearityBase,),
        {"MODULE": module, "__doc__": doc, "__module__": __name__},
    )


MinkowskiELU = _layer(nn.ELU)
MinkowskiHardshrink = _layer(nn.Hardshrink)
MinkowskiHardsigmoid = _layer(nn.Hardsigmoid)
MinkowskiHardtanh = _layer(nn.Hardtanh)
MinkowskiHardswish = _layer(nn.Hardswish)
MinkowskiLeakyReLU = _layer(nn.LeakyReLU)
MinkowskiLogSigmoid = _layer(nn.LogSigmoid)
MinkowskiPReLU = _layer(nn.PReLU)
MinkowskiReLU = _layer(nn.ReLU)
MinkowskiReLU6 = _layer(nn.ReLU6)
MinkowskiRReLU = _layer(nn.RReLU)
MinkowskiSELU = _layer(nn.SELU)
MinkowskiCELU = _layer(nn.CELU)
MinkowskiGELU = _layer(nn.GELU)
MinkowskiSigmoid = _layer(nn.Sigmoid)
MinkowskiSiLU = _layer(nn.SiLU)
MinkowskiSoftplus = _layer(nn.Softplus)
MinkowskiSoftshrink = _layer(nn.Softshrink)
MinkowskiSoftsign = _layer(nn.Softsign)
MinkowskiTanh = _layer(nn.Tanh)
MinkowskiTanhshrink = _layer(nn.Tanhshrink)
MinkowskiThreshold = _layer(nn.Threshold)
MinkowskiDropout = _layer(nn.Dropout)
MinkowskiAlphaDropout = _layer(nn.AlphaDropout)


class _OverChannels(MinkowskiNonlinearityBase):
    """A module over an axis: the channels unless told otherwise."""

    def __init__(self, dim: int = 1):
        super().__init__(dim=dim)


class MinkowskiSoftmin(_OverChannels):
    """torch.nn.Softmin on the features."""

    MODULE = nn.Softmin


class MinkowskiSoftmax(_OverChannels):
    """torch.nn.Softmax on the features."""

    MODULE = nn.Softmax


class MinkowskiLogSoftmax(_OverChannels):
    """torch.nn.LogSoftmax on the features."""

    MODULE = nn.LogSoftmax


class MinkowskiAdaptiveLogSoftmaxWithLoss(MinkowskiNonlinearityBase):
    """torch.nn.AdaptiveLogSoftmaxWithLoss of the features and a target (V,); returns torch's pair."""

    MODULE = nn.AdaptiveLogSoftmaxWithLoss

    def forward(self, input, target: Tensor):
        return self.module(input.F, target)


class MinkowskiSinusoidal(MinkowskiModuleBase):
    """``sin(F kernel + bias) * coef``. Shape: (V, in_channel) -> (V, out_channel)."""

    def __init__(self, in_channel: int, out_channel: int):
        super().__init__()
        self.in_channel = in_channel
        self.out_channel = out_channel
        self.kernel = nn.Parameter(torch.rand(in_channel, out_channel))
        self.bias = nn.Parameter(torch.rand(1, out_channel))
        self.coef = nn.Parameter(torch.rand(1, out_channel))

    def forward(self, input):
        return input.replace(torch.sin(input.F.mm(self.kernel) + self.bias) * self.coef)
