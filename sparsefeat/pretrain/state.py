"""All state of a run in one file, so that it can go on as if nothing had happened."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import torch

from sparsefeat.checkpoint.legacy import current_run_options
from sparsefeat.errors import InputError
from sparsefeat.io.atomic import atomic_write
from sparsefeat.io.config import config_from_dict, to_dict
from sparsefeat.models import Network
from sparsefeat.pretrain.config import PretrainConfig

# What may change between an interruption and the resumption: another length, data that lies elsewhere, and what
# is only reported.
_FREE = {"steps", "epochs", "validate_every", "save_every", "pictures", "compare", "data"}


def save_state(
    path: Path, config: PretrainConfig, model: Network, optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler, step: int, best: float,
) -> None:
    """Write everything that later steps depend on; data order and rates are functions of the step.

    Raises:
        InputError: the file cannot be written; an earlier one stays as it was.
    """
    state = {
        "config": to_dict(config),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "step": step,
        "best": best,
    }
    try:
        with atomic_write(path) as temporary:
            torch.save(state, temporary)
    except (OSError, RuntimeError) as error:  # torch's zip writer reports a full disk as RuntimeError
        raise InputError(f"{path}: cannot write the state ({error}); an earlier file is untouched") from error


def load_state(
    path: Path, config: PretrainConfig, model: Network, optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> tuple[int, float]:
    """Restore what :func:`save_state` wrote; returns the step and the best validation IR so far.

    Raises:
        InputError: no such file, not such a file, or one of a run with another configuration.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: nothing to resume from; expected the last.pt of an earlier run")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise InputError(f"{path}: not the state of a run, or cut off ({str(error).splitlines()[0]})") from error
    missing = {"config", "model", "optimizer", "scaler", "step", "best"} - set(state)
    if missing:
        raise InputError(f"{path}: not the state of a run: no {', '.join(sorted(missing))}")
    # Options that the run did not know yet have their defaults.
    theirs = to_dict(config_from_dict(PretrainConfig, current_run_options(state["config"]), where=str(path)))
    mine = to_dict(config)
    for name in mine:
        if name not in _FREE and mine[name] != theirs.get(name):
            raise InputError(f"{path}: was made with {name} = {theirs.get(name)}, the configuration says {mine[name]}")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    return state["step"], state["best"]
