"""Sets of shapes: what is known of each, who belongs to which split, and the data sets by name.

A shape is read when it is asked for. Labels and vertices count from 0 here, whatever the files do.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sparsefeat.checks import checked_seed
from sparsefeat.errors import InputError, opening

# Name of a data set -> module of `sparsefeat.data` and function in it that reads its folder.
_LOADERS = {
    "faust": ("faust", "load_faust"),
    "faust_r": ("faust_r", "load_faust_r"),
    "scape_r": ("scape_r", "load_scape_r"),
    "shrec19_r": ("shrec19", "load_shrec19"),
    "smal_r": ("smal", "load_smal"),
    "tosca": ("tosca", "load_tosca"),
    "rna": ("rna", "load_rna"),
    "human_segmentation": ("human_segmentation", "load_human_segmentation"),
    "shrec11": ("shrec11", "load_shrec11"),
    "psb": ("psb", "load_psb"),
    "folder": ("folder", "load_folder"),
}


@dataclass(frozen=True, eq=False)
class ShapeData:
    """A mesh and what is known of its surface.

    Attributes:
        vertices: (N, 3) float64, in the file's unit.
        faces: (F, 3) int64.
        vertex_labels: (N,) int64, part of each vertex from 0, -1 where unknown; or None.
        face_labels: (F,) int64, likewise per face; or None.
        correspondence: (L,) int64, vertex of landmark l; landmark l of every shape with the same
            ``Shape.template`` is the same point of the body. Or None.

    Raises:
        InputError: an array's length does not fit the mesh, or an index or label is out of range.
    """

    vertices: np.ndarray
    faces: np.ndarray
    vertex_labels: np.ndarray | None = None
    face_labels: np.ndarray | None = None
    correspondence: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, labels, count, noun in (
            ("vertex", self.vertex_labels, len(self.vertices), "vertices"),
            ("face", self.face_labels, len(self.faces), "faces"),
        ):
            if labels is None:
                continue
            if labels.shape != (count,):
                raise InputError(f"{len(labels)} {name} labels for {count} {noun}")
            if count and labels.min() < -1:
                raise InputError(
                    f"{name} labels: got {labels.min()}, expected parts from 0, or -1 for unknown"
                )
        landmarks = self.correspondence
        if landmarks is not None and len(landmarks):
            worst = landmarks.min() if landmarks.min() < 0 else landmarks.max()
            if not 0 <= worst < len(self.vertices):
                raise InputError(
                    f"correspondence: vertex {worst}, expected 0 to {len(self.vertices) - 1} "
                    f"(the mesh has {len(self.vertices)} vertices)"
                )


@dataclass(frozen=True, eq=False)
class Shape:
    """A shape of a data set, not yet read.

    Attributes:
        name: unique within the data set.
        path: its mesh, or None if it has no file.
        loader: reads it.
        label: its class, a row of ``ShapeDataset.class_names``; or None.
        individual: who it is, where one body has several poses; held-out shapes are never of an individual
            that is trained on. Or None: everyone is different.
        template: landmarks of two shapes correspond if these are equal (and both have landmarks).
    """

    name: str
    path: Path | None
    loader: Callable[[], ShapeData]
    label: int | None = None
    individual: int | None = None
    template: str = ""

    def load(self) -> ShapeData:
        """Read the mesh, its labels and its correspondence.

        Raises:
            InputError: a file is missing or malformed, or they do not fit each other; names the files.
        """
        return self.loader()


@dataclass(frozen=True, eq=False)
class ShapeDataset:
    """Shapes and who of them is for what.

    Attributes:
        name: of the data set.
        shapes: all of them; rows below are positions in this.
        splits: name of a split ("train", "test", ...) -> rows.
        part_names: of the vertex or face labels; or None if the labels have no names.
        class_names: of the shapes' classes; or None.
        part_count: number of parts; follows from ``part_names``, else None if there are no labels.
        pairs: (source, target) rows on which correspondence is evaluated, where the data set lists them.
        maps: (source, target) rows -> reader of the map (N_source,) to vertices of the target, in data
            sets whose ground truth is per pair.
    """

    name: str
    shapes: tuple[Shape, ...]
    splits: Mapping[str, tuple[int, ...]]
    part_names: tuple[str, ...] | None = None
    class_names: tuple[str, ...] | None = None
    part_count: int | None = None
    pairs: tuple[tuple[int, int], ...] | None = None
    maps: Mapping[tuple[int, int], Callable[[], np.ndarray]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.part_names is not None:
            object.__setattr__(self, "part_count", len(self.part_names))

    def __len__(self) -> int:
        return len(self.shapes)

    def subset(self, split: str) -> list[Shape]:
        """The shapes of a split, in the data set's order.

        Raises:
            InputError: there is no such split.
        """
        return [self.shapes[i] for i in self.rows(split)]

    def rows(self, split: str) -> tuple[int, ...]:
        """The rows of a split; "all" is everyone. Raises InputError if there is no such split."""
        if split == "all" and split not in self.splits:
            return tuple(range(len(self.shapes)))
        if split not in self.splits:
            raise InputError(
                f"data set {self.name}: no split {split!r}, it has {', '.join(self.splits)}"
            )
        return self.splits[split]

    def few_shot(self, split: str, k: int, seed: int) -> list[Shape]:
        """``k`` random shapes of a split; ``k`` of every class if the shapes have classes.

        The shapes for k are among those for any larger k of the same seed, so that accuracy over k
        compares like with like.

        Raises:
            InputError: the split does not exist, or it (or a class) has fewer than ``k`` shapes.
        """
        if k < 1:
            raise InputError(f"few_shot: got k = {k}, expected 1 or more")
        by_class: dict[int | None, list[int]] = {}
        for row in self.rows(split):
            by_class.setdefault(self.shapes[row].label, []).append(row)
        rng = np.random.default_rng(checked_seed(seed))
        chosen: list[int] = []
        for label in sorted(by_class, key=lambda value: -1 if value is None else value):
            rows = by_class[label]
            if len(rows) < k:
                of = f" of class {self._class_name(label)}" if label is not None else ""
                raise InputError(
                    f"data set {self.name}: split {split} has {len(rows)} shapes{of}, not {k}"
                )
            chosen += [rows[i] for i in rng.permutation(len(rows))[:k]]
        return [self.shapes[row] for row in sorted(chosen)]

    def hold_out(self, split: str, share: float, seed: int) -> tuple[list[Shape], list[Shape]]:
        """Divide a split at random, for choosing settings without looking at the test shapes.

        Args:
            split: usually "train".
            share: of the shapes (of each class, if they have classes) that are held out, from 0 to 1.
                Shapes of one individual stay together.
            seed: decides who.

        Returns:
            The shapes that are kept and those that are held out; neither is empty.

        Raises:
            InputError: no such split, a share outside (0, 1), or too few individuals to divide.
        """
        if not 0 < share < 1:
            raise InputError(f"hold_out: got a share of {share}, expected one between 0 and 1")
        rows = self.rows(split)
        members: dict[tuple, list[int]] = {}
        for row in rows:
            shape = self.shapes[row]
            who = (shape.individual,) if shape.individual is not None else (None, row)
            members.setdefault((shape.label, who), []).append(row)
        rng = np.random.default_rng(checked_seed(seed))
        held: set[int] = set()
        for label in dict.fromkeys(key[0] for key in members):
            someone = [key for key in members if key[0] == label]
            count = min(max(1, round(share * len(someone))), len(someone) - 1)
            for i in rng.permutation(len(someone))[:count]:
                held.update(members[someone[i]])
        if not held:
            raise InputError(
                f"data set {self.name}: split {split} has too few individuals ({len(members)}) to divide"
            )
        kept = [self.shapes[row] for row in rows if row not in held]
        return kept, [self.shapes[row] for row in rows if row in held]

    def corresponding(self, source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
        """Vertices of two shapes that are the same point of the body.

        Args:
            source, target: rows.

        Returns:
            Two arrays (L,) int64: vertices of the source, and of the target.

        Raises:
            InputError: nothing is known of this pair.
        """
        if (source, target) in self.maps:
            mapped = self.maps[source, target]()
            return np.arange(len(mapped)), mapped
        first, second = self.shapes[source], self.shapes[target]
        unknown = f"data set {self.name}: no correspondence between {first.name} and {second.name}"
        if self.maps or first.template != second.template:
            raise InputError(unknown)
        landmarks = [shape.load().correspondence for shape in (first, second)]
        if landmarks[0] is None or landmarks[1] is None:
            raise InputError(unknown)
        if len(landmarks[0]) != len(landmarks[1]):
            raise InputError(f"{unknown}: {len(landmarks[0])} and {len(landmarks[1])} landmarks")
        return landmarks[0], landmarks[1]

    def row(self, name: str) -> int:
        """The row of a shape by its name. Raises InputError, with the nearest name, if there is none."""
        names = [shape.name for shape in self.shapes]
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
            raise InputError(f"data set {self.name}: no shape {name!r}, the nearest is {near[0]!r}")
        return names.index(name)

    def _class_name(self, label: int) -> str:
        return self.class_names[label] if self.class_names else str(label)


def dataset_names() -> list[str]:
    """The names that `load_dataset` knows."""
    return list(_LOADERS)


def load_dataset(name: str, root: str | os.PathLike, **options) -> ShapeDataset:
    """List the shapes of a data set that is on disk. No mesh is read yet.

    Args:
        name: one of `dataset_names`.
        root: its folder, as it was unpacked.
        options: of the loader: ``load_<name>`` in ``sparsefeat.data.<name>`` documents them.

    Raises:
        InputError: an unknown name or option, or a folder of another layout: what was looked for and what
            is there.
    """
    loader = find_loader(name, options)
    with opening(root):
        return loader(root, **options)


def find_loader(name: str, options: Iterable[str] = ()) -> Callable[..., ShapeDataset]:
    """The loader of a data set, if it knows these options.

    Raises:
        InputError: an unknown name or option.
    """
    if name not in _LOADERS:
        near = difflib.get_close_matches(str(name), _LOADERS, n=1)
        hint = f" (nearest: {near[0]})" if near else ""
        raise InputError(f"unknown data set {name!r}{hint}, expected one of {', '.join(_LOADERS)}")
    module, function = _LOADERS[name]
    loader: Callable[..., ShapeDataset] = getattr(
        importlib.import_module(f"sparsefeat.data.{module}"), function
    )
    known = [p for p in inspect.signature(loader).parameters if p != "root"]
    unknown = [option for option in options if option not in known]
    if unknown:
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        raise InputError(f"data set {name}: unknown option {unknown[0]!r}; {takes}")
    return loader


def split_per_class(
    labels: Sequence[int],
    train: int | float,
    seed: int,
    where: str,
    class_names: Sequence[str],
    individuals: Sequence[Hashable | None] | None = None,
) -> dict[str, tuple[int, ...]]:
    """Splits "train", with random rows of every class, and "test", with the others.

    Args:
        labels: class of each row.
        train: an int: so many of each class. A float: that share, but of two or more at least one is left
            on either side.
        seed: decides which.
        where: begins the message of an error.
        class_names: for the message.
        individuals: who each row is; rows of one individual stay together, and ``train`` is a share of the individuals.
            None: no two are of one.

    Raises:
        InputError: a class has not so many rows, or none would be left to test on.
    """
    rng = np.random.default_rng(checked_seed(seed))
    chosen: set[int] = set()
    for label in sorted(set(labels)):
        rows = np.flatnonzero(np.asarray(labels) == label)
        members: dict[Hashable, list[int]] = {}
        for row in rows.tolist():
            who = None if individuals is None else individuals[row]
            members.setdefault((None, row) if who is None else (who,), []).append(row)
        groups = list(members.values())
        count = train
        if isinstance(train, float):
            count = min(max(1, round(train * len(groups))), max(1, len(groups) - 1))
        elif not 1 <= train < len(rows):
            raise InputError(
                f"{where}: cannot take {train} of {len(rows)} shapes of class {class_names[label]} "
                f"for training, expected from 1 to {len(rows) - 1}"
            )
        for group in rng.permutation(len(groups))[:count]:
            chosen.update(groups[group])
    splits = {
        "train": tuple(sorted(chosen)),
        "test": tuple(row for row in range(len(labels)) if row not in chosen),
    }
    return {name: rows for name, rows in splits.items() if rows}
