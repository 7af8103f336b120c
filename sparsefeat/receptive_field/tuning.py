"""Tunes voxel size and dilation by gradient on the shapes that features are wanted for."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sparsefeat.checks import checked_count, checked_seed
from sparsefeat.errors import InputError, InputWarning
from sparsefeat.extract import FeatureExtractor
from sparsefeat.extract.orientation import outward_vectors
from sparsefeat.receptive_field.descent import (
    Descent,
    TuningStep,
    descend_from_dilations,
    descend_from_scan,
    late_mean,
)
from sparsefeat.receptive_field.dilation import ContinuousDilation, DilatedNetwork
from sparsefeat.receptive_field.ladder import DEFAULT_RATIO, ScaleLadder
from sparsefeat.receptive_field.objectives import Objective
from sparsefeat.receptive_field.parameter import PositiveParameter
from sparsefeat.receptive_field.shapes import SurfaceShape
from sparsefeat.receptive_field.soft import SoftNetwork

DEFAULT_START = 1 / 50
"""Voxel size to start from, as a share of the median extent of the shapes."""
DEFAULT_RANGE = 8.0


@dataclass
class Cost:
    """What was computed.

    Attributes:
        passes: forward passes of the network.
        points: surface points in all of them.
        seconds: wall time.
    """

    passes: int = 0
    points: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class TunedReceptiveField:
    """Where the tuning ended: the step with the smallest objective.

    Attributes:
        voxel_sizes: one per group, in the unit of the shapes.
        dilation: factor on the network's own.
        history: every step, those of the first look at the rungs included.
        cost: of the whole history.
    """

    voxel_sizes: tuple[float, ...]
    dilation: float
    history: tuple[TuningStep, ...]
    cost: Cost
    extractor: FeatureExtractor = field(repr=False)

    @property
    def voxel_size(self) -> float:
        """The voxel size, where there is one group."""
        if len(self.voxel_sizes) != 1:
            raise InputError(
                f"{len(self.voxel_sizes)} groups have a voxel size each; see voxel_sizes"
            )
        return self.voxel_sizes[0]

    def to_json(self) -> dict[str, Any]:
        """Everything but the network, as plain numbers."""
        return {
            "voxel_sizes": list(self.voxel_sizes),
            "dilation": self.dilation,
            "history": [asdict(step) for step in self.history],
            "cost": asdict(self.cost),
        }


@dataclass(frozen=True)
class GridSearch:
    """What :func:`search_receptive_field` returns.

    Attributes:
        voxel_sizes: as they were given.
        objectives: the objective at each of them.
        cost: of all of them.
    """

    voxel_sizes: tuple[float, ...]
    objectives: tuple[float, ...]
    cost: Cost

    @property
    def best(self) -> float:
        """The voxel size with the smallest objective."""
        return self.voxel_sizes[int(np.argmin(self.objectives))]


def tune_receptive_field(
    extractor: FeatureExtractor,
    shapes: Sequence[Any],
    objective: Objective,
    *,
    start: float | None = None,
    bounds: tuple[float, float] | None = None,
    groups: Sequence[int] | None = None,
    dilation: tuple[float, float] | None = None,
    method: Literal["ladder", "soft"] = "ladder",
    steps: int = 100,
    learning_rate: float = 0.25,
    ratio: float = DEFAULT_RATIO,
    keypoints: int = 1000,
    views: int = 1,
    shapes_per_step: int = 4,
    backbone_learning_rate: float = 0.0,
    seed: int = 0,
    progress: Callable[[TuningStep], None] | None = None,
) -> TunedReceptiveField:
    """Find the voxel size, and the dilation if wanted, at which an objective is smallest.

    Both methods run Adam (Kingma & Ba, ICLR 2015) on the logarithm of the voxel size.

    ``"ladder"`` blends features that are computed once, at fixed voxel sizes, the rungs (:class:`ScaleLadder`); the
    network stays as it is. It evaluates the objective on single rungs first, from the coarsest, which is the
    cheapest, to finer ones until they are no longer better, and descends from the best rung. Then it descends from
    each whole dilation within bounds, until that no longer improves the objective.

    ``"soft"`` runs the network at the present voxel size in every step (:class:`SoftNetwork`), on a few shapes that
    are turned and shifted at random, and can train the network too.

    Args:
        extractor: the network; its own voxel size does not matter here.
        shapes: meshes or clouds (objects of this package, trimesh or Open3D), (vertices, faces) pairs, or (N, 3)
            arrays.
        objective: what to minimise; see :mod:`sparsefeat.receptive_field.objectives`.
        start: voxel size to begin with, in the unit of the shapes; None: 1/50 of their median extent. For the
            ladder it says where the rungs lie, and which sizes are looked at.
        bounds: of the voxel size; None: 8 times smaller to 8 times larger than the start.
        groups: which voxel size each shape has, numbered from 0, such as one per class; None: one for all.
        dilation: bounds of the factor on the network's dilation, the first being where it begins; None: it
            stays 1. Each whole number in between is computed at its own voxel sizes, at the cost of those.
        method: see above.
        steps: at most so many per descent.
        learning_rate: of the logarithm of the voxel size, in rungs; of the dilation it is a tenth.
        ratio: between neighbouring rungs of the ladder.
        keypoints: vertices per shape whose features the objective sees, unless it chooses them.
        views: for ``"ladder"``: poses to average each feature over, as :class:`FeatureExtractor` does; the objective
            as a function of the voxel size is smoother for it, and the cost grows in proportion.
        shapes_per_step: for ``"soft"``.
        backbone_learning_rate: for ``"soft"``: Adam's, of the network's parameters; 0 leaves them alone.
        seed: of key points, surface samples and views.
        progress: called after every step.

    Returns:
        The best step of all (``"soft"``: the mean of the last fifth), the way there, and an extractor at that
        voxel size (of the first group) and with that dilation.

    Raises:
        InputError: no shape, options that do not fit, a start out of bounds, or an objective that is not finite.
    """
    if method not in ("ladder", "soft"):
        raise InputError(f"method {method!r}, expected ladder or soft")
    if backbone_learning_rate and method != "soft":
        raise InputError(
            "backbone_learning_rate needs method soft; a ladder keeps features of a fixed network"
        )
    if not 0 < learning_rate < math.inf or not 0 <= backbone_learning_rate < math.inf:
        raise InputError(
            "expected a positive learning_rate and a backbone_learning_rate of 0 or more, got "
            f"{learning_rate} and {backbone_learning_rate}"
        )
    if not 1 < ratio < math.inf:
        raise InputError(f"ratio must be above 1, got {ratio!r}")
    checked_count(shapes_per_step, "shapes_per_step")
    if steps < 1 or keypoints < 1:
        raise InputError(f"expected 1 step and 1 key point or more, got {steps} and {keypoints}")
    if views < 1 or (views > 1 and method == "soft"):
        raise InputError(
            f"views {views}: expected 1 or more for a ladder, 1 for soft, which sees a new pose every step"
        )
    surfaces = _surfaces(shapes, objective, keypoints, seed)
    groups = _checked_groups(groups, len(surfaces))
    usual = DEFAULT_START * float(np.median([surface.extent for surface in surfaces]))
    start = usual if start is None else start
    low, high = bounds or (start / DEFAULT_RANGE, start * DEFAULT_RANGE)
    if not 0 < low <= start <= high < math.inf:
        raise InputError(
            f"start {start:g}, bounds {low:g} to {high:g}: expected a positive voxel size within its bounds"
        )
    size = PositiveParameter(start, low, high, max(groups) + 1)
    factor = ContinuousDilation(extractor.model, dilation[0], *dilation) if dilation else None
    cost, began = Cost(), time.perf_counter()
    if method == "ladder":
        describe = _Describe(extractor, surfaces, objective.views, views, seed, cost)
        features = _Ladder(describe, start, ratio, groups)
    else:
        features = _SoftViews(extractor, surfaces, objective, shapes_per_step, seed, cost, groups)
    descent = Descent(
        features, objective, size, factor, learning_rate, math.log(ratio), steps, progress
    )
    if backbone_learning_rate:
        descent.train(extractor.model, backbone_learning_rate)
    was_training = extractor.model.training
    extractor.model.train(bool(backbone_learning_rate))
    left_alone = () if backbone_learning_rate else extractor.model.parameters()
    frozen = [parameter for parameter in left_alone if parameter.requires_grad]
    for parameter in frozen:
        # The gradient of the voxel size goes through the network; its own would stay behind in it.
        parameter.requires_grad_(False)
    try:
        if method == "ladder":
            best = descend_from_scan(descent, start, low, high, usual)
            if dilation:
                best = descend_from_dilations(descent, best, (low, high), dilation)
        else:
            best = late_mean(descent(start))
    finally:
        extractor.model.train(was_training)
        for parameter in frozen:
            parameter.requires_grad_(True)
    cost.seconds = time.perf_counter() - began
    found = extractor.at(best.voxel_size[0])
    if factor is not None:
        found = _dilated(found, best.dilation)
    return TunedReceptiveField(best.voxel_size, best.dilation, tuple(descent.history), cost, found)


def search_receptive_field(
    extractor: FeatureExtractor,
    shapes: Sequence[Any],
    objective: Objective,
    voxel_sizes: Sequence[float],
    *,
    keypoints: int = 1000,
    views: int = 1,
    seed: int = 0,
) -> GridSearch:
    """Compute the objective at each of these voxel sizes, which tuning by gradient is compared with.

    Poses and samples are those of :func:`tune_receptive_field`.

    Args:
        extractor: the network; its own voxel size does not matter here.
        shapes, objective, keypoints, views, seed: as for :func:`tune_receptive_field`.
        voxel_sizes: in the unit of the shapes.

    Raises:
        InputError: no shape, no voxel size, one that is not positive, or an objective that is not finite.
    """
    if not len(voxel_sizes) or not all(0 < size < math.inf for size in voxel_sizes):
        raise InputError(
            f"voxel_sizes {list(map(float, voxel_sizes))}, expected at least one, all positive"
        )
    surfaces = _surfaces(shapes, objective, keypoints, seed)
    cost, began, values = Cost(), time.perf_counter(), []
    describe = _Describe(extractor, surfaces, objective.views, views, seed, cost)
    for voxel_size in voxel_sizes:
        features = [describe(voxel_size, number, 1).double() for number in range(len(surfaces))]
        with torch.no_grad():
            values.append(float(objective(features, range(len(surfaces)))))
        if not math.isfinite(values[-1]):
            raise InputError(f"the objective is {values[-1]} at voxel size {voxel_size:g}")
    cost.seconds = time.perf_counter() - began
    return GridSearch(tuple(float(v) for v in voxel_sizes), tuple(values), cost)


class _Describe:
    """Features of the key points of one shape at one voxel size: each copy that the objective asks for, averaged
    over poses."""

    def __init__(
        self,
        extractor,
        surfaces: list[SurfaceShape],
        copies: int,
        poses: int,
        seed: int,
        cost: Cost,
    ):
        self.extractor, self.surfaces, self.copies, self.poses = extractor, surfaces, copies, poses
        self.seed, self.cost = seed, cost

    def __call__(self, voxel_size: float, number: int, dilation: int) -> Tensor:
        extractor = self.extractor.at(voxel_size)
        described = []
        if dilation != 1:
            extractor = _dilated(extractor, dilation)
        for copy in range(self.copies):
            (points, normals), rows = self.surfaces[number].view(
                copy, voxel_size, self.seed + number
            )
            with _expected_warnings():
                features = extractor(
                    points, "trilinear", normals=normals, closed=True, rows=rows, views=self.poses
                )
            described.append(torch.from_numpy(features))
            self.cost.passes += self.poses
            self.cost.points += self.poses * len(points)
        return torch.stack(described)


@contextlib.contextmanager
def _expected_warnings() -> Iterator[None]:
    """Sizes that do not fit are tried on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        yield


def _dilated(extractor: FeatureExtractor, factor: float) -> FeatureExtractor:
    network = DilatedNetwork(extractor.model, factor)
    return FeatureExtractor(network, extractor.voxel_size, extractor.device, unit=extractor.unit)


class _Ladder:
    """Blended features of all shapes."""

    def __init__(self, describe: _Describe, start: float, ratio: float, groups: list[int]):
        extractor = describe.extractor
        normalize = bool((getattr(extractor.model, "config", None) or {}).get("normalize_feature"))
        self.ladder = ScaleLadder(describe, len(groups), start, ratio, normalize)
        self.groups = groups

    def __call__(
        self, step: int, size: PositiveParameter, factor: ContinuousDilation | None
    ) -> tuple[list[Tensor], list[int]]:
        features = self.ladder.features(size.log, self.groups, None if factor is None else factor())
        return features, list(range(len(self.groups)))


class _SoftViews:
    """Features of a few shapes per step, at the present voxel size, each time turned and shifted anew."""

    def __init__(
        self,
        extractor,
        surfaces: list[SurfaceShape],
        objective: Objective,
        count: int,
        seed: int,
        cost: Cost,
        groups: list[int],
    ):
        self.network = SoftNetwork(extractor.model)
        self.device, self.oriented = extractor.device, extractor.oriented
        self.surfaces, self.objective, self.seed, self.cost, self.groups = (
            surfaces,
            objective,
            seed,
            cost,
            groups,
        )
        self.count = min(count, len(surfaces))

    def __call__(
        self, step: int, size: PositiveParameter, factor: ContinuousDilation | None
    ) -> tuple[list[Tensor], list[int]]:
        rng = np.random.default_rng([self.seed, step])
        members = self.objective.draw(self.count, rng)
        with contextlib.nullcontext() if factor is None else factor.applied():
            return [
                self._describe(number, size()[self.groups[number]], rng) for number in members
            ], members

    def _describe(self, number: int, voxel_size: Tensor, rng: np.random.Generator) -> Tensor:
        views, size = [], float(voxel_size.detach())
        for view in range(1, self.objective.views + 1):
            given, rows = self.surfaces[number].view(view, size, int(rng.integers(1 << 31)))
            points = torch.from_numpy(given.points).to(self.device)
            normals = None
            if given.normals is not None:
                normals = torch.from_numpy(given.normals).to(self.device)
            elif self.oriented:
                with _expected_warnings():
                    normals = outward_vectors(points, None, None, size, closed=True)
            views.append(self.network(points, voxel_size.to(self.device), points[rows], normals))
            self.cost.passes += 1
            self.cost.points += len(points)
        return torch.stack(views).double()


def _surfaces(
    shapes: Sequence[Any], objective: Objective, keypoints: int, seed: int
) -> list[SurfaceShape]:
    if not len(shapes):
        raise InputError("no shapes to tune on")
    seed = checked_seed(seed)
    surfaces = []
    for number, shape in enumerate(shapes):
        rows = objective.keypoints(number)
        surfaces.append(SurfaceShape.of(shape, keypoints if rows is None else rows, seed + number))
        if not surfaces[-1].extent:
            raise InputError(
                f"shape {number}: its {len(surfaces[-1].vertices)} vertices are all at one place"
            )
    objective.prepare(surfaces)
    return surfaces


def _checked_groups(groups: Sequence[int] | None, count: int) -> list[int]:
    groups = [0] * count if groups is None else [int(group) for group in groups]
    if len(groups) != count or set(groups) != set(range(max(groups) + 1)):
        raise InputError(
            f"groups: expected a number from 0 on for each of {count} shapes, none left out, got {groups}"
        )
    return groups
