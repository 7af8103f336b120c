"""A batch of pairs as the network sees it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparsefeat.models.inputs import point_inputs
from sparsefeat.pretrain.config import PretrainConfig
from sparsefeat.pretrain.pairs import PairBatch
from sparsefeat.sparse import SparseTensor


def run_pair_batch(model: nn.Module, batch: PairBatch, config: PretrainConfig) -> tuple[Tensor, Tensor]:
    """Features of all voxels of both sides, from one pass. Shape: (V0, C), (V1, C)."""
    pairs = len(batch)
    second = batch.coordinates1.clone()
    second[:, 0] += pairs
    coordinates = torch.cat([batch.coordinates0, second])
    place = torch.cat([batch.points0, batch.points1]) / config.voxel_size
    sides = torch.cat([batch.sides0, batch.sides1])
    given = point_inputs(vars(config.model), place, sides, coordinates[:, 1:])
    features = model(SparseTensor(given, coordinates, reduce="error")).features
    return tuple(features.split([len(batch.coordinates0), len(batch.coordinates1)]))
