"""Features for the points of a cloud: raw points or a file in, one feature vector per point out."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from sparsefeat.data.fragments import load_viewpoint
from sparsefeat.errors import InputError
from sparsefeat.extract.inputs import (
    INTERPOLATIONS,
    as_tensor,
    check_options,
    check_points,
    checked_device,
    checked_voxel_size,
    chosen_rows,
    outer_sides,
)
from sparsefeat.extract.tiling import Reach, measure_reach, split_into_tiles
from sparsefeat.io.pointcloud import read_points
from sparsefeat.models.inputs import point_inputs
from sparsefeat.sparse import SparseTensor
from sparsefeat.sparse.coordinates import constant

__all__ = ["DEFAULT_MAX_VOXELS", "INTERPOLATIONS", "FeatureExtractor", "check_options"]

DEFAULT_MAX_VOXELS = 300_000
_POINTS_AT_A_TIME = 1 << 18
# Leaves room for the engine's margins around the bounding box in its 62-bit keys.
_MAX_CELLS_PER_AXIS = 1 << 30
_MAX_BOX_CELLS = 1 << 60


class _Voxels(NamedTuple):
    """Occupied voxels of a cloud, in ascending order of their keys, counted from a moved origin."""

    cells: Tensor  # (V, 3) int64, >= 0
    keys: Tensor  # (V,) int64, ascending
    inverse: Tensor  # (N,) int64, voxel of each point
    origin: tuple[float, float, float]  # in voxels: cell = floor(p / voxel_size) - origin
    extent: tuple[int, int, int]  # of the keys' box


class FeatureExtractor:
    """Computes the features of a network at every point of a cloud.

    The cloud is cut into voxels ``floor(p / voxel_size)``, the network runs over them in eval mode and
    without gradients, and each point takes its feature from the voxels around it. A cloud of more than
    ``max_voxels`` runs in overlapping tiles, so that memory grows only with the points and their features.

    Args:
        model: takes and returns a SparseTensor with the same rows, such as those of sparsefeat.models.
            It is used as it is, not copied; its training mode is restored after each call.
        voxel_size: edge of a voxel in the unit of the points (metres for the models trained on rooms).
        device: where the network runs; it is moved there. None: where it is.

    Raises:
        InputError: the voxel size is not a positive number, or there is no such device.
    """

    def __init__(self, model: nn.Module, voxel_size: float, device: str | torch.device | None = None):
        self.voxel_size = checked_voxel_size(voxel_size)
        self.device = checked_device(device, model)
        self.model = model.to(self.device)
        self._reach: Reach | None = None

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike,
        voxel_size: float | None = None,
        device: str | torch.device | None = None,
        **overrides: Any,
    ) -> FeatureExtractor:
        """Load a checkpoint; it says the voxel size unless ``voxel_size`` does.

        Args:
            name_or_path: what sparsefeat.from_pretrained takes.
            voxel_size: None for that of the checkpoint.
            device: None for the CPU.
            overrides: arguments of the network in place of the checkpoint's, such as ``dilation``.

        Raises:
            InputError: no such checkpoint, or neither it nor the call says the voxel size.
        """
        from sparsefeat.checkpoint import from_pretrained

        model = from_pretrained(name_or_path, **overrides)
        if voxel_size is None:
            voxel_size = getattr(model, "voxel_size", None)
            if voxel_size is None:
                raise InputError(f"{name_or_path}: it does not say its voxel size; give voxel_size=")
        return cls(model, voxel_size, device)

    def __repr__(self) -> str:
        return f"FeatureExtractor({type(self.model).__name__}, voxel_size={self.voxel_size:g}, {self.device})"

    def to(self, device: str | torch.device) -> FeatureExtractor:
        """Move the network to a device; returns the extractor."""
        self.device = checked_device(device, self.model)
        self.model.to(self.device)
        return self

    @property
    def in_channels(self) -> int:
        """Channels of the network's input; 1 if its configuration does not say."""
        return int(self._option("in_channels") or 1)

    @property
    def reach(self) -> Reach:
        """How far the network looks, in voxels (measured at the first use)."""
        if self._reach is None:
            with _evaluating(self.model):
                self._reach = measure_reach(self.model, self.in_channels)
        return self._reach

    def __call__(
        self,
        points: np.ndarray | Tensor | str | os.PathLike,
        interpolation: str = "nearest",
        *,
        features: np.ndarray | Tensor | None = None,
        normals: np.ndarray | Tensor | None = None,
        viewpoint: Sequence[float] | None = None,
        rows: np.ndarray | Tensor | slice | None = None,
        views: int = 1,
        scales: Sequence[float] = (1.0,),
        max_voxels: int = DEFAULT_MAX_VOXELS,
        halo: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray | Tensor:
        """Return the features of points.

        Args:
            points: (N, 3) array or tensor, or a file that :func:`sparsefeat.io.pointcloud.read_points`
                reads.
            interpolation: ``"nearest"``: the feature of the voxel that contains the point;
                ``"trilinear"``: the mean of those of the eight voxels whose centres surround the point,
                weighted linearly on each axis, over the ones that exist (the one that contains the point
                always does). Means of unit vectors are shorter than 1; nothing is normalised again.
            features: (N, C_in) inputs per point; a voxel gets their mean. None: ones, for networks with
                one input channel; for those with ``geometry``, where in its voxel a point lies.
            normals: (N, 3) vectors that point to the outer side of the surface, for networks with ``sides``; others
                have no use for them and take no notice.
            viewpoint: where the points were seen from, in their frame, which says the same of a scan; either, or
                neither where the sides are not known. None for a file: where it says so, see
                :func:`sparsefeat.data.fragments.load_viewpoint`.
            rows: which points' features are wanted, the network sees all of them; indices (M,), a mask (N,) or a slice.
                None: all.
            views: average the features over so many poses of the cloud, the given one and seeded random turns
                and shifts of it, and scale them to unit length if the network does so. How a surface happens
                to fall into voxels then matters less; the time grows in proportion.
            scales: factors on the voxel size; the features at all of them are put side by side, divided by the root of
                their number, so that unit vectors stay such. Several see more than one neighbourhood and match
                better; each costs a pass.
            max_voxels: more voxels than this run in tiles of at most so many, halo included.
            halo: voxels around a tile that are computed with it and thrown away. None: as far as the
                network looks, so that tiles give what one pass gives, up to rounding. Less is faster, and
                approximate near the tiles' borders.
            progress: called with (voxels done, voxels in all) after each tile; each view counts anew.

        Returns:
            (N, C) float32 ((M, C) with ``rows``), C the network's channels times the number of scales: a tensor on
            the points' device if they were a tensor, else an array.

        Raises:
            InputError: shapes, types or numbers that do not fit, NaN or infinite coordinates, a cloud too
                large for its voxel size, or one that must be tiled with a network that cannot be
                (instance normalisation and global pooling look at the whole cloud).
        """
        check_options(interpolation, max_voxels, halo, views, scales)
        where = "points"
        if isinstance(points, (str, os.PathLike)):
            where = str(points)
            points = read_points(points).points
            if self.knows_sides and normals is None and viewpoint is None:
                viewpoint = load_viewpoint(where)
        cloud = as_tensor(points, where)
        check_points(cloud, where)
        with _evaluating(self.model):
            sides = outer_sides(cloud, normals, viewpoint) if self.knows_sides else None
            how = (where, chosen_rows(rows, cloud), interpolation, max_voxels, halo, progress)
            sized = (self if scale == 1 else self.at(self.voxel_size * scale) for scale in scales)
            parts = [extractor._averaged(cloud, features, sides, views, how) for extractor in sized]
        result = parts[0] if len(parts) == 1 else torch.cat(parts, 1).div_(len(parts) ** 0.5)
        return result.to(cloud.device) if isinstance(points, Tensor) else result.numpy()

    def at(self, voxel_size: float) -> FeatureExtractor:
        """The same network at another voxel size; weights are shared, and so is its reach, which has no unit."""
        voxel_size = checked_voxel_size(voxel_size)
        _ = self.reach  # measured once for all sizes
        other = copy.copy(self)
        other.voxel_size = voxel_size
        return other

    def _averaged(
        self, cloud: Tensor, features: np.ndarray | Tensor | None, sides: Tensor | None, views: int, how: tuple
    ) -> Tensor:
        """Features of the chosen points of a cloud, averaged over poses. Shape: (M, C)."""
        inputs = self._checked_inputs(features, cloud, sides)
        if not len(cloud):
            # One voxel tells the number of channels.
            return self._run(torch.zeros(1, 3), torch.ones(1, self.in_channels))[:0]
        result = self._points_features(cloud, inputs, *how)
        for view in range(1, views):
            moved, turn = _another_pose(cloud, view, self.voxel_size)
            turned = None if sides is None else sides @ turn.T.to(sides)
            given = inputs if features is not None else self._checked_inputs(None, moved, turned)
            result += self._points_features(moved, given, *how)
        if views > 1 and getattr(self.model, "normalize_feature", False):
            result = torch.nn.functional.normalize(result)
        elif views > 1:
            result /= views
        return result

    def _points_features(
        self,
        cloud: Tensor,
        inputs: Tensor | None,
        where: str,
        rows: Tensor | slice,
        interpolation: str,
        max_voxels: int,
        halo: int | None,
        progress: Callable[[int, int], None] | None,
    ) -> Tensor:
        """Features of the chosen points of a cloud as it lies. Shape: (M, C)."""
        voxels = self._voxelize(cloud, where)
        table = self._voxel_features(voxels, inputs, max_voxels, halo, cloud.device, progress)
        if interpolation == "nearest":
            return table.index_select(0, voxels.inverse.to(cloud.device)[rows])
        return self._trilinear(cloud[rows], voxels, table)

    @property
    def knows_sides(self) -> bool:
        """Whether the network has a use for normals or a viewpoint."""
        return bool(self._option("sides"))

    def _option(self, name: str) -> Any:
        """An option of the network's configuration, None where it does not say."""
        return (getattr(self.model, "config", None) or {}).get(name)

    def _checked_inputs(
        self, features: np.ndarray | Tensor | None, cloud: Tensor, sides: Tensor | None
    ) -> Tensor | None:
        channels = self.in_channels
        if features is None:
            if self._option("geometry"):
                return point_inputs(self.model.config, cloud.double() / self.voxel_size, sides)
            if channels != 1:
                raise InputError(f"the model takes {channels} channels; give features= of (N, {channels})")
            return None
        inputs = as_tensor(features, "features").float()
        if inputs.shape != (len(cloud), channels):
            expected = (len(cloud), channels)
            raise InputError(f"features have shape {tuple(inputs.shape)}, expected {expected}")
        if not torch.isfinite(inputs).all():
            raise InputError("features have NaN or infinite values")
        return inputs

    def _voxelize(self, cloud: Tensor, where: str) -> _Voxels:
        # One axis at a time keeps the temporaries of a large cloud small. In float64, since a float32
        # quotient can round up across a voxel's border; MPS has no float64.
        device = torch.device("cpu") if self.device.type == "mps" else self.device
        stride = self.reach.stride
        columns, origin, extent = [], [], []
        for axis in range(3):
            column = torch.floor(cloud[:, axis].to(device).double() / self.voxel_size)
            # Moved by a multiple of the stride, which changes no output, any cloud is within int32.
            low = math.floor(float(column.min()) / stride) * stride
            size = float(column.max()) - low + 1
            if size > _MAX_CELLS_PER_AXIS:
                raise InputError(
                    f"{where}: {size:.3g} voxels of {self.voxel_size:g} along {'xyz'[axis]}, expected at "
                    f"most {_MAX_CELLS_PER_AXIS:.3g}; are the coordinates in the unit of the voxel size?"
                )
            columns.append((column - low).long())
            origin.append(low)
            extent.append(int(size))
        if math.prod(extent) > _MAX_BOX_CELLS:
            raise InputError(
                f"{where}: a box of {' x '.join(map(str, extent))} voxels of {self.voxel_size:g} is beyond "
                "the key range; are there stray points far away?"
            )
        keys = columns[0].mul_(extent[1]).add_(columns[1]).mul_(extent[2]).add_(columns[2])
        del columns
        keys, inverse = torch.unique(keys, return_inverse=True)
        cells = _unpack(keys, extent)
        return _Voxels(cells, keys, inverse, tuple(origin), tuple(extent))

    def _voxel_features(
        self,
        voxels: _Voxels,
        inputs: Tensor | None,
        max_voxels: int,
        halo: int | None,
        out_device: torch.device,
        progress: Callable[[int, int], None] | None,
    ) -> Tensor:
        """Run the network. Shape: (V, C) float32 on ``out_device``."""
        total = len(voxels.cells)
        if inputs is not None:
            inverse = voxels.inverse.to(inputs.device)
            sums = inputs.new_zeros(total, inputs.shape[1]).index_add_(0, inverse, inputs)
            inputs = sums / torch.bincount(inverse, minlength=total)[:, None]
        if total <= max_voxels:
            table = self._run(voxels.cells, inputs).to(out_device)
            if progress:
                progress(total, total)
            return table
        if self.reach.unbounded:
            raise InputError(
                f"{total} voxels exceed max_voxels {max_voxels}, and {', '.join(self.reach.unbounded)} in "
                "the model looks at the whole cloud, so that it cannot run in tiles; raise max_voxels or "
                "voxel_size"
            )
        if halo is None and not self.reach.layers:
            raise InputError(
                f"{total} voxels exceed max_voxels {max_voxels}, and how far the model looks is not known, "
                "since it has no modules of sparsefeat.sparse; give halo= in voxels"
            )
        halo = self.reach.radius if halo is None else halo
        table, done = None, 0
        for tile in split_into_tiles(voxels.cells, max_voxels, halo, self.reach.stride):
            part = None if inputs is None else inputs[tile.rows.to(inputs.device)]
            output = self._run(voxels.cells[tile.rows], part)[tile.core].to(out_device)
            if table is None:
                table = torch.empty(total, output.shape[1], device=out_device)
            table[tile.rows[tile.core].to(out_device)] = output
            done += len(output)
            if progress:
                progress(done, total)
        return table

    def _run(self, cells: Tensor, inputs: Tensor | None) -> Tensor:
        """One pass of the network. Shape: (V, 3), (V, C_in) or None -> (V, C) float32."""
        dtype = next((p.dtype for p in self.model.parameters() if p.is_floating_point()), torch.float32)
        if inputs is None:
            inputs = torch.ones(len(cells), 1)
        coordinates = torch.nn.functional.pad(cells.to(self.device, torch.int32), (1, 0))
        # The rows are distinct; "error" would say so if they were not, and spares the search for them.
        x = SparseTensor(inputs.to(self.device, dtype), coordinates=coordinates, reduce="error")
        y = self.model(x)
        if len(y) != len(x) or any(s != 1 for s in y.tensor_stride):
            raise InputError(
                f"the model turned {len(x)} voxels into {len(y)} at tensor stride {y.tensor_stride}, "
                "expected an output at each input voxel"
            )
        return y.F.float()

    def _trilinear(self, cloud: Tensor, voxels: _Voxels, table: Tensor) -> Tensor:
        """Means over the existing ones of the eight surrounding voxel centres. Shape: (N, C)."""
        device = voxels.keys.device
        origin, extent = constant(voxels.origin, device, torch.float64), constant(voxels.extent, device)
        shifts = constant(list(itertools.product((0, 1), repeat=3)), device)
        result = table.new_empty(len(cloud), table.shape[1])
        for start in range(0, len(cloud), _POINTS_AT_A_TIME):
            part = cloud[start : start + _POINTS_AT_A_TIME].to(device).double()
            # In a frame where voxel centres are at whole numbers.
            position = part / self.voxel_size - origin - 0.5
            base = torch.floor(position)
            fraction = position - base
            sums = table.new_zeros(len(part), table.shape[1])
            weights = table.new_zeros(len(part), 1)
            for shift in shifts:
                cell = base.long() + shift
                weight = torch.where(shift == 1, fraction, 1 - fraction).prod(1)
                key = (cell[:, 0] * voxels.extent[1] + cell[:, 1]) * voxels.extent[2] + cell[:, 2]
                row = torch.searchsorted(voxels.keys, key).clamp_(max=len(voxels.keys) - 1)
                # Beyond the box a key would be that of a voxel on its other side.
                exists = ((cell >= 0) & (cell < extent)).all(1) & (voxels.keys[row] == key)
                weight = torch.where(exists, weight, 0)[:, None].to(table)
                sums += weight * table[row.to(table.device)]
                weights += weight
            result[start : start + len(part)] = sums / weights
        return result


def _another_pose(cloud: Tensor, number: int, voxel_size: float) -> tuple[Tensor, Tensor]:
    """The cloud turned about its centre and shifted against the grid, as its number says, and the turn."""
    rng = np.random.default_rng(number)
    # A normalised Gaussian quaternion is uniform over SO(3).
    turn = torch.from_numpy(Rotation.from_quat(rng.normal(size=4)).as_matrix()).to(cloud)
    shift = torch.from_numpy(rng.uniform(-16, 16, 3) * voxel_size).to(cloud)
    return (cloud - cloud.mean(0)) @ turn.T + shift, turn


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; afterwards each module is in the mode it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _unpack(keys: Tensor, extent: list[int]) -> Tensor:
    rest = torch.div(keys, extent[2], rounding_mode="floor")
    x = torch.div(rest, extent[1], rounding_mode="floor")
    return torch.stack([x, rest - x * extent[1], keys - rest * extent[2]], 1)
