"""Spectral point signatures, the intrinsic baselines that learned features are compared with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparsefeat.checks import as_array, checked_count, checked_positive
from sparsefeat.errors import InputError

if TYPE_CHECKING:
    from sparsefeat.mesh.laplacian import LaplaceBasis

_ZERO = 1e-9  # share of the largest eigenvalue below which one belongs to a component's constant


def heat_kernel_signature(
    basis: LaplaceBasis, count: int = 16, times: Tensor | None = None
) -> Tensor:
    """How much heat remains at each vertex after some time, ``sum_e exp(-lambda_e t) phi_e(x)^2``.

    Without ``times`` the signature does not depend on the shape's size: times are evenly spaced in their
    logarithm from 4 ln 10 / lambda_E to 4 ln 10 / lambda_1, between the largest and the smallest positive
    eigenvalue, and values are multiplied by the area. Source: Sun, Ovsjanikov, Guibas, "A Concise and
    Provably Informative Multi-Scale Signature Based on Heat Diffusion", SGP 2009, section 5. (DiffusionNet
    takes 0.01 to 1, for shapes of unit area or radius: ``times=torch.logspace(-2, 0, 16)``.)

    Args:
        basis: of the shape.
        count: number of times T.
        times: in squared units of the vertices, instead; values are then those of the formula, in
            1 / area. Shape: (T,).

    Returns:
        (N, T), in the type and on the device of the basis.

    Raises:
        InputError: ``count`` or ``times`` not positive, or fewer than two positive eigenvalues.
    """
    count = checked_count(count, "heat_kernel_signature: count")
    squares, values = basis.eigenvectors.square(), basis.eigenvalues
    scale = basis.area
    if times is None:
        logarithm = _positive(basis).log()
        low, high = float(logarithm[0]), float(logarithm[-1])
        exponents = torch.linspace(-high, -low, count, dtype=values.dtype, device=values.device)
        times = 4 * math.log(10) * exponents.exp()
    else:
        times = torch.as_tensor(times, dtype=values.dtype, device=values.device)
        if times.ndim != 1 or not bool((times > 0).all()):
            raise InputError(
                f"heat_kernel_signature: expected positive times (T,), got {times.tolist()}"
            )
        scale = 1
    return scale * (squares @ torch.exp(-values[:, None] * times))


ABSOLUTE_TIMES = (5e-3, 0.5)
"""Range of the times of heat, in areas of the whole shape, for shapes of which parts are missing."""
ABSOLUTE_ENERGIES = (4.0, 2000.0)
"""Range of the energies of waves, in 1 / area of the whole shape, likewise."""


def wave_kernel_signature(
    basis: LaplaceBasis, count: int = 100, energies: tuple[float, float] | None = None
) -> Tensor:
    """How likely a quantum particle of some energy is at each vertex.

    ``sum_e exp(-(w - log lambda_e)^2 / 2 s^2) phi_e(x)^2``, divided by the sum of the weights, for
    ``count`` energies w evenly between the logarithms of the smallest positive and the largest eigenvalue,
    two widths s in from either; s is 7 % of that range. Source: Aubry, Schlickewei, Cremers, "The Wave
    Kernel Signature: A Quantum Mechanical Approach to Shape Analysis", ICCV Workshops 2011, section 4,
    where s is 7 steps of 100 energies. Multiplied by the area, so that it does not depend on size.

    Args:
        basis: of the shape.
        count: number of energies T.
        energies: lowest and highest energy, in 1 / the squared unit of the vertices, in place of the eigenvalues: a
            part of a shape then has about the signature that it has in the whole one. Values are then divided by the
            number of eigenvalues that a flat surface has per area, not by the sum of the weights.

    Returns:
        (N, T), in the type and on the device of the basis.

    Raises:
        InputError: ``count`` or ``energies`` not positive, or fewer than two positive eigenvalues.
    """
    count = checked_count(count, "wave_kernel_signature: count")
    logarithm = _positive(basis).log()
    low, high = float(logarithm[0]), float(logarithm[-1])
    if energies is not None:
        what = "wave_kernel_signature: energies"
        given = as_array(energies, what)
        if given.shape != (2,):
            raise InputError(f"{what} {energies}, expected two, lower first")
        low, high = (math.log(checked_positive(energy, what)) for energy in given)
        if not low < high:
            raise InputError(f"{what} {energies}, expected the lower one first")
    width = 0.07 * (high - low)
    middles = torch.linspace(
        low + 2 * width, high - 2 * width, count, dtype=logarithm.dtype, device=logarithm.device
    )
    exponents = -(middles - logarithm[:, None]).square() / (2 * width**2)
    squares = basis.eigenvectors[:, -len(logarithm) :].square()
    if energies is None:
        return basis.area * (squares @ torch.softmax(exponents, 0))
    # Weyl's law: a surface has area / 4 pi eigenvalues per unit of energy. Dividing by the number that there are, as
    # above, would make the values of a part larger than those of the whole.
    expected = middles.exp() * (
        math.sqrt(2 * math.pi) * width * math.exp(width**2 / 2) / (4 * math.pi)
    )
    return squares @ (exponents.exp() / expected)


def _positive(basis: LaplaceBasis) -> Tensor:
    """The eigenvalues that do not belong to a component's constant; they are the last ones."""
    values = basis.eigenvalues[basis.eigenvalues > _ZERO * basis.eigenvalues[-1]]
    if len(values) < 2 or not bool(values[-1] > values[0]):
        raise InputError(
            "signatures: expected two different positive eigenvalues; compute more of them"
        )
    return values
