"""torch.nn.functional on the features of sparse tensors and fields (MinkowskiFunctional)."""

from __future__ import annotations

from torch.nn import functional as F

_ELEMENTWISE = (
    "threshold", "relu", "hardtanh", "hardswish", "relu6", "elu", "selu", "celu", "leaky_relu", "prelu",
    "rrelu", "glu", "gelu", "logsigmoid", "hardshrink", "tanhshrink", "softsign", "softplus", "softmin",
    "softmax", "softshrink", "gumbel_softmax", "log_softmax", "tanh", "sigmoid", "hardsigmoid", "silu",
    "batch_norm", "normalize", "linear", "dropout", "alpha_dropout",
)  # fmt: skip
_LOSSES = (
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "poisson_nll_loss", "cross_entropy",
    "hinge_embedding_loss", "kl_div", "l1_loss", "mse_loss", "multilabel_margin_loss",
    "multilabel_soft_margin_loss", "multi_margin_loss", "nll_loss", "smooth_l1_loss", "soft_margin_loss",
)  # fmt: skip
__all__ = [*_ELEMENTWISE, *_LOSSES]


def _wrap_tensor(input, F):
    """A tensor or field with features ``F`` where ``input`` is; published networks import it."""
    return input.replace(F)


def _on_features(name: str):
    function = getattr(F, name)

    def wrapped(input, *args, **kwargs):
        return _wrap_tensor(input, function(input.F, *args, **kwargs))

    wrapped.__name__ = wrapped.__qualname__ = name
    wrapped.__doc__ = f"torch.nn.functional.{name} on the features; further arguments are its own."
    return wrapped


def _loss(name: str):
    function = getattr(F, name)

    def wrapped(input, target, *args, **kwargs):
        return function(input.F, target, *args, **kwargs)

    wrapped.__name__ = wrapped.__qualname__ = name
    wrapped.__doc__ = (
        f"torch.nn.functional.{name} of the features and a target; returns torch's tensor."
    )
    return wrapped


globals().update({name: _on_features(name) for name in _ELEMENTWISE})
globals().update({name: _loss(name) for name in _LOSSES})
