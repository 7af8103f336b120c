"""A study: every descriptor on every kind of damage."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sparsefeat.errors import InputError
from sparsefeat.extract.descriptors import DEFAULT_CHECKPOINT, SHAPE_VOXEL
from sparsefeat.extract.surfaces import SHAPE_SCALES
from sparsefeat.synthetic.damage import DAMAGES
from sparsefeat.transfer.config import CorrespondenceConfig, Damage, DataConfig
from sparsefeat.transfer.config_checks import check_distinct, check_least, check_positive

CLEAN = "clean"
"""What a study calls shapes without damage."""
SAME = "same"
COPIES = "copies"
LEARNED = (CLEAN, COPIES, SAME)
"""What heads learn on: clean shapes; these and damaged copies of them; shapes of the damage that is scored."""
_HAND_MADE = ("fpfh", "fpfh_context", "hks", "wks")


@dataclass
class StudyConfig:
    """A study of descriptors."""

    task: Literal["study"] = "study"
    data: DataConfig = field(default_factory=lambda: DataConfig(normalize="area"))
    held_out: float = (
        0.0  # score on this share of the training individuals, for development; 0: on data.test
    )
    labels: dict[str, str | None] = field(default_factory=lambda: {"labels": None})
    # name -> folder with <shape>.txt (or <class>/<shape>.txt), one label from 0 a vertex, and parts.json; null: the labels
    # of the data set
    networks: dict[str, str] = field(
        default_factory=lambda: {"ours": DEFAULT_CHECKPOINT, "random": "random"}
    )
    # name -> checkpoint; random: the architecture of the first one with random weights
    hand_made: list[Literal["fpfh", "fpfh_context", "hks", "wks"]] = field(
        default_factory=lambda: list(_HAND_MADE)
    )
    joined: dict[str, list[str]] = field(
        default_factory=lambda: {
            "hks + wks": ["hks", "wks"],
            "ours joined": ["ours", "fpfh_context", "hks", "wks"],
            "random joined": ["random", "fpfh_context", "hks", "wks"],
            "fpfh joined": ["fpfh_context", "hks", "wks"],
        }
    )
    voxel_size: float = SHAPE_VOXEL  # in the unit of the shapes, after data.normalize
    scales: list[float] = field(default_factory=lambda: list(SHAPE_SCALES))
    views: int = 2  # poses that learned features are averaged over
    absolute: bool = (
        False  # times of hks and energies of wks for area 1, not of each shape's eigenvalues
    )
    damages: list[Literal["clean", Damage]] = field(default_factory=lambda: [CLEAN, *DAMAGES])
    clean_only: list[str] = field(default_factory=list)  # labels that are not scored on damages
    shots: list[int] = field(default_factory=lambda: [1, 2, 5, 20])
    damaged_shots: list[int] | None = None  # of heads that learn on the same damage; null: as shots
    copies: list[Damage] = field(
        default_factory=list
    )  # damages of the copies that further heads learn on beside the clean shapes, as many as damaged_shots; empty: none
    copy_rows: int = 400  # random vertices of a copy that heads learn from
    seeds: list[int] = field(default_factory=lambda: [0, 1])
    rows: int = 1500  # random vertices of a labelled shape that heads learn from
    test_rows: int = 2500  # random vertices of a test shape that are scored
    max_iterations: int = 100  # of the regressions
    correspondence: CorrespondenceConfig | None = (
        None  # null: no maps; metric: landmarks of so many training shapes
    )
    workers: int = 2  # processes
    cache: Path | None = Path("runs/cache/laplace")  # of Laplace bases; null: none
    output: Path = Path("runs/study/shapes")

    def __post_init__(self) -> None:
        members = [*self.networks, *self.hand_made]
        for name, parts in self.joined.items():
            lacking = [part for part in parts if part not in members]
            if lacking or len(parts) < 2:
                raise InputError(
                    f"joined {name!r}: {parts}, expected two or more of {', '.join(members)}"
                )
            if name in members:
                raise InputError(f"joined {name!r} has the name of a member")
        if next(iter(self.networks.values()), "") == "random":
            raise InputError(
                "networks: the first is random, expected a checkpoint, whose architecture it takes"
            )
        if (
            not self.shots
            or not self.seeds
            or not members
            or self.workers < 1
            or min(self.rows, self.test_rows, self.copy_rows) < 1
        ):
            raise InputError(
                "shots, seeds and methods must not be empty, workers and rows at least 1"
            )
        if not 0 <= self.held_out < 1:
            raise InputError(f"held_out: expected a share from 0 to below 1, got {self.held_out}")
        check_distinct(self, "members", "damages", "shots", "damaged_shots", "copies", "seeds")
        check_least(self, shots=1, damaged_shots=1, seeds=0, views=1, max_iterations=1)
        check_positive(self, "voxel_size")
        if not self.labels or not self.damages:
            raise InputError("labels and damages must not be empty")
        if not self.scales or any(not scale > 0 for scale in self.scales):
            raise InputError(f"scales: expected one positive factor or more, got {self.scales}")
        unknown = [kind for kind in self.clean_only if kind not in self.labels]
        if unknown:
            raise InputError(f"clean_only {unknown[0]!r}: expected one of {', '.join(self.labels)}")
        if self.copies and self.damaged_shots == []:
            raise InputError("copies: heads learn on them with damaged_shots, which is empty")
        if self.absolute and self.data.normalize != "area":
            raise InputError(
                "absolute: expected data.normalize area, which times and energies are for"
            )
        if self.data.resplit:
            raise InputError("data.resplit: a study has one division of the shapes")

    @property
    def members(self) -> list[str]:
        """Methods that are computed; the others mix them."""
        return [*self.networks, *self.hand_made]

    @property
    def methods(self) -> list[str]:
        """All methods, in the order of the table."""
        return [*self.members, *self.joined]
