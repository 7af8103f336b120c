"""Pretraining on 3DMatch at its real size, for those who do not have it: a made-up copy of FCGF's training layout.

    python tests/scale/threedmatch.py --output runs/scale --result threedmatch-layout

Scenes, fragments, points and pairs are about as many as in FCGF's download. A few synthetic fragments are made, sampled
densely several times, and linked under all names, so that the copy takes 250 MB; every scene is one fragment, seen
over and over. Then a configuration runs for some steps, is stopped, and goes on, and what is written down is: seconds until the first step,
seconds per pair, the largest memory, whether the second run's batches are those that an uninterrupted run would have had,
and how many of the first pairs are of how many scenes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from sparsefeat.data.threedmatch import train_pairs
from sparsefeat.io.results import write_result
from sparsefeat.pretrain.sampling import PairSampler
from sparsefeat.synthetic.rooms import make_rooms

SCENES, FRAGMENTS, PAIRS = 48, 46, 20_642
"""Of FCGF's training split: its scenes, fragments a scene, and the pairs that Predator's list has of it."""
POINTS = 200_000
"""Of a fragment, about."""
VIEWS, SAMPLES = 6, 4
"""Fragments that are made, and samplings of each."""


def make_layout(root: Path, seed: int = 0) -> None:
    """Write the copy."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    kept = root / "distinct"
    make_rooms(kept, seed=seed, rooms=1, fragments_per_room=VIEWS, layout="train", frames=20)
    for view, path in enumerate(sorted(kept.glob("*.npz"))):
        with np.load(path) as archive:
            points, viewpoint = archive["pcd"], archive["viewpoint"]
        for sample in range(SAMPLES):
            rows = rng.integers(0, len(points), POINTS)
            dense = points[rows] + rng.normal(scale=0.004, size=(POINTS, 3))
            color = rng.random((POINTS, 3))
            np.savez(kept / _made(view, sample), pcd=dense, color=color, viewpoint=viewpoint)
    for scene in range(SCENES):
        names = [f"room-{scene:02d}@seq-01_{k:03d}.npz" for k in range(FRAGMENTS)]
        for k, name in enumerate(names):
            if not (root / name).exists():
                os.link(kept / _made(scene % VIEWS, k % SAMPLES), root / name)
        count = PAIRS // SCENES + (scene < PAIRS % SCENES)
        places = [(i, j) for i in range(FRAGMENTS) for j in range(i + 1, FRAGMENTS)]
        chosen = rng.permutation(len(places))[:count]
        lines = [
            f"{names[places[k][0]]} {names[places[k][1]]} {rng.uniform(0.3, 0.9):.4f}"
            for k in chosen
        ]
        (root / f"room-{scene:02d}@seq-01-0.30.txt").write_text("\n".join(lines) + "\n")
    scenes = "\n".join(f"room-{scene:02d}" for scene in range(SCENES))
    (root / "train_3dmatch.txt").write_text(scenes + "\n")


def _made(view: int, sample: int) -> str:
    return f"view_{view}_{sample}.npz"


def run(
    config: str, root: Path, output: Path, steps: int, *options: str, stop: int | None = None
) -> dict[str, float]:
    """Some steps of a configuration; seconds until the first one and per pair, and the largest memory.

    With ``stop`` the run is ended by a signal once it has so many steps.
    """
    before = len(_steps(output))
    words = [
        sys.executable, "-m", "sparsefeat", "pretrain", config, f"data.root={root}", "data.validation_pairs=0",
        "epochs=null", f"steps={steps}", "save_every=1", "pictures=false", "--output", str(output), *options,
    ]  # fmt: skip
    began = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    first = None
    while process.poll() is None:
        if first is None and len(_steps(output)) > before:
            first = time.perf_counter() - began
        if stop is not None and len(_steps(output)) >= stop:
            process.terminate()
        time.sleep(0.2)
    if process.returncode and stop is None:
        raise SystemExit(f"{' '.join(words)} failed: {process.stderr.read()[-2000:]}")
    new = _steps(output)[before:]
    seconds = [sum(v for k, v in step.items() if k.endswith("_s")) for step in new[1:]]
    pairs = [step["pairs"] for step in new[1:]]
    return {
        "seconds_to_first_step": round(first or time.perf_counter() - began, 1),
        "seconds_per_pair": round(float(np.median(np.array(seconds) / pairs)), 2),
        "largest_memory_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
    }


def _steps(output: Path) -> list[dict]:
    path = output / "log.jsonl"
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [step for step in map(json.loads, lines) if "loss" in step]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("runs/scale"))
    parser.add_argument("--config", default="3dmatch_5cm", help="of configs/, or a file")
    parser.add_argument("--steps", type=int, default=10, help="until the first run is stopped")
    parser.add_argument("--cache-gb", type=float, default=2.0)
    parser.add_argument("--result", metavar="NAME", help="write results/pretraining/NAME.json")
    args = parser.parse_args(argv)
    root = args.output / "threedmatch"
    if not (root / "train_3dmatch.txt").is_file():
        make_layout(root)
    options = [f"data.cache_gb={args.cache_gb}", "data.workers=0"]
    for name in ("whole", "halves"):
        shutil.rmtree(args.output / name, ignore_errors=True)
    began = time.perf_counter()
    pairs = train_pairs(root)
    listing = time.perf_counter() - began
    whole, halves, steps = args.output / "whole", args.output / "halves", 2 * args.steps
    first = run(args.config, root, halves, steps, *options, stop=args.steps)
    again = run(args.config, root, halves, steps, *options, "--resume")
    run(args.config, root, whole, steps, *options)
    losses = [{s["step"]: s["loss"] for s in _steps(output)} for output in (halves, whole)]
    order = [
        request.pair for step in range(100) for request in PairSampler(len(pairs), 4).batch(step)
    ]
    found = {
        "scenes": SCENES, "fragments": SCENES * FRAGMENTS, "points_per_fragment": POINTS, "pairs": len(pairs),
        "configuration": args.config, "cache_gb": args.cache_gb, "seconds_to_list_pairs": round(listing, 2),
        "first_run": first, "resumed_run": again,
        "largest_difference_of_losses_to_an_uninterrupted_run": max(
            abs(losses[0][step] - losses[1][step]) for step in losses[1]
        ),
        "scenes_of_the_first_400_pairs": len({pairs[k].scene for k in order}),
        "repeated_among_the_first_400_pairs": len(order) - len(set(order)),
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    if args.result:
        words = ["python", "tests/scale/threedmatch.py", *(argv or sys.argv[1:])]
        print(write_result("pretraining", args.result, found, words, [0]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
