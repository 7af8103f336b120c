"""How a functional-map head is trained on pairs of shapes, and scored on pairs of others."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sparsefeat.errors import InputError
from sparsefeat.extract.descriptors import SHAPE_VOXEL
from sparsefeat.extract.surfaces import SHAPE_SCALES
from sparsefeat.transfer.config import DataConfig, FeatureConfig
from sparsefeat.transfer.config_checks import check_least, check_positive


@dataclass
class MapHeadConfig:
    """The network and its map layer, see :class:`sparsefeat.heads.FunctionalMapHead`."""

    features: int = 64  # channels that it gives
    width: int = 64
    blocks: int = 4
    dropout: float = 0.0
    eigenpairs: int = 128  # that diffusion runs in
    size: int = 50  # eigenpairs of the functional map
    weight: float = 1.0  # of the mask in the map layer
    temperature: float = 0.07

    def __post_init__(self) -> None:
        check_least(self, features=1, width=1, blocks=1, eigenpairs=1, size=1)


@dataclass
class MapsConfig:
    """Training of a functional-map head on pairs of shapes, and its errors on pairs of others."""

    task: Literal["maps"] = "maps"
    data: DataConfig = field(default_factory=lambda: DataConfig(normalize="area"))
    held_out: float = (
        0.0  # score on this share of the training individuals, for development; 0: on data.test
    )
    shapes: int | None = None  # random training shapes; null: all
    supervision: Literal["landmarks", "none"] = "landmarks"  # none: no correspondences are used
    inputs: Literal["joined", "ours", "hks", "wks", "fpfh", "fpfh_context", "xyz"] = "joined"
    features: FeatureConfig = field(
        default_factory=lambda: FeatureConfig(
            voxel_size=SHAPE_VOXEL,
            scales=list(SHAPE_SCALES),
        )
    )
    head: MapHeadConfig = field(default_factory=MapHeadConfig)
    steps: int = 3000  # one pair each
    learning_rate: float = 3e-3  # of Adam at its highest; one cycle
    samples: int = 800  # points of a pair that the losses take
    snapshots: int = 5  # weights that are scored, evenly over the training, the last one among them
    save_every: int = 50  # steps that an interruption may lose
    zoomout: int = 120  # eigenpairs after refinement; 0: none
    pairs: int | None = None  # random pairs of test shapes; null: all unordered ones
    points: int = 1000  # random landmarks that errors are taken at
    rotate: bool = True  # also score every source and target turned at random
    seed: int = 0
    cache: Path | None = Path("runs/cache/maps")  # of bases and descriptors; null: none
    output: Path = Path("runs/transfer/maps")

    def __post_init__(self) -> None:
        check_least(self, steps=1, samples=2, snapshots=1, save_every=1, pairs=1, points=1)
        check_least(self, zoomout=0, seed=0)
        check_positive(self, "learning_rate")
        for name in ("max_test", "resplit"):
            if getattr(self.data, name):
                raise InputError(
                    f"data.{name}: maps are scored on pairs of one division; set pairs"
                )
        if not 0 <= self.held_out < 1:
            raise InputError(f"held_out: expected a share from 0 to below 1, got {self.held_out}")
        if self.shapes is not None and self.shapes < 2:
            raise InputError(f"shapes: expected 2 or more, got {self.shapes}")
        if self.data.normalize != "area":
            raise InputError("data.normalize: expected area, which diffusion times are for")
        if self.features.voxel_size is None:
            raise InputError("features.voxel_size: expected a number, in roots of the area")
        if 0 < self.zoomout < self.head.size:
            raise InputError(
                f"zoomout: expected 0, or at least head.size {self.head.size}, got {self.zoomout}"
            )
