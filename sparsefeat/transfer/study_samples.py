"""What heads of a study see: shapes, their damages and labels, and descriptors of their vertices."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from sparsefeat.checkpoint import from_pretrained
from sparsefeat.data.shape_files import read_integers
from sparsefeat.data.shapes import Shape, ShapeDataset, load_dataset
from sparsefeat.errors import InputError
from sparsefeat.extract import FeatureExtractor
from sparsefeat.extract.descriptors import SIGNATURE_CHANNELS
from sparsefeat.io.text import read_text
from sparsefeat.mesh.fpfh import FPFH_RADII
from sparsefeat.mesh.seams import sew
from sparsefeat.synthetic.damage import Ends, part_ends
from sparsefeat.transfer.config import FeatureConfig
from sparsefeat.transfer.features import (
    Backbone,
    FeatureSource,
    PointHistogram,
    Signature,
    untrained,
)
from sparsefeat.transfer.shapes import LoadedShape, ShapeStore, check_apart, damaged, drawn
from sparsefeat.transfer.study_config import CLEAN, StudyConfig


class Sample(NamedTuple):
    """What heads see of a shape.

    Attributes:
        blocks: features of random vertices by method. Shape (R, C) each.
        labels: of these vertices by kind of labels. Shape (R,).
    """

    blocks: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]


class Asked(NamedTuple):
    """A shape as it is described: its name, its damage, and the seed of that (1 for copies that heads learn on)."""

    name: str
    damage: str
    seed: int


class StudyShapes:
    """The data set of a study, and who is labelled and who is scored."""

    def __init__(self, config: StudyConfig):
        data = config.data
        self.config = config
        self.dataset = load_dataset(data.name, data.root, **data.options)
        self.store = ShapeStore(self.dataset, data.normalize, config.cache)
        train, self.test = self.dataset.subset(data.train), self.dataset.subset(data.test)
        if config.held_out:
            train, self.test = self.dataset.hold_out(data.train, config.held_out, 0)
        check_apart(train, self.test)
        self.test = drawn(self.test, data.max_test, config.seeds[0])
        rows = {shape.name: row for row, shape in enumerate(self.dataset.shapes)}
        splits = {"train": [rows[s.name] for s in train], "test": [rows[s.name] for s in self.test]}
        self.dataset = replace(
            self.dataset, splits={name: tuple(split) for name, split in splits.items()}
        )
        self.mirrors = {
            name: _read_mirror(Path(root) / "parts.json")
            for name, root in config.labels.items()
            if root is not None and (Path(root) / "parts.json").is_file()
        }

    def shots(self, count: int, seed: int) -> list[Shape]:
        return self.dataset.few_shot("train", count, seed)

    def loaded(self, name: str, damage: str, seed: int = 0) -> tuple[LoadedShape, np.ndarray]:
        """A shape as the study sees it, and the vertex of the clean one that each of its vertices is."""
        clean = self.store(self.dataset.shapes[self.dataset.row(name)])
        if damage == CLEAN:
            return clean, np.arange(len(clean.vertices))
        # Any labels are carried along if the rows are.
        numbered = replace(
            clean.data,
            vertex_labels=np.arange(len(clean.vertices)),
            face_labels=None,
            correspondence=None,
        )
        shape = damaged(
            replace(clean, data=numbered), damage, seed, _bridge_ends(self.dataset, clean)
        )
        return shape, shape.data.vertex_labels

    def labels(self, name: str, kind: str) -> np.ndarray:
        """Labels of the vertices of the clean shape.

        Raises:
            InputError: there are none, they are of faces, or a file does not fit the shape or the parts.
        """
        root = self.config.labels[kind]
        shape = self.store(self.dataset.shapes[self.dataset.row(name)])
        if root is None:
            values = shape.labels
            if shape.labels_faces:
                raise InputError(
                    f"{name}: its labels are of faces, a study expects those of vertices"
                )
            return values
        path = self._label_file(Path(root), name)
        values = read_integers(path)
        if len(values) != len(shape.vertices):
            raise InputError(
                f"{path}: {len(values)} labels, expected one for each of the {len(shape.vertices)} vertices of {name}"
            )
        most = len(self.mirrors[kind]) if kind in self.mirrors else math.inf
        if len(values) and not -1 <= values.min() <= values.max() < most:
            raise InputError(
                f"{path}: labels from {values.min()} to {values.max()}, expected parts from 0"
                + (f" to {most - 1}, those of parts.json" if kind in self.mirrors else "")
                + ", or -1 for unknown"
            )
        return values

    def _label_file(self, root: Path, name: str) -> Path:
        """``<class>/<shape>.txt``, or ``<shape>.txt`` of a shape whose name no other class has."""
        path, stem = root / f"{name}.txt", name.rpartition("/")[2]
        if path.is_file() or stem == name:
            return path
        others = [s.name for s in self.dataset.shapes if s.name.rpartition("/")[2] == stem]
        if len(others) > 1:
            raise InputError(f"{path}: not found; {stem}.txt could be of {' or '.join(others)}")
        return root / f"{stem}.txt"


def _read_mirror(path: Path) -> np.ndarray:
    """The mirror image of each part. Shape: (L,).

    Raises:
        InputError: not JSON, or no list ``mirror`` of parts.
    """
    text = read_text(path)
    try:
        mirror = np.array(json.loads(text)["mirror"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f'{path}: expected JSON with "mirror", a part for each part') from error
    if mirror.ndim != 1 or mirror.dtype.kind != "i" or set(mirror) != set(range(len(mirror))):
        raise InputError(
            f"{path}: mirror is {mirror.tolist()}, expected each part from 0 once, at the place of its mirror image"
        )
    return mirror


def _bridge_ends(dataset: ShapeDataset, shape: LoadedShape) -> Ends | None:
    """On people with part labels: from each hand to trunk, head or leg, and between the legs."""
    names = dataset.part_names or ()
    if shape.data.vertex_labels is None or not {"hand", "torso", "head", "thigh", "calf"} <= set(
        names
    ):
        return None
    hand, torso, head, thigh, calf = (
        names.index(part) for part in ("hand", "torso", "head", "thigh", "calf")
    )
    of_vertices = shape.data.vertex_labels
    faces = sew(shape.vertices, shape.faces)[0]
    legs = part_ends(faces, of_vertices, [thigh, calf], [thigh, calf])
    return [*part_ends(faces, of_vertices, [hand], [torso, head, thigh, calf]), *legs]


def make_members(config: StudyConfig, device: str | None = None) -> dict[str, FeatureSource]:
    """The sources of the study's members, their networks on a device."""
    features = FeatureConfig(voxel_size=config.voxel_size, scales=config.scales, views=config.views)
    sources: dict[str, FeatureSource] = {}
    first = None
    for name, checkpoint in config.networks.items():
        if checkpoint == "random":
            extractor = untrained(first)
        else:
            extractor = FeatureExtractor(from_pretrained(checkpoint), 1.0, device)
            first = first or extractor
        sources[name] = Backbone(name, extractor, features, 1.0)
    for name in config.hand_made:
        if name in ("fpfh", "fpfh_context"):
            sources[name] = PointHistogram(name)
        else:
            sources[name] = Signature(name, SIGNATURE_CHANNELS, config.absolute)
    return sources


def describe_samples(
    config: StudyConfig, asked: Sequence[Asked], device: str | None = None
) -> list[Sample]:
    """Features and labels of random vertices of some shapes."""
    torch.set_num_threads(1)
    setting, sources = StudyShapes(config), make_members(config, device)
    test = {shape.name for shape in setting.test}
    samples = []
    for name, damage, seed in asked:
        shape, row = setting.loaded(name, damage, seed)
        count = config.test_rows if name in test else config.copy_rows if seed else config.rows
        chosen = np.sort(np.random.default_rng(0).permutation(len(row))[:count])
        blocks = {}
        for method, source in sources.items():
            if method == "fpfh" and "fpfh_context" in sources:
                continue
            blocks[method] = source.describe(shape)[chosen].astype(np.float32)
        if "fpfh" in sources and "fpfh_context" in sources:
            blocks["fpfh"] = blocks["fpfh_context"][:, : 33 * len(FPFH_RADII)]
        labels = {kind: setting.labels(name, kind)[row[chosen]] for kind in config.labels}
        samples.append(Sample(blocks, labels))
    return samples
