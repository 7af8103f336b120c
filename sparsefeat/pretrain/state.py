"""All state of a run in one file, so that it can go on as if nothing had happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from sparsefeat.checkpoint import find_checkpoint, load_weights
from sparsefeat.checkpoint.legacy import current_run_options
from sparsefeat.errors import InputError, opening
from sparsefeat.io.atomic import atomic_write
from sparsefeat.io.config import config_from_dict, load_config, save_config, to_dict
from sparsefeat.models import Network
from sparsefeat.pretrain.config import DataConfig, PretrainConfig
from sparsefeat.pretrain.log import read_log

# What may change between an interruption and the resumption: another length, data that lies elsewhere, and what
# is only reported.
_FREE = {"steps", "epochs", "validate_every", "save_every", "pictures", "compare"}
_FREE_DATA = {
    "root",
    "extra_roots",
    "validation_root",
    "validation_scenes",
    "validation_pairs",
    "validation_points",
    "rooms",  # other rooms in root are refused when they are made
    "workers",
    "cache_gb",
}
_FREE_SHAPES = {"roots", "validation_roots"}


class Resumed(NamedTuple):
    """Where a run goes on.

    Attributes:
        step: steps that are done.
        best: the best validation so far of the pairs that are validated on; -1: there is none.
        other_pairs: other pairs are validated on than before, so that earlier validations do not compare.
    """

    step: int
    best: float
    other_pairs: bool


def save_state(
    path: Path,
    config: PretrainConfig,
    model: Network,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    step: int,
    best: float,
    overfit: bool,
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
        "overfit": overfit,
    }
    try:
        # A stream and no path: torch would write the temporary name into the file.
        with atomic_write(path) as temporary, open(temporary, "wb") as stream:
            torch.save(state, stream)
    except (
        OSError,
        RuntimeError,
    ) as error:  # torch's zip writer reports a full disk as RuntimeError
        raise InputError(
            f"{path}: cannot write the state ({error}); an earlier file is untouched"
        ) from error


def check_output(output: Path, config: PretrainConfig, resume: bool, overwrite: bool) -> None:
    """Refuse to begin where a run is, to go on where none is, and to delete the weights that a run begins with.

    Raises:
        InputError: see above; the message says which options there are.
    """
    if resume and overwrite:
        raise InputError("resume and overwrite are both given, expected at most one of them")
    if resume and not (output / "last.pt").is_file():
        raise InputError(
            f"{output / 'last.pt'}: nothing to resume from; expected the last.pt of an earlier run"
        )
    if overwrite and config.model.init is not None:
        init = find_checkpoint(config.model.init)
        if init.resolve().parent == output.resolve():
            raise InputError(f"model.init {init}: lies in the run that --overwrite deletes")
    if not resume and not overwrite and (steps := _begun(output)) is not None:
        goes_on = "--resume goes on with it, " if (output / "last.pt").is_file() else ""
        raise InputError(
            f"{output}: holds a run that was begun before, of {steps} steps; {goes_on}--overwrite begins anew, or name "
            "another output"
        )


def keep_config(path: Path, config: PretrainConfig) -> None:
    """Write the configuration of a run; a file that says the same keeps its comments."""
    try:
        same = path.is_file() and load_config(PretrainConfig, path) == config
    except InputError:
        same = False
    if not same:
        save_config(path, config)


def remove_run(output: Path) -> None:
    """Delete what a run leaves and what another would go on from."""
    with opening(output):
        for name in ("last.pt", "last.safetensors", "best.safetensors", "log.jsonl"):
            (output / name).unlink(missing_ok=True)


def _begun(output: Path) -> int | None:
    """Steps that a run in this folder has done; None: there is none, or it was cut before it saved anything."""
    steps, validations = read_log(output)
    saved = any((output / name).is_file() for name in ("last.pt", "last.safetensors"))
    # The best of a run that only validated is the untrained network.
    trained = (output / "best.safetensors").is_file() and any(
        line["step"] > 0 for line in validations
    )
    return max((line["step"] for line in steps), default=0) if saved or trained else None


def load_state(
    path: Path,
    config: PretrainConfig,
    model: Network,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    overfit: bool,
) -> Resumed:
    """Restore what :func:`save_state` wrote.

    Raises:
        InputError: no such file, not such a file, or one of a run with another configuration.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch raises on a damaged file is not bounded
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: not the state of a run, or cut off ({reason})") from error
    kinds = {
        "config": dict,
        "model": dict,
        "optimizer": dict,
        "scaler": dict,
        "step": int,
        "best": (int, float),
    }
    for name, kind in kinds.items():
        found = state.get(name) if isinstance(state, dict) else None
        if not isinstance(found, kind):
            lack = "has no" if found is None else f"has a {type(found).__name__} for its"
            raise InputError(f"{path}: {lack} {name}, so that it is not the state of a run")
    # Earlier versions did not write it.
    if (overfitted := state.get("overfit", overfit)) is not overfit:
        was, now = ("with", "without") if overfitted else ("without", "with")
        raise InputError(f"{path}: was made {was} --overfit and is resumed {now} it")
    # Options that the run did not know yet have their defaults.
    before = config_from_dict(PretrainConfig, current_run_options(state["config"]), where=str(path))
    theirs, mine = to_dict(before), to_dict(config)
    for options in (mine, theirs):
        data = options.pop("data")
        if data["shapes"] is not None:
            shapes = data["shapes"].items()
            data["shapes"] = {name: value for name, value in shapes if name not in _FREE_SHAPES}
        options |= {f"data.{name}": data[name] for name in data if name not in _FREE_DATA}
    for name in mine:
        if name not in _FREE and mine[name] != theirs.get(name):
            raise InputError(
                f"{path}: was made with {name} = {theirs.get(name)}, the configuration says {mine[name]}"
            )
    if state["step"] < 0:
        raise InputError(f"{path}: its step is {state['step']}, expected 0 or more")
    try:
        load_weights(model, state["model"])
        # In fp16 no moments at all are right too: the scaler may have skipped every step so far.
        if state["optimizer"]["state"] or not scaler.is_enabled():
            _check_optimizer(state["optimizer"], optimizer, state["step"])
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{path}: does not fit the run ({str(error).splitlines()[0]})") from error
    # Where nothing is validated any more, nothing is compared.
    other_pairs = config.data.validation_pairs > 0 and (
        _validated_on(before.data) != _validated_on(config.data)
    )
    return Resumed(state["step"], -1.0 if other_pairs else float(state["best"]), other_pairs)


def _validated_on(data: DataConfig) -> tuple[object, ...]:
    """What decides about the pairs of a validation. Data may be moved: a folder counts by its name."""
    if data.shapes is not None:
        own_split = data.shapes.validation_roots is None
        roots = data.shapes.roots if own_split else data.shapes.validation_roots
        return data.validation_pairs, own_split, [Path(root).name for root in roots]
    root = Path(data.validation_root or data.root).name
    return data.validation_pairs, data.validation_points, root, data.validation_scenes


def _check_optimizer(state: dict[str, Any], optimizer: torch.optim.Optimizer, step: int) -> None:
    """Refuse moments that are missing or misshapen: torch would begin them anew, or fail at the first step."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, parameter in enumerate(parameters):
        moments = state["state"].get(number, {})
        for name in _moments(optimizer):
            shape = getattr(moments.get(name), "shape", None)
            if step and shape != parameter.shape:
                found = (
                    "is missing"
                    if shape is None
                    else f"has shape {tuple(shape)}, expected {tuple(parameter.shape)}"
                )
                raise InputError(f"{name} of parameter {number} {found}")


def _moments(optimizer: torch.optim.Optimizer) -> tuple[str, ...]:
    if isinstance(optimizer, torch.optim.SGD):
        return ("momentum_buffer",) if optimizer.param_groups[0]["momentum"] else ()
    return ("exp_avg", "exp_avg_sq")
