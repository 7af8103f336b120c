"""How curved a surface is around a point."""

from __future__ import annotations

import numpy as np

from sparsefeat.mesh.saliency import surface_variation


def test_a_plane_has_none_and_a_filled_ball_a_third():
    rng = np.random.default_rng(0)
    plane = np.concatenate([rng.uniform(-1, 1, (3000, 2)), np.full((3000, 1), 1e4)], 1)
    assert surface_variation(plane, 0.2).max() < 1e-9
    ball = rng.normal(size=(20_000, 3))
    ball *= (rng.random(len(ball)) ** (1 / 3) / np.linalg.norm(ball, axis=1))[:, None]
    centre = np.linalg.norm(ball, axis=1) < 0.2
    assert np.abs(surface_variation(ball, 0.6)[centre] - 1 / 3).max() < 0.03


def test_an_edge_has_more_than_a_face():
    rng = np.random.default_rng(1)
    faces = rng.uniform(0, 1, (2, 8000, 2))
    corner = np.concatenate(
        [np.c_[faces[0], np.zeros(8000)], np.c_[faces[1, :, :1], np.zeros(8000), faces[1, :, 1:]]]
    )
    variation = surface_variation(corner, 0.15)
    from_edge = np.maximum(corner[:, 1], corner[:, 2])
    assert variation[from_edge < 0.02].min() > 0.05
    assert variation[from_edge > 0.2].max() < 1e-9


def test_a_point_alone_and_none():
    assert surface_variation(np.zeros((1, 3)), 1.0).tolist() == [0.0]
    assert surface_variation(np.zeros((0, 3)), 1.0).shape == (0,)
