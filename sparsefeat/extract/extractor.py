"""Features for the points of a cloud: raw points or a file in, one feature vector per point out."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from sparsefeat.data.orientation import load_orientation
from sparsefeat.errors import InputError, warn
from sparsefeat.extract.inputs import (
    as_tensor,
    check_options,
    check_points,
    checked_voxel_size,
    chosen_rows,
    unit_factor,
)
from sparsefeat.extract.orientation import outward_vectors
from sparsefeat.extract.plausibility import warn_of_spacing
from sparsefeat.extract.tiling import split_into_tiles
from sparsefeat.io.meshes import check_mesh
from sparsefeat.io.objects import object_arrays
from sparsefeat.io.pointcloud import read_points
from sparsefeat.mesh.normals import outer_normals
from sparsefeat.models.blocks import checked_device, network_inputs
from sparsefeat.models.reach import Reach, evaluating, measure_reach
from sparsefeat.models.voxel_cloud import INTERPOLATIONS, VoxelCloud, voxelize
from sparsefeat.sparse.precision import widen

__all__ = ["DEFAULT_MAX_VOXELS", "INTERPOLATIONS", "FeatureExtractor", "check_options"]

DEFAULT_MAX_VOXELS = 300_000
_MUCH_OVERLAP = 10  # runs of each voxel, in the mean, from which a warning says so


@dataclass(frozen=True)
class _Request:
    """What a call asks of every pose and scale."""

    where: str
    rows: Tensor | slice
    interpolation: str
    max_voxels: int
    halo: int | None
    progress: Callable[[int, int], None] | None


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
        reach: how far the network looks; None: measured when it is needed.
        unit: of the points and the voxel size, for messages and :meth:`in_unit`. None: the checkpoint's, or metres.

    Raises:
        InputError: the voxel size is not a positive number, or there is no such device.
    """

    def __init__(
        self,
        model: nn.Module,
        voxel_size: float,
        device: str | torch.device | None = None,
        reach: Reach | None = None,
        unit: str | None = None,
    ):
        self.voxel_size = checked_voxel_size(voxel_size)
        self.device = checked_device(device, model)
        self.model = model.to(self.device)
        self.unit: str = unit or str(getattr(model, "unit", None) or "m")
        self._reach = reach

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike,
        voxel_size: float | None = None,
        device: str | torch.device | None = None,
        unit: str | None = None,
        **overrides: Any,
    ) -> FeatureExtractor:
        """Load a checkpoint with its voxel size, or another one.

        Args:
            name_or_path: what sparsefeat.from_pretrained takes.
            voxel_size: in the unit of the points; None for that of the checkpoint, converted to this unit.
            device: None for the CPU.
            unit: of the points, one of m, cm, mm, in, ft; None for that of the checkpoint.
            overrides: arguments of the network in place of the checkpoint's, such as ``dilation``.

        Raises:
            InputError: no such checkpoint or unit, or neither it nor the call says the voxel size.
        """
        from sparsefeat.checkpoint import from_pretrained

        model = from_pretrained(name_or_path, **overrides)
        if voxel_size is not None:
            return cls(model, voxel_size, device, unit=unit)
        own = getattr(model, "voxel_size", None)
        if own is None:
            raise InputError(f"{name_or_path}: it does not say its voxel size; give voxel_size=")
        extractor = cls(model, own, device)
        return extractor if unit is None else extractor.in_unit(unit)

    def __repr__(self) -> str:
        return f"FeatureExtractor({type(self.model).__name__}, voxel_size={self.voxel_size:g}, {self.device})"

    def to(self, device: str | torch.device) -> FeatureExtractor:
        """Move the network to a device; returns the extractor."""
        self.device = checked_device(device, self.model)
        self.model.to(self.device)
        return self

    def in_unit(self, unit: str) -> FeatureExtractor:
        """The same network for points in another unit; its voxel size is converted, and weights are shared.

        Args:
            unit: one of m, cm, mm, in, ft.

        Raises:
            InputError: this unit, or that of the extractor, is none of these.
        """
        if unit == self.unit:
            return self
        other = self.at(self.voxel_size * unit_factor(self.unit, unit))
        other.unit = unit
        return other

    @property
    def in_channels(self) -> int:
        """Channels of the network's input; 1 if its configuration does not say."""
        return int((getattr(self.model, "config", None) or {}).get("in_channels") or 1)

    @property
    def reach(self) -> Reach:
        """How far the network looks, in voxels (measured at the first use)."""
        if self._reach is None:
            self._reach = measure_reach(self.model, self.in_channels)
        return self._reach

    def __call__(
        self,
        points: Any,
        interpolation: str = "nearest",
        *,
        features: np.ndarray | Tensor | None = None,
        normals: np.ndarray | Tensor | None = None,
        viewpoint: Sequence[float] | np.ndarray | None = None,
        closed: bool = False,
        rows: np.ndarray | Tensor | slice | None = None,
        views: int = 1,
        scales: Sequence[float] = (1.0,),
        max_voxels: int = DEFAULT_MAX_VOXELS,
        halo: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray | Tensor:
        """Return the features of points.

        Args:
            points: (N, 3) array or tensor, a file that :func:`sparsefeat.io.pointcloud.read_points` reads, or a cloud
                or mesh of this package, trimesh or Open3D. Of a mesh these are its vertices alone;
                :func:`sparsefeat.extract.surfaces.vertex_features` samples the surface between them.
            interpolation: ``"nearest"``: the feature of the voxel that contains the point;
                ``"trilinear"``: the mean of those of the eight voxels whose centres surround the point,
                weighted linearly on each axis, over the ones that exist (the one that contains the point
                always does). Means of unit vectors are shorter than 1; nothing is normalised again.
            features: (N, C_in) inputs per point; a voxel gets their mean. None: what the network takes of a cloud
                by itself, see :meth:`sparsefeat.models.Network.inputs`.
            normals: (N, 3) vectors that point to the outer side of the surface, for oriented networks; others
                ignore them. None for an object without ``viewpoint``: the normals that it has, which have to be
                oriented already, or those of its faces.
            viewpoint: where the points were seen from, in their frame: (3,), or (K, 3) for several places, of which
                a point's surface faces the one that sees it best. Give normals or a viewpoint, not both. None for a
                file: what it says, see :func:`sparsefeat.data.orientation.load_orientation`. A viewpoint that can
                have seen too little of the cloud is not used, and an InputWarning says so. With neither, the side is
                estimated from the cloud, see :func:`sparsefeat.estimate_normals`.
            closed: where the side is estimated: the points cover a shape from all sides and are no scan.
            rows: which points' features are wanted, the network sees all of them; indices (M,), a mask (N,) or a slice.
                None: all.
            views: average the features over so many poses of the cloud, the given one and seeded random turns
                and shifts of it, and scale them to unit length if the network does so. How a surface happens
                to fall into voxels then matters less; the time grows in proportion.
            scales: factors on the voxel size; the features at all of them are put side by side, divided by the root of
                their number, so that unit vectors stay such. Several see more than one neighbourhood and match
                better; each costs a pass.
            max_voxels: most voxels that run at once, which bounds the memory. Clouds of more run in overlapping
                tiles, halo included in the count.
            halo: voxels around a tile that are computed with it and thrown away. None: as far as the
                network looks, so that tiles give what one pass gives, up to rounding. Less is faster, and
                approximate near the tiles' borders.
            progress: called with (voxels done, voxels in all) after each tile; each view counts anew.

        Returns:
            (N, C) float32 ((M, C) with ``rows``), C the network's channels times the number of scales: a tensor on
            the points' device if they were a tensor, else an array.

        Raises:
            InputError: shapes, types or numbers that do not fit, NaN or infinite coordinates, a cloud too
                large for its voxel size, one that must be tiled with a network that cannot be
                (instance normalisation and global pooling look at the whole cloud), or ``max_voxels`` below
                what the smallest tile and its halo have.
        """
        check_options(interpolation, max_voxels, halo, views, scales)
        where = "points"
        if isinstance(points, (str, os.PathLike)):
            where = str(points)
            read = read_points(points)
            points = read.points
            if self.oriented and normals is None and viewpoint is None:
                normals, viewpoint = load_orientation(where, points, read.normals)
        elif (arrays := object_arrays(points)) is not None:
            points = np.asarray(arrays.points)
            if self.oriented and normals is None and viewpoint is None:
                normals = arrays.normals
                if arrays.faces is not None:
                    normals = outer_normals(*check_mesh(points, arrays.faces, where))[1]
        cloud = as_tensor(points, where)
        check_points(cloud, where)
        with evaluating(self.model):
            if self.oriented:
                normals = outward_vectors(cloud, normals, viewpoint, self.voxel_size, closed, where)
            else:
                normals = None
            request = _Request(
                where, chosen_rows(rows, cloud), interpolation, max_voxels, halo, progress
            )
            given = self._checked_features(features, cloud)
            sized = (self if scale == 1 else self.at(self.voxel_size * scale) for scale in scales)
            parts = [
                extractor._averaged(cloud, given, normals, views, request) for extractor in sized
            ]
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
        self,
        cloud: Tensor,
        features: Tensor | None,
        normals: Tensor | None,
        views: int,
        request: _Request,
    ) -> Tensor:
        """Features of the chosen points of a cloud, averaged over poses. Shape: (M, C)."""
        if not len(cloud):
            # One voxel tells the number of channels.
            single = voxelize(torch.zeros(1, 3), 1.0)
            return self._run(single, torch.ones(1, self.in_channels))[:0]
        result = self._points_features(cloud, features, normals, request, judged=True)
        for view in range(1, views):
            # Half types could not hold the turned points.
            moved, turn = _another_pose(widen(cloud), view, self.voxel_size)
            turned = None if normals is None else normals @ turn.T.to(normals)
            result += self._points_features(moved, features, turned, request)
        if views > 1 and getattr(self.model, "normalize_feature", False):
            result = torch.nn.functional.normalize(result)
        elif views > 1:
            result /= views
        return result

    def _points_features(
        self,
        points: Tensor,
        features: Tensor | None,
        normals: Tensor | None,
        request: _Request,
        judged: bool = False,
    ) -> Tensor:
        """Features of the chosen points of a cloud as it lies. Shape: (M, C)."""
        cloud = voxelize(
            points, self.voxel_size, normals=normals, stride=self.reach.stride, device=self.device,
            where=request.where,
        )  # fmt: skip
        if judged:
            warn_of_spacing(cloud, points, self.unit, request.where)
        given = None if features is None else cloud.average(features)
        table = self._voxel_features(cloud, given, points.device, request)
        if request.interpolation == "nearest":
            return table.index_select(0, cloud.inverse.to(table.device)[request.rows])
        return cloud.read_off(table, points[request.rows], "trilinear")

    @property
    def oriented(self) -> bool:
        """Whether the network uses normals, or a viewpoint."""
        return bool((getattr(self.model, "config", None) or {}).get("oriented"))

    def _checked_features(
        self, features: np.ndarray | Tensor | None, cloud: Tensor
    ) -> Tensor | None:
        """The inputs per point that a caller gave, as float32. Shape: (N, C_in)."""
        channels = self.in_channels
        if features is None:
            if channels != 1 and not hasattr(self.model, "inputs"):
                raise InputError(
                    f"the model takes {channels} channels; give features= of (N, {channels})"
                )
            return None
        inputs = as_tensor(features, "features").float()
        if inputs.shape != (len(cloud), channels):
            expected = (len(cloud), channels)
            raise InputError(f"features have shape {tuple(inputs.shape)}, expected {expected}")
        if not torch.isfinite(inputs).all():
            raise InputError("features have NaN or infinite values")
        return inputs

    def _voxel_features(
        self,
        cloud: VoxelCloud,
        features: Tensor | None,
        out_device: torch.device,
        request: _Request,
    ) -> Tensor:
        """Run the network, in tiles if need be. Shape: (V, C) float32 on ``out_device``."""
        total, max_voxels, halo, progress = (
            len(cloud),
            request.max_voxels,
            request.halo,
            request.progress,
        )
        if total <= max_voxels:
            whole = self._run(cloud, features).to(out_device)
            if progress:
                progress(total, total)
            return whole
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
        self._check_tiles(cloud.cells, halo, request)
        table: Tensor | None = None
        done = 0
        for tile in split_into_tiles(cloud.cells, max_voxels, halo, self.reach.stride):
            part = None if features is None else features[tile.rows.to(features.device)]
            output = self._run(cloud.rows(tile.rows), part)[tile.core].to(out_device)
            if table is None:
                table = output.new_empty(total, output.shape[1])
            table[tile.rows[tile.core].to(out_device)] = output
            done += len(output)
            if progress:
                progress(done, total)
        assert table is not None  # more voxels than fit into one tile
        return table

    def _check_tiles(self, cells: Tensor, halo: int, request: _Request) -> None:
        """Refuse a bound that cannot be kept before hours of work, and say where tiles mostly overlap."""
        # The tiles are made twice: rows of all of them would need more memory than one tile's run.
        tiles = split_into_tiles(cells, request.max_voxels, halo, self.reach.stride)
        sizes = [len(tile.rows) for tile in tiles]
        if max(sizes) > request.max_voxels:
            raise InputError(
                f"{request.where}: max_voxels {request.max_voxels}, expected at least {max(sizes)}: so many voxels lie "
                f"within {halo} voxels (halo) of the smallest tile; a smaller halo needs less, and is approximate"
            )
        if sum(sizes) > _MUCH_OVERLAP * len(cells):
            warn(
                f"{request.where}: tiles of at most {request.max_voxels} voxels overlap so much that each voxel runs "
                f"{sum(sizes) / len(cells):.0f} times; a larger max_voxels is faster"
            )

    def _run(self, cloud: VoxelCloud, features: Tensor | None) -> Tensor:
        """One pass of the network. Shape: (V, 3), (V, C_in) or None -> (V, C) float32."""
        x = network_inputs(self.model, cloud, features)
        y = self.model(x)
        if len(y) != len(x) or any(s != 1 for s in y.tensor_stride):
            raise InputError(
                f"the model turned {len(x)} voxels into {len(y)} at tensor stride {y.tensor_stride}, "
                "expected an output at each input voxel"
            )
        output: Tensor = y.F.float()
        return output


def _another_pose(cloud: Tensor, number: int, voxel_size: float) -> tuple[Tensor, Tensor]:
    """The cloud turned about its centre and shifted against the grid, as its number says, and the turn."""
    rng = np.random.default_rng(number)
    # A normalised Gaussian quaternion is uniform over SO(3).
    turn = torch.from_numpy(Rotation.from_quat(rng.normal(size=4)).as_matrix()).to(cloud)
    shift = torch.from_numpy(rng.uniform(-16, 16, 3) * voxel_size).to(cloud)
    return (cloud - cloud.mean(0)) @ turn.T + shift, turn
