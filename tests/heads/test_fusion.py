"""Probes that choose their strength and mix blocks of features, on labelled shapes alone."""

from __future__ import annotations

import numpy as np
import pytest

from sparsefeat.errors import InputError
from sparsefeat.heads import LinearProbe
from sparsefeat.heads.fusion import log_mixture


def shape(seed: int, rows: int = 150) -> tuple[list[np.ndarray], np.ndarray]:
    """Blocks of one shape: one that tells classes 0 and 1 from 2, one that tells 0 from 1, and pure noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, rows)
    coarse = (labels == 2)[:, None] * 3.0 + rng.normal(size=(rows, 2))
    fine = 1e3 * ((labels == 1)[:, None] * 4.0 + rng.normal(size=(rows, 3)))
    noise = rng.normal(size=(rows, 40))
    return [coarse, fine, noise], labels


def shapes(*seeds: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    made = [shape(seed) for seed in seeds]
    return [np.concatenate(blocks, 1) for blocks, _ in made], [labels for _, labels in made]


BLOCKS = [2, 3, 40]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_mixture_is_no_worse_than_its_best_member(count):
    x, y = shapes(*range(count))
    test = shapes(*range(10, 16))
    probe = LinearProbe(blocks=BLOCKS).fit(x, y)
    mixed = probe.score(*test)
    cuts = np.split(np.arange(45), np.cumsum(BLOCKS)[:-1])
    alone = [
        probe.only([k]).score([part[:, cut] for part in test[0]], test[1])
        for k, cut in enumerate(cuts)
    ]
    assert mixed > max(alone) + 0.1, "the two blocks complete each other"
    assert probe.weights[2] < 0.2 * probe.weights.max(), "noise counts for little"


def test_some_blocks_of_a_fit_are_what_a_fit_of_them_alone_is():
    x, y = shapes(0, 1, 2)
    part = LinearProbe(blocks=BLOCKS).fit(x, y).only([0, 1])
    alone = LinearProbe(blocks=BLOCKS[:2]).fit([values[:, :5] for values in x], y)
    assert part.strengths == alone.strengths
    np.testing.assert_allclose(part.weights, alone.weights)
    test = shapes(9)[0][0][:, :5]
    np.testing.assert_allclose(part.probabilities(test), alone.probabilities(test))
    np.testing.assert_allclose(part.probabilities(test).sum(1), 1)


def test_the_strength_is_chosen_on_shapes_that_are_left_out():
    rng = np.random.default_rng(0)
    x, y = [], []
    for _ in range(
        3
    ):  # each shape has an offset of its own in many channels: what fits one is wrong for another
        labels = rng.integers(0, 2, 60)
        x.append(
            np.concatenate(
                [labels[:, None] + rng.normal(size=(60, 1)), rng.normal(size=(60, 50))], 1
            )
        )
        y.append(labels)
    noisy = LinearProbe().fit(x, y)
    clear = LinearProbe().fit(
        [values[:, :1] + 10 * labels[:, None] for values, labels in zip(x, y)], y
    )
    assert noisy.strengths[0] < clear.strengths[0]
    assert LinearProbe(strength=0.5).fit(x, y).strengths == [0.5]


def test_whole_shapes_with_one_of_each_class_leave_nothing_out():
    x = [np.array([[float(k), 0.0]]) for k in range(3)]
    probe = LinearProbe(blocks=[1, 1]).fit(x, [np.array([k]) for k in range(3)])
    assert probe.predict(np.array([[2.1, 0.0]]))[0] == 2
    np.testing.assert_allclose(probe.weights, 0.5)


def test_a_member_that_is_certain_does_not_overrule_all_others():
    sure, others = np.array([[1.0, 0.0]]), np.array([[0.05, 0.95]])
    assert log_mixture([sure, others, others], np.ones(3))[0].argmax() == 1


def test_blocks_have_to_fit():
    x, y = shapes(0)
    with pytest.raises(InputError, match="features of 45"):
        LinearProbe(blocks=[2, 3]).fit(x, y)
    with pytest.raises(InputError, match="expected channels"):
        LinearProbe(blocks=[])


def test_copies_of_one_shape_are_left_out_together():
    # Four shapes and a copy of each. The first block names the shape, not the class: it is of use only where a copy
    # of the shape that is left out stays.
    rng = np.random.default_rng(0)
    labels = [np.repeat([0, 1, 2], 20) for _ in range(8)]
    names = [k % 4 for k in range(8)]
    known = [np.eye(4)[[k]].repeat(3, 0) * rng.normal(size=(3, 4)) for k in range(4)]
    by_name = [
        known[name][y] + 0.01 * rng.normal(size=(60, 4))
        for name, y in zip(names, labels, strict=True)
    ]
    by_class = [np.eye(3)[y] + 0.7 * rng.normal(size=(60, 3)) for y in labels]
    x = [np.concatenate(both, 1) for both in zip(by_name, by_class, strict=True)]
    apart = LinearProbe(blocks=[4, 3]).fit(x, labels)
    together = LinearProbe(blocks=[4, 3]).fit(x, labels, groups=names)
    assert apart.weights[0] > 0.5, "a copy gives the answer away"
    assert together.weights[0] < 0.2 < together.weights[1]
    with pytest.raises(InputError, match="3 groups for 8 shapes"):
        LinearProbe().fit(x, labels, groups=names[:3])
