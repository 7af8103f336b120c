"""The engine's layers as nn.Modules, with MinkowskiEngine's parameter names, shapes and initialisation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sparsefeat.sparse import functional
from sparsefeat.sparse.coordinates import as_tuple
from sparsefeat.sparse.kernel import Kernel
from sparsefeat.sparse.tensor import SparseTensor


class _Convolution(nn.Module):
    """A kernel [K, C_in, C_out] and an optional bias [1, C_out] over a window.

    Args:
        in_channels, out_channels: C_in and C_out.
        kernel_size: one int or D of them; odd axes are centred, even ones start at the voxel.
        stride: one int or D of them.
        dilation: one int or D of them, integers.
        bias: whether to add one.
        kernel: a :class:`Kernel` in place of ``kernel_size`` and ``dilation``, for other regions than a cube.
        expand_coordinates: produce outputs wherever the window touches an input.
        dimension: spatial axes D.
    """

    transposed = False
    generative = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size=3,
        stride=1,
        dilation=1,
        bias: bool = False,
        kernel: Kernel | None = None,
        expand_coordinates: bool = False,
        dimension: int = 3,
    ):
        super().__init__()
        if in_channels < 1 or out_channels < 1:
            raise ValueError(
                f"{type(self).__name__}: channels must be positive, got {in_channels}, {out_channels}"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.window = kernel or Kernel.of(kernel_size, dilation, dimension)
        self.stride = as_tuple(stride, dimension, "stride")
        if any(s < 1 for s in self.stride):
            raise ValueError(f"stride: expected at least 1 on every axis, got {self.stride}")
        self.expand_coordinates = expand_coordinates or self.generative
        self.dimension = dimension
        self.kernel = nn.Parameter(torch.empty(self._kernel_shape()))
        self.bias = nn.Parameter(torch.empty(1, out_channels)) if bias else None
        self.reset_parameters()

    @property
    def pointwise(self) -> bool:
        """One cell and stride 1: a plain matrix product, stored as a 2-D kernel."""
        return self.window.volume == 1 and all(s == 1 for s in self.stride)

    def _kernel_shape(self) -> tuple[int, ...]:
        flat = (self.in_channels, self.out_channels)
        return flat if self.pointwise else (self.window.volume, *flat)

    def reset_parameters(self) -> None:
        """Uniform in +-1/sqrt(fan), the fan being C_in K, of a transposed layer C_out K."""
        fan = self.window.volume * (self.out_channels if self.transposed else self.in_channels)
        bound = 1 / math.sqrt(fan)
        with torch.no_grad():
            self.kernel.uniform_(-bound, bound)
            if self.bias is not None:
                self.bias.uniform_(-bound, bound)

    def forward(self, x: SparseTensor, coordinates=None) -> SparseTensor:
        """Apply the layer; ``coordinates`` sets the output's: a SparseTensor, a key, or distinct coordinates."""
        if x.features.shape[1] != self.in_channels:
            raise ValueError(
                f"{self}: expected {self.in_channels} channels, got {x.features.shape[1]}"
            )
        weight = self.kernel.unsqueeze(0) if self.pointwise else self.kernel
        operation = functional.convolution_transpose if self.transposed else functional.convolution
        return operation(
            x, weight, self.bias, self.window, self.stride, coordinates, self.expand_coordinates
        )

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.window.size}, stride={self.stride}, "
            f"dilation={self.window.dilation}, bias={self.bias is not None}"
        )


class Convolution(_Convolution):
    __doc__ = "Sparse convolution.\n\n" + _Convolution.__doc__


class ConvolutionTranspose(_Convolution):
    __doc__ = "Transposed convolution onto the existing finer level.\n\n" + _Convolution.__doc__
    transposed = True


class GenerativeConvolutionTranspose(_Convolution):
    __doc__ = (
        "Transposed convolution onto every coordinate that it reaches.\n\n" + _Convolution.__doc__
    )
    transposed = True
    generative = True


class ChannelwiseConvolution(nn.Module):
    """Each channel convolved on its own: a kernel [K, C]."""

    def __init__(
        self,
        in_channels: int,
        kernel_size=3,
        stride=1,
        dilation=1,
        bias: bool = False,
        kernel: Kernel | None = None,
        expand_coordinates: bool = False,
        dimension: int = 3,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.window = kernel or Kernel.of(kernel_size, dilation, dimension)
        self.stride = as_tuple(stride, dimension, "stride")
        self.expand_coordinates = expand_coordinates
        self.kernel = nn.Parameter(torch.empty(self.window.volume, in_channels))
        self.bias = nn.Parameter(torch.empty(1, in_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in +-1/sqrt(K)."""
        bound = 1 / math.sqrt(self.window.volume)
        with torch.no_grad():
            self.kernel.uniform_(-bound, bound)
            if self.bias is not None:
                self.bias.uniform_(-bound, bound)

    def forward(self, x: SparseTensor, coordinates=None) -> SparseTensor:
        return functional.channelwise_convolution(
            x,
            self.kernel,
            self.bias,
            self.window,
            self.stride,
            coordinates,
            self.expand_coordinates,
        )


class _Pooling(nn.Module):
    """Pool over a window; see :func:`sparsefeat.sparse.functional.pool`."""

    mode = ""

    def __init__(
        self,
        kernel_size=2,
        stride=1,
        dilation=1,
        kernel: Kernel | None = None,
        expand_coordinates: bool = False,
        dimension: int = 3,
    ):
        super().__init__()
        self.window = kernel or Kernel.of(kernel_size, dilation, dimension)
        self.stride = as_tuple(stride, dimension, "stride")
        self.expand_coordinates = expand_coordinates

    def forward(self, x: SparseTensor, coordinates=None) -> SparseTensor:
        return functional.pool(
            x, self.mode, self.window, self.stride, coordinates, self.expand_coordinates
        )


class MaxPooling(_Pooling):
    """The largest value of each channel in the window."""

    mode = "max"


class AvgPooling(_Pooling):
    """The mean over the voxels present in the window."""

    mode = "average"


class SumPooling(_Pooling):
    """The sum over the voxels present in the window."""

    mode = "sum"


class PoolingTranspose(_Pooling):
    """Every finer voxel gets the mean of the coarse ones whose window holds it."""

    def forward(self, x: SparseTensor, coordinates=None) -> SparseTensor:
        return functional.pool_transpose(
            x, self.window, self.stride, coordinates, self.expand_coordinates
        )


class _GlobalPooling(nn.Module):
    """One row per cloud."""

    mode = ""

    def forward(self, x: SparseTensor) -> SparseTensor:
        return functional.global_pool(x, self.mode)


class GlobalMaxPooling(_GlobalPooling):
    """The largest value of each channel over a cloud."""

    mode = "max"


class GlobalAvgPooling(_GlobalPooling):
    """The mean over a cloud."""

    mode = "average"


class GlobalSumPooling(_GlobalPooling):
    """The sum over a cloud."""

    mode = "sum"


class _Broadcast(nn.Module):
    """Give each voxel its cloud's row of a summary; see :func:`sparsefeat.sparse.functional.broadcast`."""

    mode = ""

    def forward(self, x: SparseTensor, summary: SparseTensor) -> SparseTensor:
        return functional.broadcast(x, summary, self.mode)


class Broadcast(_Broadcast):
    """The cloud's row itself at each voxel."""

    mode = "copy"


class BroadcastAddition(_Broadcast):
    """Each voxel plus its cloud's row."""

    mode = "add"


class BroadcastMultiplication(_Broadcast):
    """Each voxel times its cloud's row."""

    mode = "multiply"


class BroadcastConcatenation(_Broadcast):
    """The channels of each voxel, then those of its cloud's row."""

    mode = "cat"


class BatchNorm(nn.Module):
    """torch's batch norm over the rows of all clouds; parameters under ``bn``."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ):
        super().__init__()
        self.bn = nn.BatchNorm1d(
            num_features,
            eps=eps,
            momentum=momentum,
            affine=affine,
            track_running_stats=track_running_stats,
        )

    def forward(self, x: SparseTensor) -> SparseTensor:
        b = self.bn
        # With others to average with, even an empty row set must take part: they wait for its statistics.
        alone = not (hasattr(b, "process_group") and torch.distributed.is_initialized())
        if len(x) < 2 and alone and (b.training or b.running_mean is None):
            # A single row has no variance: torch refuses it, and there is nothing to learn from it.
            mean = (
                torch.zeros_like(x.features[:1].sum(0))
                if b.running_mean is None
                else b.running_mean
            )
            variance = torch.ones_like(mean) if b.running_var is None else b.running_var
            normal = nn.functional.batch_norm(
                x.features, mean, variance, b.weight, b.bias, False, 0.0, b.eps
            )
            return x.replace(normal)
        return x.replace(self.bn(x.features))


class SyncBatchNorm(BatchNorm):
    """Batch norm with statistics over all processes of a process group; the same parameters."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group=None,
    ):
        super().__init__(num_features, eps, momentum, affine, track_running_stats)
        self.bn = nn.SyncBatchNorm(
            num_features,
            eps=eps,
            momentum=momentum,
            affine=affine,
            track_running_stats=track_running_stats,
            process_group=process_group,
        )

    @classmethod
    def convert_sync_batchnorm(cls, module: nn.Module, process_group=None) -> nn.Module:
        """Replace every :class:`BatchNorm` inside ``module``, keeping parameters and statistics."""
        if isinstance(module, BatchNorm) and not isinstance(module, cls):
            b = module.bn
            out = cls(
                b.num_features, b.eps, b.momentum, b.affine, b.track_running_stats, process_group
            )
            # The very same parameters and buffers: an optimiser may hold them, device and dtype are theirs.
            for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                setattr(out.bn, name, getattr(b, name))
            return out.train(module.training)
        for name, child in module.named_children():
            setattr(module, name, cls.convert_sync_batchnorm(child, process_group))
        return module


class InstanceNorm(nn.Module):
    """Normalise each cloud's channels by their mean and biased variance; ``weight`` and ``bias`` are [1, C]."""

    def __init__(self, num_features: int, eps: float = 1e-8):
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(1, num_features))
        self.bias = nn.Parameter(torch.zeros(1, num_features))

    def forward(self, x: SparseTensor) -> SparseTensor:
        return functional.instance_norm(x, self.weight, self.bias, self.eps)


class Elementwise(nn.Module):
    """Apply a torch module to the features."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.replace(self.module(x.features))


def elementwise(base: type[nn.Module]) -> type[nn.Module]:
    """A module class that applies torch's ``base`` to features, with its arguments and parameter names."""

    class Layer(base):
        __doc__ = f"torch.nn.{base.__name__} on the features of a sparse tensor."

        def forward(self, x: SparseTensor) -> SparseTensor:
            return x.replace(super().forward(x.features))

    Layer.__name__ = Layer.__qualname__ = base.__name__
    Layer.__module__ = __name__
    return Layer


ReLU, ReLU6, LeakyReLU, PReLU, RReLU = map(
    elementwise, (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU)
)
ELU, CELU, SELU, GELU, SiLU = map(elementwise, (nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU))
Sigmoid, Tanh, Softplus, Hardtanh = map(
    elementwise, (nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Hardtanh)
)
Dropout, AlphaDropout, Linear = map(elementwise, (nn.Dropout, nn.AlphaDropout, nn.Linear))


class Softmax(elementwise(nn.Softmax)):
    """Softmax over the channels."""

    def __init__(self, dim: int = 1):
        super().__init__(dim)


class Union(nn.Module):
    """Sum of tensors on the union of their voxels."""

    def forward(self, *tensors: SparseTensor) -> SparseTensor:
        return functional.union(*tensors)


class Pruning(nn.Module):
    """The voxels where a mask (V,) is true."""

    def forward(self, x: SparseTensor, keep: Tensor) -> SparseTensor:
        return functional.prune(x, keep)


class Interpolation(nn.Module):
    """Features at continuous points (N, 1 + D)."""

    def forward(self, x: SparseTensor, points: Tensor) -> Tensor:
        return functional.interpolate(x, points)
