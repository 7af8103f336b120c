"""What a page shows: a description in JSON, and the numbers that it refers to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from sparsefeat.errors import InputError
from sparsefeat.visualize.colors import PcaColors
from sparsefeat.visualize.palette import class_colors
from sparsefeat.visualize.raster import AXES, disc_radius
from sparsefeat.visualize.viewer import layers
from sparsefeat.visualize.viewer.quantize import quantize_features
from sparsefeat.visualize.viewer.shapes import Shape, as_shapes

MAX_POINTS = 300_000
"""Points of all shapes together that a page draws unless told otherwise."""
MAX_MATCHES = 5_000
"""Lines that a page draws; more are thinned out at random."""

_FEWEST = 1000  # points that a small shape beside large ones keeps
_SCALE = "viridis"
# Of how many times more points than are drawn an even choice is made, and its steps.
_MANY = 4
_HALVINGS = 24
_FINEST = 2.0**-20  # side of the smallest cells, as a share of the extent


class Scene:
    """The description, and the arrays by number.

    Attributes:
        description: what JSON holds; an array is named by its number.
        arrays: little-endian arrays, each contiguous.
    """

    def __init__(self) -> None:
        self.description: dict[str, Any] = {}
        self.arrays: list[np.ndarray] = []

    def add(self, array: np.ndarray | None, kind: type | None = None) -> int | None:
        """Keep an array; return its number."""
        if array is None:
            return None
        array = np.ascontiguousarray(array, dtype=kind)
        self.arrays.append(array.astype(array.dtype.newbyteorder("<"), copy=False))
        return len(self.arrays) - 1


def build_scene(
    shapes: Any,
    features: Any = None,
    *,
    names: Sequence[str] | None = None,
    labels: Any = None,
    label_names: Any = None,
    values: Any = None,
    matches: Any = None,
    confidence: Any = None,
    correct: Any = None,
    maps: Any = None,
    transforms: Any = None,
    receptive_field: Any = None,
    up: str | None = None,
    unit: str = "",
    title: str | None = None,
    max_points: int = MAX_POINTS,
) -> Scene:
    """Check everything, thin it out, and describe it; the arguments are those of :func:`view`."""
    if max_points < 1:
        raise InputError(f"view: max_points {max_points}, expected at least 1")
    items = as_shapes(shapes, names)
    if up is not None and up not in AXES:
        raise InputError(f"view: up: expected one of {', '.join(AXES)}, got {up!r}")
    found = (
        [s.features for s in items]
        if features is None
        else layers.per_shape(features, items, "features", True)
    )
    layers.check_features(found)
    labelled = layers.named_layers(labels, items, "Labels")
    classes, class_names = layers.as_classes(list(labelled.values()), label_names)
    numbers = layers.named_layers(values, items, "Values")
    matched = layers.checked_matches(matches, confidence, correct, items)
    mapped = layers.checked_maps(maps, items)
    poses = layers.checked_transforms(transforms, items)
    field = layers.checked_field(receptive_field)
    for item in items:
        # Row numbers are 32 bits in the page.
        if len(item.vertices) >= 2**31:
            raise InputError(
                f"view: {item.name}: {len(item.vertices)} points, expected fewer than 2**31"
            )

    scene = Scene()
    rows, notes = _shown(items, max_points)
    scene.description = {
        "title": title if title is not None else _title(items),
        "unit": unit,
        "up": up or _likely_up(items),
        "posed": poses is not None,
        "shapes": [_describe(scene, s, r, n) for s, r, n in zip(items, rows, notes, strict=True)],
        "layers": [],
        "scale": scene.add(_scale(), np.uint8),
    }
    for k, shape in enumerate(scene.description["shapes"]):
        shape["pose"] = (np.eye(4) if poses is None else poses[k]).ravel().tolist()
    add = scene.description["layers"].append
    if any(f is not None for f in found):
        thin = [None if f is None else f[r] for f, r in zip(found, rows, strict=True)]
        add(_feature_colors(scene, found, thin))
        scene.description["features"] = _features(scene, thin)
    for name, layer in zip(labelled, classes, strict=True):
        add(_label_layer(scene, name, layer, rows, class_names))
    for name, layer in numbers.items():
        add(_value_layer(scene, name, layer, rows))
    if mapped is not None:
        _add_map(scene, items, rows, *mapped)
    if any(s.colors is not None for s in items):
        tints = [
            None if s.colors is None else s.colors[r] for s, r in zip(items, rows, strict=True)
        ]
        arrays = [scene.add(t, np.uint8) for t in tints]
        add({"kind": "colors", "name": "Colours of the file", "about": "", "arrays": arrays})
    if matched:
        scene.description["matches"] = _matches(scene, matched, items)
    if field is not None:
        scene.description["field"] = {
            k: getattr(field, k) for k in ("size", "tuned", "cells", "form", "about")
        }
    return scene


def _title(items: Sequence[Shape]) -> str:
    names = [s.name for s in items]
    return " and ".join(names) if len(names) < 3 else f"{names[0]} and {len(names) - 1} more"


def _likely_up(items: Sequence[Shape]) -> str:
    """Depth cameras have y down. Of a mesh, z is up where it stands on z = 0 and not on y = 0; else y is."""
    first = items[0].vertices
    if items[0].faces is None:
        return "-y"
    low, extent = first.min(0), np.ptp(first, axis=0).max()
    stands = np.abs(low) < 0.01 * extent
    return "z" if stands[2] and not stands[1] else "y"


def _shown(items: Sequence[Shape], most: int) -> tuple[list[np.ndarray], list[str]]:
    """The rows of each shape that are drawn, ascending, and what to say about the others."""
    finite = [np.flatnonzero(np.isfinite(s.vertices).all(1)) for s in items]
    counts = np.array([len(f) for f in finite])
    total = int(counts.sum())
    rows, notes = [], []
    for shape, keep, count in zip(items, finite, counts, strict=True):
        note = []
        if len(keep) < len(shape.vertices):
            note.append(
                f"{_number(len(shape.vertices) - len(keep))} points without coordinates left out"
            )
        if total > most:
            share = max(min(_FEWEST, most // len(items)), int(most * count / total), 1)
            if share < count:
                keep = keep[thin_evenly(shape.vertices[keep], share)]
                kind = "points" if shape.faces is None else "vertices, without faces"
                note.append(f"thinned: {_number(len(keep))} of {_number(count)} {kind} drawn")
        rows.append(keep)
        notes.append("; ".join(note))
    return rows, notes


def thin_evenly(points: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """Rows of at most ``most`` points, one per cell of a grid, so that surfaces keep no gaps; ascending.

    Args:
        points: finite. Shape: (N, 3)
        most: at least 1; of more points than that, nearly as many are kept.
        seed: of the random choice among points that are very many.
    """
    rows = np.arange(len(points))
    if len(rows) <= most:
        return rows
    if len(rows) > _MANY * most:
        rows = np.sort(np.random.default_rng(seed).choice(len(rows), _MANY * most, replace=False))
    place = points[rows] - points[rows].min(0)
    extent = float(place.max())
    if extent == 0:
        return rows[:1]
    # Between cells that hold everything and cells that hold one point each, halved on a logarithmic scale.
    coarse, fine = extent, extent * _FINEST
    kept = np.zeros(1, dtype=np.int64)
    for _ in range(_HALVINGS):
        edge = np.sqrt(coarse * fine)
        cells = np.floor(place / edge).astype(np.int64)
        sides = cells.max(0) + 1
        first = np.unique(
            (cells[:, 0] * sides[1] + cells[:, 1]) * sides[2] + cells[:, 2], return_index=True
        )[1]
        if len(first) > most:
            fine = edge
        else:
            coarse, kept = edge, first
            if len(first) > 0.95 * most:
                break
    if fine == extent * _FINEST:
        # A stray point far away: even the finest cells hold many points, of which some are drawn by lot.
        distinct = np.unique(points[rows], axis=0, return_index=True)[1]
        others = np.setdiff1d(distinct, kept)
        count = min(most - len(kept), len(others))
        kept = np.append(kept, np.random.default_rng(seed).choice(others, count, replace=False))
    return rows[np.sort(kept)]


def _number(count: int) -> str:
    return f"{count:,}".replace(",", "\u202f")


def _describe(scene: Scene, shape: Shape, rows: np.ndarray, note: str) -> dict[str, Any]:
    points = shape.vertices[rows]
    whole = len(rows) == len(shape.vertices)
    # Coordinates may be large (map projections); what is left around the middle fits 32 bits.
    center = np.median(points, axis=0)
    local = (points - center).astype(np.float32)
    mesh = shape.faces is not None and whole
    return {
        "name": shape.name,
        "points": len(shape.vertices),
        "faces": 0 if shape.faces is None else len(shape.faces),
        "note": note,
        "center": center.tolist(),
        "disc": 2 * disc_radius(points),
        "position": scene.add(local),
        "index": scene.add(shape.faces, np.uint32) if mesh else None,
        "rows": None if whole else scene.add(rows, np.uint32),
    }


def _feature_colors(scene: Scene, found: list, thin: list) -> dict[str, Any]:
    colors = PcaColors.fit([f for f in found if f is not None])
    arrays = [None if f is None else scene.add(np.rint(colors(f) * 255), np.uint8) for f in thin]
    about = (
        "The three strongest principal components as red, green and blue, on one basis for all shapes: "
        "similar colours are similar features."
    )
    return {"kind": "colors", "name": "Features", "about": about, "arrays": arrays}


def _features(scene: Scene, thin: list) -> dict[str, Any]:
    codes = quantize_features([f for f in thin if f is not None])
    left = iter(codes.codes)
    return {
        "arrays": [None if f is None else scene.add(next(left)) for f in thin],
        "steps": codes.steps.tolist(),
        "channels": codes.channels,
        "variance": codes.variance,
        "error": codes.error,
    }


def _label_layer(
    scene: Scene, name: str, layer: list, rows: list, names: dict[int, str]
) -> dict[str, Any]:
    numbers = list(names)
    colors = np.rint(class_colors(len(numbers)) * 255).astype(int)
    classes, position = [], 0
    for number in numbers:
        grey = number == -1
        classes.append(
            {"name": names[number], "color": [150] * 3 if grey else colors[position].tolist()}
        )
        position += not grey
    arrays = [
        None if a is None else scene.add(np.searchsorted(numbers, a[r]), np.uint16)
        for a, r in zip(layer, rows, strict=True)
    ]
    if len(numbers) > 65_535:
        raise InputError(f"view: {name}: {len(numbers)} different labels, expected at most 65535")
    return {"kind": "labels", "name": name, "about": "", "arrays": arrays, "classes": classes}


def _value_layer(scene: Scene, name: str, layer: list, rows: list) -> dict[str, Any]:
    arrays = []
    for array, row in zip(layer, rows, strict=True):
        if array is not None and array.dtype.kind not in "fiub":
            raise InputError(f"view: {name}: values of {array.dtype}, expected numbers")
        arrays.append(None if array is None else scene.add(array[row], np.float32))
    return {"kind": "values", "name": name, "about": "", "arrays": arrays}


def _add_map(scene: Scene, items: Sequence[Shape], rows: list, reference: int, maps: list) -> None:
    """Colours of places on one shape, carried to the others; and for each point the point that it maps to."""
    target = items[reference]
    low, high = np.nanmin(target.vertices, axis=0), np.nanmax(target.vertices, axis=0)
    place = (target.vertices - low) / np.where(high > low, high - low, 1)
    # Light enough to be told apart in shadow.
    tint = np.rint(255 * np.nan_to_num(0.12 + 0.86 * place, nan=0.5)).astype(np.uint8)
    nearest = None
    if len(rows[reference]) < len(target.vertices):
        finite = np.where(np.isfinite(target.vertices), target.vertices, 0)
        nearest = cKDTree(finite[rows[reference]]).query(finite)[1]
    colors, targets = [], []
    for k, (shown, carried) in enumerate(zip(rows, maps, strict=True)):
        if carried is None:
            colors.append(scene.add(tint[shown] if k == reference else None))
            targets.append(None)
            continue
        carried = carried[shown].astype(np.int64)
        known = carried >= 0
        colors.append(scene.add(np.where(known[:, None], tint[carried], 150), np.uint8))
        index = carried if nearest is None else nearest[carried]
        targets.append(scene.add(np.where(known, index, -1), np.int32))
    about = f"Colours mark places on {target.name}. The others show the colour of the place that each point maps to."
    layer = {"kind": "colors", "name": "Map", "about": about, "arrays": colors}
    scene.description["layers"].append(layer)
    scene.description["map"] = {"reference": reference, "arrays": targets}


def _matches(
    scene: Scene, matched: Sequence[layers.Matches], items: Sequence[Shape]
) -> dict[str, Any]:
    total = sum(len(m.rows) for m in matched)
    rng = np.random.default_rng(0)
    ends, pairs, sure, right = [], [], [], []
    for match in matched:
        keep = np.arange(len(match.rows))
        if total > MAX_MATCHES:
            share = int(MAX_MATCHES * len(keep) / total)
            keep = np.sort(rng.choice(len(keep), share, replace=False))
        both = [
            items[index].vertices[match.rows[keep, column]]
            - np.asarray(scene.description["shapes"][index]["center"])
            for column, index in enumerate((match.source, match.target))
        ]
        finite = np.isfinite(np.concatenate(both, 1)).all(1)
        ends.append(np.concatenate(both, 1)[finite])
        keep = keep[finite]
        pairs.append(np.tile([match.source, match.target], (len(keep), 1)))
        sure.append(np.ones(len(keep)) if match.confidence is None else match.confidence[keep])
        right.append(np.full(len(keep), 2) if match.correct is None else match.correct[keep])
    return {
        "total": total,
        "ends": scene.add(np.concatenate(ends), np.float32),
        "pairs": scene.add(np.concatenate(pairs), np.uint16),
        "confidence": scene.add(np.concatenate(sure), np.float32),
        # 0 wrong, 1 right, 2 not known
        "correct": scene.add(np.concatenate(right), np.uint8),
        "confident": any(m.confidence is not None for m in matched),
    }


def _scale() -> np.ndarray:
    from matplotlib import colormaps

    return np.rint(colormaps[_SCALE](np.linspace(0, 1, 256))[:, :3] * 255)
