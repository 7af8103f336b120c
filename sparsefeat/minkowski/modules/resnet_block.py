"""Residual blocks, He et al., Deep Residual Learning, 2016 (MinkowskiEngine.modules.resnet_block)."""

from __future__ import annotations

from torch import nn

from sparsefeat.minkowski.common import StrideType
from sparsefeat.minkowski.convolution import MinkowskiConvolution
from sparsefeat.minkowski.nonlinearity import MinkowskiReLU
from sparsefeat.minkowski.normalization import MinkowskiBatchNorm


class _Block(nn.Module):
    """Convolutions conv1, conv2, .. with norm1, norm2, ..; ReLU between them and after the residual sum."""

    expansion = 1
    depth = 2

    def _body(self, x):
        for number in range(1, self.depth + 1):
            x = getattr(self, f"norm{number}")(getattr(self, f"conv{number}")(x))
            if number < self.depth:
                x = self.relu(x)
        return x

    def forward(self, x):
        out = self._body(x)
        out = out + (x if self.downsample is None else self.downsample(x))
        return self.relu(out)


class BasicBlock(_Block):
    """Two convolutions of kernel 3.

    Args:
        inplanes, planes: channels in and out.
        stride: of the first convolution.
        dilation: of both.
        downsample: what makes the input fit the output.
        bn_momentum: of the batch norms.
        dimension: spatial axes D.
    """

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: StrideType = 1,
        dilation: StrideType = 1,
        downsample: nn.Module | None = None,
        bn_momentum: float = 0.1,
        dimension: int = -1,
    ):
        super().__init__()
        self.conv1 = MinkowskiConvolution(
            inplanes, planes, kernel_size=3, stride=stride, dilation=dilation, dimension=dimension
        )
        self.norm1 = MinkowskiBatchNorm(planes, momentum=bn_momentum)
        self.conv2 = MinkowskiConvolution(
            planes, planes, kernel_size=3, dilation=dilation, dimension=dimension
        )
        self.norm2 = MinkowskiBatchNorm(planes, momentum=bn_momentum)
        self.relu = MinkowskiReLU(inplace=True)
        self.downsample = downsample


class Bottleneck(_Block):
    """Kernels 1, 3, 1; the last has four times ``planes`` channels. Arguments as for BasicBlock."""

    expansion = 4
    depth = 3

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: StrideType = 1,
        dilation: StrideType = 1,
        downsample: nn.Module | None = None,
        bn_momentum: float = 0.1,
        dimension: int = -1,
    ):
        super().__init__()
        wide = planes * self.expansion
        self.conv1 = MinkowskiConvolution(inplanes, planes, kernel_size=1, dimension=dimension)
        self.norm1 = MinkowskiBatchNorm(planes, momentum=bn_momentum)
        self.conv2 = MinkowskiConvolution(
            planes, planes, kernel_size=3, stride=stride, dilation=dilation, dimension=dimension
        )
        self.norm2 = MinkowskiBatchNorm(planes, momentum=bn_momentum)
        self.conv3 = MinkowskiConvolution(planes, wide, kernel_size=1, dimension=dimension)
        self.norm3 = MinkowskiBatchNorm(wide, momentum=bn_momentum)
        self.relu = MinkowskiReLU(inplace=True)
        self.downsample = downsample
