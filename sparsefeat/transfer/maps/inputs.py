"""What a functional-map head takes of a shape: descriptors of its vertices and its Laplace basis."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sparsefeat.checkpoint import weights_digest
from sparsefeat.data.shapes import Shape
from sparsefeat.errors import opening
from sparsefeat.io.atomic import atomic_write
from sparsefeat.io.config import to_dict
from sparsefeat.mesh.laplacian import LaplaceBasis
from sparsefeat.transfer.features import FeatureSource, make_sources
from sparsefeat.transfer.maps.config import MapsConfig
from sparsefeat.transfer.shapes import LoadedShape, ShapeStore


class Inputs:
    """Descriptors and bases of shapes as the head takes them, kept in memory and in a folder.

    Args:
        config: the experiment.
        store: of the shapes.
        device: where networks run and are trained; None: the CPU.
    """

    def __init__(self, config: MapsConfig, store: ShapeStore, device: str | None = None):
        self.config, self.store, self.device = config, store, torch.device(device or "cpu")
        name = "tuned" if config.inputs == "ours" else config.inputs
        self.source: FeatureSource = make_sources([name], config.features, 1.0, device)[name]
        self.weights = weights_digest(config.features.checkpoint)
        self._kept: dict[tuple[str, bool], Tensor] = {}
        self._bases: dict[str, LaplaceBasis] = {}

    def descriptors(self, shape: Shape, turned: bool) -> Tensor:
        """Of the vertices. Shape: (N, C) float32."""
        turned = turned and not self.source.intrinsic
        key = (shape.name, turned)
        if key not in self._kept:
            loaded = self.store(shape)
            path = self._path(loaded, turned)
            values = None if path is None else _read(path, len(loaded.vertices))
            if values is None:
                values = np.asarray(self.source(loaded, turned), dtype=np.float32)
                if path is not None:
                    with opening(path), atomic_write(path) as temporary, open(temporary, "wb") as f:
                        np.save(f, values)
            self._kept[key] = torch.from_numpy(values)
        return self._kept[key]

    def basis(self, shape: Shape) -> LaplaceBasis:
        """Of the surface at unit area, float32."""
        if shape.name not in self._bases:
            basis = self.store(shape).basis(max(self.config.head.eigenpairs, self.config.zoomout))
            self._bases[shape.name] = basis.to(dtype=torch.float32)
        return self._bases[shape.name]

    def _path(self, shape: LoadedShape, turned: bool) -> Path | None:
        if self.config.cache is None or self.config.inputs == "xyz":
            return None
        with opening(self.config.cache):
            self.config.cache.mkdir(parents=True, exist_ok=True)
        text = repr(
            (self.config.inputs, to_dict(self.config.features), self.weights, turned, shape.name)
        )
        digest = hashlib.sha256(text.encode())
        for part in (shape.vertices, shape.faces, shape.normals):
            if part is not None:
                digest.update(np.ascontiguousarray(part).tobytes())
        return self.config.cache / f"descriptors-{digest.hexdigest()[:40]}.npy"


def _read(path: Path, rows: int) -> np.ndarray | None:
    try:
        values: np.ndarray = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        return None
    except Exception:  # a damaged file counts as absent: it can be computed again
        return None
    return (
        values if values.ndim == 2 and len(values) == rows and np.isfinite(values).all() else None
    )
