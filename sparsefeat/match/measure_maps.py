"""Measure :func:`sparsefeat.correspond` on pairs of a data set with known correspondence, and print each.

python -m sparsefeat.match.measure_maps faust_r data/faust_r --pairs 20 --result faust-r-zero-shot
"""

from __future__ import annotations

import argparse
import itertools
import sys
import zlib
from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from sparsefeat.data.shapes import load_dataset
from sparsefeat.io.results import write_result
from sparsefeat.match.correspond import correspond_shapes
from sparsefeat.match.shapes import DescribedShape, describe_shape, shape_extractor
from sparsefeat.mesh.geodesic import correspondence_error


def main(argv: Sequence[str] | None = None) -> int:
    """Mean geodesic errors, every shape turned at random; nothing is learned from the data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("dataset")
    add("root")
    add("--split", default="test")
    add("--pairs", type=int, default=20, help="random unordered pairs of different individuals")
    add("--points", type=int, default=200, help="random landmarks a pair")
    add("--seed", type=int, default=0)
    add("--checkpoint")
    add("--cache", help="folder of Laplace bases")
    add("--result", metavar="NAME", help="write results/maps/NAME.json")
    args = parser.parse_args(argv)
    dataset = load_dataset(args.dataset, args.root)
    shapes = dataset.shapes
    pairs = [
        (i, j)
        for i, j in itertools.combinations(dataset.rows(args.split), 2)
        if shapes[i].template == shapes[j].template
        and (shapes[i].individual is None or shapes[i].individual != shapes[j].individual)
    ]
    chosen = np.random.default_rng(args.seed).permutation(len(pairs))[: args.pairs]
    extractor = shape_extractor(args.checkpoint)
    described: dict[int, DescribedShape] = {}

    def describe(row: int) -> DescribedShape:
        if row not in described:
            data, name = shapes[row].load(), shapes[row].name
            rng = np.random.default_rng(zlib.crc32(name.encode()))
            turn = Rotation.random(random_state=rng).as_matrix()
            shape = data.vertices @ turn.T, data.faces
            described[row] = describe_shape(shape, extractor, cache=args.cache, name=name)
        return described[row]

    records = []
    for i, j in (pairs[k] for k in sorted(chosen)):
        a, b = describe(i), describe(j)
        assert b.faces is not None
        found = correspond_shapes(a, b)
        here, there = dataset.corresponding(i, j)
        some = np.random.default_rng(0).permutation(len(here))[: args.points]
        here, there = here[some], there[some]
        errors = correspondence_error(b.vertices, b.faces, found.vertices[here], there)
        right = errors < 5
        sure = found.confidence[here] > 0.5
        records.append(
            {
                "source": a.name,
                "target": b.name,
                "error": float(errors.mean()),
                "right": float(right.mean()),
                "confidence": float(found.confidence[here].mean()),
                "error_where_sure": float(errors[sure].mean()) if sure.any() else None,
                "sure": float(sure.mean()),
                "orientation": found.hypotheses[0].orientation,
                "mirrored": max(h.orientation for h in found.hypotheses if h.name == "mirrored"),
            }
        )
        mean = float(np.mean([record["error"] for record in records]))
        print(
            f"{a.name} to {b.name}: error x100 {errors.mean():.2f}; mean of {len(records)}: {mean:.2f}",
            flush=True,
        )
        if args.result:  # after every pair, so that an interrupted run leaves what it has
            numbers = {"error": mean, "points": args.points, "turned": True, "pairs": records}
            words = ["python", "-m", "sparsefeat.match.measure_maps", *(argv or sys.argv[1:])]
            write_result("maps", args.result, numbers, words, [args.seed])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
