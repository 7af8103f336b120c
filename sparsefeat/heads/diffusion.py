"""DiffusionNet: learned diffusion over a surface, with gradients for direction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from sparsefeat.errors import InputError
from sparsefeat.heads.initialization import seeded
from sparsefeat.mesh.laplacian import LaplaceBasis

OutputsAt = Literal["vertices", "edges", "faces", "global_mean"]
_CORNERS = {"edges": 2, "faces": 3}


class LearnedDiffusion(nn.Module):
    """Heat diffusion, each channel for a time that is learned.

    ``f -> Phi exp(-lambda t) Phi^T M f``: what the basis cannot express is lost.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.diffusion_time = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, basis: LaplaceBasis) -> Tensor:
        """Diffused functions. Shape: (N, C) -> (N, C)."""
        if self.training:
            with (
                torch.no_grad()
            ):  # or a time driven far below zero would take as many steps to come back
                self.diffusion_time.clamp_(min=1e-8)
        # The gradient of a clamped time has to pass, since all of them start at zero.
        time = (
            self.diffusion_time
            + (self.diffusion_time.clamp(min=1e-8) - self.diffusion_time).detach()
        )
        return basis.reconstruct(torch.exp(-basis.eigenvalues[:, None] * time) * basis.project(x))


class GradientFeatures(nn.Module):
    """``tanh`` of the inner products of each gradient with a learned combination of all of them.

    Gradients are complex numbers in the tangent plane; a complex matrix also turns them, and a real one
    (``rotations=False``) does not, so that the side that normals point to has no influence.
    """

    def __init__(self, channels: int, rotations: bool):
        super().__init__()
        if rotations:
            self.A_re = nn.Linear(channels, channels, bias=False)
            self.A_im = nn.Linear(channels, channels, bias=False)
        else:
            self.A = nn.Linear(channels, channels, bias=False)
        self.rotations = rotations

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Shape: both components (N, C) -> (N, C)."""
        if self.rotations:
            real, imaginary = self.A_re(x) - self.A_im(y), self.A_re(y) + self.A_im(x)
        else:
            real, imaginary = self.A(x), self.A(y)
        return torch.tanh(x * real + y * imaginary)


class DiffusionNetBlock(nn.Module):
    """Diffusion, gradient features, a perceptron on each vertex, and a skip connection."""

    def __init__(
        self, width: int, hidden: Sequence[int], dropout: float, gradients: bool, rotations: bool
    ):
        super().__init__()
        self.diffusion = LearnedDiffusion(width)
        self.gradient_features = GradientFeatures(width, rotations) if gradients else None
        # Layers are named as in the published weights.
        self.mlp = nn.Sequential()
        widths = [(3 if gradients else 2) * width, *hidden, width]
        for i in range(len(widths) - 1):
            if i > 0:
                self.mlp.add_module(f"miniMLP_mlp_act_{i - 1:03d}", nn.ReLU())
                if dropout > 0:
                    self.mlp.add_module(f"miniMLP_mlp_layer_dropout_{i:03d}", nn.Dropout(dropout))
            self.mlp.add_module(f"miniMLP_mlp_layer_{i:03d}", nn.Linear(widths[i], widths[i + 1]))

    def forward(self, x: Tensor, basis: LaplaceBasis) -> Tensor:
        """Shape: (N, C) -> (N, C)."""
        diffused = self.diffusion(x, basis)
        parts = [x, diffused]
        if self.gradient_features is not None:
            gradient_x = torch.sparse.mm(basis.gradient_x, diffused)
            gradient_y = torch.sparse.mm(basis.gradient_y, diffused)
            parts.append(self.gradient_features(gradient_x, gradient_y))
        return x + self.mlp(torch.cat(parts, 1))


class DiffusionNet(nn.Module):
    """A network on surfaces that knows them through their Laplace basis alone.

    Source: Sharp, Attaiki, Crane, Ovsjanikov, "DiffusionNet: Discretization Agnostic Learning on
    Surfaces", ACM Trans. Graph. 41(3), 2022. Parameters are named and shaped as in the weights published
    with it, which :func:`~sparsefeat.heads.diffusion_weights.load_diffusionnet` reads. Diffusion times have
    the unit of an area, so that shapes must come at the size that a network was trained for.

    Args:
        in_channels: C of the features.
        out_channels: of the output L.
        width: channels within.
        blocks: number of blocks.
        hidden: widths within the blocks' perceptrons; twice ``width`` if None.
        dropout: share of hidden values set to zero in training.
        outputs_at: vertices; edges or faces (the mean of their corners); or one row for the whole shape
            (the mean over the area).
        gradients: whether blocks use gradient features.
        rotations: whether these may depend on which side is outside: not for point clouds.
        seed: of the initial weights.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int = 128,
        blocks: int = 4,
        hidden: Sequence[int] | None = None,
        dropout: float = 0.5,
        outputs_at: OutputsAt = "vertices",
        gradients: bool = True,
        rotations: bool = True,
        seed: int = 0,
    ):
        super().__init__()
        if outputs_at not in ("vertices", "edges", "faces", "global_mean"):
            raise InputError(
                f"outputs_at: unknown {outputs_at!r}; there are vertices, edges, faces, global_mean"
            )
        self.in_channels = in_channels
        self.outputs_at = outputs_at
        self.blocks = blocks
        hidden = (width, width) if hidden is None else tuple(hidden)
        with seeded(seed):
            self.first_lin = nn.Linear(in_channels, width)
            for i in range(blocks):
                self.add_module(
                    f"block_{i}", DiffusionNetBlock(width, hidden, dropout, gradients, rotations)
                )
            self.last_lin = nn.Linear(width, out_channels)

    def forward(
        self,
        features: Tensor | Sequence[Tensor],
        basis: LaplaceBasis | Sequence[LaplaceBasis],
        elements: Tensor | Sequence[Tensor] | None = None,
    ) -> Tensor | list[Tensor]:
        """Scores or features, before any activation; lists of shapes give lists.

        Args:
            features: Shape (N, C).
            basis: of the same N vertices, in the same type and on the same device.
            elements: the vertices of edges (M, 2) or faces (M, 3), for outputs at these.

        Returns:
            (N, L), (M, L) at edges or faces, (L,) for the whole shape.

        Raises:
            InputError: shapes or types that do not fit, ``elements`` missing.
        """
        if not isinstance(features, Tensor):
            several = [None] * len(features) if elements is None else elements
            return [self(f, b, e) for f, b, e in zip(features, basis, several, strict=True)]
        self._check(features, basis, elements)
        x = self.first_lin(features)
        for i in range(self.blocks):
            x = getattr(self, f"block_{i}")(x, basis)
        x = self.last_lin(x)
        if self.outputs_at == "vertices":
            return x
        if self.outputs_at == "global_mean":
            return (basis.mass[:, None] * x).sum(0) / basis.mass.sum()
        return x[elements].mean(1)

    def _check(self, features: Tensor, basis: LaplaceBasis, elements: Tensor | None) -> None:
        if features.ndim != 2 or features.shape != (len(basis), self.in_channels):
            raise InputError(
                f"DiffusionNet: expected features ({len(basis)}, {self.in_channels}) for this basis, got "
                f"{tuple(features.shape)}"
            )
        if basis.mass.dtype != features.dtype or basis.mass.device != features.device:
            raise InputError(
                f"DiffusionNet: features are {features.dtype} on {features.device}, the basis "
                f"{basis.mass.dtype} on {basis.mass.device}; use basis.to(device, dtype)"
            )
        corners = _CORNERS.get(self.outputs_at)
        if corners and (elements is None or elements.ndim != 2 or elements.shape[1] != corners):
            got = None if elements is None else tuple(elements.shape)
            raise InputError(
                f"DiffusionNet: outputs at {self.outputs_at} need (M, {corners}), got {got}"
            )
