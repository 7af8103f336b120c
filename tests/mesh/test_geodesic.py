"""Geodesic distances, correspondence error, label scores."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import Delaunay
from sklearn.metrics import confusion_matrix as sklearn_confusion
from sklearn.metrics import jaccard_score
from surfaces import sphere, square

from sparsefeat.evaluate.labels import confusion_matrix, label_scores
from sparsefeat.mesh.geodesic import (
    correspondence_error,
    error_curve,
    geodesic_distances,
    surface_area,
)


def test_distances_on_the_sphere_are_arcs():
    vertices, faces = sphere(4)
    sources = [0, 100, 2000]
    found = geodesic_distances(vertices, faces, sources)
    exact = np.arccos(np.clip(vertices[sources] @ vertices.T, -1, 1))
    far = exact > 0.2
    error = found[far] / exact[far] - 1
    assert abs(error).mean() < 0.015 and error.max() < 0.05 and error.min() > -0.01


def test_distances_on_the_plane_are_straight_and_never_shorter():
    points = np.random.default_rng(0).random((1000, 2))
    faces = Delaunay(points).simplices.astype(np.int64)
    vertices = np.column_stack([points, np.zeros(len(points))])
    found = geodesic_distances(vertices, faces, np.arange(20))
    exact = np.linalg.norm(vertices[:20, None] - vertices, axis=-1)
    assert (found >= exact - 1e-12).all()
    assert (found.sum() / exact.sum()) < 1.02


def test_distance_is_a_metric():
    vertices, faces = sphere(2)
    distances = geodesic_distances(vertices, faces)
    assert (np.diag(distances) == 0).all()
    np.testing.assert_allclose(distances, distances.T, atol=1e-12)
    assert (distances[:, None] <= distances[:, :, None] + distances[None] + 1e-9).all()


def test_distance_runs_along_the_surface_and_not_through_it():
    flat, faces = square(40, 3.0, 0.2)
    bent = np.stack([np.sin(flat[:, 0]), flat[:, 1], np.cos(flat[:, 0])], 1)  # most of half a turn
    end = len(flat) - 40
    found = geodesic_distances(bent, faces, [0])[0, end]
    assert found == pytest.approx(3.0, rel=0.01)
    assert np.linalg.norm(bent[0] - bent[end]) < 2.01


def test_other_components_are_infinitely_far():
    vertices, faces = sphere(1)
    n = len(vertices)
    twice = np.concatenate([vertices, vertices + 5]), np.concatenate([faces, faces + n])
    found = geodesic_distances(*twice, [0])
    assert np.isfinite(found[0, :n]).all() and np.isinf(found[0, n:]).all()


def test_coinciding_vertices_are_at_no_distance():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1.0, 0, 0]])
    faces = np.array([[0, 1, 2], [2, 1, 3]])
    assert geodesic_distances(vertices, faces, [1])[0, 3] < 1e-9


def test_correspondence_error_is_distance_over_root_of_area_in_hundredths():
    vertices, faces = sphere(3)
    true = np.arange(0, len(vertices), 7)
    assert (correspondence_error(vertices, faces, true, true) == 0).all()
    predicted = np.roll(true, 3)
    found = correspondence_error(vertices, faces, predicted, true)
    exact = np.arccos(np.clip((vertices[true] * vertices[predicted]).sum(1), -1, 1))
    np.testing.assert_allclose(found, 100 * exact / np.sqrt(4 * np.pi), rtol=0.06)
    for scaled in (1e-3, 1e3):
        np.testing.assert_allclose(
            correspondence_error(scaled * vertices, faces, predicted, true), found
        )
    known = geodesic_distances(vertices, faces, true)
    for distances in (known, known.tolist()):
        np.testing.assert_allclose(
            correspondence_error(vertices, faces, predicted, true, distances), found
        )


def test_a_prediction_on_another_component_counts_as_the_farthest_point():
    vertices, faces = sphere(1)
    n = len(vertices)
    target = np.concatenate([vertices, vertices + 5]), np.concatenate([faces, faces + n])
    found = correspondence_error(*target, np.array([n + 3, 0]), np.array([0, 0]))
    farthest = geodesic_distances(vertices, faces, [0]).max()
    np.testing.assert_allclose(found, [100 * farthest / np.sqrt(surface_area(*target)), 0])


def test_wrong_correspondences_are_refused():
    vertices, faces = sphere(1)
    with pytest.raises(ValueError, match="predicted: expected vertex indices of 0 to 41, got -1"):
        correspondence_error(vertices, faces, np.array([-1]), np.array([0]))
    with pytest.raises(ValueError, match="1 predicted and 2 true"):
        correspondence_error(vertices, faces, np.array([0]), np.array([0, 1]))
    with pytest.raises(ValueError, match=r"distances \(1, 42\)"):
        correspondence_error(vertices, faces, np.array([0]), np.array([0]), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="predicted: list that is no array"):
        correspondence_error(vertices, faces, [[0], [1, 2]], np.array([0]))
    with pytest.raises(ValueError, match="no area"):
        correspondence_error(np.zeros((3, 3)), np.array([[0, 1, 2]]), np.array([0]), np.array([0]))
    with pytest.raises(ValueError, match="6 of 80 faces name a vertex that is not there"):
        geodesic_distances(vertices, faces + 1)


def test_a_vertex_that_is_not_finite_is_refused():
    vertices, faces = sphere(1)
    vertices[7] = np.nan
    with pytest.raises(ValueError, match="first vertex 7"):
        geodesic_distances(vertices, faces, [0])


def test_error_curve_is_the_share_at_or_below():
    np.testing.assert_array_equal(
        error_curve(np.array([0.0, 1.0, 1.0, 4.0]), np.array([-1.0, 0.0, 1.0, 3.9, 4.0])),
        [0, 0.25, 0.75, 0.75, 1],
    )
    with pytest.raises(ValueError, match="no errors"):
        error_curve(np.array([]), np.array([1.0]))


def test_label_scores_agree_with_scikit_learn():
    generator = np.random.default_rng(0)
    true, predicted = generator.integers(0, 5, 300), generator.integers(0, 5, 300)
    confusion = confusion_matrix(predicted, true, 5)
    np.testing.assert_array_equal(confusion, sklearn_confusion(true, predicted, labels=range(5)))
    scores = label_scores(confusion)
    assert scores.accuracy == pytest.approx((true == predicted).mean())
    np.testing.assert_allclose(scores.class_iou, jaccard_score(true, predicted, average=None))
    assert scores.mean_iou == pytest.approx(jaccard_score(true, predicted, average="macro"))


def test_unlabelled_elements_and_absent_classes_do_not_count():
    confusion = confusion_matrix(np.array([0, 1, 2, 1]), np.array([0, 1, -1, -1]), 4)
    assert confusion.sum() == 2
    scores = label_scores(confusion)
    assert scores.accuracy == scores.mean_iou == scores.mean_class_accuracy == 1
    assert np.isnan(scores.class_iou[2:]).all()


def test_wrong_labels_are_refused():
    with pytest.raises(ValueError, match="predicted ones are -1"):
        confusion_matrix(np.array([-1]), np.array([0]), 2)
    with pytest.raises(ValueError, match="true ones are"):
        confusion_matrix(np.array([0]), np.array([2]), 2)
    with pytest.raises(ValueError, match="filled"):
        label_scores(np.zeros((2, 2), int))
