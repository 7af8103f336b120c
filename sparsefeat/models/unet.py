"""The U-shaped network behind FCGF's ResUNets and SimpleNets.

Choy, Park, Koltun, Fully Convolutional Geometric Features, ICCV 2019, section 4; layer names and widths
are those of the published code, so that its weights load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

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
from sparsefeat.models.context import Context
from sparsefeat.models.levels import PointFrames
from sparsefeat.models.pairs import pair_backend

KERNELS = ("grid", "pair")


@dataclass
class UNetConfig:
    """All that decides the layers of a :class:`UNet`; checked and completed when it is made.

    Attributes: see the arguments of :class:`UNet`. ``name`` is the network's class.

    Raises:
        InputError: a value is out of range, or two do not fit each other.
    """

    name: str
    in_channels: int
    out_channels: int
    bn_momentum: float
    normalize_feature: bool
    conv1_kernel_size: int
    D: int
    depth: int
    channels: Sequence[int]
    tr_channels: Sequence[int]
    dilation: int | Sequence[int]
    norm: str
    block_norm: str | None
    kernels: Literal["grid", "pair"]
    oriented: bool
    chiral: bool
    context: int = 0

    def __post_init__(self) -> None:
        name = self.name
        check_scalars(name, self.bn_momentum, self.conv1_kernel_size, self.D)
        if not is_count(self.depth, 0):
            raise InputError(f"{name}: depth must be an integer of at least 0, got {self.depth!r}")
        levels = self.depth + 1
        self.channels = check_widths(name, "channels", self.channels, levels)
        self.tr_channels = check_widths(name, "tr_channels", self.tr_channels, levels)
        self.dilation = check_dilations(name, self.dilation, levels)
        for key, value in (("norm", self.norm), ("block_norm", self.block_norm)):
            if value is not None and value not in NORMS:
                raise InputError(f"{name}: {key} must be one of {', '.join(NORMS)}, got {value!r}")
        if self.kernels not in KERNELS:
            raise InputError(
                f"{name}: kernels must be one of {', '.join(KERNELS)}, got {self.kernels!r}"
            )
        if self.oriented and self.kernels != "pair":
            raise InputError(f"{name}: oriented needs kernels 'pair', got {self.kernels!r}")
        if self.chiral and not self.oriented:
            raise InputError(f"{name}: chiral needs oriented")
        if not is_count(self.context, 0):
            raise InputError(
                f"{name}: context must be an integer of at least 0, got {self.context!r}"
            )
        if self.context and not (self.oriented and self.depth):
            raise InputError(f"{name}: context needs oriented and a depth of at least 1")
        if self.kernels == "pair" and self.in_channels != (expected := 6 if self.oriented else 3):
            raise InputError(
                f"{name}: pair kernels take {expected} input channels, the points' offsets from the voxels' "
                f"centres{' and their normals' if self.oriented else ''}, got {self.in_channels}"
            )
        self.bn_momentum = float(self.bn_momentum)
        self.normalize_feature = bool(self.normalize_feature)
        self.oriented, self.chiral = bool(self.oriented), bool(self.chiral)


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
        kernels: ``"grid"``: a weight for each cell of the window, as published. ``"pair"``: for each
            rotation-invariant function of two points, see :mod:`sparsefeat.models.pairs`; the three input
            channels are then the points' offsets from the voxels' centres.
        oriented: pair kernels know the outer side of the surface; three more input channels are unit normals
            (or directions to the sensor), zero where they are not known. Needs ``kernels="pair"``.
        chiral: one more pair function, which changes its sign under reflection, so that left and right can be told
            apart. Needs ``oriented``.
        context: blocks of attention between the points of the level above the deepest, on the way up, see
            :mod:`sparsefeat.models.context`. Needs ``oriented``.
        backend: see :func:`sparsefeat.models.create_model`.

    Raises:
        InputError: a value is out of range, or two do not fit each other.
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
        kernels: Literal["grid", "pair"] = "grid",
        oriented: bool = False,
        chiral: bool = False,
        context: int = 0,
        backend: str = "auto",
    ):
        super().__init__(in_channels, out_channels, backend)
        name = type(self).__name__
        if block_norm is not None and self.BLOCK_NORM is None:
            raise InputError(
                f"{name}: block_norm is {block_norm!r}, but this network has no residual blocks"
            )
        config = UNetConfig(
            name,
            in_channels,
            out_channels,
            bn_momentum,
            bool(normalize_feature),
            3 if conv1_kernel_size is None else conv1_kernel_size,
            D,
            self.DEPTH if depth is None else depth,
            self.CHANNELS if channels is None else channels,
            self.TR_CHANNELS if tr_channels is None else tr_channels,
            dilation,
            self.NORM if norm is None else norm,
            self.BLOCK_NORM if block_norm is None else block_norm,
            kernels,
            oriented,
            chiral,
            context,
        )
        self.config = asdict(config)
        self.normalize_feature = config.normalize_feature
        self.depth = config.depth
        self.context: Context | None = None
        if kernels == "pair":
            self.ops = pair_backend(self.ops, config.chiral)
            self.point_frames = PointFrames(D, config.oriented, config.chiral)
        self._add_layers(config)

    def _add_layers(self, config: UNetConfig) -> None:
        """Make the layers. Deepest level first on the way up, as published: optimizer states go by this order."""
        widths, tr_widths, dilations = config.channels, config.tr_channels, config.dilation
        convolution = self.ops.Convolution
        self.conv1 = convolution(
            config.in_channels if self.point_frames is None else self.point_frames.channels,
            widths[0],
            kernel_size=config.conv1_kernel_size,
            dilation=dilations[0],
            dimension=config.D,
        )
        self._add_stage(config, "1", widths[0], dilations[0])
        for level in range(1, config.depth + 1):
            down = convolution(
                widths[level - 1], widths[level], kernel_size=3, stride=2, dimension=config.D
            )
            setattr(self, f"conv{level + 1}", down)
            self._add_stage(config, f"{level + 1}", widths[level], dilations[level])
        width = widths[config.depth]
        for level in range(config.depth, 0, -1):
            up = self.ops.ConvolutionTranspose(
                width, tr_widths[level], kernel_size=3, stride=2, dimension=config.D
            )
            setattr(self, f"conv{level + 1}_tr", up)
            self._add_stage(config, f"{level + 1}_tr", tr_widths[level], dilations[level - 1])
            if config.context and level == config.depth:
                self.context = Context(tr_widths[level], config.context)
            width = tr_widths[level] + widths[level - 1]
        self.conv1_tr = convolution(
            width,
            tr_widths[0] if self.FINAL else config.out_channels,
            kernel_size=self.LAST_KERNEL,
            dilation=dilations[0] if self.LAST_KERNEL > 1 else 1,
            bias=not self.FINAL,
            dimension=config.D,
        )
        if self.LAST_NORM:
            self.norm1_tr = norm_layer(self.ops, config.norm, tr_widths[0], config.bn_momentum)
        if self.FINAL:
            self.final = convolution(
                tr_widths[0], config.out_channels, kernel_size=1, bias=True, dimension=config.D
            )

    def _add_stage(self, config: UNetConfig, level: str, width: int, dilation: int) -> None:
        """Add the norm, and the residual block if there are any, that follow the convolution of a level."""
        setattr(self, f"norm{level}", norm_layer(self.ops, config.norm, width, config.bn_momentum))
        if config.block_norm is not None:
            block = ResidualBlock(
                width,
                width,
                ops=self.ops,
                norm=config.block_norm,
                momentum=config.bn_momentum,
                dilation=dilation,
                dimension=config.D,
            )
            setattr(self, f"block{level}", block)

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
            if self.context is not None and level == self.depth + 1:
                x = self.context(x)
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
