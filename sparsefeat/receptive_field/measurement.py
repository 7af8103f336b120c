"""How large the neighbourhood of a feature is: as the layers allow it, and as the weights use it."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sparsefeat.checks import checked_seed
from sparsefeat.errors import InputError
from sparsefeat.extract.inputs import checked_voxel_size
from sparsefeat.models.blocks import network_inputs
from sparsefeat.models.reach import measure_reach
from sparsefeat.models.voxel_cloud import voxelize
from sparsefeat.sparse import SparseTensor

_WAVES = 6
_SHARES = (0.5, 0.9, 0.99)
_CONSTANT = "the backbone's outputs do not follow its inputs: their gradient is zero or not finite"


@dataclass(frozen=True)
class MeasuredReceptiveField:
    """What a backbone sees around a point of a surface.

    Attributes:
        theoretical: edge in voxels of the cube that holds all inputs of an output.
        radii: (R,) distances in voxels: upper ends of the bins.
        influence: (R,) share of the squared gradient of the features by the inputs that lies within.
        effective: diameters in voxels within which 50, 90 and 99 % of it lie.
        voxel_size: in ``unit``, or None.
        unit: of the voxel size.
    """

    theoretical: int
    radii: np.ndarray
    influence: np.ndarray
    effective: tuple[float, float, float]
    voxel_size: float | None
    unit: str = "m"

    def __str__(self) -> str:
        half, most, nearly_all = self.effective
        text = (
            f"theoretical {self.theoretical} voxels; effective {half:.1f} (50 % of the squared gradient), "
            f"{most:.1f} (90 %), {nearly_all:.1f} (99 %)"
        )
        if self.voxel_size is None:
            return text
        edge, seen = self.theoretical * self.voxel_size, most * self.voxel_size
        return f"{text}; at {self.voxel_size:g} {self.unit}: theoretical {edge:.3g}, effective (90 %) {seen:.3g} {self.unit}"

    def save_plot(self, path: str | os.PathLike) -> None:
        """Draw the influence over the distance as a PNG."""
        from sparsefeat.visualize import plot_curves

        marks = {
            f"{share:.0%}": diameter / 2
            for share, diameter in zip(_SHARES, self.effective, strict=True)
        }
        last = int(np.searchsorted(self.influence, 0.9999)) + 2
        curve = (self.radii[:last], self.influence[:last])
        plot_curves(
            {"influence": curve},
            path,
            "distance, voxels"
            if self.voxel_size is None
            else f"distance, voxels of {self.voxel_size:g} {self.unit}",
            "share of the squared gradient within",
            marks=marks,
            ylim=(0, 1.02),
        )


def measure(
    backbone: nn.Module,
    points: np.ndarray | None = None,
    *,
    voxel_size: float | None = None,
    probes: int = 16,
    seed: int = 0,
) -> MeasuredReceptiveField:
    """Measure the receptive field of a backbone around points of a surface.

    The effective field is that of Luo et al., Understanding the Effective Receptive Field in Deep Convolutional
    Neural Networks, NeurIPS 2016: the gradient of an output by all inputs, here summed in squares over output
    channels by random projections, over input channels, and over probes. For networks with pair kernels the
    inputs are the invariants of each voxel's surroundings, which already sum up a neighbourhood.

    Args:
        backbone: a network of the package; its weights are used as they are, in eval mode.
        points: a surface, in the unit of ``voxel_size``. Shape: (N, 3). None: a wavy sheet of 160 voxels.
        voxel_size: None: that of the checkpoint; without one, results are in voxels, and points must be too.
        probes: outputs that are looked at, each through one random projection.
        seed: of the sheet, the probes and the projections.

    Raises:
        InputError: no points, or some that are not finite, a voxel size or number of probes that is not positive, or a
            backbone whose outputs do not follow its inputs.
    """
    if probes < 1:
        raise InputError(f"probes {probes}, expected 1 or more")
    if voxel_size is None:
        voxel_size = getattr(backbone, "voxel_size", None)
    if voxel_size is not None:
        voxel_size = checked_voxel_size(voxel_size)
    rng = np.random.default_rng(checked_seed(seed))
    if points is None:
        place = _wavy_sheet(rng)
    else:
        place = np.asarray(points, dtype=np.float64) / (voxel_size or 1.0)
        if place.ndim != 2 or place.shape[1] != 3 or not len(place):
            raise InputError(f"points: shape {place.shape}, expected (N, 3)")
        if not np.isfinite(place).all():
            raise InputError("points: NaN or infinite coordinates, expected finite ones")
    x = network_inputs(backbone, voxelize(torch.from_numpy(place), 1.0))
    was_training = backbone.training
    backbone.eval()
    try:
        theoretical = 2 * measure_reach(backbone, x.features.shape[1]).radius + 1
        radii, influence = _influence(backbone, x, probes, rng)
    finally:
        backbone.train(was_training)
    effective = tuple(2 * float(np.interp(share, influence, radii)) for share in _SHARES)
    unit = getattr(backbone, "unit", "m")
    return MeasuredReceptiveField(theoretical, radii, influence, effective, voxel_size, unit)


def _influence(
    backbone: nn.Module, x: SparseTensor, probes: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cumulative share of the squared gradient over the distance."""
    leaves: list[Tensor] = []

    def begin(module: nn.Module, args: tuple, y: SparseTensor) -> SparseTensor:
        leaves.append(y.features.detach().requires_grad_(True))
        return y.replace(leaves[-1])

    frames = getattr(backbone, "point_frames", None)
    hook = frames.register_forward_hook(begin) if frames is not None else None
    if hook is None:
        leaves.append(x.features.detach().requires_grad_(True))
        x = x.replace(leaves[-1])
    try:
        y = backbone(x)
    finally:
        if hook is not None:
            hook.remove()
    if len(y) != len(x):
        raise InputError(
            f"the backbone turned {len(x)} voxels into {len(y)}, expected an output at each"
        )
    place = x.coordinates[:, 1:].double()
    # Near the middle, where the surface goes on to all sides as far as it does.
    central = (
        (place - place.median(0).values).norm(dim=1).argsort()[: max(probes, len(place) // 10)]
    )
    chosen = central[torch.from_numpy(rng.permutation(len(central))[:probes]).to(central.device)]
    distances, weights = [], []
    if not y.features.requires_grad:
        raise InputError(_CONSTANT)
    for row in chosen:
        direction = torch.from_numpy(rng.normal(size=y.features.shape[1])).to(y.features)
        (gradient,) = torch.autograd.grad(
            y.features[row] @ direction,
            leaves[0],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        distances.append((place - place[row]).norm(dim=1).cpu().numpy())
        weights.append(gradient.square().sum(1).double().cpu().numpy())
    distances, weights = np.concatenate(distances), np.concatenate(weights)
    edges = np.arange(0.5, distances.max() + 1.5)
    total = np.bincount(np.searchsorted(edges, distances), weights, minlength=len(edges))
    if not 0 < total.sum() < np.inf:
        raise InputError(_CONSTANT)
    return edges, np.cumsum(total) / total.sum()


def _wavy_sheet(rng: np.random.Generator) -> np.ndarray:
    """A sheet of 160 x 160 voxels with random waves, two points to a voxel's edge. Shape: (N, 3), in voxels."""
    axis = np.arange(-80, 80, 0.5)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    height = np.zeros_like(x)
    for _ in range(_WAVES):
        direction, length, phase = (
            rng.uniform(0, 2 * np.pi),
            rng.uniform(10, 60),
            rng.uniform(0, 2 * np.pi),
        )
        height += (
            length
            / 12
            * np.sin((x * np.cos(direction) + y * np.sin(direction)) * 2 * np.pi / length + phase)
        )
    return np.stack([x, y, height], -1).reshape(-1, 3)
