"""What the networks are made of: their common base, normalisation by name, and the residual block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from sparsefeat.errors import InputError
from sparsefeat.models.backends import Backend, load_backend
from sparsefeat.sparse import SparseTensor, modules

NORMS = ("BN", "IN", "none")


class Network(nn.Module):
    """Base of the networks: one backend, the configuration to rebuild it, and the scale it was trained at.

    Attributes:
        config: ``create_model(**config)`` builds the same network.
        voxel_size: edge of a voxel that the weights were trained with, in ``unit``; None where unknown.
        unit: unit of ``voxel_size``.
    """

    config: dict[str, Any]

    def __init__(self, in_channels: int, out_channels: int, backend: str):
        super().__init__()
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            if not is_count(value, 1):
                raise InputError(f"{type(self).__name__}: {name} must be a positive integer, got {value!r}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.ops = load_backend(backend)
        self.geometry: nn.Module | None = None
        self.voxel_size: float | None = None
        self.unit = "m"

    @property
    def receptive_field(self) -> int:
        """Edge, in voxels, of the cube that holds all inputs of an output, wherever it sits."""
        raise NotImplementedError

    def set_symmetric(self, symmetric: bool) -> None:
        """Constrain the kernels to those that are symmetric under the cube's rotations, or lift that.

        Parameters keep their names and shapes; a symmetric network sees a neighbourhood and its turned copy
        nearly alike, and runs faster on this engine. ``config["symmetric"]`` follows. On the minkowski
        backend the kernels are used as they are.
        """
        if self.ops.name == "torch":
            modules.set_symmetric(self, symmetric)
        self.config["symmetric"] = symmetric

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Features per voxel.

        Shape: (V, in_channels) -> (V, out_channels); row i of the output belongs to row i of the input.
        """
        if x.features.shape[1] != self.in_channels:
            raise InputError(
                f"{type(self).__name__} takes {self.in_channels} feature channels, got {x.features.shape[1]}"
            )
        given = x if self.geometry is None else self.geometry(x)
        out = self.ops.leave(self.run(self.ops.enter(given)), x)
        # Without what the geometry left on its tensors: that is for the layers, and large.
        return out if self.geometry is None else x.replace(out.features, out.key)

    def run(self, x: Any) -> Any:
        """The network itself, on tensors of its backend."""
        raise NotImplementedError


class ResidualBlock(nn.Module):
    """ReLU(x + norm(conv(ReLU(norm(conv(x)))))), 3-cell kernels (He et al., 2016), with FCGF's names."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        ops: Backend,
        norm: str = "BN",
        momentum: float = 0.1,
        dilation: int = 1,
        dimension: int = 3,
    ):
        super().__init__()
        self.ops = ops
        self.conv1 = ops.Convolution(
            in_channels, out_channels, kernel_size=3, dilation=dilation, dimension=dimension
        )
        self.norm1 = norm_layer(ops, norm, out_channels, momentum)
        self.conv2 = ops.Convolution(
            out_channels, out_channels, kernel_size=3, dilation=dilation, dimension=dimension
        )
        self.norm2 = norm_layer(ops, norm, out_channels, momentum)
        self.downsample = None
        if in_channels != out_channels:
            self.downsample = nn.Sequential(
                ops.Convolution(in_channels, out_channels, kernel_size=1, dimension=dimension),
                norm_layer(ops, norm, out_channels, momentum),
            )

    def forward(self, x: Any) -> Any:
        out = self.ops.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        return self.ops.relu(out + (x if self.downsample is None else self.downsample(x)))


def norm_layer(ops: Backend, norm: str, channels: int, momentum: float) -> nn.Module:
    """Batch norm (``"BN"``), instance norm (``"IN"``) or nothing (``"none"``)."""
    if norm == "BN":
        return ops.BatchNorm(channels, momentum=momentum)
    if norm == "IN":
        return ops.InstanceNorm(channels)
    if norm == "none":
        return nn.Identity()
    raise InputError(f"norm: expected one of {', '.join(NORMS)}, got {norm!r}")


def is_count(value: Any, least: int) -> bool:
    """Whether ``value`` is an integer of at least ``least``."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def check_scalars(model: str, bn_momentum: Any, conv1_kernel_size: Any, dimension: Any) -> None:
    """Raise InputError for the arguments that all networks share and that no layer would name clearly."""
    if not isinstance(bn_momentum, int | float) or not 0 < bn_momentum <= 1:
        raise InputError(f"{model}: bn_momentum must lie in (0, 1], got {bn_momentum!r}")
    if not is_count(conv1_kernel_size, 1):
        raise InputError(f"{model}: conv1_kernel_size must be a positive integer, got {conv1_kernel_size!r}")
    if not is_count(dimension, 1):
        raise InputError(f"{model}: D must be a positive integer, got {dimension!r}")


def check_widths(model: str, name: str, widths: Sequence[int], least: int) -> list[int]:
    """``widths`` as a list of ``least`` positive integers; longer ones are cut."""
    widths = list(widths)
    if len(widths) < least or not all(is_count(width, 1) for width in widths):
        raise InputError(f"{model}: {name} must be at least {least} positive integers, got {widths}")
    return widths[:least]


def check_dilations(model: str, dilation: int | Sequence[int], levels: int) -> list[int]:
    """One dilation per level, finest first, from one number for all of them or from a list."""
    dilations = [dilation] * levels if isinstance(dilation, int) else list(dilation)
    if len(dilations) != levels or not all(is_count(value, 1) for value in dilations):
        raise InputError(
            f"{model}: dilation must be a positive integer or one for each of {levels} levels, got {dilation}"
        )
    return dilations


def kernel_edge(volume: int, dimension: int) -> int | None:
    """Edge of a cubic kernel with ``volume`` cells, or None if there is no such cube."""
    edge = round(math.pow(volume, 1 / dimension))
    return edge if edge**dimension == volume else None
