"""What the processes of one run, started by torchrun, have to say to each other."""

from __future__ import annotations

import os

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from sparsefeat.sparse.synchronised import synchronise


def join_processes(device: str | torch.device) -> tuple[int, int]:
    """(rank, world size); joins the group that torchrun set up, if it did and none was joined yet."""
    if not distributed.is_initialized():
        if int(os.environ.get("WORLD_SIZE", 1)) == 1:
            return 0, 1
        distributed.init_process_group("nccl" if torch.device(device).type == "cuda" else "gloo")
    return distributed.get_rank(), distributed.get_world_size()


def in_parallel(model: nn.Module, world_size: int, device: str | torch.device) -> nn.Module:
    """The network as each process calls it: gradients are averaged, and norms see the clouds of all."""
    if world_size == 1:
        return model
    if torch.device(device).type == "cpu":
        synchronise(model)
    else:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return DistributedDataParallel(model)


def over_processes(*numbers: float, device: str | torch.device) -> list[float]:
    """The sum of each number over all processes."""
    if not distributed.is_initialized():
        return list(numbers)
    total = torch.tensor(numbers, dtype=torch.float64, device=device)
    distributed.all_reduce(total)
    return total.tolist()
