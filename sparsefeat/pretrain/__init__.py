"""Pretraining on pairs of overlapping fragments."""

from sparsefeat.pretrain.config import PretrainConfig
from sparsefeat.pretrain.loop import PretrainResult, pretrain
from sparsefeat.pretrain.run import run

__all__ = ["PretrainConfig", "PretrainResult", "pretrain", "run"]
