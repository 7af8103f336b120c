"""Networks by name."""

from __future__ import annotations

import difflib
import inspect
from typing import Any, TypeVar

from torch import nn

from sparsefeat.errors import InputError

_MODELS: dict[str, type[nn.Module]] = {}
_Model = TypeVar("_Model", bound=type[nn.Module])


def register(model: _Model) -> _Model:
    """Class decorator: make a network known under its class name."""
    _MODELS[model.__name__] = model
    return model


def model_names() -> list[str]:
    """Names that :func:`create_model` knows, sorted."""
    return sorted(_MODELS)


def model_class(name: str) -> type[nn.Module]:
    """The class of that name.

    Raises:
        InputError: unknown; the message has the nearest name and the choices.
    """
    if not isinstance(name, str) or name not in _MODELS:
        raise InputError(f"model: unknown network {name!r}{_nearest(str(name), model_names())}")
    return _MODELS[name]


def create_model(name: str, *, backend: str = "auto", **config: Any) -> nn.Module:
    """Build a network with random weights; ``create_model(**model.config)`` rebuilds one.

    Args:
        name: one of :func:`model_names`.
        backend: ``"torch"`` (this engine), ``"minkowski"`` (the package MinkowskiEngine, if installed) or
            ``"auto"``, which is this engine.
        config: arguments of the network's class, such as ``in_channels`` and ``out_channels``.

    Raises:
        InputError: an unknown name or argument, with the nearest known one; or a value out of range.
    """
    model = model_class(name)
    known = [
        parameter
        for parameter in inspect.signature(model.__init__).parameters
        if parameter != "self"
    ]
    for key in config:
        if key not in known:
            raise InputError(f"{name}: unknown argument {key!r}{_nearest(str(key), known)}")
    return model(backend=backend, **config)


def _nearest(given: str, choices: list[str]) -> str:
    close = difflib.get_close_matches(given, choices, n=1, cutoff=0.0)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"{hint}; choices: {', '.join(choices)}"
