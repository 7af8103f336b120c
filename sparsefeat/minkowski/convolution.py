"""Convolution layers (MinkowskiConvolution, MinkowskiChannelwiseConvolution)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sparsefeat.minkowski import legacy
from sparsefeat.minkowski.backend import ConvolutionMode, RegionType
from sparsefeat.minkowski.common import StrideType
from sparsefeat.minkowski.coordinate_manager import CoordinateManager
from sparsefeat.minkowski.coordinate_map_key import CoordinateMapKey
from sparsefeat.minkowski.errors import ArgumentError
from sparsefeat.minkowski.functions import fill, on_key, target_of
from sparsefeat.minkowski.kernel_generator import KernelGenerator
from sparsefeat.minkowski.sparse_tensor import SparseTensor
from sparsefeat.minkowski.window import WindowModule
from sparsefeat.sparse import functional


def _stacked(weights: Tensor) -> Tensor:
    """A kernel (K, C_in, C_out); that of a 1x1 layer is stored as (C_in, C_out)."""
    return weights[None] if weights.ndim == 2 else weights


class MinkowskiConvolutionFunction:
    """The convolution as a function of features; see ``apply``."""

    _operation = staticmethod(functional.convolution)

    @classmethod
    def apply(
        cls,
        input_features: Tensor,
        kernel_weights: Tensor,
        kernel_generator: KernelGenerator,
        convolution_mode: ConvolutionMode,
        in_coordinate_map_key: CoordinateMapKey,
        out_coordinate_map_key: CoordinateMapKey | None = None,
        coordinate_manager: CoordinateManager | None = None,
    ) -> Tensor:
        """Convolve features (V, C_in) with a kernel (K, C_in, C_out).

        Args:
            convolution_mode: without effect.
            out_coordinate_map_key: where the output lives; an empty key is set to where it does.

        Returns:
            Shape (V', C_out).
        """
        out = cls._operation(
            on_key(input_features, in_coordinate_map_key, coordinate_manager),
            _stacked(kernel_weights),
            None,
            kernel_generator.window,
            kernel_generator.kernel_stride,
            target_of(out_coordinate_map_key),
            kernel_generator.expand_coordinates,
        )
        return fill(out_coordinate_map_key, out)


class MinkowskiConvolutionTransposeFunction(MinkowskiConvolutionFunction):
    """The transposed convolution as a function of features."""

    _operation = staticmethod(functional.convolution_transpose)


class MinkowskiConvolutionBase(WindowModule):
    """A kernel [K, C_in, C_out] and an optional bias [1, C_out] over a window.

    Args:
        in_channels, out_channels: C_in and C_out.
        kernel_size, stride, dilation: one integer or D of them; not used with a ``kernel_generator``.
        bias: whether to add one.
        kernel_generator: for other regions than a cube.
        is_transpose: of the finer level's convolution.
        expand_coordinates: produce outputs wherever the window touches an input.
        convolution_mode: without effect.
        dimension: spatial axes D.
        legacy_names: has_bias and generate_new_coords of version 0.4.

    The kernel of one cell with stride 1 is stored as [C_in, C_out].
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: StrideType = -1,
        stride: StrideType = 1,
        dilation: StrideType = 1,
        bias: bool = False,
        kernel_generator: KernelGenerator | None = None,
        is_transpose: bool = False,
        expand_coordinates: bool = False,
        convolution_mode: ConvolutionMode = ConvolutionMode.DEFAULT,
        dimension: int = -1,
        **legacy_names,
    ):
        super().__init__(kernel_size, stride, dilation, kernel_generator, is_transpose, dimension)
        name = type(self).__name__
        current = {"bias": bias, "expand_coordinates": expand_coordinates}
        bias, expand_coordinates = legacy.rename(
            legacy_names, legacy.CONVOLUTION, current, name
        ).values()
        if in_channels < 1 or out_channels < 1:
            raise ArgumentError(
                f"{name}: channels must be positive, got {in_channels}, {out_channels}"
            )
        generator = self.kernel_generator
        generator.expand_coordinates = expand_coordinates
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.convolution_mode = convolution_mode
        self.use_mm = generator.kernel_volume == 1 and generator.requires_strided_coordinates
        shape = (in_channels, out_channels)
        self.kernel = nn.Parameter(
            torch.empty(shape if self.use_mm else (generator.kernel_volume, *shape))
        )
        self.bias = nn.Parameter(torch.empty(1, out_channels)) if bias else None
        self.conv = (
            MinkowskiConvolutionTransposeFunction()
            if is_transpose
            else MinkowskiConvolutionFunction()
        )
        self.reset_parameters(is_transpose)

    def reset_parameters(self, is_transpose: bool = False) -> None:
        """Uniform in +-1/sqrt(fan), the fan being C_in K, of a transposed layer C_out K."""
        _fill_uniformly(self, self.out_channels if is_transpose else self.in_channels)

    def forward(
        self,
        input: SparseTensor,
        coordinates: Tensor | CoordinateMapKey | SparseTensor | None = None,
    ) -> SparseTensor:
        """Convolve; ``coordinates`` sets the output's: a tensor on them, their key, or they themselves."""
        x, *window = self.placed(input, coordinates, self.in_channels)
        return self.conv._operation(x, _stacked(self.kernel), self.bias, *window)

    def __repr__(self) -> str:
        g = self.kernel_generator
        custom = f"region_type={g.region_type}, kernel_volume={g.kernel_volume}"
        kernel = custom if g.region_type == RegionType.CUSTOM else f"kernel_size={g.kernel_size}"
        return (
            f"{type(self).__name__}(in={self.in_channels}, out={self.out_channels}, {kernel}, "
            f"stride={g.kernel_stride}, dilation={g.kernel_dilation})"
        )


def _fill_uniformly(layer: nn.Module, channels: int) -> None:
    bound = 1 / math.sqrt(channels * layer.kernel_generator.kernel_volume)
    with torch.no_grad():
        layer.kernel.uniform_(-bound, bound)
        if layer.bias is not None:
            layer.bias.uniform_(-bound, bound)


class _EitherWay(MinkowskiConvolutionBase):
    """The arguments that a convolution and its transpose have in common. Neither is an instance of the other."""

    _transposed: bool

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: StrideType = -1,
        stride: StrideType = 1,
        dilation: StrideType = 1,
        bias: bool = False,
        kernel_generator: KernelGenerator | None = None,
        expand_coordinates: bool = False,
        convolution_mode: ConvolutionMode = ConvolutionMode.DEFAULT,
        dimension: int | None = None,
        **legacy_names,
    ):
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            dilation,
            bias,
            kernel_generator,
            self._transposed,
            expand_coordinates,
            convolution_mode,
            dimension,
            **legacy_names,
        )


class MinkowskiConvolution(_EitherWay):
    """Sparse convolution: ``out[u] = sum_k kernel[k]^T in[u + offset_k]``."""

    _transposed = False


class MinkowskiConvolutionTranspose(_EitherWay):
    """The transpose of the convolution that leads from the finer level to the input's."""

    _transposed = True


class MinkowskiGenerativeConvolutionTranspose(MinkowskiConvolutionBase):
    """A transposed convolution onto every coordinate that it reaches; Gwak et al., GSDN, 2020."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: StrideType = -1,
        stride: StrideType = 1,
        dilation: StrideType = 1,
        bias: bool = False,
        kernel_generator: KernelGenerator | None = None,
        convolution_mode: ConvolutionMode = ConvolutionMode.DEFAULT,
        dimension: int | None = None,
    ):
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            dilation,
            bias,
            kernel_generator,
            is_transpose=True,
            expand_coordinates=True,
            convolution_mode=convolution_mode,
            dimension=dimension,
        )


class MinkowskiChannelwiseConvolution(WindowModule):
    """Each channel with its own kernel: a kernel [K, C] and an optional bias [1, C]. Arguments as above."""

    def __init__(
        self,
        in_channels: int,
        kernel_size: StrideType = -1,
        stride: StrideType = 1,
        dilation: StrideType = 1,
        bias: bool = False,
        kernel_generator: KernelGenerator | None = None,
        dimension: int = -1,
    ):
        super().__init__(kernel_size, stride, dilation, kernel_generator, False, dimension)
        self.in_channels = in_channels
        self.kernel_shape = (self.kernel_generator.kernel_volume, in_channels)
        self.kernel = nn.Parameter(torch.empty(self.kernel_shape))
        self.bias = nn.Parameter(torch.empty(1, in_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self, is_transpose: bool = False) -> None:
        """Uniform in +-1/sqrt(C K), as the engine does."""
        _fill_uniformly(self, self.in_channels)

    def forward(
        self, input: SparseTensor, coords: Tensor | CoordinateMapKey | SparseTensor | None = None
    ) -> SparseTensor:
        """Convolve; ``coords`` sets the output's coordinates."""
        x, *window = self.placed(input, coords, self.in_channels)
        return functional.channelwise_convolution(x, self.kernel, self.bias, *window)

    def __repr__(self) -> str:
        g = self.kernel_generator
        return (
            f"{type(self).__name__}(in={self.in_channels}, region_type={g.region_type}, "
            f"kernel_size={g.kernel_size}, stride={g.kernel_stride}, dilation={g.kernel_dilation})"
        )
