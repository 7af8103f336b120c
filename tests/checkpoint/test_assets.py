"""Every released checkpoint loads by its name, has a card, and is small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import sparsefeat

ASSETS = Path(__file__).resolve().parents[2] / "assets"


@pytest.mark.parametrize("path", sorted(ASSETS.glob("*.safetensors")), ids=lambda path: path.stem)
def test_a_released_checkpoint_describes_points_and_has_a_card(path):
    assert path.stat().st_size <= 20e6
    assert path.with_suffix(".md").read_text().startswith(f"# sparsefeat/{path.stem}")
    extractor = sparsefeat.FeatureExtractor.from_pretrained(f"sparsefeat/{path.stem}")
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 2, (4000, 2))
    points = np.column_stack([xy, 0.2 * np.sin(5 * xy[:, 0])])
    features = extractor(points)
    assert features.shape == (4000, 32)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)


def test_there_is_a_released_checkpoint():
    assert sorted(ASSETS.glob("*.safetensors"))


def test_features_of_the_first_checkpoint_survive_a_turn_of_the_cloud():
    extractor = sparsefeat.FeatureExtractor.from_pretrained("sparsefeat/rooms-5cm-v1")
    rng = np.random.default_rng(1)
    xy = rng.uniform(0, 3, (20000, 2))
    points = np.column_stack([xy, 0.3 * np.sin(4 * xy[:, 0]) * np.cos(3 * xy[:, 1])])
    angle = 1.0
    turn = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    first, turned = extractor(points), extractor(points @ turn.T)
    same = (first * turned).sum(1).mean()
    other = (first * turned[rng.permutation(len(points))]).sum(1).mean()
    assert 1 - same < 0.5 * (1 - other)
