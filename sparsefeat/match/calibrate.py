"""Fit the constants of :mod:`sparsefeat.match.confidence` on synthetic rooms and print them.

python tools/make_data.py rooms --output DIR --seed 7716 --rooms 12 --fragments 10 --layout test
python -m sparsefeat.match.calibrate DIR [DIR2 ...]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from sparsefeat.checks import checked_count, checked_seed
from sparsefeat.data.threedmatch import FragmentPair, test_pairs
from sparsefeat.errors import InputError
from sparsefeat.evaluate.registration import MAX_ERROR_M, transformation_error
from sparsefeat.match.confidence import NAMES, predictors
from sparsefeat.match.estimate import PoseEstimate
from sparsefeat.match.register import register_scans
from sparsefeat.match.scans import (
    CHECKPOINT,
    Scan,
    choose_extractor,
    describe_scan,
    open_view,
)
from sparsefeat.process.tool import run_tool


def listed_pairs(root: Path) -> list[FragmentPair]:
    """All pairs of both lists of a folder, neighbours in a sequence left out."""
    found = []
    for name in ("3DMatch", "3DLoMatch"):
        found += [pair for listed in test_pairs(root, pairs=name).values() for pair in listed]
    return [pair for pair in found if pair.j - pair.i > 1]


def strangers(pairs: Sequence[FragmentPair], seed: int) -> Iterator[tuple[Path, Path]]:
    """As many pairs of fragments of different scenes, which no pose fits."""
    rng = np.random.default_rng(seed)
    for pair in pairs:
        others = [other for other in pairs if other.scene != pair.scene]
        if others:
            yield pair.source, others[rng.integers(len(others))].target


def fit(values: np.ndarray, right: np.ndarray) -> tuple[float, np.ndarray]:
    """Intercept and coefficients of a logistic regression, none of them negative.

    The predictors are standardised for the penalty, half the sum of squared coefficients; the result is for the
    raw ones.

    Args:
        values: Shape (P, 4), of :func:`sparsefeat.match.confidence.predictors`.
        right: Shape (P,) bool.
    """
    mean, spread = values.mean(0), values.std(0).clip(1e-9)
    standard, right = (values - mean) / spread, right.astype(np.float64)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights = parameters[1:]
        logits = parameters[0] + standard @ weights
        value = np.logaddexp(0, logits).sum() - right @ logits + weights @ weights / 2
        slope = 1 / (1 + np.exp(-logits)) - right
        return float(value), np.concatenate([[slope.sum()], standard.T @ slope + weights])

    start = np.zeros(1 + values.shape[1])
    bounds = [(None, None)] + [(0.0, None)] * values.shape[1]
    found = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x
    coefficients = found[1:] / spread
    return float(found[0] - coefficients @ mean), coefficients


def main(argv: Sequence[str] | None = None) -> int:
    """Print the constants; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "data", nargs="+", type=Path, metavar="DIR", help="rooms in 3DMatch's test layout"
    )
    parser.add_argument("--checkpoint", default=CHECKPOINT, help="default: %(default)s")
    parser.add_argument(
        "--most",
        type=int,
        default=400,
        metavar="N",
        help="overlapping pairs (default: %(default)s)",
    )
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0], metavar="S")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    return run(args)


def run(args: argparse.Namespace) -> int:
    """Register pairs that overlap and pairs of different scenes, and fit."""
    checked_count(args.most, "--most")
    checked_seed(args.seed)
    pairs = [pair for root in args.data for pair in listed_pairs(root)]
    rng = np.random.default_rng(args.seed)
    pairs = [pairs[k] for k in sorted(rng.permutation(len(pairs))[: args.most])]
    extractor = choose_extractor(args.checkpoint)
    scans: dict[Path, Scan] = {}

    def statistics(source: Path, target: Path) -> PoseEstimate:
        for path in (source, target):
            if path not in scans:
                scans[path] = describe_scan(open_view(path), extractor, args.scales)
        return register_scans(scans[source], scans[target]).hypotheses

    values, right = [], []
    for pair in pairs:
        estimate = statistics(pair.source, pair.target)
        if len(estimate):
            if pair.information is None:
                raise InputError(
                    f"{pair.source}: no information matrix of its pair, expected a gt.info"
                )
            values.append(predictors(estimate))
            right.append(
                transformation_error(estimate.transforms[0], pair.transform, pair.information)
                <= MAX_ERROR_M**2
            )
    for source, target in strangers(pairs, args.seed):
        estimate = statistics(source, target)
        if len(estimate):
            values.append(predictors(estimate))
            right.append(False)
    if not values:
        raise InputError(f"{args.data[0]}: no pair of scans with a pose, expected some to fit to")
    intercept, coefficients = fit(np.array(values), np.array(right))
    print(f"{len(right)} pairs, {sum(right)} right; {', '.join(NAMES)}")
    print(f"INTERCEPT = {intercept:.4f}")
    print(f"COEFFICIENTS = ({', '.join(f'{value:.4f}' for value in coefficients)})")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
