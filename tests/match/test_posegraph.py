"""Poses of many scans: wrong pairs are outvoted, what is not connected is said, errors are
named."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sparsefeat.errors import InputError
from sparsefeat.match.posegraph import Edge, optimise_poses


def poses(count, seed):
    rng = np.random.default_rng(seed)
    result = np.tile(np.eye(4), (count, 1, 1))
    result[1:, :3, :3] = Rotation.random(count - 1, random_state=seed).as_matrix()
    result[1:, :3, 3] = rng.normal(size=(count - 1, 3)) * 2
    return result


def edge(truth, i, j, noise=None, confidence=0.9):
    transform = np.linalg.inv(truth[i]) @ truth[j]
    return Edge(i, j, transform if noise is None else transform @ noise, confidence)


def small_motion(rng, angle=0.01, shift=0.02):
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_rotvec(rng.normal(size=3) * angle).as_matrix()
    motion[:3, 3] = rng.normal(size=3) * shift
    return motion


def wrong_motion(rng):
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_quat(rng.normal(size=4)).as_matrix()
    motion[:3, 3] = rng.normal(size=3) * 2
    return motion


def ring(count):
    return [(k, (k + step) % count) for k in range(count) for step in (1, 2, 3)]


def test_exact_edges_give_exact_poses():
    truth = poses(8, 0)
    graph = optimise_poses(8, [edge(truth, *sorted(pair)) for pair in ring(8)])
    np.testing.assert_allclose(graph.poses, truth, atol=1e-9)
    assert graph.kept.all() and (graph.component == 0).all()
    np.testing.assert_allclose(graph.between(3, 5), np.linalg.inv(truth[3]) @ truth[5], atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_wrong_edges_are_outvoted_though_they_are_as_confident(seed):
    rng = np.random.default_rng(seed)
    truth = poses(12, seed)
    edges, wrong = [], []
    for number, (i, j) in enumerate(ring(12)):
        wrong.append(number % 5 == 0)
        edges.append(edge(truth, i, j, wrong_motion(rng) if wrong[-1] else small_motion(rng)))
    graph = optimise_poses(12, edges)
    assert graph.kept.tolist() == [not value for value in wrong]
    off = np.linalg.inv(truth) @ graph.poses
    assert np.abs(off[:, :3, 3]).max() < 0.15
    assert Rotation.from_matrix(off[:, :3, :3]).magnitude().max() < 0.05


def test_loops_average_the_noise():
    """More edges than a tree needs bring the poses closer to the truth than the tree alone does."""
    rng = np.random.default_rng(1)
    truth = poses(10, 1)
    edges = [edge(truth, i, j, small_motion(rng, 0.01, 0.01)) for i, j in ring(10)]
    tree = [e for e in edges if e.j == e.i + 1]
    errors = []
    for some in (tree, edges):
        off = np.linalg.inv(truth) @ optimise_poses(10, some).poses
        errors.append(np.linalg.norm(off[:, :3, 3], axis=1).mean())
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize("distance", [50.0, 5e6])
def test_poses_do_not_depend_on_where_files_have_their_origin(distance):
    rng = np.random.default_rng(4)
    truth = poses(8, 4)
    centres = rng.normal(size=(8, 3))
    edges = [
        edge(truth, i, j, (wrong_motion if k % 5 == 0 else small_motion)(rng))
        for k, (i, j) in enumerate(ring(8))
    ]
    # Every file says its points in a frame whose origin lies elsewhere.
    away = np.tile(np.eye(4), (8, 1, 1))
    away[:, :3, 3] = distance * rng.normal(size=(8, 3))
    moved = [
        e._replace(transform=away[e.i] @ e.transform @ np.linalg.inv(away[e.j])) for e in edges
    ]
    near = optimise_poses(8, edges, centres=centres)
    far = optimise_poses(8, moved, centres=centres + away[:, :3, 3])
    assert far.kept.tolist() == near.kept.tolist()
    np.testing.assert_allclose(far.errors, near.errors, atol=1e-6)
    np.testing.assert_allclose(np.linalg.inv(away[0]) @ far.poses @ away, near.poses, atol=1e-6)
    np.testing.assert_allclose(far.poses[0], np.eye(4), atol=1e-9)


def test_scans_without_edges_are_components_of_their_own():
    truth = poses(5, 2)
    graph = optimise_poses(5, [edge(truth, 0, 1), edge(truth, 3, 4)])
    assert graph.component.tolist() == [0, 0, 1, 2, 2]
    assert graph.between(0, 3) is None
    np.testing.assert_allclose(graph.poses[3], np.eye(4))
    alone = optimise_poses(3, [])
    assert alone.component.tolist() == [0, 1, 2] and alone.kept.shape == (0,)


@pytest.mark.parametrize(
    ("edges", "line"),
    [
        ([Edge(0, 3, np.eye(4), 0.5)], "edge 0 3"),
        ([Edge(1, 1, np.eye(4), 0.5)], "edge 1 1"),
        ([Edge(0, 1, np.eye(4), 0.5), Edge(1, 0, np.eye(4), 0.5)], "given twice"),
        ([Edge(0, 1, np.full((4, 4), np.nan), 0.5)], "not a finite"),
        ([Edge(0, 1, np.zeros((4, 4)), 0.5)], "transform of 0 1 is not a rigid motion"),
        ([Edge(0, 1, np.diag([-1.0, 1, 1, 1]), 0.5)], "its rotation is a reflection"),
        ([Edge(0, 1, np.diag([2.0, 2, 2, 1]), 0.5)], "off orthogonal"),
        ([Edge(0, 1, np.eye(4), 0.0)], "confidence 0"),
        ([Edge(0, 1, np.eye(4), "sure")], "confidence of 0 1 'sure'"),
        ([Edge(0.5, 1, np.eye(4), 0.5)], "index of an edge 0.5"),
    ],
)
def test_edges_that_mean_nothing_are_refused(edges, line):
    with pytest.raises(InputError, match=line):
        optimise_poses(3, edges)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"count": -1}, "count -1, expected a whole number"),
        ({"tolerance": 0}, "tolerance 0, expected a positive number"),
        ({"tolerance": np.nan}, "tolerance nan"),
        ({"radius": -1.0}, "radius -1.0"),
        ({"steps": 2.5}, "steps 2.5"),
        ({"centres": np.zeros((2, 3))}, "2 centres, expected 3"),
        ({"centres": np.full((3, 3), np.nan)}, "centres: row 0 is not finite"),
    ],
)
def test_options_of_the_graph_that_mean_nothing_are_refused(options, line):
    with pytest.raises(InputError, match=line):
        optimise_poses(**{"count": 3, "edges": [Edge(0, 1, np.eye(4), 0.5)], **options})


def test_an_edge_agrees_up_to_twice_the_tolerance():
    edges = [Edge(0, 1, np.eye(4), 1.0), Edge(1, 2, np.eye(4), 1.0), Edge(0, 2, np.eye(4), 0.1)]
    edges[2].transform[0, 3] = 0.3
    for tolerance, agrees in ((0.2, True), (0.1, False)):
        graph = optimise_poses(3, edges, tolerance)
        assert graph.kept.tolist() == [True, True, agrees]
        assert (graph.errors <= 2 * tolerance).tolist() == [True, True, agrees]
