"""Training of a head on the features of a few shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsefeat.errors import InputError
from sparsefeat.heads.initialization import seeded
from sparsefeat.heads.mlp import Standardize

Inputs = Tensor | tuple[Any, ...]


@dataclass
class HeadTraining:
    """How long and how fast a head learns."""

    steps: int = 1000  # one shape each
    learning_rate: float = 1e-3  # of Adam, at the start; it falls to zero along a cosine
    weight_decay: float = 0.0  # decoupled (AdamW)
    label_smoothing: float = 0.0  # share of the target spread over all classes

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.learning_rate > 0:
            raise InputError(
                f"steps and learning_rate must be positive, got {self.steps}, {self.learning_rate}"
            )
        if self.weight_decay < 0 or not 0 <= self.label_smoothing < 1:
            raise InputError(
                f"weight_decay must not be negative and label_smoothing within [0, 1), got "
                f"{self.weight_decay}, {self.label_smoothing}"
            )


def train(
    head: nn.Module,
    inputs: Sequence[Inputs],
    labels: Sequence[Tensor | np.ndarray | int],
    config: HeadTraining | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Minimise the cross-entropy of ``head(*inputs)``, one shape a step, in a seeded order.

    A :class:`~sparsefeat.heads.mlp.Standardize` within the head that is not fitted yet is fitted to the
    features first.

    Args:
        head: ``head(features)`` or ``head(features, basis, ...)`` gives scores (M, L), or (L,) for a whole
            shape. It is moved to ``device``, trained in place, and left in evaluation mode.
        inputs: per shape, the features (N, C), or a tuple of them and the head's further arguments.
        labels: per shape, integers of 0 to L - 1, -1 where unlabelled. Shape (M,), or one number.
        config: steps and rates.
        seed: of the order and of dropout; the global generators are left alone.
        device: where to train.
        augment: changes a shape's features before each step, with the generator it is given.
        progress: called after each step with its number and its loss.

    Returns:
        The loss of each step.

    Raises:
        InputError: no shapes, labels that do not fit, a loss that is not finite.
    """
    config = config or HeadTraining()
    if len(inputs) == 0 or len(inputs) != len(labels):
        raise InputError(
            f"train: expected as many shapes as labels, got {len(inputs)} and {len(labels)}"
        )
    device = torch.device(device)
    head.to(device)
    examples = [_on_device(x, device) for x in inputs]
    targets = [_checked_labels(y, i).to(device) for i, y in enumerate(labels)]
    usable = [i for i, y in enumerate(targets) if bool((y >= 0).any())]
    if not usable:
        raise InputError("train: no shape has a label")
    for module in head.modules():
        if isinstance(module, Standardize) and not module.fitted:
            module.fit([x[0] for x in examples])
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    generator = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    head.train()
    try:
        with seeded(seed, device):
            queue: list[int] = []
            for step in range(config.steps):
                if not queue:
                    queue = [
                        usable[i] for i in torch.randperm(len(usable), generator=generator).tolist()
                    ]
                shape = queue.pop()
                features, *others = examples[shape]
                if augment is not None:
                    features = augment(features, generator)
                scores = head(features, *others)
                scores = scores.reshape(-1, scores.shape[-1])
                if len(scores) != len(targets[shape]):
                    raise InputError(
                        f"train: shape {shape} has {len(targets[shape])} labels for {len(scores)} outputs"
                    )
                if int(targets[shape].max()) >= scores.shape[-1]:
                    raise InputError(
                        f"train: shape {shape} has the label {int(targets[shape].max())}, expected -1 to "
                        f"{scores.shape[-1] - 1}"
                    )
                loss = F.cross_entropy(
                    scores, targets[shape], ignore_index=-1, label_smoothing=config.label_smoothing
                )
                losses.append(float(loss.detach()))
                if not np.isfinite(losses[-1]):
                    raise InputError(
                        f"train: the loss of step {step} (shape {shape}) is {losses[-1]}"
                    )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                if progress is not None:
                    progress(step, losses[-1])
    finally:
        head.eval()
    return losses


@torch.no_grad()
def predict(
    head: nn.Module, inputs: Sequence[Inputs], device: torch.device | str = "cpu"
) -> list[np.ndarray]:
    """The class with the highest score, per shape: (M,) int64; (1,) for a head of whole shapes."""
    device = torch.device(device)
    mode = head.training
    head.to(device).eval()
    try:
        scores = [head(*_on_device(x, device)) for x in inputs]
    finally:
        head.train(mode)
    return [s.reshape(-1, s.shape[-1]).argmax(1).cpu().numpy() for s in scores]


def _checked_labels(labels: Tensor | np.ndarray | int, shape: int) -> Tensor:
    """Labels of a shape. Shape: (M,) int64."""
    given = torch.as_tensor(labels).reshape(-1)
    if given.is_floating_point() or given.is_complex():
        raise InputError(f"train: labels of shape {shape} are {given.dtype}, expected integers")
    given = given.to(torch.int64)
    if len(given) and int(given.min()) < -1:
        raise InputError(
            f"train: shape {shape} has the label {int(given.min())}, expected -1 where unlabelled"
        )
    return given


def _on_device(inputs: Inputs, device: torch.device) -> tuple[Any, ...]:
    parts = inputs if isinstance(inputs, tuple) else (inputs,)
    return tuple(part.to(device) if hasattr(part, "to") else part for part in parts)
