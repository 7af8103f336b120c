"""Trains backbone and linear head together on a few labelled shapes, turned at random in every step."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor, nn
from torch.nn import functional as F

from sparsefeat.errors import InputError
from sparsefeat.extract.surfaces import surface_points
from sparsefeat.heads.initialization import seeded
from sparsefeat.models.voxel_cloud import voxelize
from sparsefeat.transfer.config import FinetuneConfig
from sparsefeat.transfer.features import Backbone, vertex_labels
from sparsefeat.transfer.shapes import LoadedShape


class Finetuned:
    """A backbone and a linear layer on its features.

    Args:
        source: the backbone to start from (it is copied), its voxel size and its device.
        classes: number of labels.
        task: ``"segmentation"`` labels vertices, ``"classification"`` whole shapes by their mean feature.
        seed: of the linear layer and of the rotations.
    """

    def __init__(self, source: Backbone, classes: int, task: str, seed: int):
        self.model = copy.deepcopy(source.extractor.model)
        self.voxel_size, self.device = source.voxel_size, source.extractor.device
        self.task, self.seed = task, seed
        with seeded(seed):
            self.head = nn.Linear(int(self.model.config["out_channels"]), classes)
        self.head.to(self.device)

    def train(self, shapes: Sequence[LoadedShape], config: FinetuneConfig) -> list[float]:
        """Adam on the cross-entropy, one shape a step; returns the losses.

        Batch norm keeps its statistics: those of one shape at a time are not those of the next.

        Raises:
            InputError: no shape has a label, or the loss of a step is not finite.
        """
        shapes = [shape for shape in shapes if (self._target(shape) >= 0).any()]
        if not shapes:
            raise InputError("finetuned: no shape has a label")
        parameters = [*self.model.parameters(), *self.head.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=config.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
        rng = np.random.default_rng(self.seed)
        self.model.eval()
        losses = []
        for step in range(config.steps):
            shape = shapes[int(rng.integers(len(shapes)))]
            turn = Rotation.random(random_state=rng).as_matrix()
            scores = self._scores(shape, rng, turn)
            loss = F.cross_entropy(scores, self._target(shape).to(self.device), ignore_index=-1)
            if not torch.isfinite(loss):
                raise InputError(f"finetuned: the loss of step {step} is {loss.item()}")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        return losses

    @torch.no_grad()
    def predict(self, shape: LoadedShape) -> np.ndarray:
        """Labels of the vertices (N,), or of the faces where those are labelled; of the shape (1,)."""
        scores = self._scores(shape, np.random.default_rng(0), np.eye(3))
        if self.task == "segmentation" and shape.labels_faces:
            scores = scores[torch.from_numpy(shape.faces).to(self.device)].mean(1)
        return scores.argmax(1).cpu().numpy()

    def _target(self, shape: LoadedShape) -> Tensor:
        """The labels of the vertices, or of the shape."""
        if self.task == "classification":
            return torch.tensor([shape.shape.label])
        return torch.from_numpy(vertex_labels(shape))

    def _scores(self, shape: LoadedShape, rng: np.random.Generator, turn: np.ndarray) -> Tensor:
        """Of the vertices, or of the whole, of a turned shape."""
        vertices = shape.vertices @ turn.T
        normals = None if shape.normals is None else shape.normals @ turn.T
        points, normals = surface_points(vertices, shape.surface, self.voxel_size, rng, normals)
        # A random place in the grid, which a shape has no preference for.
        points = points + rng.random(3) * self.voxel_size
        normals = None if normals is None else torch.from_numpy(normals)
        cloud = voxelize(
            torch.from_numpy(points), self.voxel_size, normals=normals, device=self.device
        )
        features = cloud.read_off(self.model(self.model.inputs(cloud)).features)[: len(vertices)]
        return self.head(
            features.mean(0, keepdim=True) if self.task == "classification" else features
        )
