"""Pretraining, from a configuration to a checkpoint: read :func:`pretrain` from top to bottom."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sparsefeat.checkpoint import save_checkpoint
from sparsefeat.errors import InputError, warn
from sparsefeat.io.lock import output_folder
from sparsefeat.losses import PairFeatures, coarse_side_losses, pair_loss
from sparsefeat.models.blocks import checked_device
from sparsefeat.models.levels import PointTensor
from sparsefeat.models.voxel_cloud import join
from sparsefeat.pretrain.build import build_model, build_optimizer, start_training
from sparsefeat.pretrain.config import PretrainConfig
from sparsefeat.pretrain.log import RunLog
from sparsefeat.pretrain.pairs import PairBatch, pair_features
from sparsefeat.pretrain.processes import in_parallel, join_processes, over_processes
from sparsefeat.pretrain.schedule import largest_angle, set_learning_rate
from sparsefeat.pretrain.sources import PairSource, Result, numbers, open_source
from sparsefeat.pretrain.state import (
    check_output,
    keep_config,
    load_state,
    remove_run,
    save_state,
)
from sparsefeat.process.workers import WORKER_KILLED


@dataclass
class PretrainResult:
    """What a run ended with: the step reached, validations by step, and where the files are.

    ``finished`` says that it was resumed where nothing was left to do, and ``other_pairs`` that what it validated before
    was measured on other pairs.
    """

    step: int
    validations: dict[int, Result]
    output: Path
    finished: bool = False
    other_pairs: bool = False


def pretrain(
    config: PretrainConfig,
    output: str | os.PathLike,
    device: str | torch.device = "cpu",
    resume: bool = False,
    overfit: bool = False,
    show_progress: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    overwrite: bool = False,
) -> PretrainResult:
    """Pretrain a backbone on pairs of overlapping fragments, or of deforming shapes.

    Writes to ``output``: ``config.yaml``, ``log.jsonl`` (one line per step and per validation),
    ``last.pt`` (all state, for resuming), ``last.safetensors`` and ``best.safetensors``.

    Args:
        config: the run.
        output: folder, made if absent.
        device: where the network runs. Under ``torchrun`` each process takes its own share of the pairs; W
            processes of a batch size B compute what one of W B does, up to rounding.
        resume: go on from ``last.pt``; on CPU the result is the same bits as without the interruption. A finished
            run stays as it is.
        overfit: train and validate on the first batch alone, not augmented: a check that learning works.
        show_progress: a progress bar on standard error.
        should_stop: asked after every step; once it says yes, the state is saved and the run ends early.
        overwrite: begin anew where a run is already; its files are deleted.

    Returns:
        The step reached and the validations of this call.

    Raises:
        InputError: data, configuration or checkpoint are not as expected, ``output`` holds a run, or another process
            writes there.
    """
    output = Path(output)
    device = checked_device(device, nn.Identity())
    check_output(output, config, resume, overwrite)
    rank, world_size = join_processes(device)
    source = open_source(config, overfit)
    with output_folder(output) if rank == 0 else contextlib.nullcontext():
        return _pretrain(
            config,
            output,
            device,
            source,
            resume,
            overfit,
            show_progress,
            should_stop,
            overwrite,
            rank,
            world_size,
        )


def _pretrain(
    config: PretrainConfig,
    output: Path,
    device: torch.device,
    source: PairSource,
    resume: bool,
    overfit: bool,
    show_progress: bool,
    should_stop: Callable[[], bool],
    overwrite: bool,
    rank: int,
    world_size: int,
) -> PretrainResult:
    """Steps, validations and files of this process, from the new or the resumed state."""
    accumulate = config.optimizer.accumulate
    pairs_per_step = config.batch_size * world_size * accumulate
    steps = config.steps or math.ceil(config.epochs * source.count / pairs_per_step)

    torch.manual_seed(config.seed)
    model = build_model(config.model).to(device)
    optimizer = build_optimizer(model, config)
    # torch 2.2 has it for CUDA alone.
    make_scaler = getattr(torch.amp, "GradScaler", torch.cuda.amp.GradScaler)
    scaler = make_scaler(enabled=config.precision == "fp16")
    first, best, other_pairs = 0, -1.0, False
    if resume:
        first, best, other_pairs = load_state(
            output / "last.pt", config, model, optimizer, scaler, overfit
        )
        if other_pairs and rank == 0:
            warn(
                f"{output}: validates on other pairs than before; earlier validations, and the best of them, no longer "
                "count"
            )
        if first >= steps:
            return PretrainResult(first, {}, output, True, other_pairs)
    elif rank == 0 and overwrite:
        remove_run(output)
    if rank == 0:
        keep_config(output / "config.yaml", config)

    parallel = in_parallel(model, world_size, device)

    def angle(batch: int) -> float:
        return largest_angle(config, batch // accumulate, steps)

    loader = source.loader(first * accumulate, steps * accumulate, rank, world_size, angle)
    validations: dict[int, Result] = {}
    log = RunLog(output, first, steps, show_progress, other_pairs) if rank == 0 else None

    def validate(step: int) -> None:
        nonlocal best
        if rank != 0 or not source.held_out:
            return
        result = source.validate(model)
        validations[step] = result
        log.validation(step, numbers(result))
        if (score := next(iter(numbers(result).values()))) > best:
            best = score
            save_model(output / "best.safetensors", model, config, step, result)

    def save(step: int) -> None:
        if rank == 0:
            # The state last: where it is, the checkpoint of its step is too.
            save_model(output / "last.safetensors", model, config, step, validations.get(step))
            save_state(output / "last.pt", config, model, optimizer, scaler, step, best, overfit)

    step = first
    try:
        if first == 0:
            validate(0)
        batches = _timed(loader)
        while step < steps and not should_stop():
            start_training(parallel, config)  # a validation leaves it
            set_learning_rate(optimizer, config, step, steps, pairs_per_step, source.count)
            optimizer.zero_grad(set_to_none=True)
            record = {
                "loss": 0.0,
                "pairs": 0,
                "data_s": 0.0,
                "forward_s": 0.0,
                "loss_s": 0.0,
                "backward_s": 0.0,
            }
            for micro in range(accumulate):
                batch, waited = next(batches)
                # DDP averages gradients at the last of the accumulated batches only.
                last = micro == accumulate - 1
                with contextlib.nullcontext() if last or world_size == 1 else parallel.no_sync():
                    _forward_backward(
                        parallel, batch.to(device), config, scaler, step, micro, rank, record
                    )
                record["data_s"] += waited
            if config.optimizer.clip_norm is not None:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip_norm)
            scaler.step(optimizer)
            scaler.update()
            step += 1
            if log:
                record |= {
                    "lr": optimizer.param_groups[0]["lr"],
                    "max_angle_deg": angle((step - 1) * accumulate),
                }
                log.step(step, record)
            if step == steps or (config.validate_every and step % config.validate_every == 0):
                validate(step)
            if step % config.save_every == 0:
                save(step)
        if step > first and step % config.save_every:
            save(step)
    finally:
        if log:
            log.close()
    return PretrainResult(step, validations, output, other_pairs=other_pairs)


def _forward_backward(
    model: nn.Module,
    batch: PairBatch,
    config: PretrainConfig,
    scaler: torch.amp.GradScaler,
    step: int,
    micro: int,
    rank: int,
    record: dict[str, float],
) -> None:
    """One batch: sources and targets of all pairs go through the network together."""
    start = time.perf_counter()
    device = batch.matches.device
    precision = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.precision)
    autocast = torch.autocast(device.type, precision, enabled=precision is not None)
    with autocast, _coarse_level(model) as coarse:
        features0, features1 = pair_features(model, batch)
    forwarded = time.perf_counter()
    accumulate = config.optimizer.accumulate
    # Zero, but with a gradient: augmentation can leave a batch without a single match.
    total = features0.float().sum() * 0
    used = 0
    for index, pair in split_pairs(batch, features0, features1):
        # Seeded by place, so that a resumed run draws the same matches, however many processes share them.
        place = rank * config.batch_size + index
        generator = torch.Generator().manual_seed(_seed(config.seed, step, micro, place))
        total = total + pair_loss(pair, config.loss, config.voxel_size, generator)
        used += 1
    # Also at a weight of 0: DistributedDataParallel waits for the gradient of every weight.
    sided = _coarse_side_losses(coarse[0], batch) if coarse else features0.new_zeros(0)
    # Means over the pairs, and the coarse points, of all processes; their gradients are averaged.
    used, known, pairs, processes = over_processes(used, len(sided), len(batch), 1, device=device)
    loss = total * processes / max(used, 1)
    if coarse:
        loss = loss + config.loss.side * sided.sum() * processes / max(known, 1)
    computed = time.perf_counter()
    scaler.scale(loss / accumulate).backward()
    record["loss"] += over_processes(loss.item(), device=device)[0] / processes / accumulate
    record["pairs"] += int(pairs)
    record["forward_s"] += forwarded - start
    record["loss_s"] += computed - forwarded
    record["backward_s"] += time.perf_counter() - computed


@contextlib.contextmanager
def _coarse_level(model: nn.Module) -> Iterator[list[PointTensor]]:
    """Keeps what a network's attention puts out in one pass; an empty list for a network without."""
    attention = getattr(getattr(model, "module", model), "context", None)
    kept: list[PointTensor] = []
    if attention is None:
        yield kept
        return
    hook = attention.register_forward_hook(lambda module, inputs, output: kept.append(output))
    try:
        yield kept
    finally:
        hook.remove()


def _coarse_side_losses(coarse: PointTensor, batch: PairBatch) -> Tensor:
    """Of left and right, for the coarse points that hold matches of either cloud. Shape: (K,)"""
    voxels = join([batch.source, batch.target]).coordinates
    total = torch.zeros(len(voxels), dtype=torch.int32, device=voxels.device)
    # Summed: a voxel may have several matches, of either side or of none.
    for start, rows in zip((0, len(batch.source)), batch.matches.t(), strict=True):
        total = total.index_add(0, start + rows, batch.sides.int())
    stride = max(coarse.tensor_stride)
    return coarse_side_losses(coarse.side, coarse.coordinates, stride, voxels, total.sign())


def split_pairs(
    batch: PairBatch, features0: Tensor, features1: Tensor
) -> Iterator[tuple[int, PairFeatures]]:
    """The pairs of a batch with their numbers, each source moved into its target's frame; without matches: left out."""
    sources = zip(
        features0.split(batch.source_splits), batch.source.points.split(batch.source_splits)
    )
    targets = zip(
        features1.split(batch.target_splits), batch.target.points.split(batch.target_splits)
    )
    start0 = start1 = 0
    matches = batch.matches.split(batch.match_splits)
    sides = batch.sides.split(batch.match_splits)
    pairs = enumerate(zip(sources, targets, matches, batch.transforms, sides))
    for index, ((f0, p0), (f1, p1), rows, transform, side) in pairs:
        if len(rows) >= 2:
            moved = p0 @ transform[:3, :3].t() + transform[:3, 3]
            offset = torch.tensor([start0, start1], device=rows.device)
            yield (
                index,
                PairFeatures(f0, f1, moved, p1, rows - offset, batch.deformed[index], side),
            )
        start0 += len(p0)
        start1 += len(p1)


def save_model(
    path: Path, model: nn.Module, config: PretrainConfig, step: int, result: Result | None
) -> None:
    """Write a checkpoint that ``from_pretrained`` reads."""
    shapes = config.data.shapes
    roots = [] if shapes is None else [*shapes.roots]
    if shapes is None or shapes.rooms > 0:
        roots += [config.data.root, *config.data.extra_roots]
    data = ", ".join(Path(root).name for root in roots)
    extra = {"step": step, "loss": config.loss.name, "data": data}
    if result is not None:
        extra |= {f"validation_{name}": value for name, value in list(numbers(result).items())[:2]}
    save_checkpoint(path, model, config.voxel_size, extra)


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _timed(loader) -> Iterator[tuple[PairBatch, float]]:
    """Batches, and the seconds that each was waited for."""
    batches = iter(loader)
    while True:
        start = time.perf_counter()
        try:
            batch = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:
            if str(error).startswith("DataLoader worker"):
                raise InputError(WORKER_KILLED) from error
            raise
        yield batch, time.perf_counter() - start
