"""A rigid pose from matches of which many are wrong: second-order spatial compatibility.

Two matches are compatible if the distance between their points is the same in both clouds. Right
matches are compatible with each other and, unlike wrong ones, share many matches that both are
compatible with. Seeds with many of these give hypotheses by weighted Kabsch, and all matches
vote on them. Source: Chen, Sun, Yang, Tao, "SC2-PCR: A Second Order Spatial Compatibility for
Efficient and Robust Point Cloud Registration", CVPR 2022.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsefeat.checks import checked_count, checked_positive
from sparsefeat.errors import InputError


@dataclass(frozen=True)
class SpatialCompatibility:
    """Settings of the estimator; lengths are in the unit of the points.

    Attributes:
        distance: matches closer than this under a pose support it; also the
            difference of an edge's lengths in the two clouds at which its two matches are no longer
            compatible.
        seeds: hypotheses made at most.
        neighbours: matches a hypothesis is fitted to at first.
        keep: distinct hypotheses that are refined and returned at most.
        max_matches: of more matches an evenly spaced choice is used to make hypotheses.
    """

    distance: float = 0.1
    seeds: int = 200
    neighbours: int = 20
    keep: int = 10
    max_matches: int = 1500

    def __post_init__(self) -> None:
        checked_positive(self.distance, "distance")
        for name in ("seeds", "neighbours", "keep", "max_matches"):
            checked_count(getattr(self, name), name)

    def __call__(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Distinct hypotheses and their support, best first.

        Args:
            source: Shape (K, 3), the matched points of one cloud.
            target: Shape (K, 3), their counterparts.

        Returns:
            (H, 4, 4) float64 poses that map source to target, and (H,) support, see
            :func:`support`. H is 0 where
            no three matches in general position support one pose, as with fewer than three, or
            with all on a line.

        Raises:
            InputError: shapes that do not fit, or points that are not finite.
        """
        if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 3:
            shapes = f"{tuple(source.shape)} and {tuple(target.shape)}"
            raise InputError(f"matched points: {shapes}, expected (K, 3) twice")
        if not bool(torch.isfinite(source).all() and torch.isfinite(target).all()):
            raise InputError("matched points have NaN or infinite coordinates")
        if len(source) < 3:
            return source.new_zeros(0, 4, 4).double(), source.new_zeros(0).double()
        rows = _spread(len(source), self.max_matches, source.device)
        a, b = source[rows].double(), target[rows].double()
        poses = self._propose(a, b)
        scores = support(poses, a, b, self.distance)
        poses = poses[_distinct(poses, scores, a, self.keep, 2 * self.distance)]
        a, b = source.double(), target.double()
        for _ in range(10):
            weights = _weights(poses, a, b, self.distance)
            poses = kabsch(a.expand(len(poses), -1, -1), b.expand(len(poses), -1, -1), weights)
        determined = _spans_a_plane(a, _weights(poses, a, b, self.distance), self.distance)
        poses = poses[determined]
        scores = support(poses, a, b, self.distance)
        kept = _distinct(poses, scores, a, self.keep, 2 * self.distance)
        return poses[kept], scores[kept]

    def _propose(self, a: Tensor, b: Tensor) -> Tensor:
        first = compatible(a, b, self.distance)
        second = first * (first @ first)
        seeds = second.sum(1).argsort(descending=True, stable=True)[: self.seeds]
        k = min(self.neighbours, len(a))
        group = second[seeds].topk(k, dim=1).indices
        a, b = a[group], b[group]
        # Within a group the eigenvector of the largest eigenvalue weighs matches by how well
        # they agree.
        local = compatible(a, b, self.distance)
        local = local * (local @ local)
        weights = torch.ones_like(local[..., 0])
        for _ in range(10):
            weights = torch.einsum("skl,sl->sk", local, weights)
            weights = weights / weights.norm(dim=1, keepdim=True).clamp_min(1e-12)
        return kabsch(a, b, weights.double())


def compatible(source: Tensor, target: Tensor, distance: float) -> Tensor:
    """How well the edges between matches keep their length: 1 if exactly, 0 if it differs by
    ``distance`` or more.

    Shape: (..., K, 3), (..., K, 3) -> (..., K, K) float32, ``1 - (difference / distance)^2``, 0
    on the diagonal.
    """
    # cdist multiplies matrices, which cancels digits of points that lie far from their origin.
    source = source - source.mean(-2, keepdim=True)
    target = target - target.mean(-2, keepdim=True)
    difference = (torch.cdist(source, source) - torch.cdist(target, target)).float()
    result = (1 - (difference / distance).square()).clamp_min_(0)
    result.diagonal(dim1=-2, dim2=-1).zero_()
    return result


def kabsch(source: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Poses of least weighted squared error. Shape: (B, K, 3), (B, K, 3), (B, K) -> (B, 4, 4).

    Source: Kabsch, Acta Crystallographica A32 (1976); the sign of the determinant as in Umeyama,
    PAMI 1991.
    """
    weights = weights / weights.sum(1, keepdim=True).clamp_min(1e-12)
    centre0 = torch.einsum("bk,bkd->bd", weights, source)
    centre1 = torch.einsum("bk,bkd->bd", weights, target)
    covariance = torch.einsum(
        "bk,bkd,bke->bde", weights, source - centre0[:, None], target - centre1[:, None]
    )
    u, _, vt = torch.linalg.svd(covariance)
    sign = torch.ones(len(u), 3, dtype=u.dtype, device=u.device)
    sign[:, 2] = torch.linalg.det(vt.mT @ u.mT).sign()
    rotation = (vt.mT * sign[:, None]) @ u.mT
    pose = torch.eye(4, dtype=source.dtype, device=source.device).repeat(len(u), 1, 1)
    pose[:, :3, :3] = rotation
    pose[:, :3, 3] = centre1 - torch.einsum("bde,be->bd", rotation, centre0)
    return pose


def move(poses: Tensor, points: Tensor) -> Tensor:
    """Points under every pose. Shape: (B, 4, 4), (K, 3) -> (B, K, 3)."""
    return points @ poses[:, :3, :3].mT + poses[:, None, :3, 3]


def support(poses: Tensor, source: Tensor, target: Tensor, distance: float) -> Tensor:
    """Sum over the matches of ``1 - (residual / distance)^2`` where positive. Shape: (B, 4, 4),
    (K, 3), (K, 3) -> (B,)."""
    return _weights(poses, source, target, distance, 1).sum(1)


def _weights(
    poses: Tensor, source: Tensor, target: Tensor, distance: float, power: int = 2
) -> Tensor:
    """Tukey's weights of the matches under every pose. Shape: (B, K)."""
    squared = (move(poses, source) - target).square().sum(-1)
    return (1 - squared / distance**2).clamp_min_(0).pow(power)


def _spans_a_plane(points: Tensor, weights: Tensor, distance: float) -> Tensor:
    """Whether the weighted points leave no rotation open: three at least, and not all within
    ``distance`` of a line.

    Shape: (K, 3), (B, K) -> (B,) bool.
    """
    share = weights / weights.sum(1, keepdim=True).clamp_min(1e-12)
    centred = points - torch.einsum("bk,kd->bd", share, points)[:, None]
    covariance = torch.einsum("bk,bkd,bke->bde", share, centred, centred)
    spread: Tensor = ((weights > 0).sum(1) >= 3) & (
        torch.linalg.eigvalsh(covariance)[:, 1] > (distance / 2) ** 2
    )
    return spread


def _distinct(poses: Tensor, scores: Tensor, points: Tensor, most: int, distance: float) -> Tensor:
    """Rows of up to ``most`` poses, best first, that move the points by more than ``distance``
    from each other's places (rms)."""
    order = scores.argsort(descending=True, stable=True)
    moved = move(poses[order], points)
    kept: list[int] = []
    free = torch.ones(len(order), dtype=torch.bool, device=poses.device)
    for _ in range(most):
        rows = free.nonzero()
        if not len(rows):
            break
        best = int(rows[0])
        kept.append(best)
        away = (moved - moved[best]).square().sum(-1).mean(1).sqrt()
        free &= away > distance
        free[best] = False
    return order[kept]


def _spread(length: int, most: int, device: torch.device) -> Tensor:
    if length <= most:
        return torch.arange(length, device=device)
    return (torch.arange(most, device=device) * length).div(most, rounding_mode="floor")
