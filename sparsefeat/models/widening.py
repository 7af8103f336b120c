"""A wider network that begins with what a narrower one has learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

WIDTHS = ("channels", "tr_channels")
"""The options of a U-Net that say how wide its levels are."""


def is_wider(config: Mapping[str, Any], widths: Mapping[str, list[int]]) -> bool:
    """Whether no level has fewer channels with these ``widths`` than a network of ``config``, and some has more."""
    pairs = [
        (ours, theirs)
        for name, wanted in widths.items()
        for ours, theirs in zip(wanted, config[name])
    ]
    alike = all(len(wanted) >= len(config[name]) for name, wanted in widths.items())
    return alike and all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def widened(
    state: Mapping[str, Tensor], narrow: Mapping[str, Any], model: nn.Module
) -> dict[str, Tensor]:
    """Weights of a narrower U-Net for a wider one, which then computes the same features.

    The old channels come first and take nothing from the new ones; those keep their random weights and learn from the
    first step on. (Growing a network without changing its function: Chen et al., Net2Net, ICLR 2016; there, channels
    are copied.)

    Args:
        state: of the narrower network.
        narrow: its configuration.
        model: the wider network, with new weights. It differs in :data:`WIDTHS` alone.

    Returns:
        A state of ``model``.
    """
    wide, out = model.config, {}
    for name, wanted in model.state_dict().items():
        given = state[name].to(wanted)
        if given.shape == wanted.shape:
            out[name] = given
            continue
        out[name] = wanted.clone()
        if given.ndim == 1 or ("context." in name and given.shape[-1] == wanted.shape[-1]):
            out[name][: len(given)] = given  # norms, and what leaves the context
        elif "context." in name:
            out[name].zero_()[:, : given.shape[1]] = given  # what enters it
        else:
            old = out[name][..., : given.shape[-1]]
            old.zero_()[..., _old_inputs(name, narrow, wide, given.shape[-2]), :] = given
    return out


def _old_inputs(
    name: str, narrow: Mapping[str, Any], wide: Mapping[str, Any], count: int
) -> Tensor:
    """Which inputs of a kernel are those that the narrower network had. Shape: (count,)."""
    rows = torch.arange(count)
    for level in range(1, narrow["depth"] + 1):
        if name == f"conv{level}_tr.kernel":
            # What comes up from below, then what was skipped.
            below, added = narrow["tr_channels"][level], wide["tr_channels"][level]
            rows[below:] += added - below
    return rows
