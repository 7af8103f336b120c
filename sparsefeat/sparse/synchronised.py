"""Batch norm with the statistics of all processes, where torch has none: on CPUs."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn
from torch.autograd import Function

from sparsefeat.sparse.precision import widen


def synchronise(network: nn.Module) -> None:
    """Replace every ``BatchNorm1d`` in a network by one over all processes, keeping parameters and statistics."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm1d:
                setattr(module, name, SyncBatchNorm1d.of(child))


class SyncBatchNorm1d(nn.BatchNorm1d):
    """Batch norm over the rows of all processes in training. Shape: (V, C) -> (V, C).

    Not an ``nn.SyncBatchNorm``, since DistributedDataParallel refuses those on a CPU.
    """

    process_group = None

    @classmethod
    def of(cls, norm: nn.BatchNorm1d) -> SyncBatchNorm1d:
        """In place of ``norm``, with the very same parameters and buffers: an optimiser may hold them."""
        out = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            setattr(out, name, getattr(norm, name))
        return out.train(norm.training)

    def forward(self, rows: Tensor) -> Tensor:
        if not (self.training and distributed.is_initialized()):
            return super().forward(rows)
        wide = widen(rows)
        total = _Sum.apply(torch.cat([wide.sum(0), wide.new_tensor([len(wide)])]))
        count = total[-1].detach().clamp(min=1)
        mean = total[:-1] / count
        centred = wide - mean
        variance = _Sum.apply(centred.square().sum(0)) / count
        if self.running_mean is not None:
            self._follow(mean.detach(), (variance * count / (count - 1).clamp(min=1)).detach())
        normal = centred * (variance + self.eps).rsqrt()
        return (normal if self.weight is None else normal * self.weight + self.bias).to(rows.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked += 1
        share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean += share * (mean - self.running_mean)
        self.running_var += share * (variance - self.running_var)


class _Sum(Function):
    """Sum over the processes; its derivative is that again."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _Sum.apply(grad)
