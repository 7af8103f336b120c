"""One axis of the pretraining: its settings, and what they are scored on."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sparsefeat.errors import InputError
from sparsefeat.transfer.config import CreaturesConfig
from sparsefeat.transfer.config_checks import check_distinct, check_least, check_positive
from sparsefeat.transfer.study_config import StudyConfig


@dataclass
class ScanScoreConfig:
    """Pairs of fragments that pretrained networks are scored on."""

    root: str | None = None  # of the fragments; null: data.root of the base
    scenes: list[str] | None = None  # null: those of root/val_*.txt, or all
    pairs: int = 30  # a seeded choice
    points: int = 2000  # key points per fragment
    voxel_size: float = 0.05  # metres; key points are drawn from one point per voxel
    min_overlap: float = 0.3

    def __post_init__(self) -> None:
        check_positive(self, "pairs", "points", "voxel_size")
        if not 0 <= self.min_overlap <= 1:
            raise InputError(f"min_overlap: expected a share from 0 to 1, got {self.min_overlap}")


@dataclass
class SettingConfig:
    """One setting of an axis: how it differs from the base."""

    changes: list[str] = field(default_factory=list)  # of the pretraining, such as loss.name=cycle
    then: list[str] | None = (
        None  # further changes, for a second run from the weights of the first; each has half the steps
    )
    voxel_size: float | Literal["rule of thumb", "tuned", "tuned without labels"] | None = (
        None  # of shapes, in their unit: given, 2 % of the median extent, or tuned; null: that of the section shapes
    )

    def __post_init__(self) -> None:
        if not isinstance(self.voxel_size, str):
            check_positive(self, "voxel_size")


def file_name(text: str) -> str:
    """The name of a setting as part of the name of a file."""
    return re.sub(r"[^A-Za-z0-9.]+", "_", text)


@dataclass
class AxisConfig:
    """One axis of pretraining: several settings, trained from scratch and scored on scans and on shapes."""

    task: Literal["axis"] = "axis"
    base: str = "study/pretraining"  # a pretraining configuration: a file, or a name in configs/
    changes: list[str] = field(default_factory=list)  # of the base, in all settings
    settings: dict[str, SettingConfig] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    # of weights, pairs and labelled shapes
    train_once: bool = False  # with the first seed; the others draw labelled shapes alone
    creatures: dict[str, CreaturesConfig] = field(default_factory=dict)
    # folder -> what is made there first, where it is needed and absent
    scans: dict[str, ScanScoreConfig] = field(default_factory=dict)
    # left out: those whose folder is absent, and where a setting was trained on their scenes
    shapes: dict[str, StudyConfig] = field(default_factory=dict)
    # the first whose data are there, or are made, counts; its networks and methods are the settings
    output: Path = Path("runs/study/axis")

    def __post_init__(self) -> None:
        if not self.settings or not self.seeds or not (self.scans or self.shapes):
            raise InputError("settings, seeds, and scans or shapes must not be empty")
        check_least(self, seeds=0)
        check_distinct(self, "seeds")
        folders: dict[str, str] = {}
        for name in self.settings:
            other = folders.setdefault(file_name(name), name)
            if other != name:
                raise InputError(
                    f"settings: {other!r} and {name!r} would share the folder {file_name(name)}; rename one of them"
                )
        for name, shapes in self.shapes.items():
            if len(shapes.labels) != 1 or len(shapes.shots) != 1:
                raise InputError(
                    f"shapes.{name}: expected one kind of labels and one number of shots, got "
                    f"{len(shapes.labels)} and {len(shapes.shots)}"
                )
