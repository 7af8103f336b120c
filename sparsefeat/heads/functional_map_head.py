"""A network whose features make good functional maps, trained through the map itself.

The map layer is that of Donati, Sharma, Ovsjanikov, "Deep Geometric Functional Maps", CVPR 2020 (regularised
solution, differentiable in the features), after Litany, Remez, Rodola, Bronstein, Bronstein, "Deep Functional
Maps", ICCV 2017; its mask is the resolvent's (Ren et al., SGP 2019). Notation: C_ab (E, E) carries functions of
a to b; T_ba is the point-wise map behind it, a vertex of a for each vertex of b.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsefeat.errors import InputError
from sparsefeat.heads.diffusion import DiffusionNet
from sparsefeat.heads.functional_map import (
    commutativity_mask,
    points_from_map,
    solve_functional_map,
    zoomout,
)
from sparsefeat.heads.mlp import Standardize
from sparsefeat.mesh.laplacian import LaplaceBasis


class MapLosses(NamedTuple):
    """Terms of a training step, scalars; zero where a term takes no part."""

    map: Tensor
    points: Tensor
    bijective: Tensor
    orthogonal: Tensor
    coupling: Tensor

    def total(self) -> Tensor:
        """Their sum."""
        return torch.stack(list(self)).sum()


class FunctionalMapHead(nn.Module):
    """DiffusionNet on descriptors, and the functional map that its features give.

    Shapes come at unit area: :meth:`LaplaceBasis.at_unit_area`. The network uses gradients with rotations, so
    that it can tell left from right by the side that normals point to.

    Args:
        in_channels: C of the descriptors, which are standardised by those of the training shapes.
        features: channels that the network gives.
        width, blocks, dropout: of :class:`DiffusionNet`.
        size: eigenpairs of the functional map, E.
        weight: of the mask in the map layer.
        temperature: of the softmax over points in the losses.
        rotations: see :class:`DiffusionNet`; not for clouds.
        seed: of the initial weights.
    """

    def __init__(
        self,
        in_channels: int,
        features: int = 64,
        width: int = 64,
        blocks: int = 4,
        dropout: float = 0.0,
        size: int = 50,
        weight: float = 100.0,
        temperature: float = 0.07,
        rotations: bool = True,
        seed: int = 0,
    ):
        super().__init__()
        if size < 2 or not weight > 0 or not temperature > 0:
            raise InputError(
                f"FunctionalMapHead: expected a size of at least 2, weight and temperature above 0, "
                f"got {size}, {weight}, {temperature}"
            )
        self.size, self.weight, self.temperature = size, weight, temperature
        self.standardize = Standardize(in_channels)
        self.network = DiffusionNet(
            in_channels, features, width, blocks, dropout=dropout, rotations=rotations, seed=seed
        )

    def forward(self, descriptors: Tensor, basis: LaplaceBasis) -> Tensor:
        """Features of unit length. Shape: (N, C) -> (N, features).

        Raises:
            InputError: descriptors of other channels than the head was made for.
        """
        return F.normalize(self.network(self.standardize(descriptors), basis), dim=1)

    def functional_map(
        self, features_a: Tensor, basis_a: LaplaceBasis, features_b: Tensor, basis_b: LaplaceBasis
    ) -> Tensor:
        """C_ab of features that :meth:`forward` gave. Shape: (Na, F), (Nb, F) -> (E, E)."""
        a, b = basis_a.truncate(self.size), basis_b.truncate(self.size)
        mask = commutativity_mask(a.eigenvalues, b.eigenvalues, "resolvent")
        return solve_functional_map(
            a.project(features_a), b.project(features_b), mask, self.weight * _scale(a, features_a)
        )

    @torch.no_grad()
    def points(
        self,
        features_a: Tensor,
        basis_a: LaplaceBasis,
        features_b: Tensor,
        basis_b: LaplaceBasis,
        refined: int = 0,
    ) -> Tensor:
        """T_ba: for each vertex of b, one of a; ``refined``: eigenpairs after ZoomOut, 0 for none."""
        matrix = self.functional_map(features_a, basis_a, features_b, basis_b)
        if refined:
            return zoomout(matrix, basis_a, basis_b, refined)[1]
        return points_from_map(matrix, basis_a, basis_b)

    def losses(
        self,
        features_a: Tensor,
        basis_a: LaplaceBasis,
        features_b: Tensor,
        basis_b: LaplaceBasis,
        samples_a: Tensor,
        samples_b: Tensor,
        supervised: bool,
    ) -> MapLosses:
        """Losses of a pair.

        Supervised: squared distance of both maps from those of the true correspondence (Donati et al.), and the
        InfoNCE loss of the sampled points in both directions (van den Oord et al. 2018). Unsupervised:
        bijectivity |C_ab C_ba - 1|^2 and orthogonality |C^T C - 1|^2 (Roufosse, Sharma, Ovsjanikov, ICCV
        2019), and the distance of C from the map of the features' soft point-wise map, "coupling" (Cao,
        Roetzer, Bernard, "Unsupervised Learning of Robust Spectral Shape Matching", SIGGRAPH 2023).

        Args:
            features_a, features_b: of :meth:`forward`. Shape (N, F).
            samples_a, samples_b: rows; row k of both is the same point where ``supervised``, else any rows that
                cover the shapes evenly. Shape (S,).
            supervised: whether the samples correspond.

        Raises:
            InputError: samples of different numbers that are said to correspond.
        """
        if supervised and len(samples_a) != len(samples_b):
            raise InputError(
                f"samples: {len(samples_a)} of a and {len(samples_b)} of b, expected equal numbers where supervised"
            )
        forth = self.functional_map(features_a, basis_a, features_b, basis_b)
        back = self.functional_map(features_b, basis_b, features_a, basis_a)
        logits = features_a[samples_a] @ features_b[samples_b].T / self.temperature
        zero = logits.new_zeros(())
        size = self.size
        rows_a = basis_a.eigenvectors[samples_a][:, :size]
        rows_b = basis_b.eigenvectors[samples_b][:, :size]
        if supervised:
            target = torch.arange(len(samples_a), device=logits.device)
            points = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
            difference = _distance(forth, _fit(rows_b, rows_a)) + _distance(
                back, _fit(rows_a, rows_b)
            )
            return MapLosses(difference, points, zero, zero, zero)
        identity = torch.eye(size, dtype=forth.dtype, device=forth.device)
        bijective = _distance(forth @ back, identity) + _distance(back @ forth, identity)
        orthogonal = _distance(forth.T @ forth, identity) + _distance(back.T @ back, identity)
        # The soft map from b to a averages rows of a's eigenvectors for each sample of b.
        soft_forth = _fit(rows_b, logits.softmax(0).T @ rows_a)
        soft_back = _fit(rows_a, logits.softmax(1) @ rows_b)
        coupling = _distance(forth, soft_forth) + _distance(back, soft_back)
        return MapLosses(zero, zero, bijective, orthogonal, coupling)


def _scale(basis: LaplaceBasis, features: Tensor) -> Tensor:
    """What makes the mask's weight independent of the number of channels: the features' mean square."""
    return (basis.mass[:, None] * features.detach().square()).sum() / (len(basis.eigenvalues))


def _fit(basis: Tensor, values: Tensor) -> Tensor:
    """C that reproduces rows of values best: least squares over the samples. (S, E), (S, D) -> (E, D)."""
    gram = basis.T @ basis
    ridge = (
        1e-4 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    )
    return torch.linalg.solve(gram + ridge.to(gram), basis.T @ values)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared Frobenius distance over the number of rows."""
    return (a - b).square().sum() / len(a)
