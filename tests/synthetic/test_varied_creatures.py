"""Varied people and animals, and made-up species: closed, corresponding, split by species."""

from __future__ import annotations

import numpy as np
import pytest

from sparsefeat.data.shapes import load_dataset
from sparsefeat.synthetic.creatures import make_creature, make_creatures
from sparsefeat.synthetic.creatures.families import find_family, template
from sparsefeat.synthetic.creatures.relief import random_relief

NAMES = ("figure", "beast", "monster_7", "molecule_7")


def made(family: str, who: int = 0, shared: int | None = 0):
    kind, poses = next(iter(find_family(family).classes.items()))
    seeds = np.random.SeedSequence([who, 1]), np.random.SeedSequence([who, 2])
    return make_creature(
        family, kind, poses[who], *seeds, vertices=2500, landmark_count=2500, triangulation=shared
    )


@pytest.mark.parametrize("family", NAMES)
def test_every_edge_has_two_faces_and_the_outside_is_out(family):
    creature = made(family)
    a, b, c = creature.faces.T
    edges = np.concatenate([np.stack([a, b], 1), np.stack([b, c], 1), np.stack([c, a], 1)])
    forward = {tuple(edge) for edge in edges.tolist()}
    assert len(forward) == len(edges) and all((end, start) in forward for start, end in forward)
    corners = creature.vertices[creature.faces]
    assert (np.cross(corners[:, 0], corners[:, 1]) * corners[:, 2]).sum() > 0
    assert np.isfinite(creature.vertices).all()


@pytest.mark.parametrize("family", NAMES)
def test_individuals_differ_and_correspond(family):
    first, second = made(family, 0), made(family, 1)
    assert np.array_equal(first.landmarks, second.landmarks)
    size = [np.linalg.norm(c.vertices - c.vertices.mean(0), axis=1) for c in (first, second)]
    assert np.abs(size[0] / size[0].mean() - size[1] / size[1].mean()).max() > 0.05
    # The same point of the template is of the same part.
    assert np.array_equal(first.parts, second.parts)


def test_a_shared_triangulation_puts_the_body_where_one_of_its_own_does():
    own, shared = made("figure", 3, None), made("figure", 3, 0)
    # Both are of one person in one pose: landmarks are at most about an edge apart, most much less.
    apart = np.linalg.norm(own.landmark_places - shared.landmark_places, axis=1)
    assert np.median(apart) < 0.02 and np.quantile(apart, 0.99) < 0.08


def test_relief_belongs_to_the_individual():
    body = template("figure").body
    points = body.cones.origin
    one, same, other = (
        random_relief(body, np.random.default_rng(seed))(points) for seed in (1, 1, 2)
    )
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_both_sides_of_a_species_are_built_alike():
    body = find_family("monster_11").template()
    cones, names = body.cones, [body.bones[k] for k in body.cone_bone]
    left = [k for k, name in enumerate(names) if name.startswith("left")]
    assert left
    for k in left:
        twin = names.index(names[k].replace("left", "right"))
        assert np.allclose(cones.origin[k] * (-1, 1, 1), cones.origin[twin])
        assert np.allclose(cones.radius[k], cones.radius[twin])


def test_species_are_held_out_whole(tmp_path):
    make_creatures(tmp_path / "c", 5, count=4, poses=2, families=["monster"], vertices=2500, landmark_count=2500,
                   triangulations=1, workers=1)  # fmt: skip
    dataset = load_dataset("folder", tmp_path / "c")
    train, test = (
        {shape.name.split("/")[0] for shape in dataset.subset(split)} for split in ("train", "test")
    )
    assert len(train) == len(test) == 1 and train.isdisjoint(test)
    assert len(dataset.shapes) == 4 and len({shape.individual for shape in dataset.shapes}) == 4
    source, target = dataset.corresponding(*dataset.rows("train")[:2])
    assert len(source) == len(target) > 2000


def test_unknown_families_name_the_known_ones():
    with pytest.raises(
        ValueError, match="unknown family 'dragon', expected one of humanoid, .*molecule"
    ):
        find_family("dragon")
