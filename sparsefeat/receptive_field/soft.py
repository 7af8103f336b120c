"""Features as a differentiable function of the voxel size, through voxels that come and go smoothly."""

from __future__ import annotations

from torch import Tensor, nn

from sparsefeat.errors import InputError
from sparsefeat.models.blocks import Network
from sparsefeat.models.voxel_cloud import VoxelCloud
from sparsefeat.receptive_field.occupancy import DEFAULT_SHARPNESS, gated, soft_voxels


class SoftNetwork(nn.Module):
    """A network whose features at given points have a derivative by the voxel size.

    Points enter as x / v; cells are occupied in part (:func:`soft_voxels`), fade in and out of every layer
    (:func:`gated`), and features are read off by trilinear interpolation, weighted by occupancy. Where cells
    are full this is the sparse network itself. Networks with pair kernels are differentiable by the points
    themselves.

    Args:
        model: a network of the package on the torch backend, in the mode (train or eval) that is wanted;
            instance norm sees partial voxels as whole ones.
        sharpness: see :func:`soft_voxels`.

    Raises:
        InputError: the model is on another backend or takes inputs of another kind than occupancy.
    """

    def __init__(self, model: Network, sharpness: float = DEFAULT_SHARPNESS):
        super().__init__()
        _check_model(model)
        if not sharpness > 0:
            raise InputError(f"sharpness must be positive, got {sharpness!r}")
        self.model = model
        self.sharpness = sharpness

    def forward(
        self, points: Tensor, voxel_size: Tensor, queries: Tensor, normals: Tensor | None = None
    ) -> Tensor:
        """Features at the queries.

        Args:
            points: the surface, sampled at least once per voxel. Shape: (N, 3)
            voxel_size: in their unit. Shape: () or (1,)
            queries: among or near the points. Shape: (Q, 3)
            normals: to the outer side at the points, for oriented networks; None: not known. Shape: (N, 3)

        Returns:
            Shape (Q, C).

        Raises:
            InputError: a query with no voxel around it.
        """
        cloud = soft_voxels(points / voxel_size, normals, sharpness=self.sharpness)
        return cloud.read_off(run_softly(self.model, cloud), queries / voxel_size, "trilinear")


def run_softly(model: Network, cloud: VoxelCloud) -> Tensor:
    """One pass of a network over partly occupied voxels, see :func:`soft_voxels`. Shape: (V, C)."""
    if model.point_frames is not None:
        # Pair kernels know positions and weights themselves.
        return model(model.inputs(cloud)).features
    x = model.inputs(cloud)
    with gated(model, cloud.occupancy):
        return model(x).features


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, Network) or model.ops.name != "torch":
        raise InputError(
            f"{type(model).__name__}: expected a network of sparsefeat.models on the torch backend"
        )
    if model.point_frames is None and model.in_channels != 1:
        raise InputError(
            f"{type(model).__name__} takes {model.in_channels} channels, expected occupancy alone"
        )
