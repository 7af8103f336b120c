"""The U-shaped network behind FCGF's ResUNets and SimpleNets.

Choy, Park, Koltun, Fully Convolutional Geometric Features, ICCV 2019, section 4; layer names and widths
are those of the published code, so that its weights load.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from sparsefeat.models.geometry import LocalGeometry
from sparsefeat.models.pairs import PointFrames, pair_backend
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


class UNet(Network):
    """Levels of convolution, norm (and residual block), down by strides of 2 and up again with skips.

    Args:
        in_channels, out_channels: channels of the input and of the features.
        bn_momentum: share of the newest batch in the running statistics.
        normalize_feature: scale each output row to unit L2 norm.
        conv1_kernel_size: edge of the first kernel in voxels; None: 3.
        D: spatial dimensions.
        depth: number of down-samplings; each one less leaves out the deepest level and halves the
            receptive field, roughly. None: as published.
        channels, tr_channels: widths on the way down and up, finest level first, ``depth + 1`` of each
            (more are ignored). None: as published.
        dilation: of the kernels that keep the stride, one number or one per level, finest first.
        norm, block_norm: ``"BN"``, ``"IN"`` or ``"none"``, outside and inside the residual blocks. None:
            as published.
        geometry: feed the network rotation-invariant statistics of the points in and around each voxel; the
            three input channels are the points' offsets from the voxels' centres, see
            :class:`sparsefeat.models.geometry.LocalGeometry`.
        pair_kernels: use rotation-invariant pair features in place of kernel cells, see
            :mod:`sparsefeat.models.pairs`; needs ``geometry``, whose three channels say where the points are.
        sides: three more input channels say which side of the surface is outside, as a direction (to the sensor, or
            along an outward normal), so that pair features tell a ridge from a groove; zero where it is not known.
        chiral: one more pair function, which changes its sign under reflection, so that left and right can be told
            apart; with ``sides``.
        symmetric: keep kernels symmetric under the cube's rotations, see :meth:`Network.set_symmetric`.
        backend: see :func:`sparsefeat.models.create_model`.
    """

    DEPTH: ClassVar[int] = 3
    CHANNELS: ClassVar[tuple[int, ...]] = (32, 64, 128, 256)
    TR_CHANNELS: ClassVar[tuple[int, ...]] = (32, 64, 64, 128)
    NORM: ClassVar[str] = "BN"
    BLOCK_NORM: ClassVar[str | None] = None
    """Norm inside the residual blocks; None: there are no blocks."""
    LAST_KERNEL: ClassVar[int] = 1
    """Edge of ``conv1_tr``, which joins the finest level's two halves."""
    LAST_NORM: ClassVar[bool] = False
    FINAL: ClassVar[bool] = True
    """Whether a pointwise layer ``final`` follows ``conv1_tr``."""

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 32,
        bn_momentum: float = 0.1,
        normalize_feature: bool | None = None,
        conv1_kernel_size: int | None = None,
        D: int = 3,
        *,
        depth: int | None = None,
        channels: Sequence[int] | None = None,
        tr_channels: Sequence[int] | None = None,
        dilation: int | Sequence[int] = 1,
        norm: str | None = None,
        block_norm: str | None = None,
        geometry: bool = False,
        pair_kernels: bool = False,
        sides: bool = False,
        chiral: bool = False,
        symmetric: bool = False,
        backend: str = "auto",
    ):
        super().__init__(in_channels, out_channels, backend)
        name = type(self).__name__
        conv1_kernel_size = 3 if conv1_kernel_size is None else conv1_kernel_size
        check_scalars(name, bn_momentum, conv1_kernel_size, D)
        depth = self.DEPTH if depth is None else depth
        if not is_count(depth, 0):
            raise ValueError(f"{name}: depth must be an integer of at least 0, got {depth!r}")
        widths = check_widths(name, "channels", self.CHANNELS if channels is None else channels, depth + 1)
        tr_widths = check_widths(
            name, "tr_channels", self.TR_CHANNELS if tr_channels is None else tr_channels, depth + 1
        )
        dilations = check_dilations(name, dilation, depth + 1)
        norm = self.NORM if norm is None else norm
        block_norm = self.BLOCK_NORM if block_norm is None else block_norm
        for key, value in (("norm", norm), ("block_norm", block_norm)):
            if value is not None and value not in NORMS:
                raise ValueError(f"{name}: {key} must be one of {', '.join(NORMS)}, got {value!r}")
        if block_norm is not None and self.BLOCK_NORM is None:
            raise ValueError(f"{name}: block_norm is {block_norm!r}, but this network has no residual blocks")
        self.config = {
            "name": name,
            "in_channels": in_channels,
            "out_channels": out_channels,
            "bn_momentum": float(bn_momentum),
            "normalize_feature": bool(normalize_feature),
            "conv1_kernel_size": conv1_kernel_size,
            "D": D,
            "depth": depth,
            "channels": widths,
            "tr_channels": tr_widths,
            "dilation": dilations,
            "norm": norm,
            "block_norm": block_norm,
            "geometry": bool(geometry),
        }
        if pair_kernels:
            if not geometry:
                raise ValueError(f"{name}: pair_kernels need to know where the points are; set geometry too")
            self.config["pair_kernels"] = True
            self.ops = pair_backend(self.ops, chiral)
        if sides:
            if not pair_kernels:
                raise ValueError(f"{name}: sides are for pair_kernels; set those too")
            self.config["sides"] = True
        if chiral:
            if not sides:
                raise ValueError(f"{name}: chiral is for networks with sides; set those too")
            self.config["chiral"] = True
        self.geometry = None
        if geometry:
            self.geometry = PointFrames(D, sides, chiral) if pair_kernels else LocalGeometry(D)
            if in_channels != (expected := 6 if sides else 3):
                raise ValueError(
                    f"{name}: geometry takes {expected} input channels, offsets from the centre"
                    f"{' and a direction to the outside' if sides else ''}, got {in_channels}"
                )
        self.normalize_feature = bool(normalize_feature)
        self.depth = depth
        ops = self.ops

        def add_norm_and_block(level: str, width: int, dilation: int) -> None:
            setattr(self, f"norm{level}", norm_layer(ops, norm, width, bn_momentum))
            if block_norm is not None:
                block = ResidualBlock(
                    width,
                    width,
                    ops=ops,
                    norm=block_norm,
                    momentum=bn_momentum,
                    dilation=dilation,
                    dimension=D,
                )
                setattr(self, f"block{level}", block)

        self.conv1 = ops.Convolution(
            self.geometry.channels if geometry else in_channels,
            widths[0],
            kernel_size=conv1_kernel_size,
            dilation=dilations[0],
            dimension=D,
        )
        add_norm_and_block("1", widths[0], dilations[0])
        for level in range(1, depth + 1):
            down = ops.Convolution(widths[level - 1], widths[level], kernel_size=3, stride=2, dimension=D)
            setattr(self, f"conv{level + 1}", down)
            add_norm_and_block(f"{level + 1}", widths[level], dilations[level])
        # Deepest level first, as in the published code: optimizer states go by the order of parameters.
        width = widths[depth]
        for level in range(depth, 0, -1):
            up = ops.ConvolutionTranspose(width, tr_widths[level], kernel_size=3, stride=2, dimension=D)
            setattr(self, f"conv{level + 1}_tr", up)
            add_norm_and_block(f"{level + 1}_tr", tr_widths[level], dilations[level - 1])
            width = tr_widths[level] + widths[level - 1]
        self.conv1_tr = ops.Convolution(
            width,
            tr_widths[0] if self.FINAL else out_channels,
            kernel_size=self.LAST_KERNEL,
            dilation=dilations[0] if self.LAST_KERNEL > 1 else 1,
            bias=not self.FINAL,
            dimension=D,
        )
        if self.LAST_NORM:
            self.norm1_tr = norm_layer(ops, norm, tr_widths[0], bn_momentum)
        if self.FINAL:
            self.final = ops.Convolution(tr_widths[0], out_channels, kernel_size=1, bias=True, dimension=D)
        self.set_symmetric(symmetric)

    def run(self, x: Any) -> Any:
        relu, cat = self.ops.relu, self.ops.cat
        skips = []
        for level in range(1, self.depth + 2):
            skip = self._stage(x, f"{level}")
            skips.append(skip)
            # A residual block ends with a ReLU; the published code's second one changes nothing.
            x = skip if self.config["block_norm"] else relu(skip)
        for level in range(self.depth + 1, 1, -1):
            x = self._stage(x, f"{level}_tr")
            x = x if self.config["block_norm"] else relu(x)
            x = cat(x, skips[level - 2])
        x = self.conv1_tr(x)
        if self.LAST_NORM:
            x = self.norm1_tr(x)
        if self.FINAL:
            x = self.final(relu(x))
        return self.ops.normalize(x) if self.normalize_feature else x

    def _stage(self, x: Any, level: str) -> Any:
        x = getattr(self, f"norm{level}")(getattr(self, f"conv{level}")(x))
        return getattr(self, f"block{level}")(x) if self.config["block_norm"] else x

    @property
    def receptive_field(self) -> int:
        """Edge, in voxels, of the cube that holds all inputs of an output, wherever it sits."""
        config = self.config
        blocks = 4 if config["block_norm"] else 0  # two 3-cell kernels
        dilations = config["dilation"]
        edge = 1 + dilations[0] * (config["conv1_kernel_size"] - 1 + blocks + self.LAST_KERNEL - 1)
        strided = 3 if config.get("pair_kernels") else 2
        for level in range(1, self.depth + 1):
            stride = 2**level
            # Down and up again: a strided window and a transposed one, each 3 (4) cells of the finer stride.
            edge += 2 * strided * (stride // 2) + blocks * dilations[level] * stride
            edge += blocks * dilations[level - 1] * (stride // 2)
        return edge
