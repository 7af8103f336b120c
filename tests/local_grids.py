"""Oracle of the soft receptive field: features by the voxel size, with a grid of its own around each key point."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sparsefeat.models.blocks import Network
from sparsefeat.receptive_field.occupancy import DEFAULT_SHARPNESS, soft_voxels
from sparsefeat.receptive_field.soft import run_softly


class LocalGrids(nn.Module):
    """What :class:`SoftNetwork` approximates: one pass per key point over a grid centred there, softly occupied.

    The key point is the centre of cell 0, whatever the voxel size, so that nothing depends on where a global
    grid happens to lie and nothing is interpolated. Cells up to ``radius`` away take part.

    Args:
        model: as for SoftNetwork.
        radius: voxels; None: as far as the network sees, which makes it exact.
    """

    def __init__(self, model: Network, radius: int | None = None):
        super().__init__()
        self.model = model
        self.radius = math.ceil(model.receptive_field / 2) if radius is None else radius

    def forward(
        self, points: Tensor, voxel_size: Tensor, keypoints: Tensor, normals: Tensor | None = None
    ) -> Tensor:
        """Features at the key points; normals as for SoftNetwork, the key points themselves have none.

        Shape: (N, 3), () or (1,), (Q, 3), (N, 3) -> (Q, C).
        """
        place, batch, outer = [], [], []
        if normals is not None:
            normals = torch.cat([normals.new_zeros(1, 3), normals])
        for index, keypoint in enumerate(keypoints):
            local = torch.cat([keypoint[None], points]) - keypoint
            near = (local.detach().abs() <= (self.radius + 1.5) * voxel_size.detach()).all(1)
            place.append(local[near] / voxel_size + 0.5)
            batch.append(torch.full((int(near.sum()),), index, device=points.device))
            if normals is not None:
                outer.append(normals[near])
        outer = torch.cat(outer) if outer else None
        cloud = soft_voxels(
            torch.cat(place), outer, torch.cat(batch), DEFAULT_SHARPNESS, self.radius
        )
        own = (cloud.cells + torch.tensor(cloud.origin, device=points.device) == 0).all(1)
        return run_softly(self.model, cloud)[own]
