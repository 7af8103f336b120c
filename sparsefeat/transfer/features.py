"""Features of shapes by method: the backbone in several ways, and the baselines to compare with."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from sparsefeat.checkpoint import from_pretrained
from sparsefeat.evaluate.descriptors import random_network
from sparsefeat.extract import FeatureExtractor
from sparsefeat.extract.descriptors import balance, signature
from sparsefeat.extract.surfaces import vertex_features
from sparsefeat.mesh.fpfh import CONTEXT_RADII, multi_scale_fpfh
from sparsefeat.mesh.normals import outer_normals
from sparsefeat.receptive_field import (
    CorrespondenceObjective,
    CycleObjective,
    Objective,
    ProbeObjective,
    RoundTripObjective,
    TunedReceptiveField,
    tune_receptive_field,
)
from sparsefeat.transfer.config import FeatureConfig
from sparsefeat.transfer.shapes import SIGNATURE_EIGENPAIRS, LoadedShape, check_landmarks

PROBED_SHAPES = 5
"""Labelled shapes from which on ``objective: auto`` tunes by a probe. On people of FAUST's training split the voxel sizes
that a probe chose had standard deviations of 1.5, 0.9 and up to 1.0 rungs with two, three and four shapes, 0.2 with five."""


Augment = Callable[[Tensor, torch.Generator], Tensor]
"""Features of vertices -> others, drawn with the generator. Shape: (N, C) -> (N, C)."""


class FeatureSource(abc.ABC):
    """Features per vertex, computed once per shape and rotation.

    Attributes:
        method: its name in tables.
        intrinsic: whether features are the same for a turned shape.
    """

    method: str
    intrinsic = False

    def __init__(self) -> None:
        self._cache: dict[tuple, np.ndarray] = {}

    def prepare(self, shots: Sequence[LoadedShape], task: str, seed: int) -> None:  # noqa: B027 (most need nothing)
        """Adapt to the labelled shapes of a run, where the method does that."""

    @abc.abstractmethod
    def describe(self, shape: LoadedShape) -> np.ndarray:
        """Features of the vertices. Shape: (N, C)."""

    def key(self) -> tuple:
        """What the features depend on besides the shape."""
        return ()

    # What a head that is trained step by step sees in place of the features of a shape's vertices, drawn anew each step.
    augment: Augment | None = None

    def parts(self, shape: LoadedShape, turned: bool = False) -> list[np.ndarray]:
        """Blocks of features that a head weighs on their own: one, but for joined sources."""
        return [self(shape, turned)]

    def __call__(self, shape: LoadedShape, turned: bool = False) -> np.ndarray:
        turned = turned and not self.intrinsic
        key = (*self.key(), shape.name, turned)
        if key not in self._cache:
            self._cache[key] = self.describe(shape.turned if turned else shape)
        return self._cache[key]


class Coordinates(FeatureSource):
    """The coordinates themselves, about the middle of the bounding box."""

    method = "xyz"

    def describe(self, shape: LoadedShape) -> np.ndarray:
        vertices = shape.vertices
        return vertices - (vertices.min(0) + vertices.max(0)) / 2

    @staticmethod
    def augment(features: Tensor, generator: torch.Generator) -> Tensor:
        """The shape turned at random, as is usual where coordinates are the input."""
        # The orthogonal factor of a Gaussian matrix is uniform once its signs are fixed.
        turn, upper = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=features.dtype))
        turn = turn * upper.diagonal().sign()
        return features @ (turn * torch.linalg.det(turn)).to(features.device)


class Signature(FeatureSource):
    """Heat or wave kernel signature of as many values as the backbone has channels."""

    intrinsic = True

    def __init__(self, method: str, channels: int, absolute: bool = False):
        super().__init__()
        self.method, self.channels, self.absolute = method, channels, absolute

    def describe(self, shape: LoadedShape) -> np.ndarray:
        basis = shape.basis(SIGNATURE_EIGENPAIRS)
        return signature(self.method, basis, self.channels, shape.area if self.absolute else None)


class PointHistogram(FeatureSource):
    """FPFH at three radii, with or without its means over balls.

    Args:
        method: ``"fpfh"``, or ``"fpfh_context"`` with the means.
    """

    def __init__(self, method: str):
        super().__init__()
        self.method = method

    def describe(self, shape: LoadedShape) -> np.ndarray:
        normals = shape.normals
        if normals is None:
            normals = outer_normals(shape.vertices, shape.faces)[1]
        context = CONTEXT_RADII if self.method == "fpfh_context" else ()
        return multi_scale_fpfh(shape.vertices, normals, math.sqrt(shape.area), context=context)


class Joined(FeatureSource):
    """Several sources side by side; heads weigh them on their own.

    Args:
        members: prepared by whoever prepares this.
    """

    method = "joined"

    def __init__(self, members: Sequence[FeatureSource]):
        super().__init__()
        self.members = list(members)
        self.intrinsic = all(member.intrinsic for member in members)

    def parts(self, shape: LoadedShape, turned: bool = False) -> list[np.ndarray]:
        return [member(shape, turned) for member in self.members]

    def describe(self, shape: LoadedShape) -> np.ndarray:
        return balance(self.parts(shape))

    def __call__(self, shape: LoadedShape, turned: bool = False) -> np.ndarray:
        """Balanced, for heads that take one block and for distances. Shape: (N, C)."""
        return balance(self.parts(shape, turned))


class Backbone(FeatureSource):
    """A frozen sparse network at one voxel size: given, a share of the extent, or tuned on the shots.

    Args:
        method: ``"tuned"``, ``"fixed"`` or ``"random"`` (tuned, with random weights).
        extractor: the network.
        config: how the voxel size is chosen.
        extent: median extent of the data set's training shapes, in their unit.
    """

    def __init__(
        self, method: str, extractor: FeatureExtractor, config: FeatureConfig, extent: float
    ):
        super().__init__()
        self.method, self.extractor, self.config = method, extractor, config
        self.start = config.start or extent / 50
        self.adaptive = method != "fixed" and config.voxel_size is None
        self.tunings: list[TunedReceptiveField] = []
        self.voxel_size = config.voxel_size or self.start
        if method == "fixed":
            self.voxel_size = config.fixed_share * extent

    def prepare(self, shots: Sequence[LoadedShape], task: str, seed: int) -> None:
        if not self.adaptive:
            return
        chosen = list(shots)
        if len(chosen) > self.config.shapes:
            order = np.random.default_rng(seed).permutation(len(chosen))
            chosen = _spread([chosen[i] for i in order], self.config.shapes)
        objective = tuning_objective(self.config.objective, task, chosen)
        tuned = tune_receptive_field(
            self.extractor,
            chosen,
            objective,
            start=self.start,
            bounds=(self.start / self.config.span, self.start * self.config.span),
            keypoints=self.config.keypoints,
            views=self.config.views,
            seed=seed,
        )
        self.tunings.append(tuned)
        self.voxel_size = tuned.voxel_size
        if self.config.snap:
            self.voxel_size = self.start * 2 ** (
                round(2 * math.log2(tuned.voxel_size / self.start)) / 2
            )

    def key(self) -> tuple:
        return (
            float(f"{self.voxel_size:.9g}"),
        )  # sizes that were reached by other products are the same size

    def describe(self, shape: LoadedShape) -> np.ndarray:
        return vertex_features(
            self.extractor,
            shape.vertices,
            shape.surface,
            normals=shape.normals,
            voxel_size=self.voxel_size,
            interpolation=self.config.interpolation,
            views=self.config.views,
            scales=self.config.scales,
        )

    def at(self, voxel_size: float) -> Backbone:
        """The same features at another voxel size."""
        other = Backbone("at", self.extractor.at(voxel_size), self.config, 1.0)
        other.voxel_size, other.adaptive = voxel_size, False
        # Keys say the voxel size: what was computed at one is not computed again.
        other._cache = self._cache
        return other


def tuning_objective(name: str, task: str, shots: Sequence[LoadedShape]) -> Objective:
    """The objective that a configuration names, on these shapes.

    Raises:
        InputError: it needs labels or correspondences that they do not have.
    """
    if name == "auto":
        # A probe on fewer shapes, or on a few classes of whole shapes, is too little to choose by.
        name = "probe" if task == "segmentation" and len(shots) >= PROBED_SHAPES else "round_trip"
    if name == "round_trip":
        return RoundTripObjective([shape.shape.label or 0 for shape in shots])
    if name == "cycle":
        return CycleObjective()
    if name == "correspondence":
        check_landmarks(shots, "features.objective correspondence")
        return CorrespondenceObjective([shape.data.correspondence for shape in shots])
    if task == "classification":
        return ProbeObjective([shape.shape.label for shape in shots])
    return ProbeObjective([vertex_labels(shape) for shape in shots])


def vertex_labels(shape: LoadedShape, labels: np.ndarray | None = None) -> np.ndarray:
    """Labels of vertices.

    Args:
        shape: it says whether labels are of vertices or of faces.
        labels: other ones than its own, such as predicted ones. Shape (N,) or (F,).

    Returns:
        (N,); of labels of faces, that of any labelled face at the vertex (-1: there is none).
    """
    labels = shape.labels if labels is None else labels
    if not shape.labels_faces:
        return labels
    of_vertices = np.full(len(shape.vertices), -1, dtype=np.int64)
    known = labels >= 0
    of_vertices[shape.faces[known]] = labels[known, None]
    return of_vertices


def source_names(method: str, config: FeatureConfig) -> list[str]:
    """The sources that a method needs, its own last."""
    if method == "finetuned":
        return ["tuned"]
    if method == "joined":
        return [*("tuned" if name == "ours" else name for name in config.join), "joined"]
    return [method]


def make_sources(
    methods: Sequence[str], config: FeatureConfig, extent: float, device: str | None = None
) -> dict[str, FeatureSource]:
    """All sources that these methods need, by name; ``finetuned`` uses that of ``tuned`` and has none of its own."""
    model = from_pretrained(config.checkpoint)
    extractor = FeatureExtractor(model, 1.0, device)
    channels = int(model.config["out_channels"])
    tuned = Backbone("tuned", extractor, config, extent)
    sources: dict[str, FeatureSource] = {}
    for name in dict.fromkeys(name for method in methods for name in source_names(method, config)):
        if name == "tuned":
            sources[name] = tuned
        elif name == "fixed":
            fixed = sources[name] = Backbone(name, extractor, config, extent)
            fixed._cache = tuned._cache  # the same network
        elif name == "random":
            sources[name] = Backbone(name, untrained(extractor), config, extent)
        elif name == "xyz":
            sources[name] = Coordinates()
        elif name in ("fpfh", "fpfh_context"):
            sources[name] = PointHistogram(name)
        elif name == "joined":
            sources[name] = Joined([sources[member] for member in source_names(name, config)[:-1]])
        else:
            sources[name] = Signature(name, channels, config.absolute)
    return sources


def untrained(extractor: FeatureExtractor) -> FeatureExtractor:
    """The same network with random weights."""
    return FeatureExtractor(random_network(extractor.model), extractor.voxel_size, extractor.device)


def _spread(shapes: Sequence[LoadedShape], count: int) -> list[LoadedShape]:
    """So many shapes, of as many classes as there are, in turn."""
    queues: dict[int | None, list[LoadedShape]] = {}
    for shape in shapes:
        queues.setdefault(shape.shape.label, []).append(shape)
    # A probe that holds a shape out needs another of its class.
    each = min(max(2, count // len(queues)), max(len(queue) for queue in queues.values()), count)
    return [shape for queue in queues.values() for shape in queue[:each]][: count - count % each]
