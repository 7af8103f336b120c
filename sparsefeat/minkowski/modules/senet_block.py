"""Residual blocks with squeeze and excitation, Hu et al., 2018 (MinkowskiEngine.modules.senet_block)."""

from __future__ import annotations

from torch import nn

from sparsefeat.minkowski.broadcast import MinkowskiBroadcastMultiplication
from sparsefeat.minkowski.common import StrideType
from sparsefeat.minkowski.modules.resnet_block import BasicBlock, Bottleneck
from sparsefeat.minkowski.nonlinearity import MinkowskiReLU, MinkowskiSigmoid
from sparsefeat.minkowski.ops import MinkowskiLinear
from sparsefeat.minkowski.pooling import MinkowskiGlobalPooling


class SELayer(nn.Module):
    """Scale the channels of each cloud by a small network of their means."""

    def __init__(self, channel: int, reduction: int = 16, D: int = -1):
        super().__init__()
        self.fc = nn.Sequential(
            MinkowskiLinear(channel, channel // reduction),
            MinkowskiReLU(inplace=True),
            MinkowskiLinear(channel // reduction, channel),
            MinkowskiSigmoid(),
        )
        self.pooling = MinkowskiGlobalPooling()
        self.broadcast_mul = MinkowskiBroadcastMultiplication()

    def forward(self, x):
        return self.broadcast_mul(x, self.fc(self.pooling(x)))


class _Excited:
    """Puts ``se`` between the last norm and the residual sum."""

    def _body(self, x):
        return self.se(super()._body(x))


class SEBasicBlock(_Excited, BasicBlock):
    """BasicBlock with an SELayer."""

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: StrideType = 1,
        dilation: StrideType = 1,
        downsample: nn.Module | None = None,
        reduction: int = 16,
        D: int = -1,
    ):
        super().__init__(inplanes, planes, stride, dilation, downsample, dimension=D)
        self.se = SELayer(planes, reduction, D)


class SEBottleneck(_Excited, Bottleneck):
    """Bottleneck with an SELayer."""

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: StrideType = 1,
        dilation: StrideType = 1,
        downsample: nn.Module | None = None,
        D: int = 3,
        reduction: int = 16,
    ):
        super().__init__(inplanes, planes, stride, dilation, downsample, dimension=D)
        self.se = SELayer(planes * self.expansion, reduction, D)
