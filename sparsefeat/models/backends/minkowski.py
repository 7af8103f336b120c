"""The real MinkowskiEngine as a backend: its layers, and the way of a SparseTensor into it and back."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch.nn import functional as F

from sparsefeat.extras import import_extra
from sparsefeat.models.backends import Backend
from sparsefeat.sparse.tensor import SparseTensor


def load() -> Backend:
    """The backend; raises MissingExtraError where MinkowskiEngine cannot be imported."""
    engine = _engine()
    return Backend(
        name="minkowski",
        Convolution=engine.MinkowskiConvolution,
        ConvolutionTranspose=engine.MinkowskiConvolutionTranspose,
        BatchNorm=engine.MinkowskiBatchNorm,
        InstanceNorm=engine.MinkowskiInstanceNorm,
        relu=_relu,
        cat=engine.cat,
        normalize=_normalize,
        enter=_enter,
        leave=_leave,
    )


def _engine() -> ModuleType:
    return import_extra(
        "MinkowskiEngine",
        "backend 'minkowski'",
        "backend 'torch' runs the same networks without it",
    )


def _replace(x: Any, features: torch.Tensor) -> Any:
    return _engine().SparseTensor(
        features, coordinate_map_key=x.coordinate_map_key, coordinate_manager=x.coordinate_manager
    )


def _relu(x: Any) -> Any:
    return _replace(x, F.relu(x.F))


def _normalize(x: Any) -> Any:
    return _replace(x, F.normalize(x.F, dim=1))


def _enter(x: SparseTensor) -> Any:
    return _engine().SparseTensor(x.F, coordinates=x.C, tensor_stride=list(x.tensor_stride))


def _leave(y: Any, x: SparseTensor) -> SparseTensor:
    features = y.F
    if not torch.equal(y.C.to(x.C.dtype), x.C):
        # On a GPU the engine reorders its rows; both lists hold the same distinct coordinates.
        features = features[_row_order(y.C)][torch.argsort(_row_order(x.C))]
    return x.replace(features)


def _row_order(coordinates: torch.Tensor) -> torch.Tensor:
    """Rows in lexicographic order. Shape: (V, 1 + D) -> (V,)."""
    return torch.unique(coordinates.long(), dim=0, return_inverse=True)[1].argsort()
