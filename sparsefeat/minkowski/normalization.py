"""Normalisation layers (MinkowskiNormalization)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparsefeat.minkowski import legacy
from sparsefeat.minkowski.backend import PoolingMode
from sparsefeat.minkowski.common import MinkowskiModuleBase
from sparsefeat.minkowski.coordinate_manager import CoordinateManager
from sparsefeat.minkowski.coordinate_map_key import CoordinateMapKey
from sparsefeat.minkowski.functions import check_input, on_key
from sparsefeat.minkowski.sparse_tensor import SparseTensor
from sparsefeat.minkowski.tensor_field import TensorField
from sparsefeat.sparse import functional
from sparsefeat.sparse.modules import BatchNorm


class MinkowskiBatchNorm(BatchNorm):
    """torch's batch norm over all rows of a sparse tensor or field; parameters under ``bn``."""

    def forward(self, input: SparseTensor | TensorField) -> SparseTensor | TensorField:
        return super().forward(input)

    def __repr__(self) -> str:
        b = self.bn
        return (
            f"{type(self).__name__}({b.num_features}, eps={b.eps}, momentum={b.momentum}, affine={b.affine}, "
            f"track_running_stats={b.track_running_stats})"
        )


class MinkowskiSyncBatchNorm(MinkowskiBatchNorm):
    """Batch norm with statistics over all processes of a process group; the same parameters."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group=None,
    ):
        super().__init__(num_features, eps, momentum, affine, track_running_stats)
        self.bn = nn.SyncBatchNorm(
            num_features,
            eps=eps,
            momentum=momentum,
            affine=affine,
            track_running_stats=track_running_stats,
            process_group=process_group,
        )

    @classmethod
    def convert_sync_batchnorm(cls, module: nn.Module, process_group=None) -> nn.Module:
        """Replace every MinkowskiBatchNorm in ``module``; parameters and statistics stay the same objects."""
        if isinstance(module, MinkowskiBatchNorm) and not isinstance(
            module, MinkowskiSyncBatchNorm
        ):
            b = module.bn
            out = cls(
                b.num_features, b.eps, b.momentum, b.affine, b.track_running_stats, process_group
            )
            for name, parameter in b.named_parameters():
                setattr(out.bn, name, parameter)
            for name, buffer in b.named_buffers():
                setattr(out.bn, name, buffer)
            return out.train(module.training)
        for name, child in module.named_children():
            setattr(module, name, cls.convert_sync_batchnorm(child, process_group))
        return module


class MinkowskiInstanceNormFunction:
    """Instance norm without scale and shift as a function of features."""

    @staticmethod
    def apply(
        in_feat: Tensor,
        in_coords_key: CoordinateMapKey,
        glob_coords_key: CoordinateMapKey | None = None,
        coords_manager: CoordinateManager | None = None,
        gpooling_mode: PoolingMode = PoolingMode.GLOBAL_AVG_POOLING_KERNEL,
    ) -> Tensor:
        """Features less their cloud's mean, over the root of its biased variance. Shape: (V, C) -> (V, C)."""
        one = torch.ones(1, in_feat.shape[1], dtype=in_feat.dtype, device=in_feat.device)
        x = on_key(in_feat, in_coords_key, coords_manager)
        return functional.instance_norm(x, one, torch.zeros_like(one)).features


class MinkowskiInstanceNorm(MinkowskiModuleBase):
    """Normalise each cloud's channels by their mean and biased variance; ``weight`` and ``bias`` are [1, C].

    Args:
        num_features: channels C.
        legacy_names: the ``dimension`` of version 0.3, with which FCGF's model files call it.
    """

    eps = 1e-8

    def __init__(self, num_features: int, **legacy_names):
        super().__init__()
        legacy.check_unused(legacy_names, type(self).__name__)
        self.num_features = num_features
        self.weight = nn.Parameter(torch.ones(1, num_features))
        self.bias = nn.Parameter(torch.zeros(1, num_features))

    def reset_parameters(self) -> None:
        """Scale one, shift zero."""
        with torch.no_grad():
            self.weight.fill_(1)
            self.bias.zero_()

    def forward(self, input: SparseTensor) -> SparseTensor:
        x = check_input(input, None, type(self).__name__)
        return functional.instance_norm(x, self.weight, self.bias, self.eps)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(nchannels={self.num_features})"


class MinkowskiStableInstanceNorm(MinkowskiInstanceNorm):
    """Instance norm with 1e-6 beside the variance."""

    eps = 1e-6

    def forward(self, x: SparseTensor) -> SparseTensor:
        return super().forward(x)
