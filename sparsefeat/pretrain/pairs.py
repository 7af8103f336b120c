"""Pairs of fragments as training samples: augmented, voxelised, with every true correspondence.

All randomness of a sample comes from its request, so that it is the same bits in any process, in any
order, after any number of restarts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from sparsefeat.data.fragments import FragmentCache, directions
from sparsefeat.data.threedmatch import FragmentPair
from sparsefeat.pretrain.augment import AugmentConfig, augment
from sparsefeat.pretrain.matches import find_matches, nearest_matches, voxelize
from sparsefeat.pretrain.sampling import PairRequest, PairSampler, select_pairs

__all__ = [
    "PairBatch",
    "PairDataset",
    "PairRequest",
    "PairSample",
    "PairSampler",
    "collate_pairs",
    "find_matches",
    "nearest_matches",
    "select_pairs",
    "voxelize",
]


@dataclass
class PairSample:
    """An augmented pair of clouds.

    Attributes:
        points0: (V0, 3) float32, one point per occupied voxel, metres, in the augmented frame.
        points1: (V1, 3) float32.
        coordinates0: (V0, 3) int32 voxels ``floor(points0 / voxel_size)``, in increasing order of
            (x, y, z).
        coordinates1: (V1, 3) int32.
        sides0: (V0, 3) float32 unit vectors to the sensor, zeros where it is not known.
        sides1: (V1, 3) float32.
        matches: (M, 2) int64, rows of 0 and 1 that are within the positive radius of each other under
            ``transform``: all of them, by row of 0 and then nearest first.
        transform: (4, 4) float64 rigid motion, maps the frame of points0 to that of points1.
        request: what it was made from.
        deformed: no motion brings one cloud onto the other: ``transform`` is the identity, and matches are places of
            a body, not of space.
    """

    points0: np.ndarray
    points1: np.ndarray
    coordinates0: np.ndarray
    coordinates1: np.ndarray
    sides0: np.ndarray
    sides1: np.ndarray
    matches: np.ndarray
    transform: np.ndarray
    request: PairRequest
    deformed: bool = False


@dataclass
class PairBatch:
    """Samples joined, batch index first; B pairs.

    Attributes:
        coordinates0: (V0, 4) int32, rows in increasing order of (batch, x, y, z).
        coordinates1: (V1, 4) int32.
        points0: (V0, 3) float32, metres.
        points1: (V1, 3) float32.
        sides0: (V0, 3) float32, unit vectors to the sensor or zeros.
        sides1: (V1, 3) float32.
        matches: (M, 2) int64 rows of the joined tensors, pair after pair; by row of 0, nearest first.
        transforms: (B, 4, 4) float32 rigid motions from the frames of points0 to those of points1.
        splits0: number of rows of each pair in points0.
        splits1: number of rows of each pair in points1.
        match_splits: number of matches of each pair; may be 0.
        requests: what the samples were made from.
        deformed: which pairs are of deformed shapes, see :class:`PairSample`.
    """

    coordinates0: torch.Tensor
    coordinates1: torch.Tensor
    points0: torch.Tensor
    points1: torch.Tensor
    sides0: torch.Tensor
    sides1: torch.Tensor
    matches: torch.Tensor
    transforms: torch.Tensor
    splits0: list[int]
    splits1: list[int]
    match_splits: list[int]
    requests: list[PairRequest]
    deformed: list[bool]

    def __len__(self) -> int:
        return len(self.match_splits)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PairBatch:
        """Return the batch with its tensors on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> PairBatch:
        """Return the batch in page-locked memory; DataLoader calls this."""
        return self._map(torch.Tensor.pin_memory)

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> PairBatch:
        tensors = {
            field.name: change(value)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), torch.Tensor)
        }
        return dataclasses.replace(self, **tensors)


class PairDataset(Dataset):
    """Samples made on request from pairs of fragments.

    Args:
        pairs: what the requests count, from ``train_pairs``, ``test_pairs`` or ``find_pairs``.
        voxel_size: metres.
        augment: how the clouds are changed; None changes only their rotation.
        max_voxels: larger clouds are cut to the voxels nearest to one place that both have; None keeps all.
        positive_radius: largest distance of a match, in voxels.
        average: a voxel's point is the mean of those in it, not a random one.
        cache: keep fragments in memory once they are read.
        cache_bytes: forget the least recently used ones beyond this size, per process; None keeps all.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        pairs: Sequence[FragmentPair],
        voxel_size: float,
        augment: AugmentConfig | None = None,
        max_voxels: int | None = None,
        positive_radius: float = 1.5,
        average: bool = False,
        cache: bool = True,
        cache_bytes: int | None = None,
    ):
        if not pairs:
            raise ValueError("the list of pairs is empty")
        for name, value in (("voxel_size", voxel_size), ("positive_radius", positive_radius)):
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} is {value}, expected a positive number")
        if max_voxels is not None and max_voxels < 1:
            raise ValueError(f"max_voxels is {max_voxels}, expected at least 1")
        self.pairs = list(pairs)
        self.voxel_size = float(voxel_size)
        self.augment = AugmentConfig.none() if augment is None else augment
        self.max_voxels = max_voxels
        self.positive_radius = float(positive_radius)
        self.average = average
        self.fragment = FragmentCache(cache_bytes if cache else 0)

    def __len__(self) -> int:
        return len(self.pairs)

    def preload(self) -> None:
        """Read every fragment now: errors come before training, and forked workers share the memory.

        Raises:
            ValueError: a fragment cannot be read.
        """
        for path in sorted({path for pair in self.pairs for path in (pair.source, pair.target)}):
            self.fragment(path)
            self.fragment.viewpoint(path)

    def __getitem__(self, request: PairRequest) -> PairSample:
        """Make a sample; the same request always gives the same bits.

        Raises:
            ValueError: there is no such pair, or a fragment cannot be read.
        """
        if not 0 <= request.pair < len(self.pairs):
            raise ValueError(f"pair {request.pair} is out of range, there are {len(self.pairs)}")
        pair = self.pairs[request.pair]
        rng = np.random.default_rng(request.seed)
        scale = rng.uniform(*self.augment.scale)
        clouds, frames, sides = [], [], []
        for path in (pair.source, pair.target):
            points, frame = augment(self.fragment(path), rng, request.max_angle_deg, self.augment, scale)
            clouds.append(voxelize(points, self.voxel_size, rng, self.average))
            frames.append(frame)
            viewpoint = self.fragment.viewpoint(path)
            if viewpoint is not None:
                viewpoint = frame[:3, :3] @ viewpoint + frame[:3, 3]
            sides.append(directions(clouds[-1][0], viewpoint))
        if self.augment.sideless > 0 and rng.random() < self.augment.sideless:
            sides = [np.zeros_like(side) for side in sides]
        (points0, coordinates0), (points1, coordinates1) = clouds
        # One scale for both: it cancels, and the motion between the augmented clouds stays rigid.
        transform = frames[1] @ pair.transform @ np.linalg.inv(frames[0])
        transform[3] = (0, 0, 0, 1)
        radius = self.positive_radius * self.voxel_size
        matches = find_matches(points0, points1, transform, radius)
        sample = PairSample(points0, points1, coordinates0, coordinates1, *sides, matches, transform, request)
        if self.max_voxels is not None and max(len(points0), len(points1)) > self.max_voxels:
            sample = _cut(sample, self.max_voxels, rng)
        return sample


def collate_pairs(samples: Sequence[PairSample]) -> PairBatch:
    """Join samples to a batch; pairs without a match stay in it, with 0 matches.

    Raises:
        ValueError: there are no samples.
    """
    if not samples:
        raise ValueError("a batch needs at least one sample")
    splits0 = [len(sample.points0) for sample in samples]
    splits1 = [len(sample.points1) for sample in samples]
    offsets = np.cumsum([[0, 0], *zip(splits0, splits1, strict=True)], axis=0)[:-1]
    matches = [sample.matches + offset for sample, offset in zip(samples, offsets, strict=True)]
    return PairBatch(
        coordinates0=_batched([sample.coordinates0 for sample in samples]),
        coordinates1=_batched([sample.coordinates1 for sample in samples]),
        points0=torch.from_numpy(np.concatenate([sample.points0 for sample in samples])),
        points1=torch.from_numpy(np.concatenate([sample.points1 for sample in samples])),
        sides0=torch.from_numpy(np.concatenate([sample.sides0 for sample in samples])),
        sides1=torch.from_numpy(np.concatenate([sample.sides1 for sample in samples])),
        matches=torch.from_numpy(np.concatenate(matches)),
        transforms=torch.from_numpy(np.stack([sample.transform for sample in samples]).astype(np.float32)),
        splits0=splits0,
        splits1=splits1,
        match_splits=[len(sample.matches) for sample in samples],
        requests=[sample.request for sample in samples],
        deformed=[sample.deformed for sample in samples],
    )


def _batched(coordinates: list[np.ndarray]) -> torch.Tensor:
    joined = np.empty((sum(map(len, coordinates)), 4), dtype=np.int32)
    joined[:, 0] = np.repeat(np.arange(len(coordinates)), [len(part) for part in coordinates])
    np.concatenate(coordinates, out=joined[:, 1:])
    return torch.from_numpy(joined)


def _cut(sample: PairSample, size: int, rng: np.random.Generator) -> PairSample:
    """Keep the voxels nearest to one place, the same in both clouds, so that they still overlap."""
    if len(sample.matches):
        centre0 = sample.points0[sample.matches[rng.integers(len(sample.matches)), 0]]
    else:
        centre0 = sample.points0[rng.integers(len(sample.points0))]
    centre1 = sample.transform[:3, :3] @ centre0 + sample.transform[:3, 3]
    kept, rows = [], []
    for points, centre in ((sample.points0, centre0), (sample.points1, centre1)):
        distance = ((points - centre) ** 2).sum(axis=1)
        keep = np.sort(np.argsort(distance, kind="stable")[:size])
        row = np.full(len(points), -1, dtype=np.int64)
        row[keep] = np.arange(len(keep))
        kept.append(keep)
        rows.append(row)
    matches = np.stack([rows[0][sample.matches[:, 0]], rows[1][sample.matches[:, 1]]], axis=1)
    return dataclasses.replace(
        sample,
        points0=sample.points0[kept[0]],
        points1=sample.points1[kept[1]],
        coordinates0=sample.coordinates0[kept[0]],
        coordinates1=sample.coordinates1[kept[1]],
        sides0=sample.sides0[kept[0]],
        sides1=sample.sides1[kept[1]],
        matches=matches[(matches >= 0).all(axis=1)],
    )
