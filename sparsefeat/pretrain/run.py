"""A whole run: make the data where asked, pretrain, compare, draw."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch

from sparsefeat.checkpoint import from_pretrained
from sparsefeat.errors import InputError
from sparsefeat.evaluate.descriptors import baseline_descriptor
from sparsefeat.evaluate.matching import MatchingResult, evaluate_matching
from sparsefeat.extract import FeatureExtractor
from sparsefeat.pretrain.config import PretrainConfig
from sparsefeat.pretrain.data import load_pairs, prepare_rooms
from sparsefeat.pretrain.loop import pretrain
from sparsefeat.pretrain.report import draw_curves, draw_pair, table
from sparsefeat.pretrain.sources import numbers
from sparsefeat.progress import Progress


def run(
    config: PretrainConfig,
    output: str | os.PathLike,
    device: str = "cpu",
    resume: bool = False,
    overfit: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """What ``tools/pretrain.py`` does: data, :func:`pretrain`, baselines on the held-out pairs, pictures.

    Args:
        config, resume, overfit, should_stop: as in :func:`pretrain`.
        output: folder for checkpoints, log and pictures.
        device: ``"cuda"`` is this process's own GPU under torchrun.
        say: takes lines of text for the user.

    Raises:
        InputError: data, configuration or checkpoint are not as expected.
    """
    output = Path(output)
    device = _own_device(device)
    main_process = int(os.environ.get("RANK", 0)) == 0
    rooms = config.data.rooms
    if rooms is not None and main_process:
        with Progress("rooms", unit="fragment") as progress:
            made = prepare_rooms(config.data, progress)
        say(f"{'made' if made else 'found'} synthetic rooms in {config.data.root}")
    result = pretrain(
        config, output, device, resume, overfit, show_progress=main_process, should_stop=should_stop
    )
    if not main_process or should_stop():
        return
    say(f"checkpoint: {output / 'last.safetensors'}")
    files = draw_curves(output) if config.pictures else []
    if config.data.shapes is not None:
        for step, validation in sorted(result.validations.items()):
            say(f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in numbers(validation).items()))
        for path in files:
            say(f"picture: {path}")
        return
    _, held_out = load_pairs(config.data, config.seed)
    if held_out and not overfit:
        trained = FeatureExtractor.from_pretrained(output / "last.safetensors", device=device)
        rows: dict[str, MatchingResult] = {}
        if 0 in result.validations:
            rows["before"] = result.validations[0]
        for name in config.compare:
            with Progress(f"compare {name}", unit="pair", leave=False) as progress:
                rows[name] = evaluate_matching(
                    held_out,
                    baseline_descriptor(name, trained, config.voxel_size, config.seed),
                    config.voxel_size,
                    points=config.data.validation_points,
                    progress=lambda done, total, show=progress: _unless(should_stop, show, done, total),
                    dense=config.voxel_points == "mean",
                )
        if result.step in result.validations:
            rows["after"] = result.validations[result.step]
        pairs = sum(len(of_scene) for of_scene in held_out.values())
        say(f"\nheld-out matching, {pairs} pairs of {', '.join(held_out)}:\n{table(rows)}\n")
        if config.pictures:
            example = max((pair for pairs in held_out.values() for pair in pairs), key=lambda pair: pair.overlap)
            files += draw_pair(output, from_pretrained(output / "last.safetensors"), config, example)
    for path in files:
        say(f"picture: {path}")


def _own_device(device: str) -> str:
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise InputError(f"device {device}: torch {torch.__version__} finds no CUDA device here; use --device cpu")
        torch.cuda.set_device(device)
    return device


def _unless(should_stop: Callable[[], bool], progress: Callable[[int, int], None], done: int, total: int) -> None:
    if should_stop():
        raise KeyboardInterrupt
    progress(done, total)
