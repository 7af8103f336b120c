"""A metric from landmarks: what varies between bodies counts little."""

from __future__ import annotations

import numpy as np
import pytest

from sparsefeat.errors import InputError
from sparsefeat.heads import LandmarkMetric
from sparsefeat.match.nearest import nearest_neighbours


def bodies(count: int, seed: int) -> list[np.ndarray]:
    """Two channels that say which landmark it is, and four of large values that say which body."""
    points = np.random.default_rng(0).normal(size=(80, 2))
    rng = np.random.default_rng(seed)
    return [
        np.concatenate(
            [points + 0.02 * rng.normal(size=points.shape), 20 * rng.normal(size=(80, 4))], 1
        )
        for _ in range(count)
    ]


def test_points_of_new_bodies_are_found():
    metric = LandmarkMetric().fit(bodies(6, 1))
    a, b = bodies(2, 2)
    rows = np.arange(80)
    assert (nearest_neighbours(a, b) == rows).mean() < 0.2
    assert (nearest_neighbours(metric(a), metric(b)) == rows).mean() > 0.6


def test_neither_units_nor_lost_landmarks_matter_much():
    learned, (a, b) = bodies(6, 1), bodies(2, 2)
    units = np.array([1e4, 1e-3, 1, 1, 50, 1])
    plain, scaled = (
        LandmarkMetric().fit(learned),
        LandmarkMetric().fit([x * units for x in learned]),
    )
    np.testing.assert_allclose(np.linalg.norm(plain(a) - plain(b), axis=1),
                               np.linalg.norm(scaled(a * units) - scaled(b * units), axis=1), rtol=1e-3)  # fmt: skip
    learned[0][:40] = np.nan
    lacking = LandmarkMetric().fit(learned)
    assert (nearest_neighbours(lacking(a), lacking(b)) == np.arange(80)).mean() > 0.6


@pytest.mark.parametrize("constant", [0.0, 0.1, -3e5])
def test_channels_that_are_constant_at_the_landmarks_are_left_out(constant):
    def extended(features: np.ndarray, noise: float = 0.0) -> np.ndarray:
        more = constant + noise * np.random.default_rng(5).normal(size=(len(features), 1))
        return np.concatenate([features, more], 1)

    learned, (a, b) = bodies(6, 1), bodies(2, 2)
    plain = LandmarkMetric().fit(learned)
    metric = LandmarkMetric().fit([extended(x) for x in learned])
    apart = np.linalg.norm(plain(a)[:, None] - plain(b)[None], axis=2)
    a, b = metric(extended(a, 1e-3)), metric(extended(b, 10.0))
    np.testing.assert_allclose(np.linalg.norm(a[:, None] - b[None], axis=2), apart, rtol=1e-4)


def test_few_channels_are_those_that_tell_landmarks_apart():
    a, b = bodies(2, 2)
    metric = LandmarkMetric(channels=2).fit(bodies(6, 1))
    assert metric(a).shape == (80, 2)
    assert (nearest_neighbours(metric(a), metric(b)) == np.arange(80)).mean() > 0.6


def test_what_cannot_be_learned_from_is_refused():
    a, b = bodies(2, 0)
    with pytest.raises(InputError, match="two shapes or more"):
        LandmarkMetric().fit([a])
    with pytest.raises(InputError, match="two shapes or more"):
        LandmarkMetric().fit([a, b[:5]])
    with pytest.raises(InputError, match="no channel varies"):
        LandmarkMetric().fit([0 * a + 0.1, 0 * b + 0.1])
    with pytest.raises(InputError, match="have: 1, expected at least 2"):
        LandmarkMetric().fit([a[:1], b[:1]])
    with pytest.raises(InputError, match="have: 0, expected at least 2"):
        LandmarkMetric().fit([a * np.nan, b])
    with pytest.raises(InputError, match="call fit first"):
        LandmarkMetric()(a)
    with pytest.raises(InputError, match="channels 2.0, expected a whole number of at least 1"):
        LandmarkMetric(channels=2.0)
    with pytest.raises(InputError, match="shrinkage"):
        LandmarkMetric(shrinkage=0)


def test_a_fit_that_fails_leaves_the_metric_as_it_was():
    a, b = bodies(2, 0)
    metric = LandmarkMetric().fit([a, b])
    before = metric(a)
    with pytest.raises(InputError, match="no channel varies"):
        metric.fit([0 * a + 1, 0 * b + 1])
    np.testing.assert_array_equal(metric(a), before)


def test_two_landmarks_are_enough():
    a, b = bodies(2, 0)
    assert np.isfinite(LandmarkMetric().fit([a[:2], b[:2]])(a)).all()
