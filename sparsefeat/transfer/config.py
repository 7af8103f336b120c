"""An experiment in transfer: task = data + features + head + metric."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sparsefeat.errors import InputError
from sparsefeat.extract.descriptors import DEFAULT_CHECKPOINT
from sparsefeat.extract.surfaces import SHAPE_SCALES
from sparsefeat.heads import HeadTraining
from sparsefeat.transfer.config_checks import check_distinct, check_least, check_positive

Method = Literal[
    "joined", "tuned", "fixed", "random", "finetuned", "xyz", "hks", "wks", "fpfh", "fpfh_context"
]
"""Features that a transfer compares; the first that took part is drawn."""
Damage = Literal["cut", "one_view", "cloud", "bridges", "fusion", "remeshed"]


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
