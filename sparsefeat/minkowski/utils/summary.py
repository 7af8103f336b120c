"""A table of a network's layers (MinkowskiEngine.utils.summary)."""

from __future__ import annotations

import sys

import torch
from torch import nn


def _shapes(output) -> list:
    if isinstance(output, (list, tuple)):
        return [_shapes(o) for o in output]
    return list(output.shape) if hasattr(output, "shape") else []


def _elements(shape: list) -> int:
    if any(isinstance(s, list) for s in shape):
        return sum(map(_elements, shape))
    return int(torch.Size(shape).numel()) if shape else 0


def minkowski_summary_string(model: nn.Module, summary_input) -> tuple[str, tuple[int, int]]:
    """The table as text, and the number of parameters: all and trainable.

    Args:
        model: any network of Minkowski and torch layers.
        summary_input: what it is run on, once, without gradients.
    """
    rows: list[tuple[str, list, int]] = []

    def record(module: nn.Module, _, output) -> None:
        own = sum(p.numel() for p in module.parameters(recurse=False))
        rows.append((f"{type(module).__name__}-{len(rows) + 1}", _shapes(output), own))

    layers = [m for m in model.modules() if not isinstance(m, (nn.Sequential, nn.ModuleList))]
    hooks = [layer.register_forward_hook(record) for layer in layers]
    try:
        with torch.no_grad():
            model(summary_input)
    finally:
        for hook in hooks:
            hook.remove()
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    megabyte = 4 / 1024**2
    activations = 2 * megabyte * sum(_elements(shape) for _, shape, _ in rows)
    given = megabyte * (summary_input.F.numel() + summary_input.C.numel())
    lines = ["-" * 64, f"{'Layer (type)':>20}  {'Output Shape':>25} {'Param #':>15}", "=" * 64]
    lines += [f"{name:>20}  {shape!s:>25} {own:>15,}" for name, shape, own in rows]
    lines += [
        "=" * 64,
        f"Total params: {total:,}",
        f"Trainable params: {trainable:,}",
        f"Non-trainable params: {total - trainable:,}",
        "-" * 64,
        f"Input size (MB): {given:.2f}",
        f"Forward/backward pass size (MB): {activations:.2f}",
        f"Params size (MB): {megabyte * total:.2f}",
        f"Estimated Total Size (MB): {given + activations + megabyte * total:.2f}",
        "-" * 64,
    ]
    return "\n".join(lines) + "\n", (total, trainable)


def summary(model: nn.Module, summary_input) -> tuple[int, int]:
    """Write the table to standard output and return the number of parameters: all and trainable."""
    text, parameters = minkowski_summary_string(model, summary_input)
    sys.stdout.write(text)
    return parameters
