"""Probes, perceptrons, pooling, and how heads are trained."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from sparsefeat.errors import InputError
from sparsefeat.heads import (
    HeadTraining,
    KNNProbe,
    LinearProbe,
    MLPHead,
    PooledHead,
    pool_features,
    pool_shapes,
    predict,
    train,
)
from sparsefeat.heads.mlp import Standardize

PROBES = [LinearProbe, KNNProbe]


def blobs(seed: int, rows: int = 200, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Three classes around three centres, in channels of very different magnitude."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, rows)
    centres = np.array([[0, 0, 0], [4, 0, 1], [0, 4, -1.0]])
    features = (centres[labels] + generator.standard_normal((rows, 3))) * [1e-6, 1e6, 1.0]
    return scale * features, labels


@pytest.mark.parametrize("probe", PROBES)
def test_probes_read_separable_labels(probe):
    fitted = probe().fit(*blobs(0))
    assert fitted.score(*blobs(1)) > 0.95
    assert fitted.predict(blobs(1)[0]).dtype == np.int64


@pytest.mark.parametrize("probe", PROBES)
def test_a_channels_unit_does_not_matter(probe):
    features, labels = blobs(0)
    test = blobs(1)[0]
    scale = np.array([1e6, 1e-3, 7.0])
    plain, scaled = probe().fit(features, labels), probe().fit(features * scale, labels)
    np.testing.assert_array_equal(plain.predict(test), scaled.predict(test * scale))


@pytest.mark.parametrize("probe", [partial(LinearProbe, strength=1.0), KNNProbe])
def test_several_shapes_are_learned_as_one_and_unlabelled_rows_are_left_out(probe):
    (a, la), (b, lb) = blobs(0), blobs(1, 100)
    together = probe().fit(np.concatenate([a, b]), np.concatenate([la, lb]))
    noise = np.full((20, 3), 1e9)
    several = probe().fit(
        [a, torch.from_numpy(np.concatenate([b, noise]))], [la, np.append(lb, [-1] * 20)]
    )
    test = blobs(2)[0]
    np.testing.assert_array_equal(together.predict(test), several.predict(test))


@pytest.mark.parametrize("probe", PROBES)
def test_a_score_is_of_labelled_rows_pooled_over_shapes(probe):
    (a, la), (b, lb) = blobs(0), blobs(1, 100)
    fitted = probe().fit(a, la)
    lb[50:] = (lb[50:] + 1) % 3
    pooled = (fitted.predict(np.concatenate([a, b])) == np.concatenate([la, lb])).mean()
    nothing = np.full(len(b), -1)
    assert fitted.score([b, a, b, b[:0]], [nothing, la, lb, lb[:0]]) == pytest.approx(pooled)
    with pytest.raises(InputError, match="no row has a label"):
        fitted.score([b, b], [nothing, nothing])
    with pytest.raises(InputError, match="labels of 1 for features of 2 shapes"):
        fitted.score([a, b], [la])
    with pytest.raises(InputError, match=r"labels \[\(99,\)\] for features of \[100\]"):
        fitted.score([a, b], [la, nothing[1:]])


@pytest.mark.parametrize("probe", PROBES)
def test_the_draw_of_samples_is_seeded(probe):
    features, labels = blobs(0)
    labels = np.random.default_rng(0).integers(0, 3, len(labels))  # noise, so that the draw shows
    test = blobs(1)[0]
    first, again, other = (
        probe(max_samples=30).fit(features, labels, seed=s).probabilities(test) for s in (1, 1, 2)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("probe", PROBES)
def test_probabilities_are_of_the_classes_that_occurred(probe):
    features, labels = blobs(0)
    fitted = probe().fit(features, 10 * labels + 7)
    assert fitted.classes.tolist() == [7, 17, 27]
    np.testing.assert_allclose(fitted.probabilities(features).sum(1), 1)


@pytest.mark.parametrize("probe", PROBES)
def test_probes_refuse_what_they_cannot_learn_from(probe):
    features, labels = blobs(0)
    with pytest.raises(ValueError, match="call fit first"):
        probe().predict(features)
    for seed in (-1, 0.5):
        with pytest.raises(InputError, match=f"seed {seed}, expected a whole number of at least 0"):
            probe().fit(features, labels, seed)
    with pytest.raises(ValueError, match="every label is 2"):
        probe().fit(features, np.full(len(features), 2))
    with pytest.raises(ValueError, match="no row has a label"):
        probe().fit(features, np.full(len(features), -1))
    with pytest.raises(ValueError, match=r"not finite \(row 3\)"):
        broken = features.copy()
        broken[3, 1] = np.inf
        probe().fit(broken, labels)
    with pytest.raises(ValueError, match=r"features of \[200\] rows"):
        probe().fit(features, labels[:-1])
    with pytest.raises(ValueError, match="integer labels"):
        probe().fit(features, labels - 2)
    with pytest.raises(ValueError, match="3 channels, got 2"):
        probe().fit(features, labels).predict(features[:, :2])


@pytest.mark.parametrize("probe", [partial(LinearProbe, 1.0, blocks=(1, 2)), KNNProbe])
def test_a_fit_that_fails_leaves_the_probe_as_it_was(probe):
    features, labels = blobs(0)
    fitted = probe().fit(features, labels)
    before = fitted.predict(features)
    if isinstance(fitted, LinearProbe):
        with pytest.raises(InputError, match=r"blocks of \[1, 2\] channels for features of 2"):
            fitted.fit(features[:, :2], labels + 10)
    with pytest.raises(InputError, match="every label is 2"):
        fitted.fit(features[:, :2], np.full(len(features), 2))
    assert fitted.classes.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(fitted.predict(features), before)


@pytest.mark.parametrize("probe", [partial(LinearProbe, 1.0), KNNProbe])
def test_no_rows_have_no_labels(probe):
    fitted = probe().fit(*blobs(0))
    assert fitted.predict(np.zeros((0, 3))).shape == (0,)
    assert fitted.predict(np.zeros((0, 3))).dtype == np.int64
    assert fitted.probabilities(torch.zeros(0, 3)).shape == (0, 3)


@pytest.mark.parametrize("probe", [partial(LinearProbe, 1.0), KNNProbe])
def test_features_of_autocast_are_taken(probe):
    features, labels = blobs(0)
    half = torch.from_numpy(features).bfloat16().requires_grad_()
    a, b = probe().fit(half, labels), probe().fit(half.detach().float().numpy(), labels)
    np.testing.assert_array_equal(a.predict(half), b.predict(half))


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.ones((4, 3)), np.array(["arm", "leg", "arm", "leg"]), "integer labels .* got <U3"),
        (np.ones((4, 3)), np.array([0.5, 1, 2, 3]), "integer labels .* got float64"),
        (np.ones((4, 3)), np.array([0, 1, -5, 3]), "integer labels of at least -1, got -5"),
        (np.ones((4, 3)) * 1j, np.arange(4), "features of dtype complex128, expected real numbers"),
        (np.ma.masked_less(np.arange(12.0).reshape(4, 3), 2), np.arange(4), "2 of 12 values are masked"),
        ([[1.0, 2], [3.0]], np.arange(2), r"expected features \(N, C\)"),
        ([[[1.0, 2], [3.0]]], np.arange(2), "unequal lengths"),
        (None, np.arange(2), "NoneType, expected an array"),
    ],
)  # fmt: skip
def test_features_and_labels_of_other_kinds_are_refused(features, labels, message):
    with pytest.raises(InputError, match=message):
        LinearProbe(1.0).fit(features, labels)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LinearProbe(blocks=8), "blocks 8, expected channels of one block or more"),
        (lambda: LinearProbe(blocks=(4.0, 4.0)), "channels 4.0, expected a whole number"),
        (lambda: LinearProbe(max_samples=50.0), "max_samples 50.0, expected a whole number"),
        (lambda: LinearProbe(max_iterations=0), "max_iterations 0, expected a whole number"),
        (lambda: LinearProbe(strength="1"), "strength '1', expected a positive number"),
        (lambda: LinearProbe(strength=-1), "strength -1, expected a positive number"),
        (lambda: KNNProbe(neighbours=2.5), "neighbours 2.5, expected a whole number"),
        (lambda: LinearProbe(1.0).fit(*blobs(0), groups=3), "groups 3, expected one"),
        (lambda: LinearProbe(1.0).fit(*blobs(0), groups=[[0]]), r"groups \[\[0\]\], expected one"),
        (lambda: LinearProbe(1.0).fit(*blobs(0), groups=[0, 1]), "2 groups for 1 shapes"),
        (lambda: LinearProbe(1.0).fit(*blobs(0)).only([9]), "block 9, expected 0 to 0"),
        (lambda: LinearProbe(1.0).fit(*blobs(0)).only([-1]), "block -1, expected a whole number"),
    ],
)
def test_options_of_the_wrong_type_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_linear_probe_says_whether_it_converged():
    assert LinearProbe().fit(*blobs(0)).converged
    assert not LinearProbe(max_iterations=1).fit(*blobs(0)).converged


def test_nearest_neighbours_remember_every_sample():
    features, labels = blobs(0)
    assert KNNProbe(neighbours=1).fit(features, labels).score(features, labels) == 1
    few = np.array([0, 1, 2, 0, 1])
    assert KNNProbe(neighbours=50).fit(features[:5], few).score(features[:5], few) == 1


def ring(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A disc within a ring: no linear boundary."""
    points = torch.randn(300, 2, generator=torch.Generator().manual_seed(seed))
    return 1e3 * points + 50, (points.norm(dim=1) > 1.1).long()


def test_a_perceptron_learns_what_is_not_linear():
    shapes = [ring(s) for s in range(3)]
    head = MLPHead(2, 2, hidden=(32,))
    losses = train(head, [f for f, _ in shapes], [y for _, y in shapes], HeadTraining(300, 1e-2))
    assert len(losses) == 300 and losses[-1] < 0.5 * losses[0]
    features, labels = ring(9)
    assert (predict(head, [features])[0] == labels.numpy()).mean() > 0.95
    assert LinearProbe().fit(*shapes[0]).score(features, labels) < 0.8


def test_training_depends_on_its_seed_alone_and_leaves_the_global_generator():
    features, labels = ring(0)

    def run(seed: int) -> torch.Tensor:
        head = MLPHead(2, 2, hidden=(8,), dropout=0.5)
        train(head, [features, features], [labels, labels], HeadTraining(5), seed=seed)
        return head(features)

    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = run(3)
    assert torch.equal(torch.rand(1), expected)
    torch.manual_seed(2)
    assert torch.equal(first, run(3)) and not torch.equal(first, run(4))


def test_unlabelled_rows_have_no_influence():
    features, labels = ring(0)
    partly = labels.clone()
    partly[150:] = -1
    results = []
    for rest in (labels[150:] * 0, labels[150:] * 0 + 1):
        assert len(rest) == 150
        head = MLPHead(2, 2, hidden=())
        train(head, [features], [partly], HeadTraining(5))
        results.append(head(features))
    assert torch.equal(*results)


def test_augmentation_sees_the_features_of_each_step():
    features, labels = ring(0)
    seen = []

    def augment(x, generator):
        seen.append(torch.rand(1, generator=generator).item())
        return x

    train(MLPHead(2, 2), [features], [labels], HeadTraining(4), augment=augment)
    assert len(set(seen)) == 4


def test_training_refuses_what_does_not_fit():
    features, labels = ring(0)
    with pytest.raises(ValueError, match="1 and 0"):
        train(MLPHead(2, 2), [features], [])
    with pytest.raises(ValueError, match="shape 0 has 299 labels for 300 outputs"):
        train(MLPHead(2, 2), [features], [labels[1:]])
    for wrong, message in (
        (labels + 5, "shape 1 has the label [56], expected -1 to 1"),
        (labels - 2, "shape 1 has the label -2, expected -1"),
        (labels + 0.5, "labels of shape 1 are torch.float32, expected integers"),
    ):
        with pytest.raises(InputError, match=message):
            train(MLPHead(2, 2), [features] * 2, [labels, wrong], HeadTraining(2))
    with pytest.raises(ValueError, match="no shape has a label"):
        train(MLPHead(2, 2), [features], [labels * 0 - 1])
    with pytest.raises(ValueError, match="loss of step 0"):
        train(
            MLPHead(2, 2), [features], [labels], HeadTraining(1), augment=lambda f, _: f * torch.nan
        )
    with pytest.raises(ValueError, match="3 channels"):
        MLPHead(3, 2)(features)
    with pytest.raises(ValueError, match="positive"):
        HeadTraining(steps=0)


def test_features_that_are_not_finite_are_named_and_leave_the_head_as_it_was():
    features, labels = ring(0)
    spoilt, head = features.clone(), MLPHead(2, 2)
    spoilt[7, 1] = torch.nan
    with pytest.raises(InputError, match=r"features of shape 1 are not finite \(row 7\)"):
        train(head, [features, spoilt], [labels, labels])
    assert not head.standardize.fitted
    assert np.isfinite(train(head, [features], [labels], HeadTraining(2))).all()


def test_standardisation_is_saved_and_leaves_constant_channels():
    module = Standardize(2)
    features = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    assert torch.equal(module(features), features)
    module.fit([features])
    torch.testing.assert_close(module(features), torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
    copy = Standardize(2)
    copy.load_state_dict(module.state_dict())
    assert copy.fitted and torch.equal(copy(features), module(features))


def test_standardisation_does_not_copy_one_channel_to_all():
    standardize = Standardize(3)
    for call in (standardize, lambda features: standardize.fit([features])):
        with pytest.raises(InputError, match=r"got \(5, 1\), expected a tensor \(N, 3\)"):
            call(torch.rand(5, 1))
        with pytest.raises(InputError, match=r"got ndarray, expected a tensor \(N, 3\)"):
            call(np.ones((5, 3)))
    assert not standardize.fitted


def test_pooling_is_the_weighted_mean_and_the_maximum():
    features = torch.tensor([[1.0, -2.0], [3.0, 0.0]], dtype=torch.float64)
    assert pool_features(features, mode="mean").tolist() == [2, -1]
    assert pool_features(features, mode="max").tolist() == [3, 0]
    assert pool_features(features, torch.tensor([3.0, 1.0])).tolist() == [1.5, -1.5, 3, 0]
    assert pool_shapes([features, features[:1]]).shape == (2, 4)
    weighted = pool_shapes([features, features], [torch.tensor(w) for w in ([3.0, 1], [1.0, 3])])
    assert weighted.tolist() == [[1.5, -1.5, 3, 0], [2.5, -0.5, 3, 0]]
    order = torch.tensor([1, 0])
    assert torch.equal(pool_features(features), pool_features(features[order]))


def test_pooling_refuses_what_has_no_mean():
    features = torch.ones(2, 3)
    with pytest.raises(ValueError, match="N at least 1"):
        pool_features(features[:0])
    with pytest.raises(ValueError, match="positive sum"):
        pool_features(features, torch.zeros(2))
    with pytest.raises(ValueError, match="there are mean, max, mean_max"):
        pool_features(features, mode="sum")


@pytest.mark.parametrize("width", [None, 8])
def test_a_pooled_head_learns_classes_of_whole_shapes(width):
    generator = torch.Generator().manual_seed(0)
    shapes = [torch.randn(40 + i, 3, generator=generator) + 2.0 * (i % 2) for i in range(12)]
    labels = [i % 2 for i in range(12)]
    head = PooledHead(3, 2, width=width)
    train(head, shapes[:6], labels[:6], HeadTraining(100, 1e-2))
    assert [int(p[0]) for p in predict(head, shapes[6:])] == labels[6:]
    weighted = [(s, torch.rand(len(s), generator=generator)) for s in shapes]
    assert head(*weighted[0]).shape == (2,)


def test_gradients_of_the_heads_are_those_of_their_functions():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(MLPHead(3, 2, hidden=(4,)).double(), x)
    assert torch.autograd.gradcheck(PooledHead(3, 2, width=4).double(), x)
