"""Whole networks in bfloat16 and float16 on the CPU, by conversion and by autocast, against float32."""

from __future__ import annotations

import copy

import pytest
import torch
from engine_oracle import cloud
from torch.nn import functional as F

from sparsefeat.models import create_model
from sparsefeat.sparse import SparseTensor

PAIRS = {"in_channels": 3, "kernels": "pair"}
KINDS = {
    "ResUNetBN2C": {},
    "ResUNetIN2C": {},
    "SimpleNetBN2C": {},
    "pair kernels": {"name": "ResUNetBN2C", **PAIRS},
}


def network(kind: str) -> torch.nn.Module:
    options = {
        "name": kind,
        "in_channels": 1,
        "out_channels": 8,
        "normalize_feature": True,
        "conv1_kernel_size": 3,
    }
    options |= {"channels": [8, 8, 16, 16], "tr_channels": [8, 8, 8, 16]} | KINDS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model(**options)
        model.train()
        for _ in range(3):  # running statistics that fit
            model(clouds(model.in_channels))
    return model.eval()


def clouds(channels: int, dtype: torch.dtype = torch.float32) -> SparseTensor:
    coordinates = cloud(500, side=10)
    # An eighth of a voxel is a number of bfloat16 too.
    offsets = (
        torch.randint(
            -3, 4, (len(coordinates), channels), generator=torch.Generator().manual_seed(1)
        )
        / 8
    )
    features = torch.ones(len(coordinates), 1) if channels == 1 else offsets
    return SparseTensor(features.to(dtype), coordinates, reduce="error")


ERROR = {torch.bfloat16: 0.07, torch.float16: 0.01}
"""Mean distance from float32's features, as a share of their own mean distance from their mean.

Measured: up to 0.034 with the 8 bits of bfloat16, up to 0.0045 with the 11 of float16.
"""


@torch.no_grad()
@pytest.mark.parametrize("dtype", ERROR, ids=["bfloat16", "float16"])
@pytest.mark.parametrize("kind", KINDS)
def test_inference_in_half_precision_is_that_of_float32_within_its_precision(kind, dtype):
    model = network(kind)
    expected = model(clouds(model.in_channels)).F
    spread = (expected - expected.mean(0)).norm(dim=1).mean()
    converted = copy.deepcopy(model).to(dtype)(clouds(model.in_channels, dtype)).F
    with torch.autocast("cpu", dtype=dtype):
        cast = model(clouds(model.in_channels)).F
    assert converted.dtype == dtype
    for found in (converted.float(), cast.float()):
        assert torch.isfinite(found).all()
        assert F.cosine_similarity(found, expected).mean() > 0.999
        assert (found - expected).norm(dim=1).mean() < ERROR[dtype] * spread
