"""What the networks are made of: their common base, normalisation by name, and the residual block."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparsefeat.errors import InputError
from sparsefeat.models.backends import Backend, load_backend
from sparsefeat.models.reach import measure_reach
from sparsefeat.models.voxel_cloud import VoxelCloud
from sparsefeat.sparse import SparseTensor

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
                raise InputError(
                    f"{type(self).__name__}: {name} must be a positive integer, got {value!r}"
                )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.ops = load_backend(backend)
        self.point_frames: nn.Module | None = None
        self.voxel_size: float | None = None
        self.unit = "m"

    @property
    def receptive_field(self) -> int:
        """Edge, in voxels, of the cube centred on an output that holds all its inputs; see :func:`measure_reach`."""
        return 2 * measure_reach(self, self.in_channels).radius + 1

    def inputs(self, cloud: VoxelCloud, features: Tensor | None = None) -> SparseTensor:
        """The tensor that this network takes for a voxelised cloud, on its device and in its type.

        Grid kernels are given ones. Pair kernels are given where the points lie in their voxels, their normals if
        they are oriented (zeros where those are not known), and the occupancy if there is one.

        Args:
            cloud: or several, see :func:`sparsefeat.models.voxel_cloud.join`.
            features: of the voxels, in place of these. Shape: (V, in_channels).

        Returns:
            Rows as in the cloud.

        Raises:
            InputError: the network takes other channels and none were given.
        """
        if features is None:
            features = self._channels(cloud)
        parameter = next(self.parameters())
        # The cells are distinct; "error" would say so if they were not, and spares the search for them.
        return SparseTensor(
            features.to(parameter.device, parameter.dtype),
            coordinates=cloud.coordinates.to(parameter.device),
            reduce="error",
        )

    def _channels(self, cloud: VoxelCloud) -> Tensor:
        """What the network is told of each voxel. Shape: (V, C)."""
        if self.point_frames is None:
            if self.in_channels != 1:
                raise InputError(
                    f"{type(self).__name__} takes {self.in_channels} channels; give features= of (N, {self.in_channels})"
                )
            return torch.ones(len(cloud), 1)
        parts = [cloud.offset]
        if self.config.get("oriented"):
            parts.append(
                torch.zeros_like(parts[0]) if cloud.normal is None else cloud.normal.to(parts[0])
            )
        if cloud.occupancy is not None:
            parts.append(cloud.occupancy[:, None].to(parts[0]))
        return torch.cat(parts, 1)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Features per voxel.

        Shape: (V, in_channels) -> (V, out_channels); row i of the output belongs to row i of the input.
        """
        # Pair kernels may be told each voxel's occupancy too.
        extra = 0 if self.point_frames is None else 1
        if x.features.shape[1] not in (self.in_channels, self.in_channels + extra):
            raise InputError(
                f"{type(self).__name__} takes {self.in_channels} feature channels, got {x.features.shape[1]}"
            )
        if self.point_frames is None:
            return self.ops.leave(self.run(self.ops.enter(x)), x)
        out = self.ops.leave(self.run(self.ops.enter(self.point_frames(x))), x)
        # Without the frames that the tensors carry: they are for the layers, and large.
        return x.replace(out.features, out.key)

    def run(self, x: Any) -> Any:
        """The network itself, on tensors of its backend."""
        raise NotImplementedError


def checked_device(device: str | torch.device | None, model: nn.Module) -> torch.device:
    """The device of that name, or where the model is.

    Raises:
        InputError: no tensor can be made there.
    """
    if device is None:
        return next((p.device for p in model.parameters()), torch.device("cpu"))
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        # torch builds without CUDA say so in an AssertionError.
        raise InputError(
            f"device {str(device)!r} cannot be used: {str(error).splitlines()[0]}"
        ) from error
    return chosen


def network_inputs(
    model: nn.Module, cloud: VoxelCloud, features: Tensor | None = None
) -> SparseTensor:
    """What a network takes for a voxelised cloud: :meth:`Network.inputs`, or ones for a module without that."""
    inputs = getattr(model, "inputs", None)
    if inputs is not None:
        return inputs(cloud, features)
    parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    features = torch.ones(len(cloud), 1) if features is None else features
    coordinates = cloud.coordinates.to(parameter.device)
    return SparseTensor(features.to(parameter), coordinates=coordinates, reduce="error")


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
        raise InputError(
            f"{model}: conv1_kernel_size must be a positive integer, got {conv1_kernel_size!r}"
        )
    if not is_count(dimension, 1):
        raise InputError(f"{model}: D must be a positive integer, got {dimension!r}")


def check_widths(model: str, name: str, widths: Sequence[int], least: int) -> list[int]:
    """``widths`` as a list of ``least`` positive integers; longer ones are cut."""
    widths = list(widths) if isinstance(widths, Iterable) else [widths]
    if len(widths) < least or not all(is_count(width, 1) for width in widths):
        raise InputError(
            f"{model}: {name} must be at least {least} positive integers, got {widths}"
        )
    return widths[:least]


def check_dilations(model: str, dilation: int | Sequence[int], levels: int) -> list[int]:
    """One dilation per level, finest first, from one number for all of them or from a list."""
    dilations = list(dilation) if isinstance(dilation, Iterable) else [dilation] * levels
    if len(dilations) != levels or not all(is_count(value, 1) for value in dilations):
        raise InputError(
            f"{model}: dilation must be a positive integer or one for each of {levels} levels, got {dilation}"
        )
    return dilations


def kernel_edge(volume: int, dimension: int) -> int | None:
    """Edge of a cubic kernel with ``volume`` cells, or None if there is no such cube."""
    edge = round(math.pow(volume, 1 / dimension))
    return edge if edge**dimension == volume else None
