"""What makes individuals differ beyond their proportions: folds of clothes, fat, hair, humps, packs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparsefeat.synthetic.creatures.body import Body
from sparsefeat.synthetic.shapes import SmoothNoise

Relief = Callable[[np.ndarray], np.ndarray]


def random_relief(template: Body, rng: np.random.Generator) -> Relief:
    """Heights over the skin at points of a template's surface, the same in all poses of an individual.

    Smooth swellings, folds over a part of the body, and up to six lumps.

    Args:
        template: whose lengths are the unit.
        rng: decides the individual.

    Returns:
        A function (N, 3) -> (N,): heights to move the points by, along outward normals.
    """
    ends = np.stack([template.cones.origin, template.cones.origin + _axis(template)])
    size = float(np.linalg.norm(ends.max((0, 1)) - ends.min((0, 1))))
    swelling = SmoothNoise(rng, 0.25 * size), size * rng.uniform(0, 0.006)
    folds = SmoothNoise(rng, 0.05 * size), size * rng.choice([0.0, rng.uniform(0, 0.0025)])
    covered = SmoothNoise(rng, 0.5 * size)
    lumps = []
    for _ in range(rng.integers(0, 7)):
        cone = rng.integers(len(template.cones))
        along = rng.random() * _axis(template)[cone]
        aside = rng.normal(size=3)
        aside /= np.linalg.norm(aside)
        centre = template.cones.origin[cone] + along + template.cones.radius[cone].mean() * aside
        radius = size * np.exp(rng.uniform(np.log(0.02), np.log(0.10)))
        lumps.append((centre, radius, radius * rng.uniform(0.1, 0.5)))

    def relief(points: np.ndarray) -> np.ndarray:
        height = swelling[1] * swelling[0](points)
        height = height + folds[1] * folds[0](points) * (covered(points) > 0)
        for centre, radius, tall in lumps:
            near = (1 - ((points - centre) ** 2).sum(1) / radius**2).clip(0)
            height = height + tall * near**2
        return height

    return relief


def _axis(body: Body) -> np.ndarray:
    return body.cones.length[:, None] * body.cones.axes[:, 2]
