"""What changes in the course of a training, as a function of the step alone: learning rate and rotations."""

from __future__ import annotations

import math

import torch

from sparsefeat.pretrain.config import PretrainConfig


def set_learning_rate(
    optimizer: torch.optim.Optimizer,
    config: PretrainConfig,
    step: int,
    steps: int,
    pairs_per_step: int,
    pairs: int,
) -> None:
    """Set the rate of a step: a function of the step alone, so there is no schedule state to resume.

    Args:
        optimizer: whose rate is set.
        config: the run.
        step: number of the step, from 0.
        steps: of the whole run.
        pairs_per_step: pairs that all processes see in a step.
        pairs: pairs of an epoch.
    """
    options = config.optimizer
    factor = min(1.0, (step + 1) / options.warmup_steps) if options.warmup_steps else 1.0
    if options.schedule == "exponential":
        factor *= options.gamma ** (step * pairs_per_step // pairs)
    elif options.schedule == "cosine":
        factor *= options.final + (1 - options.final) * (1 + math.cos(math.pi * step / steps)) / 2
    for group in optimizer.param_groups:
        group["lr"] = options.lr * factor


def largest_angle(config: PretrainConfig, step: int, steps: int) -> float:
    """The limit of the random rotations at a step, degrees."""
    rotation = config.rotation
    share = 1.0 if rotation.grow_share == 0 else min(1.0, step / (rotation.grow_share * steps))
    return rotation.start_deg + share * (rotation.max_deg - rotation.start_deg)
