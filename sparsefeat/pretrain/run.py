"""A whole run: make the data where asked, pretrain, compare, draw."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch

from sparsefeat.checkpoint import from_pretrained
from sparsefeat.errors import InputError
from sparsefeat.evaluate.descriptors import baseline_descriptor
from sparsefeat.evaluate.matching import evaluate_matching
from sparsefeat.extract import FeatureExtractor
from sparsefeat.models.blocks import checked_device
from sparsefeat.pretrain.build import build_model
from sparsefeat.pretrain.config import PretrainConfig
from sparsefeat.pretrain.data import load_pairs, prepare_rooms
from sparsefeat.pretrain.log import read_log
from sparsefeat.pretrain.loop import pretrain
from sparsefeat.pretrain.report import draw_curves, draw_pair, table
from sparsefeat.pretrain.sources import numbers
from sparsefeat.pretrain.state import check_output
from sparsefeat.process.progress import Progress


def run(
    config: PretrainConfig,
    output: str | os.PathLike,
    device: str = "cpu",
    resume: bool = False,
    overfit: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda line: None,
    overwrite: bool = False,
) -> None:
    """What ``tools/pretrain.py`` does: data, :func:`pretrain`, baselines on the held-out pairs, pictures.

    Args:
        config, resume, overfit, should_stop, overwrite: as in :func:`pretrain`.
        output: folder for checkpoints, log and pictures.
        device: ``"cuda"`` is this process's own GPU under torchrun.
        say: takes lines of text for the user.

    Raises:
        InputError: data, configuration or checkpoint are not as expected.
    """
    output = Path(output)
    # What can be wrong is found out before rooms are made.
    device = _own_device(device)
    check_output(output, config, resume, overwrite)
    with torch.device("meta"):
        build_model(config.model)
    main_process = int(os.environ.get("RANK", 0)) == 0
    rooms = config.data.rooms
    if rooms is not None and main_process:
        with Progress("rooms", unit="fragment") as progress:
            prepare_rooms(config.data, progress)
        say(f"synthetic rooms: {config.data.root}")
    result = pretrain(config, output, device, resume, overfit, main_process, should_stop, overwrite)
    if not main_process or (should_stop() and not result.finished):
        return
    if result.finished:
        say(f"{output}: this run is finished, all {result.step} steps were done before")
    # From the log and not from this call: a resumed run began in another.
    logged = read_log(output)[1]
    if result.finished and result.other_pairs:
        logged = []
    validations = {line["step"]: line["validation"] for line in logged}
    say(f"checkpoint: {output / 'last.safetensors'}")
    files = draw_curves(output) if config.pictures else []
    if config.data.shapes is not None:
        for step, row in sorted(validations.items()):
            say(f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in row.items()))
        for path in files:
            say(f"picture: {path}")
        return
    _, held_out = load_pairs(config.data, config.seed)
    if held_out and not overfit:
        trained = FeatureExtractor.from_pretrained(output / "last.safetensors", device=device)
        rows: dict[str, dict[str, float]] = {}
        if 0 in validations:
            rows["before"] = validations[0]
        for name in config.compare:
            with Progress(f"compare {name}", unit="pair", leave=False) as progress:
                measured = evaluate_matching(
                    held_out,
                    # With the seed itself "random" would be the weights that the run began with.
                    baseline_descriptor(name, trained, config.voxel_size, config.seed + 1),
                    config.voxel_size,
                    points=config.data.validation_points,
                    progress=lambda done, total, show=progress: _unless(
                        should_stop, show, done, total
                    ),
                    dense=config.voxel_points == "mean",
                )
                rows[name] = numbers(measured)
        if result.step in validations:
            rows["after"] = validations[result.step]
        pairs = sum(len(of_scene) for of_scene in held_out.values())
        if rows:
            say(f"\nheld-out matching, {pairs} pairs of {', '.join(held_out)}:\n{table(rows)}\n")
        if config.pictures:
            example = max(
                (pair for pairs in held_out.values() for pair in pairs),
                key=lambda pair: pair.overlap,
            )
            files += draw_pair(
                output, from_pretrained(output / "last.safetensors"), config, example
            )
    for path in files:
        say(f"picture: {path}")


def _own_device(device: str) -> str:
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(
            f"device {device}: torch {torch.__version__} finds no CUDA device here; use --device cpu"
        )
    checked_device(device, torch.nn.Identity())
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    return device


def _unless(
    should_stop: Callable[[], bool], progress: Callable[[int, int], None], done: int, total: int
) -> None:
    if should_stop():
        raise KeyboardInterrupt
    progress(done, total)
