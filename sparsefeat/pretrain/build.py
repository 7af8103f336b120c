"""The network and the optimizer that a configuration asks for."""

from __future__ import annotations

import torch
from torch import nn

from sparsefeat.checkpoint import (
    find_checkpoint,
    from_pretrained,
    load_weights,
    read_checkpoint,
)
from sparsefeat.errors import InputError
from sparsefeat.models import create_model
from sparsefeat.models.pairs import with_chiral_cells
from sparsefeat.models.widening import WIDTHS, is_wider, widened
from sparsefeat.pretrain.config import ModelConfig, PretrainConfig

_ADDED = ("chiral", "context")
"""Options of a network that one without them can be given."""


def build_model(config: ModelConfig) -> nn.Module:
    """A network with new weights, or with those of ``config.init``."""
    if config.init is not None:
        model = _initial(config)
        default = ModelConfig()
        for option in (name for name in vars(config) if name != "init"):
            theirs, ours = model.config.get(option), getattr(config, option)
            theirs = list(theirs) if isinstance(theirs, tuple) else theirs
            if option in WIDTHS and theirs and ours:
                ours = ours[: len(theirs)]  # more than there are levels are ignored
            # These decide what the network sees. Others, left at their default, are the checkpoint's.
            decides = option in ("kernels", "oriented", *_ADDED)
            if theirs != ours and (decides or ours != getattr(default, option)):
                raise InputError(
                    f"model.init {config.init}: its network has {option} = {theirs}, model.{option} says {ours}"
                )
        return model
    options = {
        name: value
        for name, value in vars(config).items()
        if name not in ("name", "init") and value is not None
    }
    in_channels = (6 if config.oriented else 3) if config.kernels == "pair" else 1
    return create_model(config.name, in_channels=in_channels, **options)


def _initial(config: ModelConfig) -> nn.Module:
    """A pretrained network; parts that the configuration adds to it start so that they change nothing."""
    path = find_checkpoint(config.init)
    checkpoint = read_checkpoint(path)
    added = {
        name: getattr(config, name)
        for name in _ADDED
        if getattr(config, name) and not checkpoint.config.get(name)
    }
    widths = {name: getattr(config, name) for name in WIDTHS if getattr(config, name)}
    if all(name in checkpoint.config for name in WIDTHS) and is_wider(checkpoint.config, widths):
        added |= widths
    if not added:
        return from_pretrained(path)
    try:
        model = create_model(**{**checkpoint.config, **added})
    except InputError as error:
        raise InputError(f"model.init {config.init}: {error}") from error
    missing = {
        name: weights
        for name, weights in model.state_dict().items()
        if name.startswith("context.") and "context" in added
    }
    state = with_chiral_cells(checkpoint.state, model.state_dict()) | missing
    load_weights(model, widened(state, checkpoint.config, model))
    return model


def start_training(model: nn.Module, config: PretrainConfig) -> None:
    """Bring a network into training mode; batch norms into evaluation mode where their statistics are frozen.

    A batch of few pairs has other statistics than the running average that a trained network is used with. Weights that
    were learned with the one are not the best for the other.
    """
    model.train()
    if config.optimizer.frozen_statistics:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eval()


def build_optimizer(model: nn.Module, config: PretrainConfig) -> torch.optim.Optimizer:
    """SGD, Adam or AdamW over the parameters that are trained; the others have no gradient from here on.

    Raises:
        InputError: ``optimizer.only`` has a beginning that no parameter has.
    """
    options = config.optimizer
    if options.only is not None:
        names = [name for name, _ in model.named_parameters()]
        unknown = [
            part for part in options.only if not any(name.startswith(part) for name in names)
        ]
        if unknown or not options.only:
            parts = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
            raise InputError(
                f"optimizer.only has {unknown[0] if unknown else 'nothing'!r}, expected beginnings of parameters: {parts}"
            )
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(tuple(options.only)))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if options.name == "sgd":
        return torch.optim.SGD(
            trained, options.lr, momentum=options.momentum, weight_decay=options.weight_decay
        )
    kind = torch.optim.Adam if options.name == "adam" else torch.optim.AdamW
    return kind(trained, options.lr, weight_decay=options.weight_decay)
