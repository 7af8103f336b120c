"""Where a run's pairs come from, and how well a network does on those held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from sparsefeat.errors import InputError
from sparsefeat.evaluate.matching import MatchingResult, evaluate_matching
from sparsefeat.extract import FeatureExtractor
from sparsefeat.pretrain.config import PretrainConfig
from sparsefeat.pretrain.data import _Overfit, load_pairs, make_loader
from sparsefeat.pretrain.pairs import PairDataset, collate_pairs, pair_features
from sparsefeat.pretrain.sampling import PairRequest, PairSampler
from sparsefeat.pretrain.shapes import ShapePairDataset, load_shapes
from sparsefeat.process.workers import end_with_parent

HIT_VOXELS = 2.0
"""A landmark whose nearest neighbour in feature space lies at most so many voxels from its true place is a hit."""


class LandmarkResult(NamedTuple):
    """Matching of held-out shapes.

    Attributes:
        hits: share of landmarks whose nearest neighbour lies within ``HIT_VOXELS`` of the true place.
        error: mean distance between the two, over the root mean square distance of the shape from its middle.
    """

    hits: float
    error: float


Result = MatchingResult | LandmarkResult


def numbers(result: Result) -> dict[str, float]:
    """What is logged of a validation, the number that decides about ``best.safetensors`` first."""
    if isinstance(result, LandmarkResult):
        return result._asdict()
    return {name: getattr(result, name) for name in ("IR", "FMR", "FMR_mutual", "IR_mutual")}


class PairSource(Protocol):
    """Pairs to train on, and a validation.

    Attributes:
        count: pairs of an epoch.
        held_out: whether there is anything to validate on.
    """

    count: int
    held_out: bool

    def loader(
        self, start: int, stop: int, rank: int, world_size: int, angle: Callable[[int], float]
    ) -> DataLoader:
        """Batches ``start`` to ``stop`` of this process; ``angle`` is the largest rotation of a batch, degrees."""

    def validate(self, model: nn.Module) -> Result:
        """How well the network matches what is held out."""


class FragmentSource:
    """Overlapping fragments of rigid scenes."""

    def __init__(self, config: PretrainConfig, overfit: bool):
        self.config, self.overfit = config, overfit
        self.train, self.pairs = load_pairs(config.data, config.seed)
        if overfit:
            self.train = self.train[: config.batch_size]
            self.pairs = {"overfit": self.train}
        self.count, self.held_out = len(self.train), bool(self.pairs)

    def loader(
        self, start: int, stop: int, rank: int, world_size: int, angle: Callable[[int], float]
    ) -> DataLoader:
        return make_loader(
            self.train, self.config, start, stop, rank, world_size, angle, self.overfit
        )

    def validate(self, model: nn.Module) -> MatchingResult:
        config = self.config
        return evaluate_matching(
            self.pairs, FeatureExtractor(model, config.voxel_size), config.voxel_size,
            points=config.data.validation_points, dense=config.voxel_points == "mean",
        )  # fmt: skip


class ShapeSource:
    """Deforming shapes with correspondence, and fragments between them where the configuration asks for some."""

    def __init__(self, config: PretrainConfig, overfit: bool):
        shapes = config.data.shapes
        self.config, self.overfit = config, overfit
        shared = {Path(root).resolve() for root in shapes.roots} & {
            Path(root).resolve() for root in shapes.validation_roots or ()
        }
        if shared:
            raise InputError(
                f"data.shapes: {min(shared)} would be trained and validated on; leave validation_roots out to use "
                "its own splits"
            )
        split = "train" if shapes.validation_roots is None else None
        loaded = load_shapes(shapes, split)
        fragments = None
        if shapes.rooms > 0 and not overfit:
            pairs, _ = load_pairs(replace(config.data, validation_pairs=0), config.seed)
            fragments = PairDataset(
                pairs, config.voxel_size, config.augment, max_voxels=config.max_voxels,
                positive_radius=config.loss.radius_voxels, average=True,
                cache_bytes=config.data.cache_bytes, oriented=config.model.oriented,
            )  # fmt: skip
            fragments.preload()
        used = shapes.plain() if overfit else shapes
        self.dataset = ShapePairDataset(loaded, used, config.voxel_size, fragments)
        self.count = len(self.dataset)
        self.validation: Dataset | None = None
        if overfit:
            self.validation = self.dataset
        elif config.data.validation_pairs:
            roots = shapes.validation_roots or shapes.roots
            split = "test" if shapes.validation_roots is None else None
            held_out = replace(shapes.plain(), roots=roots)
            self.validation = ShapePairDataset(
                load_shapes(held_out, split), held_out, config.voxel_size
            )
        self.held_out = self.validation is not None

    def loader(
        self, start: int, stop: int, rank: int, world_size: int, angle: Callable[[int], float]
    ) -> DataLoader:
        config, workers = self.config, self.config.data.workers
        sampler = (_Overfit if self.overfit else PairSampler)(
            self.count,
            config.batch_size,
            config.seed,
            start,
            stop,
            rank=rank,
            world_size=world_size,
            angle=angle,
        )
        return DataLoader(
            self.dataset, batch_sampler=sampler, num_workers=workers, collate_fn=collate_pairs,
            worker_init_fn=end_with_parent, prefetch_factor=4 if workers else None,
        )  # fmt: skip

    @torch.no_grad()
    def validate(self, model: nn.Module) -> LandmarkResult:
        count = self.config.data.validation_pairs
        if self.overfit:
            count = min(self.config.batch_size, len(self.validation))
        rng = np.random.default_rng(self.config.seed)
        # Fixed pairs, spread evenly over the shapes.
        rows = (
            np.arange(count)
            if self.overfit
            else np.linspace(0, len(self.validation) - 1, count).round().astype(int)
        )
        training = model.training
        model.eval()
        hits, errors = [], []
        for row in map(int, rows):
            # The pairs that _Overfit trains on, in the same pose.
            request = (
                PairRequest(row, row, 0.0)
                if self.overfit
                else PairRequest(row, int(rng.integers(1 << 62)))
            )
            batch = collate_pairs([self.validation[request]]).to(next(model.parameters()).device)
            f, g = pair_features(model, batch)
            rows0, rows1 = batch.matches.t()
            places = batch.target.points[rows1]
            apart = (places[(f[rows0] @ g[rows1].t()).argmax(1)] - places).norm(dim=1)
            hits.append((apart <= HIT_VOXELS * self.config.voxel_size).float().mean().item())
            extent = (
                (batch.target.points - batch.target.points.mean(0)).square().sum(1).mean().sqrt()
            )
            errors.append((apart.mean() / extent).item())
        model.train(training)
        return LandmarkResult(float(np.mean(hits)), float(np.mean(errors)))


def open_source(config: PretrainConfig, overfit: bool = False) -> PairSource:
    """The pairs that a configuration names.

    Raises:
        InputError: data are not as expected.
    """
    return (FragmentSource if config.data.shapes is None else ShapeSource)(config, overfit)
