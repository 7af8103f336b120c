"""Fit the constants of :mod:`sparsefeat.match.map_confidence` on synthetic people and print them.

python tools/make_data.py creatures --output DIR --families humanoid figure --count 20 --poses 2 --seed 901 \\
    --vertices 3000 --landmarks 2500 --triangulations 10
python -m sparsefeat.match.calibrate_maps DIR --pairs 12
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize

from sparsefeat.checks import checked_count, checked_seed
from sparsefeat.data.shapes import load_dataset
from sparsefeat.errors import InputError
from sparsefeat.match.correspond import correspond_shapes, map_predictors
from sparsefeat.match.map_confidence import NAMES, RIGHT, bounded
from sparsefeat.match.shapes import describe_shape, shape_extractor
from sparsefeat.mesh.geodesic import correspondence_error
from sparsefeat.process.tool import run_tool


def fit(values: np.ndarray, right: np.ndarray) -> tuple[float, np.ndarray]:
    """Intercept and coefficients of a logistic regression, none of them positive.

    Args:
        values: of :func:`sparsefeat.match.map_confidence.bounded`. Shape (P, 4).
        right: Shape (P,) bool.
    """
    spread = values.std(0).clip(1e-9)
    standard, sign = values / spread, np.where(right, 1.0, -1.0)

    def loss(x: np.ndarray) -> float:
        margin = sign * (x[0] + standard @ x[1:])
        return float(np.logaddexp(0, -margin).mean() + 1e-4 * (x[1:] ** 2).sum())

    bounds = [(None, None), *[(None, 0.0)] * len(NAMES)]
    found = minimize(loss, np.zeros(1 + len(NAMES)), method="L-BFGS-B", bounds=bounds).x
    return float(found[0]), found[1:] / spread


def main(argv: Sequence[str] | None = None) -> int:
    """Maps of pairs of a folder of creatures; prints the constants and how they fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", help="folder that make_data.py creatures wrote")
    parser.add_argument("--pairs", type=int, default=12, help="random pairs")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    checked_count(args.pairs, "--pairs")
    checked_seed(args.seed)
    dataset = load_dataset("folder", args.root)
    shapes = dataset.shapes
    pairs = [
        (i, j)
        for i, j in itertools.combinations(range(len(shapes)), 2)
        if shapes[i].template == shapes[j].template
        and (shapes[i].individual is None or shapes[i].individual != shapes[j].individual)
    ]
    if not pairs:
        raise InputError(f"{args.root}: no two creatures of one family")
    rng = np.random.default_rng(args.seed)
    extractor = shape_extractor(None)
    values, right = [], []
    for number, k in enumerate(rng.permutation(len(pairs))[: args.pairs]):
        described, landmarks = [], []
        for row in pairs[k]:
            data = shapes[row].load()
            described.append(describe_shape((data.vertices, data.faces), extractor))
            assert data.correspondence is not None
            landmarks.append(data.correspondence)
        a, b = described
        assert b.faces is not None
        found = correspond_shapes(a, b)
        seen = map_predictors(a, b, found.hypotheses[0], found.vertices, found.back_vertices)
        here, there = (rows[:: max(1, len(rows) // 300)] for rows in landmarks)
        errors = correspondence_error(b.vertices, b.faces, found.vertices[here], there)
        values.append(bounded(seen[here]))
        right.append(errors < 100 * RIGHT)
        print(
            f"pair {number}: error x100 {errors.mean():.2f}, right {right[-1].mean():.2f}",
            flush=True,
        )
    intercept, coefficients = fit(np.concatenate(values), np.concatenate(right))
    print(f"INTERCEPT = {intercept:.4f}")
    print(f"COEFFICIENTS = ({', '.join(f'{c:.4f}' for c in coefficients)})  # {', '.join(NAMES)}")
    means = [v.mean() for v in right]
    at = [1 / (1 + np.exp(-(intercept + v @ coefficients))) for v in values]
    print(
        "right, believed, per pair:",
        *(f"{m:.2f}/{p.mean():.2f}" for m, p in zip(means, at, strict=True)),
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
