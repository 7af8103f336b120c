"""An experiment in transfer: task = data + features + head + metric."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sparsefeat.errors import InputError
from sparsefeat.extract.descriptors import DEFAULT_CHECKPOINT, SHAPE_VOXEL
from sparsefeat.extract.surfaces import SHAPE_SCALES
from sparsefeat.heads import HeadTraining
from sparsefeat.synthetic.damage import DAMAGES

Method = Literal[
    "joined", "tuned", "fixed", "random", "finetuned", "xyz", "hks", "wks", "fpfh", "fpfh_context"
]
"""Features that a transfer compares; the first that took part is drawn."""
Damage = Literal["cut", "one_view", "cloud", "bridges", "fusion", "remeshed"]
CLEAN = "clean"
"""What a study calls shapes without damage."""
SAME = "same"
COPIES = "copies"
LEARNED = (CLEAN, COPIES, SAME)
"""What heads learn on: clean shapes; these and damaged copies of them; shapes of the damage that is scored."""
_HAND_MADE = ("fpfh", "fpfh_context", "hks", "wks")


def check_least(config: object, **least: float) -> None:
    """Refuse numbers, or numbers in lists, that are below these; None is left alone.

    Raises:
        InputError: see above.
    """
    for name, lowest in least.items():
        value = getattr(config, name)
        values = value if isinstance(value, list) else [] if value is None else [value]
        if any(number < lowest for number in values):
            raise InputError(f"{name}: expected at least {lowest:g}, got {value}")


def check_positive(config: object, *names: str) -> None:
    """Refuse numbers that are not above 0; None is left alone.

    Raises:
        InputError: see above.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{name} must be positive, got {value}")


def check_distinct(config: object, *names: str) -> None:
    """Refuse lists that say a thing twice, which would count twice in means; None is left alone.

    Raises:
        InputError: see above.
    """
    for name in names:
        values = getattr(config, name) or []
        if len(set(values)) < len(values):
            raise InputError(f"{name}: expected each of them once, got {values}")


@dataclass
class DataConfig:
    """Which shapes."""

    name: str = "folder"  # see sparsefeat.data.shapes.dataset_names
    root: Path = Path("data")
    options: dict[str, str | int | float | bool | None] = field(
        default_factory=dict
    )  # of the loader
    train: str = "train"  # split that shots are drawn from
    test: str = "test"
    resplit: bool = False  # each seed also divides the shapes anew, by the loader's option `seed`
    max_test: int | None = None  # random test shapes, drawn by the first seed; None: all
    normalize: Literal["none", "area", "radius"] = (
        "none"  # scale each shape to unit area or unit radius first
    )
    up: Literal["x", "y", "z", "-x", "-y", "-z"] = "z"  # of the shapes, for pictures

    def __post_init__(self) -> None:
        check_least(self, max_test=1)


@dataclass
class CreaturesConfig:
    """Shapes that are made first, where `data.root` is not there yet."""

    seed: int = 0
    count: int = 8  # per class
    poses: int = 2  # of each individual
    families: list[str] = field(default_factory=lambda: ["humanoid", "quadruped", "hand"])
    vertices: int = 2500  # of a shape, about
    landmark_count: int = 3000  # of a family, about
    triangulations: int | None = None  # that shapes of a family share; None: each has its own


@dataclass
class FeatureConfig:
    """The backbone, and how its receptive field is chosen for `tuned` and `random`."""

    checkpoint: str = DEFAULT_CHECKPOINT  # path, sparsefeat/NAME or hub id
    voxel_size: float | None = (
        None  # in the unit of the shapes (after data.normalize); None: tuned by gradient
    )
    objective: Literal["auto", "probe", "round_trip", "cycle", "correspondence"] = "auto"
    # auto: the probe where five or more labelled shapes (of vertices or faces) take part, else round_trip, without labels
    start: float | None = None  # voxel size to tune from; None: 1/50 of the median extent
    span: float = 8.0  # tuning stays within start / span and start * span; at half the size it costs four times as much
    snap: bool = False  # to the nearest of start * sqrt(2)^k, so that features serve several runs and the curve
    shapes: int = 8  # at most so many take part in tuning
    keypoints: int = 1000  # per shape, for tuning
    fixed_share: float = 0.02  # `fixed`: the voxel size as a share of the median extent
    interpolation: Literal["nearest", "trilinear"] = "trilinear"
    views: int = 1  # poses that features are averaged over; the time grows in proportion
    scales: list[float] = field(
        default_factory=lambda: list(SHAPE_SCALES)
    )  # factors on the voxel size, around the tuned one; features stand side by side
    join: list[Literal["ours", "random", "hks", "wks", "fpfh", "fpfh_context"]] = field(
        default_factory=lambda: ["ours", "hks", "wks"]
    )  # what the method `joined` mixes; ours is `tuned`
    absolute: bool = False  # times of hks and energies of wks for area 1, not of each shape's eigenvalues: for cut shapes

    def __post_init__(self) -> None:
        if not self.span > 1 or not self.fixed_share > 0:
            raise InputError(
                f"span must be above 1 and fixed_share positive, got {self.span}, {self.fixed_share}"
            )
        if self.shapes < 1 or self.keypoints < 2 or self.views < 1:
            raise InputError(
                f"expected at least 1 shape, 2 keypoints and 1 view, got {self.shapes}, {self.keypoints}, {self.views}"
            )
        if not self.scales or any(not scale > 0 for scale in self.scales):
            raise InputError(f"scales: expected one positive factor or more, got {self.scales}")
        if len(self.join) < 2 or len(set(self.join)) < len(self.join):
            raise InputError(f"join: expected two different methods or more, got {self.join}")
        check_positive(self, "start", "voxel_size")


@dataclass
class HeadConfig:
    """What reads the features (segmentation and classification)."""

    name: Literal["linear", "knn", "mlp", "diffusion"] = "linear"
    hidden: list[int] = field(default_factory=lambda: [128])  # mlp
    width: int = 64  # diffusion
    blocks: int = 2  # diffusion
    dropout: float = 0.5  # diffusion; 0 for short trainings
    training: HeadTraining = field(default_factory=HeadTraining)  # mlp and diffusion
    turn_xyz: bool = (
        True  # mlp and diffusion: coordinates as features are turned at random in every step
    )

    def __post_init__(self) -> None:
        if self.width < 1 or self.blocks < 1 or any(width < 1 for width in self.hidden):
            raise InputError(
                f"width, blocks and hidden must be positive, got {self.width}, {self.blocks}, {self.hidden}"
            )
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout: expected a share from 0 to below 1, got {self.dropout}")


@dataclass
class FinetuneConfig:
    """Training of backbone and linear head together (`finetuned`)."""

    steps: int = 200  # one shape each, turned at random
    learning_rate: float = 1e-3  # of Adam, falling to zero along a cosine

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.learning_rate > 0:
            raise InputError(
                f"steps and learning_rate must be positive, got {self.steps}, {self.learning_rate}"
            )


@dataclass
class CorrespondenceConfig:
    """How maps are made from features."""

    pairs: int | None = (
        None  # random pairs of test shapes, drawn by the first seed; None: all that are known
    )
    points: int | None = 1000  # landmarks per pair that errors are taken at; None: all
    eigenpairs: int = 30  # of the functional map
    zoomout: int = 100  # eigenpairs after refinement; 0: none
    metric: int = 0  # random training shapes whose landmarks a linear metric on features is learned from; 0: none

    def __post_init__(self) -> None:
        check_least(self, pairs=1, points=1, eigenpairs=1, zoomout=0)
        if 0 < self.zoomout < self.eigenpairs:
            raise InputError(
                f"zoomout: expected 0, or at least eigenpairs {self.eigenpairs}, got {self.zoomout}"
            )
        if self.metric == 1 or self.metric < 0:
            raise InputError(f"metric: expected 0, or 2 shapes or more, got {self.metric}")


@dataclass
class AdapterConfig:
    """Comparison of the receptive-field adapter with a grid search, on the training split alone."""

    shots: int = 6  # shapes to learn from, which the adapter sees
    validation: int = 6  # shapes that choose the grid's voxel size
    scored: int = 6  # shapes that both are scored on
    held_share: float = 0.25  # of the individuals, for each of the last two groups
    rungs: int = 9  # of the grid, a factor of sqrt(2) apart, around features.start
    starts: list[float] = field(default_factory=lambda: [1 / 3, 1.0, 3.0])  # times features.start
    draws: list[int] = field(default_factory=lambda: [0])  # seeds that divide the individuals

    def __post_init__(self) -> None:
        if not 0 < self.held_share < 0.5:
            raise InputError(f"held_share: expected a share below a half, got {self.held_share}")
        if min(self.shots, self.validation, self.scored, self.rungs) < 1:
            raise InputError(
                f"expected 1 or more shots, validation and scored shapes and rungs, got {self.shots}, "
                f"{self.validation}, {self.scored}, {self.rungs}"
            )
        if not self.starts or not self.draws or any(not start > 0 for start in self.starts):
            raise InputError(
                f"expected one draw or more and positive starts, got {self.draws}, {self.starts}"
            )
        check_least(self, draws=0)
        check_distinct(self, "starts", "draws")


@dataclass
class TransferConfig:
    """One experiment."""

    task: Literal["segmentation", "correspondence", "classification"] = "segmentation"
    data: DataConfig = field(default_factory=DataConfig)
    creatures: CreaturesConfig | None = None
    features: FeatureConfig = field(default_factory=FeatureConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    correspondence: CorrespondenceConfig = field(default_factory=CorrespondenceConfig)
    methods: list[Method] = field(default_factory=lambda: ["tuned", "random", "xyz", "hks", "wks"])
    damage: list[Damage] = field(
        default_factory=list
    )  # segmentation: heads also learn from copies of the labelled shapes that are damaged like this
    test_damage: list[Damage] = field(
        default_factory=list
    )  # segmentation: heads are also scored on copies of the test shapes that are damaged like this
    shots: list[int] = field(
        default_factory=lambda: [1, 5]
    )  # labelled shapes (per class in classification)
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    rotate: bool = True  # also score every test shape turned at random
    rungs: int = (
        0  # voxel sizes, a factor of sqrt(2) apart around the tuned one, for the curve; 0: no curve
    )
    adapter: AdapterConfig | None = None  # segmentation and classification; null: not compared
    note: str | None = None  # what to know before reading the table; printed above it
    cache: Path | None = Path("runs/cache/laplace")  # of Laplace bases; None: none
    output: Path = Path("runs/transfer")

    def __post_init__(self) -> None:
        if not self.methods or not self.seeds or (self.task != "correspondence" and not self.shots):
            raise InputError("methods, seeds and shots must not be empty")
        if self.task == "correspondence" and "finetuned" in self.methods:
            raise InputError(
                "methods: finetuned needs labels to train with; correspondence has none"
            )
        if self.rungs < 0 or any(k < 1 for k in self.shots):
            raise InputError(f"rungs and shots must be positive, got {self.rungs}, {self.shots}")
        if self.test_damage and self.task != "segmentation":
            raise InputError(f"test_damage: for segmentation, the task is {self.task}")
        if self.damage and (self.task != "segmentation" or "finetuned" in self.methods):
            raise InputError(
                "damage: for heads of segmentation, on features that are not finetuned"
            )
        if self.features.absolute and self.data.normalize != "area":
            raise InputError(
                "features.absolute: expected data.normalize area, which times and energies are for"
            )
        check_least(self, seeds=0)
        check_distinct(self, "methods", "seeds", "shots", "damage", "test_damage")
        if "tuned" not in self.methods and (self.rungs or self.adapter is not None):
            raise InputError(
                "methods: the curve (rungs) and the adapter are about tuned, which is not among them"
            )
        if self.task == "correspondence":
            if self.data.resplit:
                raise InputError(
                    "data.resplit: correspondence has one seed and no shots to divide for"
                )
            if self.data.max_test is not None:
                raise InputError(
                    "data.max_test: correspondence is scored on pairs; set correspondence.pairs"
                )
            if self.adapter is not None:
                raise InputError("adapter: for segmentation and classification")


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
