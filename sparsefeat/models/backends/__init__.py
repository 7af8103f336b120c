"""Which library runs a network: this engine, or the real MinkowskiEngine where that is installed.

A network is written once, against the few names of :class:`Backend`; parameters have the same names and
shapes on either, so that weights move between them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn import functional as F

from sparsefeat.errors import InputError

if TYPE_CHECKING:
    from sparsefeat.sparse.tensor import SparseTensor

BACKENDS = ("auto", "torch", "minkowski")


@dataclass(frozen=True)
class Backend:
    """The layers and operations that a network needs, on tensors of one library.

    ``enter`` turns our SparseTensor into the library's; ``leave(y, x)`` turns the output ``y``, on the
    same voxels as the input ``x``, into ours, with x's rows.
    """

    name: str
    Convolution: Callable[..., nn.Module]
    ConvolutionTranspose: Callable[..., nn.Module]
    BatchNorm: Callable[..., nn.Module]
    InstanceNorm: Callable[..., nn.Module]
    relu: Callable[[Any], Any]
    cat: Callable[..., Any]
    normalize: Callable[[Any], Any]
    enter: Callable[[SparseTensor], Any]
    leave: Callable[[Any, SparseTensor], SparseTensor]


def load_backend(name: str = "auto") -> Backend:
    """The backend of that name.

    ``"torch"`` is this engine. ``"minkowski"`` is the package MinkowskiEngine. ``"auto"`` is this engine
    always, also where MinkowskiEngine is installed: what is installed never changes numbers silently.

    Raises:
        InputError: an unknown name.
        MissingExtraError: ``"minkowski"`` where MinkowskiEngine cannot be imported.
    """
    if name not in BACKENDS:
        raise InputError(f"backend: expected one of {', '.join(BACKENDS)}, got {name!r}")
    if name == "minkowski":
        # Imported here, since the package is optional.
        from sparsefeat.models.backends import minkowski

        return minkowski.load()
    # Imported here, since the engine itself imports a sibling of this file.
    from sparsefeat.sparse import functional, modules

    return Backend(
        name="torch",
        Convolution=modules.Convolution,
        ConvolutionTranspose=modules.ConvolutionTranspose,
        BatchNorm=modules.BatchNorm,
        InstanceNorm=modules.InstanceNorm,
        relu=_relu,
        cat=functional.cat,
        normalize=functional.normalize,
        enter=_as_is,
        leave=_as_is,
    )


def _relu(x: SparseTensor) -> SparseTensor:
    return x.replace(F.relu(x.features))


def _as_is(x: SparseTensor, *_: SparseTensor) -> SparseTensor:
    return x
