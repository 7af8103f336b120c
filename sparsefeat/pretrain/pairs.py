"""Pairs of fragments as training samples: augmented, voxelised, with every true correspondence.

All randomness of a sample comes from its request, so that it is the same bits in any process, in any
order, after any number of restarts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import nn
from torch.utils.data import Dataset

from sparsefeat.data.fragments import FragmentCache, directions
from sparsefeat.data.threedmatch import FragmentPair
from sparsefeat.errors import InputError
from sparsefeat.extract.orientation import estimated_vectors
from sparsefeat.models.voxel_cloud import VoxelCloud, join, voxelize
from sparsefeat.pretrain.augment import AugmentConfig, augment
from sparsefeat.pretrain.matches import find_matches
from sparsefeat.pretrain.sampling import PairRequest


@dataclass
class PairSample:
    """An augmented pair of clouds.

    Attributes:
        source: one point per voxel, metres, float32, in the augmented frame; normals are unit vectors to the sensor
            or to the outer side of the surface, zeros where neither is known. V0 voxels.
        target: likewise. V1 voxels.
        matches: rows of source and target that are within the positive radius of each other under ``transform``: all
            of them, by row of the source and then nearest first. Shape: (M, 2) int64.
        transform: rigid motion that maps the source's frame to the target's. Shape: (4, 4) float64.
        request: what it was made from.
        deformed: no motion brings one cloud onto the other: ``transform`` is the identity, and matches are places of
            a body, not of space.
        sides: of the matches, 1 on the left of a body, -1 on its right, 0 where that is not known; None: of all of them.
            Shape: (M,) int8.
    """

    source: VoxelCloud
    target: VoxelCloud
    matches: torch.Tensor
    transform: torch.Tensor
    request: PairRequest
    deformed: bool = False
    sides: torch.Tensor | None = None


@dataclass
class PairBatch:
    """Samples joined; B pairs.

    Attributes:
        source: all sources, numbered in ``batch``. V0 voxels.
        target: all targets. V1 voxels.
        matches: rows of the joined clouds, pair after pair; by row of the source, nearest first. Shape: (M, 2) int64.
        transforms: from the sources' frames to the targets'. Shape: (B, 4, 4) float32.
        source_splits: number of voxels of each pair's source.
        target_splits: number of voxels of each pair's target.
        match_splits: number of matches of each pair; may be 0.
        requests: what the samples were made from.
        deformed: which pairs are of deformed shapes, see :class:`PairSample`.
        sides: of the matches, see :class:`PairSample`. Shape: (M,) int8.
    """

    source: VoxelCloud
    target: VoxelCloud
    matches: torch.Tensor
    transforms: torch.Tensor
    source_splits: list[int]
    target_splits: list[int]
    match_splits: list[int]
    requests: list[PairRequest]
    deformed: list[bool]
    sides: torch.Tensor

    def __len__(self) -> int:
        return len(self.match_splits)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PairBatch:
        """Return the batch with its tensors on a device."""
        return self._map(lambda part: part.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> PairBatch:
        """Return the batch in page-locked memory; DataLoader calls this."""
        return self._map(lambda part: part.pin_memory())

    def _map(self, change: Callable[[Any], Any]) -> PairBatch:
        movable = {
            name: change(value)
            for name, value in vars(self).items()
            if isinstance(value, (torch.Tensor, VoxelCloud))
        }
        return dataclasses.replace(self, **movable)


class PairDataset(Dataset):
    """Samples made on request from pairs of fragments.

    Args:
        pairs: what the requests count, from ``train_pairs``, ``test_pairs`` or ``find_pairs``.
        voxel_size: metres.
        augment: how the clouds are changed; None changes only their rotation.
        max_voxels: larger clouds are cut to the voxels nearest to one place that both have; None keeps all.
        positive_radius: largest distance of a match, in voxels.
        average: a voxel's point is the mean of those in it, not a random one.
        oriented: the side of a fragment that does not say where its sensor stood is estimated, once for each fragment and
            process; else it is not known.
        cache_bytes: fragments are kept in memory up to this size, per process, and read each time beyond it; None keeps
            all, 0 keeps none.

    Raises:
        InputError: an argument is out of range.
    """

    def __init__(
        self,
        pairs: Sequence[FragmentPair],
        voxel_size: float,
        augment: AugmentConfig | None = None,
        max_voxels: int | None = None,
        positive_radius: float = 1.5,
        average: bool = False,
        cache_bytes: int | None = None,
        oriented: bool = False,
    ):
        if not pairs:
            raise InputError("the list of pairs is empty")
        for name, value in (("voxel_size", voxel_size), ("positive_radius", positive_radius)):
            if not 0 < value < float("inf"):
                raise InputError(f"{name} is {value}, expected a positive number")
        if max_voxels is not None and max_voxels < 1:
            raise InputError(f"max_voxels is {max_voxels}, expected at least 1")
        self.pairs = list(pairs)
        self.voxel_size = float(voxel_size)
        self.augment = AugmentConfig.none() if augment is None else augment
        self.max_voxels = max_voxels
        self.positive_radius = float(positive_radius)
        self.average = average
        self.oriented = oriented
        self._sides: dict[Path, tuple[cKDTree, np.ndarray]] = {}
        self.fragment = FragmentCache(cache_bytes)

    def __len__(self) -> int:
        return len(self.pairs)

    def preload(self) -> None:
        """Read what is kept in memory now: errors come before training, and forked workers share the memory.

        Of a fragment that does not fit, only its viewpoint is asked for.

        Raises:
            InputError: a fragment cannot be read.
        """
        for path in sorted({path for pair in self.pairs for path in (pair.source, pair.target)}):
            if not self.fragment.full:
                self.fragment(path)
            self.fragment.viewpoint(path)

    def __getitem__(self, request: PairRequest) -> PairSample:
        """Make a sample; the same request always gives the same bits.

        Raises:
            InputError: there is no such pair, or a fragment cannot be read.
        """
        if not 0 <= request.pair < len(self.pairs):
            raise InputError(f"pair {request.pair} is out of range, there are {len(self.pairs)}")
        pair = self.pairs[request.pair]
        rng = np.random.default_rng(request.seed)
        scale = rng.uniform(*self.augment.scale)
        clouds, frames = [], []
        for path in (pair.source, pair.target):
            points, frame = augment(
                self.fragment(path), rng, request.max_angle_deg, self.augment, scale
            )
            cloud = one_point_per_voxel(points, self.voxel_size, None if self.average else rng)
            normal = torch.from_numpy(self._outward(path, cloud.points.numpy(), frame))
            clouds.append(dataclasses.replace(cloud, normal=normal))
            frames.append(frame)
        if self.augment.drop_orientation > 0 and rng.random() < self.augment.drop_orientation:
            clouds = [
                dataclasses.replace(cloud, normal=torch.zeros_like(cloud.normal))
                for cloud in clouds
            ]
        source, target = clouds
        # One scale for both: it cancels, and the motion between the augmented clouds stays rigid.
        transform = frames[1] @ pair.transform @ np.linalg.inv(frames[0])
        transform[3] = (0, 0, 0, 1)
        radius = self.positive_radius * self.voxel_size
        matches = torch.from_numpy(
            find_matches(source.points.numpy(), target.points.numpy(), transform, radius)
        )
        sample = PairSample(source, target, matches, torch.from_numpy(transform), request)
        if self.max_voxels is not None and max(len(source), len(target)) > self.max_voxels:
            sample = _cut(sample, self.max_voxels, rng)
        return sample

    def _outward(self, path: Path, points: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """Vectors to the outer side at points (N, 3) of a fragment that was moved by ``frame``. Shape: (N, 3) float32."""
        viewpoint = self.fragment.viewpoint(path)
        if viewpoint is not None or not self.oriented:
            if viewpoint is not None:
                viewpoint = frame[:3, :3] @ viewpoint + frame[:3, 3]
            return directions(points, viewpoint)
        if path not in self._sides:
            voxels = voxelize(
                torch.from_numpy(self.fragment(path).copy()), self.voxel_size, where=str(path)
            )
            tree = cKDTree(voxels.points.numpy())
            self._sides[path] = tree, estimated_vectors(voxels).numpy()
        tree, sides = self._sides[path]
        back = np.linalg.inv(frame)
        nearest = tree.query(points @ back[:3, :3].T + back[:3, 3])[1]
        turn = frame[:3, :3] / np.cbrt(np.linalg.det(frame[:3, :3]))
        return (sides[nearest] @ turn.T).astype(np.float32)


def one_point_per_voxel(
    points: np.ndarray, voxel_size: float, rng: np.random.Generator | None = None
) -> VoxelCloud:
    """Voxels of a cloud, with a float32 point in each.

    Args:
        points: (N, 3) float32, in the unit of the voxel size.
        voxel_size: edge of a voxel.
        rng: draws which of a voxel's points is kept; None: the mean of all of them.

    Raises:
        InputError: the cloud spans too many voxels to number them.
    """
    if rng is not None:
        points = points[rng.permutation(len(points))]
    given = torch.from_numpy(points)
    cloud = voxelize(given, voxel_size, where="the cloud")
    kept = cloud.points.float()
    if rng is not None:
        order = torch.arange(len(given))
        first = order.new_full((len(cloud),), len(given)).scatter_reduce(
            0, cloud.inverse, order, "amin"
        )
        kept = given[first]
    return dataclasses.replace(cloud, points=kept, inverse=cloud.inverse[:0])


def collate_pairs(samples: Sequence[PairSample]) -> PairBatch:
    """Join samples to a batch; pairs without a match stay in it, with 0 matches.

    Raises:
        InputError: there are no samples.
    """
    if not samples:
        raise InputError("a batch needs at least one sample")
    source_splits = [len(sample.source) for sample in samples]
    target_splits = [len(sample.target) for sample in samples]
    starts = np.cumsum([[0, 0], *zip(source_splits, target_splits, strict=True)], axis=0)[:-1]
    matches = [
        sample.matches + torch.from_numpy(start)
        for sample, start in zip(samples, starts, strict=True)
    ]
    return PairBatch(
        source=join([sample.source for sample in samples]),
        target=join([sample.target for sample in samples]),
        matches=torch.cat(matches),
        transforms=torch.stack([sample.transform for sample in samples]).float(),
        source_splits=source_splits,
        target_splits=target_splits,
        match_splits=[len(sample.matches) for sample in samples],
        requests=[sample.request for sample in samples],
        deformed=[sample.deformed for sample in samples],
        sides=torch.cat([_sides(sample) for sample in samples]),
    )


def _sides(sample: PairSample) -> torch.Tensor:
    if sample.sides is None:
        return torch.zeros(len(sample.matches), dtype=torch.int8)
    return sample.sides


def pair_features(model: nn.Module, batch: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of all voxels of sources and targets, from one pass, so that norms see all of them.

    Args:
        model: a network, or DistributedDataParallel around one.
        batch: B pairs.

    Returns:
        Shape (V0, C), (V1, C).
    """
    network = getattr(model, "module", model)
    features = model(network.inputs(join([batch.source, batch.target]))).features
    return tuple(features.split([len(batch.source), len(batch.target)]))


def _cut(sample: PairSample, size: int, rng: np.random.Generator) -> PairSample:
    """Keep the voxels nearest to one place, the same in both clouds, so that they still overlap."""
    source, target = sample.source.points.numpy(), sample.target.points.numpy()
    if len(sample.matches):
        centre = source[int(sample.matches[rng.integers(len(sample.matches)), 0])]
    else:
        centre = source[rng.integers(len(source))]
    transform = sample.transform.numpy()
    kept, rows = [], []
    for points, place in (
        (source, centre),
        (target, transform[:3, :3] @ centre + transform[:3, 3]),
    ):
        distance = ((points - place) ** 2).sum(axis=1)
        keep = torch.from_numpy(np.sort(np.argsort(distance, kind="stable")[:size]))
        row = torch.full((len(points),), -1)
        row[keep] = torch.arange(len(keep))
        kept.append(keep)
        rows.append(row)
    matches = torch.stack([rows[0][sample.matches[:, 0]], rows[1][sample.matches[:, 1]]], 1)
    left = (matches >= 0).all(1)
    return dataclasses.replace(
        sample,
        source=sample.source.rows(kept[0]),
        target=sample.target.rows(kept[1]),
        matches=matches[left],
        sides=None if sample.sides is None else sample.sides[left],
    )
