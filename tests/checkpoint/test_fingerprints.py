"""The features of the released checkpoints: a change of the code that moves them is noticed.

The numbers are those of the released weights on a generated cloud, rounded to four digits. Other processors and versions
of torch round sums otherwise; that moves unit-norm features by 1e-5 or less. The tolerance of 1e-3 is far below what a
wrong kernel order, offset or normal does (1e-1).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sparsefeat
from sparsefeat.checkpoint import ASSETS, find_checkpoint, read_checkpoint

# The first five channels of points 0, 800, 1600 and 2400.
FINGERPRINTS = {
    "creatures-oriented-v3": [
        [0.2845, -0.1059, -0.0872, 0.2788, 0.1157],
        [0.2103, -0.1657, 0.0268, 0.3845, 0.0621],
        [0.3343, -0.0505, -0.2133, 0.2231, 0.2067],
        [0.3248, -0.0429, -0.1936, 0.1754, 0.1452],
    ],
    "creatures-oriented-v5": [
        [0.4018, -0.0084, -0.0890, 0.1607, 0.1043],
        [0.3508, -0.0355, -0.0191, 0.2600, 0.0856],
        [0.4970, 0.0849, -0.1431, -0.0472, 0.2631],
        [0.4871, 0.1033, -0.0857, -0.1206, 0.0869],
    ],
    "rooms-5cm-oriented-v1": [
        [0.3580, -0.2712, -0.1698, -0.1172, -0.1742],
        [0.3711, -0.1157, -0.2616, -0.1271, -0.2865],
        [0.2374, -0.1120, -0.3585, -0.0495, -0.0912],
        [0.3974, -0.1923, -0.3363, 0.1478, 0.1431],
    ],
    "rooms-5cm-oriented-v2": [
        [0.2083, -0.0409, -0.2582, -0.1964, -0.3772],
        [0.2864, 0.0656, -0.3268, -0.1115, -0.3248],
        [0.0072, -0.1191, -0.5526, -0.0992, -0.3511],
        [0.0851, -0.1351, -0.4751, -0.0050, -0.2724],
    ],
    "rooms-5cm-v1": [
        [-0.0247, 0.2461, -0.0751, -0.0118, 0.1096],
        [-0.0568, 0.2315, -0.0987, -0.0190, 0.1106],
        [-0.1089, 0.3232, -0.0896, 0.1384, 0.0922],
        [-0.1653, 0.2561, -0.0804, 0.0131, -0.0409],
    ],
}
STORED = {
    "creatures-oriented-v3": torch.float16,
    "creatures-oriented-v5": torch.float16,
    "rooms-5cm-oriented-v1": torch.float32,
    "rooms-5cm-oriented-v2": torch.float16,
    "rooms-5cm-v1": torch.float32,
}


def cloud() -> np.ndarray:
    """A wavy floor and a wall, (3000, 3), metres. No random numbers: NumPy may draw others some day."""
    k = np.arange(1, 1501)
    # A low-discrepancy sequence: no two neighbours are equally far, and no point lies on the edge of a voxel.
    u, v = 2 * (k * 0.7548776662 % 1), 2 * (k * 0.5698402910 % 1)
    floor = np.column_stack([u, v, 0.15 * np.sin(3 * u) * np.cos(2 * v)])
    wall = np.column_stack([v, 2.01 + 0.1 * np.sin(5 * v), u])
    return np.concatenate([floor, wall])


def features(extractor: sparsefeat.FeatureExtractor) -> np.ndarray:
    """Of the cloud, (3000, 32)."""
    viewpoint = (1.0, 0.5, 3.0) if extractor.model.config.get("oriented") else None
    return extractor(cloud(), viewpoint=viewpoint)


def test_every_released_checkpoint_has_a_fingerprint():
    names = sorted(path.stem for path in ASSETS.glob("*.safetensors"))
    assert names == sorted(FINGERPRINTS) == sorted(STORED)


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_features_are_those_of_the_release(name):
    found = features(sparsefeat.FeatureExtractor.from_pretrained(f"sparsefeat/{name}"))
    np.testing.assert_allclose(found[::800, :5], FINGERPRINTS[name], atol=1e-3)


@pytest.mark.parametrize("name", STORED)
def test_weights_are_stored_as_the_card_says(name):
    state = read_checkpoint(find_checkpoint(f"sparsefeat/{name}")).state
    assert {t.dtype for t in state.values() if t.is_floating_point()} == {STORED[name]}


@pytest.mark.parametrize("name", [name for name, stored in STORED.items() if stored.itemsize == 4])
def test_storing_in_half_precision_would_move_features_little(name):
    extractor = sparsefeat.FeatureExtractor.from_pretrained(f"sparsefeat/{name}")
    whole = features(extractor)
    state = extractor.model.state_dict()
    extractor.model.load_state_dict(
        {key: t.half().to(t.dtype) if t.is_floating_point() else t for key, t in state.items()}
    )
    half = features(extractor)
    assert (whole * half).sum(1).min() > 0.9999
    assert not np.array_equal(whole, half)
