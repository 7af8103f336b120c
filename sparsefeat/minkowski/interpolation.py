"""Features between voxels (MinkowskiInterpolation)."""

from __future__ import annotations

from torch import Tensor

from sparsefeat.minkowski.common import MinkowskiModuleBase
from sparsefeat.minkowski.coordinate_manager import CoordinateManager
from sparsefeat.minkowski.coordinate_map_key import CoordinateMapKey
from sparsefeat.minkowski.functions import check_input, on_key
from sparsefeat.minkowski.sparse_tensor import SparseTensor
from sparsefeat.sparse import functional


class MinkowskiInterpolationFunction:
    """Interpolation as a function of features."""

    @staticmethod
    def apply(
        input_features: Tensor,
        tfield: Tensor,
        in_coordinate_map_key: CoordinateMapKey,
        coordinate_manager: CoordinateManager | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Interpolate features (V, C) at points (N, 1 + D).

        Returns:
            Features (N, C), and of the pairs that went in: voxel rows (P,) and point rows (P,) int32,
            weights (P,).
        """
        x = on_key(input_features, in_coordinate_map_key, coordinate_manager)
        in_map, out_map, weights = coordinate_manager.interpolation_map_weight(
            in_coordinate_map_key, tfield
        )
        return functional.interpolate(x, tfield), in_map, out_map, weights.detach()


class MinkowskiInterpolation(MinkowskiModuleBase):
    """Multilinear interpolation at points (N, 1 + D); voxels that are missing count zero.

    Args:
        return_kernel_map: also return voxel rows and point rows of the pairs.
        return_weights: also return their weights.
    """

    def __init__(self, return_kernel_map: bool = False, return_weights: bool = False):
        super().__init__()
        self.return_kernel_map = return_kernel_map
        self.return_weights = return_weights
        self.interp = MinkowskiInterpolationFunction()

    def forward(self, input: SparseTensor, tfield: Tensor):
        x = check_input(input, None, type(self).__name__)
        if not (self.return_kernel_map or self.return_weights):
            return functional.interpolate(x, tfield)
        features, in_map, out_map, weights = self.interp.apply(
            x.F, tfield, x.coordinate_map_key, x.coordinate_manager
        )
        out = [features]
        out += [(in_map, out_map)] if self.return_kernel_map else []
        out += [weights] if self.return_weights else []
        return tuple(out)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
