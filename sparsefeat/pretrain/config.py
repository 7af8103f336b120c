"""The configuration of a pretraining run, as it stands in YAML."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from sparsefeat.errors import InputError
from sparsefeat.losses import LossConfig
from sparsefeat.pretrain.augment import AugmentConfig
from sparsefeat.pretrain.shapes import ShapesConfig


@dataclass
class RoomsConfig:
    """Synthetic rooms to make when ``data.root`` does not hold them yet."""

    rooms: int = 6
    fragments_per_room: int = 8
    frames: int = 50  # depth frames fused into one fragment
    seed: int = 0
    workers: int = 2

    def __post_init__(self) -> None:
        least = {"rooms": 1, "fragments_per_room": 1, "frames": 2, "seed": 0, "workers": 1}
        _check_least(self, **least)


@dataclass
class DataConfig:
    """Where the fragment pairs are. The layout (FCGF's or the 3DMatch test set's) is seen from the folder."""

    root: str = "data/threedmatch"
    shapes: ShapesConfig | None = None  # train on pairs of deforming shapes
    rooms: RoomsConfig | None = None  # make synthetic rooms in root first
    scenes: list[str] | None = None  # null: all, or root/train_*.txt where there is one
    extra_roots: list[str] = field(
        default_factory=list
    )  # further folders to train on, each with its own train_*.txt
    validation_root: str | None = None  # null: root
    validation_scenes: list[str] | None = None  # null: all of validation_root, or its val_*.txt
    min_overlap: float = 0.3  # share of the fragments that a pair must have in common
    validation_pairs: int = 100  # a seeded choice; 0: do not validate
    validation_points: int = 5000  # key points per fragment
    workers: int = 1  # processes that load, augment and match; 0: in this one
    cache_gb: float | None = (
        8.0  # of fragments kept in memory; others are read again each time. null: all
    )

    @property
    def cache_bytes(self) -> int | None:
        """``cache_gb`` in bytes."""
        return None if self.cache_gb is None else int(self.cache_gb * 1e9)

    def __post_init__(self) -> None:
        _check_least(self, validation_pairs=0, validation_points=1, workers=0)
        if self.cache_gb is not None and not 0 <= self.cache_gb < math.inf:
            raise InputError(f"cache_gb: expected 0 or more, got {self.cache_gb}")
        if not 0 <= self.min_overlap <= 1:
            raise InputError(f"min_overlap: expected a share from 0 to 1, got {self.min_overlap}")


@dataclass
class ModelConfig:
    """The network, by FCGF's names."""

    name: str = "ResUNetBN2C"
    out_channels: int = 32
    conv1_kernel_size: int = 7
    bn_momentum: float = 0.05
    normalize_feature: bool = True
    kernels: Literal["grid", "pair"] = "grid"  # pair: rotation-invariant, see models/pairs.py
    oriented: bool = (
        False  # pair kernels know the outer side of the surface, from viewpoints or normals
    )
    chiral: bool = False  # one pair function tells left from right; needs oriented
    context: int = 0  # blocks of attention between coarse points; needs oriented
    depth: int = 3  # down-samplings; each one less halves the receptive field
    dilation: int | None = None  # of the kernels that keep the stride; null: as published
    channels: list[int] | None = None  # widths on the way down; null: as published
    tr_channels: list[int] | None = None  # widths on the way up
    init: str | None = None  # a checkpoint to start from


@dataclass
class OptimizerConfig:
    """SGD or Adam(W), and how the rate changes."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.8  # sgd
    weight_decay: float = 1e-4
    schedule: Literal["constant", "exponential", "cosine"] = "exponential"
    gamma: float = 0.99  # exponential: factor per epoch
    final: float = 0.02  # cosine: share of lr at the end
    warmup_steps: int = 0
    accumulate: int = 1  # batches per step
    clip_norm: float | None = None  # largest gradient norm
    only: list[str] | None = (
        None  # weights whose names begin like this are trained, others stay; null: all are trained
    )
    frozen_statistics: bool = (
        False  # batch norms keep the running statistics of model.init, and use them as later
    )

    def __post_init__(self) -> None:
        _check_least(self, warmup_steps=0, accumulate=1)
        for name in ("lr", "gamma", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name}: expected a number above 0, got {value}")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"weight_decay: expected 0 or more, got {self.weight_decay}")
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum: expected 0 to below 1, got {self.momentum}")
        if not 0 <= self.final <= 1:
            raise InputError(f"final: expected a share from 0 to 1, got {self.final}")


@dataclass
class RotationConfig:
    """Random rotations, and how the network gets used to them.

    Full rotations from the first step hardly learn with grid kernels: let the angle grow, or take pair kernels.
    """

    max_deg: float = 180.0  # 180: uniform over SO(3)
    start_deg: float = 180.0  # limit at the first step
    grow_share: float = 0.0  # share of the steps in which the limit grows to max_deg

    def __post_init__(self) -> None:
        if not 0 <= self.start_deg <= self.max_deg <= 180:
            raise InputError(
                f"expected 0 <= start_deg <= max_deg <= 180, got {self.start_deg} and {self.max_deg}"
            )
        if not 0 <= self.grow_share <= 1:
            raise InputError(f"grow_share: expected a share from 0 to 1, got {self.grow_share}")


@dataclass
class PretrainConfig:
    """A pretraining run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    rotation: RotationConfig = field(default_factory=RotationConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    voxel_size: float = 0.025  # metres
    voxel_points: Literal["random", "mean"] = "random"  # of a voxel's points: one, or their mean
    max_voxels: int | None = (
        None  # per cloud; of larger ones the voxels nearest to one shared place are kept
    )
    batch_size: int = 4  # pairs per process and batch
    epochs: float | None = 100.0  # passes over the pairs; null: steps counts
    steps: int | None = None  # optimiser steps; null: epochs counts
    seed: int = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # autocast; fp16 on CUDA only
    validate_every: int = 1000  # steps; 0: at the end alone
    save_every: int = 500  # steps
    compare: list[Literal["fpfh", "random"]] = field(
        default_factory=list
    )  # baselines evaluated at the end
    pictures: bool = True

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise InputError(
                f"exactly one of epochs and steps must be set, got {self.epochs} and {self.steps}"
            )
        if (self.steps is not None and self.steps < 1) or (
            self.epochs is not None and not 0 < self.epochs < math.inf
        ):
            raise InputError(
                f"steps or epochs must be positive and finite, got {self.steps} and {self.epochs}"
            )
        if not 0 < self.voxel_size < math.inf:
            raise InputError(f"voxel_size: expected metres above 0, got {self.voxel_size}")
        if (
            self.data.shapes is not None
            and self.loss.name == "cycle"
            and self.loss.cycle_form in ("landing", "distance")
        ):
            raise InputError(
                f"loss.cycle_form {self.loss.cycle_form} needs rigid motions; shapes deform"
            )
        if self.optimizer.frozen_statistics and self.model.init is None:
            raise InputError(
                "optimizer.frozen_statistics: needs model.init, a new network has no statistics to keep"
            )
        _check_least(self, batch_size=1, save_every=1, validate_every=0, seed=0)
        if self.max_voxels is not None:
            _check_least(self, max_voxels=1)
            if self.data.shapes is not None and self.data.shapes.rooms == 0:
                raise InputError(
                    "max_voxels: for pairs of fragments, got data.shapes without rooms"
                )


def _check_least(config: object, **least: int) -> None:
    """Refuse numbers of a section that are below these."""
    for name, limit in least.items():
        if getattr(config, name) < limit:
            raise InputError(f"{name}: expected at least {limit}, got {getattr(config, name)}")
