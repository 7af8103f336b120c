"""Measure :func:`sparsefeat.correspond` on pairs of a data set with known correspondence, and print each.

python -m sparsefeat.match.measure_maps faust_r data/faust_r --pairs 20 --result faust-r-zero-shot
python -m sparsefeat.match.measure_maps tosca data/tosca_isometric --pairs 8 --even --result tosca-zero-shot
python -m sparsefeat.match.measure_maps faust_r data/faust_r --split train --pairs 16 --cut --in-pieces 10 --result faust-r-cut
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.spatial.transform import Rotation

from sparsefeat.checks import checked_count, checked_seed
from sparsefeat.data.shapes import load_dataset
from sparsefeat.errors import InputError, opening
from sparsefeat.io.atomic import atomic_write
from sparsefeat.io.results import write_result
from sparsefeat.match.correspond import correspond_shapes, describe_pair
from sparsefeat.match.shapes import DescribedShape, describe_shape, shape_extractor
from sparsefeat.mesh.geodesic import correspondence_error, geodesic_graph
from sparsefeat.process.tool import run_tool
from sparsefeat.synthetic.damage import DamagedMesh, damage_mesh


def spread_over_classes(
    pairs: Sequence[tuple[int, int]], classes: Sequence[str | None], count: int
) -> list[tuple[int, int]]:
    """So many pairs, about as many of each class, evenly spaced in the class's list.

    Raises:
        InputError: a class has fewer pairs than its share.
    """
    groups: dict[str | None, list[tuple[int, int]]] = {}
    for pair, name in zip(pairs, classes, strict=True):
        groups.setdefault(name, []).append(pair)
    shares = np.diff(np.linspace(0, count, len(groups) + 1).round().astype(int))
    chosen = []
    for (name, listed), share in zip(groups.items(), shares, strict=True):
        if share > len(listed):
            raise InputError(f"--even: {name} has {len(listed)} pairs, expected {share} of {count}")
        rows = ((np.arange(share) + 0.5) / max(share, 1) * len(listed)).astype(int)
        chosen += [listed[row] for row in rows]
    return chosen


def large_pieces(mesh: DamagedMesh) -> int:
    """Connected pieces of a mesh with a tenth of its vertices or more."""
    graph = geodesic_graph(mesh.vertices, mesh.faces)
    sizes = np.bincount(connected_components(graph, directed=False)[1])
    return int((sizes >= 0.1 * len(mesh.vertices)).sum())


def main(argv: Sequence[str] | None = None) -> int:
    """Mean geodesic errors, every shape turned at random; nothing is learned from the data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("dataset")
    add("root")
    add("--split", default="test")
    add("--pairs", type=int, default=20, help="random unordered pairs of different individuals")
    add("--even", action="store_true", help="not at random: as many of each class, evenly spaced")
    add("--cut", action="store_true", help="a plane cuts sources; targets stay whole")
    add(
        "--in-pieces",
        type=int,
        help="of the cut pairs, those whose source is in several large pieces",
    )
    add("--points", type=int, default=200, help="random landmarks a pair")
    add("--seed", type=int, default=0)
    add("--checkpoint")
    add("--cache", help="folder of Laplace bases")
    add("--json", metavar="FILE", help="write the numbers there")
    add("--result", metavar="NAME", help="write results/maps/NAME.json")
    args = parser.parse_args(argv)
    checked_count(args.pairs, "--pairs")
    checked_count(args.points, "--points")
    checked_seed(args.seed)
    dataset = load_dataset(args.dataset, args.root)
    shapes = dataset.shapes
    pairs = [
        (i, j)
        for i, j in itertools.combinations(dataset.rows(args.split), 2)
        if shapes[i].template == shapes[j].template
        and (shapes[i].individual is None or shapes[i].individual != shapes[j].individual)
    ]
    if not pairs:
        raise InputError(f"{args.root}: no two shapes of {args.split} that correspond")
    drawn = np.random.default_rng(args.seed).permutation(len(pairs))
    if args.even:
        chosen = spread_over_classes(pairs, [shapes[i].template for i, _ in pairs], args.pairs)
    else:
        chosen = [pairs[k] for k in sorted(drawn[: args.pairs])]
    turned: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    described: dict[int, DescribedShape] = {}

    def turn(row: int) -> tuple[np.ndarray, np.ndarray]:
        if row not in turned:
            data = shapes[row].load()
            rng = np.random.default_rng(zlib.crc32(shapes[row].name.encode()))
            turned[row] = (
                data.vertices @ Rotation.random(random_state=rng).as_matrix().T,
                data.faces,
            )
        return turned[row]

    def describe(row: int) -> DescribedShape:
        if row not in described:
            described[row] = describe_shape(
                turn(row), extractor, cache=args.cache, name=shapes[row].name
            )
        return described[row]

    def cut(i: int, j: int) -> DamagedMesh:
        names = f"{shapes[i].name} {shapes[j].name}"
        return damage_mesh("cut", *turn(i), seed=zlib.crc32(names.encode()))

    if args.in_pieces is not None:
        if args.even or not args.cut:
            raise InputError("--in-pieces: for --cut without --even")
        if not 0 <= args.in_pieces <= args.pairs:
            raise InputError(f"--in-pieces {args.in_pieces}: expected 0 to --pairs, {args.pairs}")
        wanted = [args.pairs - args.in_pieces, args.in_pieces]
        chosen = []
        for k in drawn:
            several = int(large_pieces(cut(*pairs[k])) > 1)
            if wanted[several] > 0:
                wanted[several] -= 1
                chosen.append(pairs[k])
            if max(wanted) <= 0:
                break
        else:
            raise InputError(
                f"--in-pieces: {len(chosen)} of {args.pairs} pairs found, expected all"
            )
    extractor = shape_extractor(args.checkpoint)
    records = []
    for i, j in chosen:
        here, there = dataset.corresponding(i, j)
        if args.cut:
            part = cut(i, j)
            a, b = describe_pair(
                (part.vertices, part.faces), turn(j), extractor, partial=True, cache=args.cache
            )
            a, b = replace(a, name=shapes[i].name), replace(b, name=shapes[j].name)
            here, there = part.place[here], there[part.place[here] >= 0]
            here = here[here >= 0]
        else:
            a, b = describe(i), describe(j)
        assert b.faces is not None
        found = correspond_shapes(a, b, partial=args.cut)
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
        if args.cut:
            records[-1]["median"] = float(np.median(errors))
            records[-1]["pieces"] = large_pieces(part)
        mean = float(np.mean([record["error"] for record in records]))
        print(
            f"{a.name} to {b.name}: error x100 {errors.mean():.2f}; mean of {len(records)}: {mean:.2f}",
            flush=True,
        )
        numbers = {"error": mean, "points": args.points, "turned": True, "pairs": records}
        if args.json:
            with opening(args.json), atomic_write(args.json) as temporary:
                temporary.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
        if args.result:  # after every pair, so that an interrupted run leaves what it has
            words = ["python", "-m", "sparsefeat.match.measure_maps", *(argv or sys.argv[1:])]
            spent = time.process_time()
            write_result("maps", args.result, numbers, words, [args.seed], cpu_seconds=spent)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
