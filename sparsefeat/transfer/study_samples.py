"""What heads of a study see: shapes, their damages and labels, and descriptors of their vertices."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from sparsefeat.checkpoint import from_pretrained
from sparsefeat.data.shape_files import read_integers
from sparsefeat.data.shapes import Shape, ShapeDataset, load_dataset
from sparsefeat.extract import FeatureExtractor
from sparsefeat.extract.descriptors import SIGNATURE_CHANNELS
from sparsefeat.mesh.fpfh import FPFH_RADII
from sparsefeat.mesh.seams import sew
from sparsefeat.synthetic.damage import Ends, part_ends
from sparsefeat.transfer.config import CLEAN, FeatureConfig, StudyConfig
from sparsefeat.transfer.features import (
    Backbone,
    FeatureSource,
    PointHistogram,
    Signature,
    untrained,
)
from sparsefeat.transfer.shapes import LoadedShape, ShapeStore, damaged, drawn


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
        self.test = drawn(self.test, data.max_test, config.seeds[0])
        rows = {shape.name: row for row, shape in enumerate(self.dataset.shapes)}
        splits = {"train": [rows[s.name] for s in train], "test": [rows[s.name] for s in self.test]}
        self.dataset = replace(
            self.dataset, splits={name: tuple(split) for name, split in splits.items()}
        )
        self.mirrors = {
            name: np.array(
                json.loads((Path(root) / "parts.json").read_text(encoding="utf-8"))["mirror"]
            )
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
            clean.data, vertex_labels=np.arange(len(clean.vertices)), correspondence=None
        )
        shape = damaged(
            replace(clean, data=numbered), damage, seed, _bridge_ends(self.dataset, clean)
        )
        return shape, shape.data.vertex_labels

    def labels(self, name: str, kind: str) -> np.ndarray:
        """Labels of the vertices of the clean shape."""
        root = self.config.labels[kind]
        if root is None:
            return self.store(self.dataset.shapes[self.dataset.row(name)]).labels
        return read_integers(Path(root) / f"{name.rpartition('/')[2]}.txt")


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
