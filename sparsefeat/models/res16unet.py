"""PointContrast's Res16UNets: several residual blocks per level, down- and up-sampling by 2-cell kernels.

Xie et al., PointContrast, ECCV 2020, and Choy et al., 4D Spatio-Temporal ConvNets, CVPR 2019; layer names
and widths are those of the published code, so that its weights load.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import nn

from sparsefeat.errors import InputError
from sparsefeat.models.blocks import (
    NORMS,
    Network,
    ResidualBlock,
    check_dilations,
    check_scalars,
    check_widths,
    is_count,
    norm_layer,
)
from sparsefeat.models.registry import register

_LEVELS = 4
_BLOCK_MOMENTUM = 0.1
"""Inside its blocks the published code leaves the momentum at this, whatever ``bn_momentum`` is."""


class Res16UNet(Network):
    """Four levels of 2-cell strided convolution, norm and residual blocks, and up again with skips.

    Args:
        in_channels, out_channels: channels of the input and of the features.
        bn_momentum: share of the newest batch in the running statistics outside the blocks.
        normalize_feature: scale each output row to unit L2 norm.
        conv1_kernel_size: edge of the first kernel in voxels; None: 3.
        D: spatial dimensions.
        depth: number of down-samplings, 0 to 4; each one less leaves out the deepest level.
        planes: eight widths, four on the way down (finest first) and four on the way up (deepest first).
        layers: residual blocks at the same eight places.
        initial: width of the first layer.
        dilation: of the kernels in the blocks, one number or one per level (``depth + 1``), finest first.
        norm: ``"BN"``, ``"IN"`` or ``"none"``.
        backend: see :func:`sparsefeat.models.create_model`.
    """

    PLANES: ClassVar[tuple[int, ...]] = (32, 64, 128, 256, 256, 256, 256, 256)
    LAYERS: ClassVar[tuple[int, ...]] = (2, 2, 2, 2, 2, 2, 2, 2)

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 32,
        bn_momentum: float = 0.1,
        normalize_feature: bool | None = None,
        conv1_kernel_size: int | None = None,
        D: int = 3,
        *,
        depth: int = _LEVELS,
        planes: Sequence[int] | None = None,
        layers: Sequence[int] | None = None,
        initial: int = 32,
        dilation: int | Sequence[int] = 1,
        norm: str = "BN",
        backend: str = "auto",
    ):
        super().__init__(in_channels, out_channels, backend)
        name = type(self).__name__
        conv1_kernel_size = 3 if conv1_kernel_size is None else conv1_kernel_size
        check_scalars(name, bn_momentum, conv1_kernel_size, D)
        if not is_count(depth, 0) or depth > _LEVELS:
            raise InputError(f"{name}: depth must be an integer from 0 to {_LEVELS}, got {depth!r}")
        planes = check_widths(
            name, "planes", self.PLANES if planes is None else planes, 2 * _LEVELS
        )
        layers = check_widths(
            name, "layers", self.LAYERS if layers is None else layers, 2 * _LEVELS
        )
        check_widths(name, "initial", [initial], 1)
        dilations = check_dilations(name, dilation, depth + 1)
        if norm not in NORMS:
            raise InputError(f"{name}: norm must be one of {', '.join(NORMS)}, got {norm!r}")
        self.config = {
            "name": name,
            "in_channels": in_channels,
            "out_channels": out_channels,
            "bn_momentum": float(bn_momentum),
            "normalize_feature": bool(normalize_feature),
            "conv1_kernel_size": conv1_kernel_size,
            "D": D,
            "depth": depth,
            "planes": planes,
            "layers": layers,
            "initial": initial,
            "dilation": dilations,
            "norm": norm,
        }
        self.normalize_feature = bool(normalize_feature)
        self.depth = depth
        ops = self.ops

        def blocks(width_in: int, place: int, dilation: int) -> nn.Sequential:
            width = planes[place]
            return nn.Sequential(
                *(
                    ResidualBlock(
                        width if i else width_in, width,
                        ops=ops, norm=norm, momentum=_BLOCK_MOMENTUM, dilation=dilation, dimension=D,
                    )
                    for i in range(layers[place])
                )
            )  # fmt: skip

        self.conv0p1s1 = ops.Convolution(
            in_channels, initial, kernel_size=conv1_kernel_size, dimension=D
        )
        self.bn0 = norm_layer(ops, norm, initial, bn_momentum)
        width, skip_widths = initial, [initial]
        for level in range(1, depth + 1):
            down = ops.Convolution(width, width, kernel_size=2, stride=2, dimension=D)
            setattr(self, _down(level), down)
            setattr(self, f"bn{level}", norm_layer(ops, norm, width, bn_momentum))
            setattr(self, f"block{level}", blocks(width, level - 1, dilations[level]))
            width = planes[level - 1]
            skip_widths.append(width)
        for level in range(depth, 0, -1):
            place = 2 * _LEVELS - level
            up = ops.ConvolutionTranspose(
                width, planes[place], kernel_size=2, stride=2, dimension=D
            )
            setattr(self, _up(level), up)
            setattr(self, f"bntr{place}", norm_layer(ops, norm, planes[place], bn_momentum))
            joined = planes[place] + skip_widths[level - 1]
            setattr(self, f"block{place + 1}", blocks(joined, place, dilations[level - 1]))
            width = planes[place]
        self.final = ops.Convolution(width, out_channels, kernel_size=1, bias=True, dimension=D)

    def run(self, x: Any) -> Any:
        relu, cat = self.ops.relu, self.ops.cat
        x = relu(self.bn0(self.conv0p1s1(x)))
        skips = [x]
        for level in range(1, self.depth + 1):
            x = relu(getattr(self, f"bn{level}")(getattr(self, _down(level))(x)))
            x = getattr(self, f"block{level}")(x)
            skips.append(x)
        for level in range(self.depth, 0, -1):
            place = 2 * _LEVELS - level
            x = relu(getattr(self, f"bntr{place}")(getattr(self, _up(level))(x)))
            x = getattr(self, f"block{place + 1}")(cat(x, skips[level - 1]))
        x = self.final(x)
        return self.ops.normalize(x) if self.normalize_feature else x


def _down(level: int) -> str:
    return f"conv{level}p{2 ** (level - 1)}s2"


def _up(level: int) -> str:
    return f"convtr{2 * _LEVELS - level}p{2**level}s2"


class _Res16UNet14(Res16UNet):
    LAYERS = (1, 1, 1, 1, 1, 1, 1, 1)


@register
class Res16UNet14A(_Res16UNet14):
    """One block per place."""

    PLANES = (32, 64, 128, 256, 128, 128, 96, 96)


@register
class Res16UNet14C(_Res16UNet14):
    """One block per place, wider on the way up."""

    PLANES = (32, 64, 128, 256, 192, 192, 128, 128)


@register
class Res16UNet18A(Res16UNet):
    """Two blocks per place."""

    PLANES = (32, 64, 128, 256, 128, 128, 96, 96)


class _Res16UNet34(Res16UNet):
    LAYERS = (2, 3, 4, 6, 2, 2, 2, 2)


@register
class Res16UNet34A(_Res16UNet34):
    """34 layers."""

    PLANES = (32, 64, 128, 256, 256, 128, 64, 64)


@register
class Res16UNet34C(_Res16UNet34):
    __doc__ = "The network of PointContrast's released weights.\n\n" + Res16UNet.__doc__
    PLANES = (32, 64, 128, 256, 256, 128, 96, 96)
