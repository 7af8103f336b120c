"""How voxel size and dilation descend: Adam from a start, and which starts there are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparsefeat.errors import InputError
from sparsefeat.receptive_field.dilation import ContinuousDilation
from sparsefeat.receptive_field.objectives import Objective
from sparsefeat.receptive_field.parameter import PositiveParameter

Features = Callable[
    [int, PositiveParameter, ContinuousDilation | None], tuple[list[Tensor], list[int]]
]
"""Step, voxel size, dilation -> the features that an objective is asked about, and of which shapes they are."""

_DECAYS = (0.8, 0.95)
# Steps over which the voxel size must have stayed within a tenth of a rung for the search to be over.
_PATIENCE = 10


@dataclass(frozen=True)
class TuningStep:
    """Values at one step.

    Attributes:
        descent: number of the descent, from 1; 0 for the look at every rung that comes first.
        voxel_size: per group.
        dilation: factor on the network's own.
        objective: its value.
        gradient: of the objective by the logarithm of the voxel size, per group.
    """

    descent: int
    voxel_size: tuple[float, ...]
    dilation: float
    objective: float
    gradient: tuple[float, ...]


class Descent:
    """Adam from a start, until the voxel size stays where it is.

    Args:
        features: what the objective is asked about.
        objective: to minimise.
        size, factor: voxel sizes, and the dilation if that is tuned.
        learning_rate: of the logarithm of the voxel size, in units; of the dilation it is a tenth.
        unit: of that logarithm: a rung.
        steps: at most so many per descent.
        progress: called after every step.
    """

    def __init__(
        self,
        features: Features,
        objective: Objective,
        size: PositiveParameter,
        factor: ContinuousDilation | None,
        learning_rate: float,
        unit: float,
        steps: int,
        progress: Callable[[TuningStep], None] | None,
    ):
        self.features, self.objective, self.size, self.factor = features, objective, size, factor
        self.unit, self.steps, self.progress = unit, steps, progress
        self.rates = (learning_rate * unit, learning_rate / 10)
        self.trained: list[dict] = []
        self.history: list[TuningStep] = []
        self.count = 0

    def train(self, model: torch.nn.Module, learning_rate: float) -> None:
        """Let the network's parameters follow the gradient too."""
        self.trained.append({"params": list(model.parameters()), "lr": learning_rate})

    def __call__(self, start: float, dilation: float | None = None) -> list[TuningStep]:
        """The steps from this voxel size on, and this dilation (None: the smallest)."""
        self.count += 1
        self._move_to(start, dilation)
        parameters = [{"params": self.size.parameters(), "lr": self.rates[0]}, *self.trained]
        if self.factor is not None:
            parameters.append({"params": self.factor.parameters(), "lr": self.rates[1]})
        optimizer = torch.optim.Adam(parameters, betas=_DECAYS)
        path: list[TuningStep] = []
        for step in range(self.steps):
            optimizer.zero_grad(set_to_none=True)
            path.append(self._take(step))
            if _settled(path, self.unit):
                break
            optimizer.step()
            self.size.clamp_()
            if self.factor is not None:
                self.factor.factor.clamp_()
        return path

    def look(self, size: float) -> TuningStep:
        """The step at this voxel size, and the smallest dilation, by which there is no derivative; nothing moves."""
        self._move_to(size, None)
        self.size.log.grad = None
        if self.factor is None:
            return self._take(0)
        self.factor.requires_grad_(False)
        try:
            return self._take(0)
        finally:
            self.factor.requires_grad_(True)

    @torch.no_grad()
    def _move_to(self, size: float, dilation: float | None) -> None:
        self.size.log.fill_(math.log(size))
        if self.factor is not None:
            self.factor.factor.log.fill_(math.log(dilation or self.factor.factor.low))

    def _take(self, step: int) -> TuningStep:
        """Value and gradient where things are now."""
        value = self.objective(*self.features(step, self.size, self.factor))
        if not torch.isfinite(value):
            sizes = self.size().tolist()
            raise InputError(
                f"step {step}: the objective is {float(value.detach())} at voxel size {sizes}"
            )
        value.backward()
        self.history.append(
            TuningStep(
                self.count,
                tuple(self.size().tolist()),
                1.0 if self.factor is None else float(self.factor().mean().detach()),
                float(value.detach()),
                tuple(self.size.log.grad.tolist()),
            )
        )
        if self.progress:
            self.progress(self.history[-1])
        return self.history[-1]


def descend_from_scan(
    descent: Descent, start: float, low: float, high: float, usual: float
) -> TuningStep:
    """The best step of a look at every rung within bounds, the coarsest first, and of a descent from the best of them.

    Real objectives have small dips beside the large one, so one descent is not enough. A pass at twice the voxel
    size costs a quarter: all that is coarser costs less than the finest. Below the ``usual`` size the look ends where
    finer is not better: the next would cost as much as all before.
    """
    first, last = (math.log(bound / start) / descent.unit for bound in (high, low))
    best = None
    for rung in range(math.floor(first + 1e-6), math.ceil(last - 1e-6) - 1, -1):
        size = start * math.exp(rung * descent.unit)
        step = descent.look(min(max(size, low), high))
        # Of equal ones the nearest to the usual size, if nothing says otherwise.
        best = min(
            (best or step),
            step,
            key=lambda s: (s.objective, abs(math.log(s.voxel_size[0] / usual))),
        )
        if size < usual and best is not step:
            break
    return min(best, *descent(best.voxel_size[0]), key=_by_objective)


def descend_from_dilations(
    descent: Descent, best: TuningStep, sizes: tuple[float, float], dilations: tuple[float, float]
) -> TuningStep:
    """The best step of descents from each whole dilation within bounds too, in ascending order, while that pays.

    Between two whole dilations features are a blend of both, often worse than either, which no descent gets past.
    Each begins with the neighbourhood that was best so far: a larger dilation in finer voxels.
    """
    for whole in range(math.floor(dilations[0]) + 1, math.floor(dilations[1]) + 1):
        start = min(best.voxel_size) * best.dilation / whole
        path = descent(min(max(start, sizes[0]), sizes[1]), whole)
        wider = min(path, key=_by_objective)
        if wider.objective >= best.objective:
            break
        best = wider
    return best


def _by_objective(step: TuningStep) -> float:
    return step.objective


def _settled(path: list[TuningStep], unit: float) -> bool:
    """Whether voxel sizes and dilation have stayed where they are."""
    if len(path) <= _PATIENCE:
        return False
    recent = path[-_PATIENCE - 1 :]
    sizes = np.log([step.voxel_size for step in recent])
    return (
        bool((np.ptp(sizes, axis=0) < 0.1 * unit).all())
        and np.ptp([s.dilation for s in recent]) < 0.02
    )


def late_mean(path: list[TuningStep]) -> TuningStep:
    """The mean of the last fifth of a noisy path."""
    last = path[-max(1, len(path) // 5) :]
    return TuningStep(
        last[-1].descent,
        tuple(np.exp(np.mean(np.log([step.voxel_size for step in last]), axis=0)).tolist()),
        float(np.mean([step.dilation for step in last])),
        float(np.mean([step.objective for step in last])),
        tuple(np.mean([step.gradient for step in last], axis=0).tolist()),
    )
