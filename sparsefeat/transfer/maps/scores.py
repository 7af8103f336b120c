"""Errors of the maps that a functional-map head gives between shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from sparsefeat.data.shapes import Shape
from sparsefeat.heads.functional_map import points_from_map, spread_samples, zoomout
from sparsefeat.heads.functional_map_head import FunctionalMapHead
from sparsefeat.match.nearest import nearest_neighbours
from sparsefeat.transfer.correspondence import MapErrors
from sparsefeat.transfer.maps.config import MapsConfig
from sparsefeat.transfer.maps.inputs import Inputs
from sparsefeat.transfer.shapes import drawn

_STEP = 8  # eigenpairs that ZoomOut adds at a time
_SAMPLES = 8  # samples of ZoomOut per eigenpair


class HeadScorer:
    """Errors of maps from the second shape of each pair to the first.

    Args:
        config: the experiment.
        inputs: of the shapes.
        pairs: of them.
        say: called with what is worked on.
    """

    def __init__(
        self,
        config: MapsConfig,
        inputs: Inputs,
        pairs: Sequence[tuple[Shape, Shape]],
        say: Callable[[str], None],
    ):
        self.config, self.inputs, self.pairs, self.say = config, inputs, list(pairs), say
        self.shapes = {shape.name: shape for pair in pairs for shape in pair}
        self.meshes = {name: inputs.store(shape) for name, shape in self.shapes.items()}
        landmarks = {name: mesh.data.correspondence for name, mesh in self.meshes.items()}
        # The same ones on all shapes of a template, which have as many.
        self.landmarks = {
            name: rows[drawn(range(len(rows)), config.points, 0)]
            for name, rows in landmarks.items()
        }
        self.samples = {
            name: torch.from_numpy(spread_samples(mesh.vertices, _SAMPLES * config.zoomout))
            for name, mesh in self.meshes.items()
            if config.zoomout
        }
        self._error = MapErrors()

    def features(self, head: FunctionalMapHead, rotated: bool) -> dict[str, Tensor]:
        """What the head makes of every shape."""
        return {
            name: head(
                self.inputs.descriptors(shape, rotated),
                self.inputs.basis(shape).truncate(self.config.head.eigenpairs),
            )
            for name, shape in self.shapes.items()
        }

    def errors(self, head: FunctionalMapHead, rotated: bool, title: str) -> dict[str, float]:
        """Mean error by kind of map."""
        features = self.features(head, rotated)
        errors: dict[str, list[np.ndarray]] = {}
        for number, (a, b) in enumerate(self.pairs):
            self.say(f"{title}: pair {number + 1} of {len(self.pairs)}")
            target, true = self.meshes[a.name], self.landmarks[a.name]
            rows = torch.from_numpy(self.landmarks[b.name])
            for kind, points in self.maps(head, features, a, b, rows).items():
                errors.setdefault(kind, []).append(self._error(target, points.numpy(), true))
        return {kind: float(np.concatenate(values).mean()) for kind, values in errors.items()}

    def maps(
        self,
        head: FunctionalMapHead,
        features: dict[str, Tensor],
        a: Shape,
        b: Shape,
        rows: Tensor,
    ) -> dict[str, Tensor]:
        """For rows of b, vertices of a, by kind of map. Shape: (R,) -> (R,) each."""
        first, second = self.inputs.basis(a), self.inputs.basis(b)
        of_a, of_b = features[a.name], features[b.name]
        matrix = head.functional_map(of_a, first, of_b, second)
        found = {
            "nearest": torch.from_numpy(nearest_neighbours(of_b[rows], of_a)),
            "functional": points_from_map(matrix, first, second.at(rows)),
        }
        if self.config.zoomout:
            sampled = self.samples[b.name]
            used = torch.unique(torch.cat([rows, sampled]))  # no others are mapped in the end
            pair = self.samples[a.name], torch.searchsorted(used, sampled)
            refined = zoomout(matrix, first, second.at(used), self.config.zoomout, _STEP, pair)[1]
            found["refined"] = refined[torch.searchsorted(used, rows)]
        return found
