"""Batch norm over the rows of several processes; test_pretrain.py has two real ones."""

from __future__ import annotations

import copy

import pytest
import torch
from engine_oracle import assert_close, cloud, sparse

from sparsefeat.sparse import modules as m
from sparsefeat.sparse.synchronised import synchronise


@pytest.fixture
def others_with_nothing(monkeypatch) -> list[int]:
    summed: list[int] = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: summed.append(len(total)))
    return summed


def test_a_process_with_one_voxel_or_none_takes_part_in_the_sums(others_with_nothing):
    layer = torch.nn.Sequential(m.BatchNorm(3)).double()
    synchronise(layer)
    for voxels in (0, 1):
        assert torch.isfinite(layer(sparse(cloud(9)[:voxels])).F).all()
    assert others_with_nothing == [4, 3, 4, 3], "sums and a count, then squares"


@pytest.mark.parametrize(
    "options", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}]
)
def test_where_the_others_have_nothing_it_is_batch_norm(others_with_nothing, options):
    plain = torch.nn.Sequential(m.BatchNorm(3, **options)).double()
    ours = copy.deepcopy(plain)
    synchronise(ours)
    for seed in (0, 1):
        results = []
        for layer in (ours, plain):
            x = sparse(cloud(30), seed=seed)
            rows = x.F.clone().requires_grad_()
            y = layer(x.replace(rows)).F
            results.append((y, *torch.autograd.grad(y.pow(3).sum(), [rows, *layer.parameters()])))
        for a, b in zip(*results, strict=True):
            assert_close(a, b, 1e-10)
    assert ours.state_dict().keys() == plain.state_dict().keys()
    for a, b in zip(ours.buffers(), plain.buffers(), strict=True):
        assert_close(a.double(), b.double(), 1e-12)
    assert len(others_with_nothing) == 8, "two sums, there and back, for two clouds"
