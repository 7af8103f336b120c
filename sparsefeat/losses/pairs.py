"""The loss of a pair of overlapping clouds: which one, of which matches, and what tells left from right.

Notation as in :mod:`sparsefeat.losses.walks`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sparsefeat.checks import checked_count
from sparsefeat.errors import InputError
from sparsefeat.losses.walks import CYCLE_FORMS, info_nce_among_all, point_info_nce, within


class PairFeatures(NamedTuple):
    """One pair of clouds as the losses see it.

    Shape: features0 (V0, C), features1 (V1, C), points0 (V0, 3) and points1 (V1, 3) both in the frame of
    cloud 1, in metres; matches (M, 2), all rows closer than the positive radius. Of a deformed pair each cloud is in a
    frame of its own. sides (M,): 1 where a match is on the left of a body, -1 on its right, 0 where that is not known.
    """

    features0: Tensor
    features1: Tensor
    points0: Tensor
    points1: Tensor
    matches: Tensor
    deformed: bool = False
    sides: Tensor | None = None


SIDE_SHARPNESS = 10.0
"""Of the logistic function that reads left and right off a feature's last channel, which lies between -1 and 1."""


@dataclass
class LossConfig:
    """Which loss, and its constants."""

    name: Literal["cycle", "point_info_nce", "hardest_contrastive"] = "cycle"
    points: int = (
        1024  # points of the overlap that take part, per pair (FCGF: 1024, PointContrast: 4096)
    )
    temperature: float = 0.07  # of the softmax; cycle and point_info_nce
    radius_voxels: float = 1.5  # two points closer than this are one place
    one_place: bool = False  # point_info_nce: matches of one place, in either cloud, are no negatives, as with negatives: all
    negatives: Literal["matched", "all"] = (
        "matched"  # point_info_nce: the other matched points, or all points of the other cloud
    )
    side: float = (
        0.0  # weight of telling left from right by the sign of the last channel, see side_loss
    )
    cycle_form: Literal["anchored", "landing", "identity", "distance"] = "anchored"
    positive_margin: float = 0.1  # hardest_contrastive
    negative_margin: float = 1.4  # hardest_contrastive
    candidates: int = (
        256  # hardest_contrastive: points among which the hardest negative is looked for
    )

    def __post_init__(self) -> None:
        known = {
            "name": ("cycle", "point_info_nce", "hardest_contrastive"),
            "negatives": ("matched", "all"),
            "cycle_form": tuple(CYCLE_FORMS),
        }
        for name, choices in known.items():
            if getattr(self, name) not in choices:
                raise InputError(
                    f"{name} {getattr(self, name)!r}, expected one of {', '.join(choices)}"
                )
        checked_count(self.points, "points", 2)
        checked_count(self.candidates, "candidates")
        for name in ("temperature", "radius_voxels"):
            if not 0 < self._number(name) < math.inf:
                raise InputError(f"{name} must be a positive number, got {getattr(self, name)!r}")
        for name in ("positive_margin", "negative_margin"):
            if not 0 <= self._number(name) < math.inf:
                raise InputError(
                    f"{name} must be 0 or a positive number, got {getattr(self, name)!r}"
                )
        if not 0 <= self._number("side") < math.inf:
            raise InputError(f"side must be 0 or a positive weight, got {self.side!r}")
        if self.negatives == "all" and self.name != "point_info_nce":
            raise InputError(f"negatives: all needs the loss point_info_nce, got {self.name}")

    def _number(self, name: str) -> float:
        value = getattr(self, name)
        return float(value) if isinstance(value, int | float | np.number) else math.nan


def hardest_contrastive(
    f: Tensor,
    g: Tensor,
    x: Tensor,
    y: Tensor,
    candidates0: tuple[Tensor, Tensor],
    candidates1: tuple[Tensor, Tensor],
    radius: float,
    positive_margin: float,
    negative_margin: float,
) -> Tensor:
    """Contrastive loss with the hardest of a random set of negatives.

    Choy et al., Fully Convolutional Geometric Features, ICCV 2019, eq. 3::

        mean [|f_i - g_i|^2 - m_p]_+ + (mean [m_n - min_j |f_i - g_j|]_+^2 + the same from g_i) / 2

    where negatives closer than ``radius`` to the true place are left out. Of no rows it is zero.

    Args:
        f, g, x, y: matched rows, Shape (n, C), (n, C), (n, 3), (n, 3).
        candidates0, candidates1: (features, points) of the negatives in either cloud, Shape (h, C), (h, 3).
        radius: metres.
        positive_margin, negative_margin: m_p and m_n, in feature distance.
    """
    if not len(f):
        return (f.sum() + g.sum()) * 0
    positive = F.relu((f - g).square().sum(1) - positive_margin).mean()
    negative = f.new_zeros(())
    for anchor, place, (features, points) in ((f, x, candidates1), (g, y, candidates0)):
        # Searched without gradient, then computed for the found ones alone.
        with torch.no_grad():
            distance = torch.cdist(anchor, features)
            distance[within(place, points, radius)] = torch.inf
            hardest, index = distance.min(1)
            valid = torch.isfinite(hardest)
        if valid.any():
            gap = ((anchor[valid] - features[index[valid]]).square().sum(1) + 1e-7).sqrt()
            negative = negative + F.relu(negative_margin - gap).square().mean() / 2
    return positive + negative


def pair_loss(
    pair: PairFeatures, config: LossConfig, voxel_size: float, generator: torch.Generator
) -> Tensor:
    """The configured loss of one pair, on a random choice of ``config.points`` matches.

    Args:
        pair: features, points and matches.
        voxel_size: metres; the unit of ``config.radius_voxels``.
        generator: draws the matches (on CPU), so that a resumed run draws the same.

    Returns:
        A scalar. A pair without matches gives zero with a zero gradient.

    Raises:
        InputError: the loss is not finite.
    """
    radius = config.radius_voxels * voxel_size
    matches = one_to_one(pair.matches, config.points, generator)
    if len(matches) < 2:
        return (pair.features0.sum() + pair.features1.sum()) * 0
    f, g = pair.features0[matches[:, 0]].float(), pair.features1[matches[:, 1]].float()
    x, y = pair.points0[matches[:, 0]], pair.points1[matches[:, 1]]
    clouds = (pair.features0, pair.points0), (pair.features1, pair.points1)
    if pair.deformed and config.name != "point_info_nce":
        # Each cloud is in a frame of its own. Matched points alone have a place in the other's.
        x, clouds = y, ((f, y), (g, y))
    if config.name == "cycle":
        loss = CYCLE_FORMS[config.cycle_form](f, g, x, y, radius, config.temperature)
    elif config.name == "point_info_nce" and config.negatives == "all":
        loss = _among_all(pair, matches, radius, config.temperature)
    elif config.name == "point_info_nce":
        near = within(x, x, radius) | within(y, y, radius) if config.one_place else None
        loss = point_info_nce(f, g, config.temperature, near)
    else:
        candidates = []
        for features, points in clouds:
            rows = torch.randperm(len(features), generator=generator)[: config.candidates].to(
                features.device
            )
            candidates.append((features[rows].float(), points[rows]))
        loss = hardest_contrastive(
            f, g, x, y, *candidates, radius, config.positive_margin, config.negative_margin
        )
    if config.side and pair.sides is not None:
        loss = loss + config.side * side_loss(pair)
    if not torch.isfinite(loss):
        raise InputError(f"the {config.name} loss is not finite: {loss.item()}")
    return loss


def _among_all(pair: PairFeatures, matches: Tensor, radius: float, temperature: float) -> Tensor:
    """Mean of :func:`info_nce_among_all` over both directions, at matches (n, 2) without a row twice."""
    rows, losses = torch.arange(len(matches), device=matches.device), []
    features, points = (pair.features0, pair.features1), (pair.points0, pair.points1)
    for here, there in ((0, 1), (1, 0)):
        # Where a point is in the other cloud: of a deformed pair only its match says so.
        place = (
            points[there][matches[:, there]] if pair.deformed else points[here][matches[:, here]]
        )
        near = within(place, points[there], radius)
        near[rows, matches[:, there]] = True
        anchors, all_there = features[here][matches[:, here]].float(), features[there].float()
        losses.append(info_nce_among_all(anchors, all_there, near, temperature))
    return (losses[0] + losses[1]) / 2


def side_loss(pair: PairFeatures) -> Tensor:
    """Log-loss of the last channel as a sign of left (positive) and right, over the matches whose side is known.

    A body and its mirror image are alike nearly everywhere, so that contrasting places alone has hardly a gradient that
    leads to features of one side: both clouds would have to know it already. Here each is told.

    Returns:
        A scalar; zero (with a gradient of zero) where no side is known.
    """
    known = pair.sides != 0
    side = pair.sides[known].float()
    rows = pair.matches[known]
    if not len(rows):
        return pair.features0.sum() * 0
    ends = (pair.features0[rows[:, 0], -1], pair.features1[rows[:, 1], -1])
    return sum(F.softplus(-SIDE_SHARPNESS * side * last.float()).mean() for last in ends) / 2


def coarse_side_losses(
    logits: Tensor, cells: Tensor, stride: int, voxels: Tensor, sides: Tensor
) -> Tensor:
    """Log-losses of left and right of the cells of a coarse level whose side is known.

    Args:
        logits: of its cells. Shape: (T,)
        cells: batch and corner of each, in voxels. Shape: (T, 4)
        stride: edge of a cell in voxels.
        voxels: batch and corner of fine voxels. Shape: (V, 4)
        sides: of these, 1 left, -1 right, 0 neither or not known. A cell is on the side of most of its voxels that are on
            one. Shape: (V,)

    Returns:
        Shape (K,), in float32 or float64; K is 0 where no side is known.
    """
    voxels, sides = voxels[sides != 0], sides[sides != 0].float()
    corner = torch.div(voxels[:, 1:], stride, rounding_mode="floor") * stride
    here = torch.cat([voxels[:, :1], corner], 1)
    # Numbers of the cells that both have.
    _, number = torch.unique(torch.cat([cells, here]), dim=0, return_inverse=True)
    total = sides.new_zeros(len(number)).index_add(0, number[len(cells) :], sides)
    side = total[number[: len(cells)]].sign()
    known = side != 0
    return F.softplus(-side[known] * logits[known])


def one_to_one(matches: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Up to ``count`` random matches (n, 2) in which no row of either cloud occurs twice."""
    shuffled = matches[torch.randperm(len(matches), generator=generator).to(matches.device)]
    for side in (0, 1):
        rows = shuffled[:, side]
        order = torch.sort(rows, stable=True).indices
        first = torch.ones_like(rows, dtype=torch.bool)
        first[1:] = rows[order][1:] != rows[order][:-1]
        shuffled = shuffled[order[first].sort().values]
    return shuffled[:count]
