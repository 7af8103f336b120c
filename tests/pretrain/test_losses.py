"""Losses: against hand computations and direct definitions; what they reward and what they do not."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from sparsefeat import losses
from sparsefeat.errors import InputError
from sparsefeat.losses import LossConfig, PairFeatures, one_to_one, pair_loss
from sparsefeat.losses.softmax import log_partitions


def unit(rows: int, channels: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, channels, generator=generator, dtype=torch.float64), dim=1)


def grid(rows: int) -> torch.Tensor:
    """Points one metre apart."""
    return torch.stack(
        [torch.arange(rows, dtype=torch.float64), torch.zeros(rows), torch.zeros(rows)], 1
    )


def test_anchored_cycle_is_its_definition_written_as_loops():
    f, g = unit(6, 4, 0), unit(5, 4, 1)
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(6, 3, generator=generator, dtype=torch.float64)
    y = torch.rand(5, 3, generator=generator, dtype=torch.float64)
    radius, temperature = 0.6, 0.2
    s01, s10 = (f @ g.t() / temperature).softmax(1), (g @ f.t() / temperature).softmax(1)

    def one_way(out, back, here, there):
        terms = []
        for i in range(len(here)):
            near = [j for j in range(len(there)) if (here[i] - there[j]).norm() < radius]
            if near:
                trip = sum(
                    out[i, j]
                    * sum(
                        back[j, k] for k in range(len(here)) if (here[k] - there[j]).norm() < radius
                    )
                    for j in near
                )
                terms.append(-math.log(trip))
        return sum(terms) / len(terms) / 4

    expected = one_way(s01, s10, x, y) + one_way(s10, s01, y, x)
    assert losses.anchored_cycle(f, g, x, y, radius, temperature).item() == pytest.approx(
        expected, rel=1e-9
    )


def test_anchored_cycle_with_one_point_per_place_is_symmetric_infonce():
    f, g = unit(7, 8, 3), unit(7, 8, 4)
    x = grid(7)
    cycle = losses.anchored_cycle(f, g, x, x, 0.5, 0.1)
    assert cycle.item() == pytest.approx(losses.point_info_nce(f, g, 0.1).item(), rel=1e-9)


def test_a_consistent_but_wrong_bijection_satisfies_the_label_free_form_and_not_the_anchored_one():
    f = F.one_hot(torch.arange(6), 6).double()
    wrong = f.roll(1, 0)  # every point matches its neighbour's partner, and comes back
    x = grid(6)
    assert losses.identity_cycle(f, wrong, x, x, 0.5, 0.02).item() < 1e-6
    assert losses.distance_cycle(f, wrong, x, x, 0.5, 0.02).item() < 0.01
    assert losses.anchored_cycle(f, wrong, x, x, 0.5, 0.02).item() > 10
    assert losses.landing_cycle(f, wrong, x, x, 0.5, 0.02).item() > 0.4


@pytest.mark.parametrize("form", losses.CYCLE_FORMS)
def test_perfect_features_reach_the_optimum_of_every_cycle_form(form):
    f = F.one_hot(torch.arange(6), 6).double()
    x = grid(6)
    assert losses.CYCLE_FORMS[form](f, f, x, x, 0.5, 0.02).item() < 5e-3


@pytest.mark.parametrize("form", losses.CYCLE_FORMS)
def test_gradients_of_the_cycle_forms_agree_with_finite_differences(form):
    f, g = unit(5, 3, 5).requires_grad_(), unit(4, 3, 6).requires_grad_()
    generator = torch.Generator().manual_seed(7)
    x = torch.rand(5, 3, generator=generator, dtype=torch.float64)
    y = torch.rand(4, 3, generator=generator, dtype=torch.float64)
    function = losses.CYCLE_FORMS[form]
    assert torch.autograd.gradcheck(lambda a, b: function(a, b, x, y, 0.5, 0.3), (f, g))


def test_without_a_counterpart_within_the_radius_the_anchored_cycle_is_zero():
    f = unit(3, 4, 8).requires_grad_()
    loss = losses.anchored_cycle(f, unit(3, 4, 9), grid(3), grid(3) + 100, 0.5, 0.1)
    loss.backward()
    assert loss.item() == 0 and f.grad.abs().max() == 0
    none = losses.anchored_cycle(f[:0], unit(3, 4, 9), grid(0), grid(3), 0.5, 0.1)
    assert none.item() == 0


def test_point_info_nce_by_hand():
    f = torch.eye(2, dtype=torch.float64)
    # Logits 1/t on the diagonal and 0 beside it: -log(e^2 / (e^2 + 1)) in both directions.
    assert losses.point_info_nce(f, f, 0.5).item() == pytest.approx(math.log(1 + math.exp(-2)))


@pytest.mark.parametrize("length", [1.0, 100.0], ids=["unit", "long"])
def test_log_partitions_are_the_log_sums_of_all_logits_and_so_are_their_gradients(
    length, monkeypatch
):
    """Rows in several blocks; long features, whose exponentials a number cannot hold, go another way."""
    monkeypatch.setattr("sparsefeat.losses.softmax._AT_ONCE", 20)
    f, g = unit(7, 4, 5) * length, unit(9, 4, 6) * length
    logits = f @ g.t() / 0.1
    for found, dim in zip(log_partitions(f, g, 0.1), (1, 0)):
        torch.testing.assert_close(found, logits.logsumexp(dim))
    given = f.requires_grad_(), g.requires_grad_()
    assert torch.autograd.gradcheck(lambda f, g: log_partitions(f, g, 0.1), given)


def test_log_partitions_keep_float32_where_all_else_is_in_half_precision():
    f, g = unit(7, 4, 5).float(), unit(9, 4, 6).float()
    expected = (f @ g.t() / 0.1).logsumexp(1)
    with torch.autocast("cpu", torch.bfloat16):
        given = f.clone().requires_grad_()
        found = log_partitions(given, g, 0.1)[0]
        found.sum().backward()
    torch.testing.assert_close(found, expected)
    share = (f @ g.t() / 0.1).softmax(1)
    torch.testing.assert_close(given.grad, share @ g / 0.1)
    halves = log_partitions(f.bfloat16(), g.bfloat16(), 0.1)[0]
    torch.testing.assert_close(halves, expected, atol=0.1, rtol=0)


def test_matches_of_one_place_are_no_negatives():
    f, g = unit(5, 4, 7), unit(5, 4, 8)
    near = torch.eye(5, dtype=torch.bool)
    near[0, 1] = near[1, 0] = True
    s01, s10 = (f @ g.t() / 0.2).softmax(1), (g @ f.t() / 0.2).softmax(1)
    right = [(s * near).sum(1).log().mean() for s in (s01, s10)]
    found = losses.point_info_nce(f, g, 0.2, near)
    torch.testing.assert_close(found, -(right[0] + right[1]) / 2)


def test_hardest_contrastive_by_hand():
    f = torch.tensor([[1.0, 0.0]])
    g = torch.tensor([[0.0, 1.0]])  # squared distance 2
    x = torch.zeros(1, 3)
    far = (torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([[5.0, 0, 0], [0.0, 0, 0]]))
    loss = losses.hardest_contrastive(f, g, x, x, far, far, 0.1, 0.1, 1.4)
    # The second candidate lies at the true place and is left out; the first one is at distance 0 of f, sqrt(2) of g.
    expected = (2 - 0.1) + 1.4**2 / 2 + max(0.0, 1.4 - math.sqrt(2)) ** 2 / 2
    assert loss.item() == pytest.approx(expected, rel=1e-3)


def test_matches_are_one_to_one_and_a_function_of_the_generator():
    matches = torch.cartesian_prod(torch.arange(10), torch.arange(10))
    chosen = one_to_one(matches, 100, torch.Generator().manual_seed(0))
    assert len(chosen[:, 0].unique()) == len(chosen) == len(chosen[:, 1].unique())
    again = one_to_one(matches, 100, torch.Generator().manual_seed(0))
    assert torch.equal(chosen, again)
    assert len(one_to_one(matches, 3, torch.Generator().manual_seed(0))) == 3


@pytest.mark.parametrize("name", ["cycle", "point_info_nce", "hardest_contrastive"])
def test_every_loss_prefers_true_features_to_random_ones(name):
    x = grid(64).float()
    matches = torch.arange(64)[:, None].expand(-1, 2)
    config = LossConfig(name=name, points=64)

    def value(f, g):
        pair = PairFeatures(f.float(), g.float(), x, x, matches)
        return pair_loss(pair, config, 0.05, torch.Generator().manual_seed(0)).item()

    f = unit(64, 32, 10)
    assert value(f, f) < 0.5 * value(f, unit(64, 32, 11))


def test_a_pair_without_matches_costs_nothing():
    f = unit(4, 3, 12).float().requires_grad_()
    pair = PairFeatures(
        f, f, grid(4).float(), grid(4).float(), torch.empty(0, 2, dtype=torch.int64)
    )
    loss = pair_loss(pair, LossConfig(), 0.05, torch.Generator())
    loss.backward()
    assert loss.item() == 0 and f.grad.abs().max() == 0


@pytest.mark.parametrize("name", ["cycle", "hardest_contrastive"])
def test_a_voxel_with_two_matches_in_a_deformed_pair_takes_part_once(name):
    """Its two places are far apart. Were both there, each would be a negative of the other, with its very feature."""
    f, g = torch.eye(4)[:3], torch.eye(4)[[0, 0, 1, 2]]
    elsewhere = grid(3).float() + 100
    places = torch.tensor([[0.0, 0, 0], [2, 0, 0], [5, 0, 0], [9, 0, 0]])
    matches = torch.tensor([[0, 0], [0, 1], [1, 2], [2, 3]])
    pair = PairFeatures(f, g, elsewhere, places, matches, deformed=True)
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        loss = pair_loss(pair, LossConfig(name, temperature=0.03), 1.0, generator)
        assert loss.item() == pytest.approx(0, abs=1e-5)


def test_all_points_as_negatives_cost_nothing_where_there_are_no_points():
    f, g = unit(3, 4, 0).requires_grad_(), unit(5, 4, 1).requires_grad_()
    loss = losses.info_nce_among_all(f[:0], g, torch.zeros(0, 5, dtype=torch.bool), 0.1)
    loss.backward()
    assert loss.item() == 0 and g.grad.abs().max() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positive_margin": math.nan}, "positive_margin must be 0 or a positive number, got nan"),
        ({"negative_margin": -1.0}, "negative_margin must be 0 or a positive number, got -1.0"),
        ({"temperature": math.inf}, "temperature must be a positive number, got inf"),
        ({"radius_voxels": 0.0}, "radius_voxels must be a positive number, got 0.0"),
        ({"name": "cycle", "negatives": "all"}, "negatives: all needs the loss point_info_nce"),
        ({"name": "cycel"}, "name 'cycel', expected one of cycle, point_info_nce, hardest"),
        ({"cycle_form": "x"}, "cycle_form 'x', expected one of anchored, landing, identity"),
        ({"negatives": "some"}, "negatives 'some', expected one of matched, all"),
        ({"temperature": "0.07"}, "temperature must be a positive number, got '0.07'"),
        ({"side": None}, "side must be 0 or a positive weight, got None"),
        ({"points": 100.5}, "points 100.5, expected a whole number of at least 2"),
        ({"candidates": 0}, "candidates 0, expected a whole number of at least 1"),
    ],
)
def test_constants_that_cannot_be_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        LossConfig(**options)


EVERY_LOSS = [
    *({"cycle_form": form} for form in losses.CYCLE_FORMS),
    {"name": "point_info_nce"},
    {"name": "point_info_nce", "one_place": True},
    {"name": "point_info_nce", "negatives": "all"},
    {"name": "hardest_contrastive"},
]


@pytest.mark.parametrize("options", EVERY_LOSS, ids=str)
def test_where_the_frame_has_its_origin_does_not_matter(options):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(400, 3, generator=generator, dtype=torch.float64) * 2
    y = x + 0.005 * torch.randn(400, 3, generator=generator, dtype=torch.float64)
    f = unit(400, 16, 0)
    g = F.normalize(f + 0.1 * unit(400, 16, 1), dim=1)
    matches = torch.arange(400)[:, None].expand(-1, 2)

    def loss(points0, points1):
        pair = PairFeatures(f, g, points0, points1, matches)
        seeded = torch.Generator().manual_seed(0)
        return pair_loss(pair, LossConfig(**options), 0.05, seeded).item()

    expected = loss(x, y)
    # As UTM coordinates are; and in float32 as far as it holds a millimetre.
    far = torch.tensor([5e5, 5e6, 0], dtype=torch.float64)
    assert loss(x + far, y + far) == pytest.approx(expected, rel=1e-4)
    far = far / 1e4
    assert loss((x + far).float(), (y + far).float()) == pytest.approx(expected, rel=1e-3)


def test_losses_of_no_rows_are_zero():
    f, x = unit(3, 4, 0).requires_grad_(), grid(3)
    empty = [
        losses.point_info_nce(f[:0], f[:0], 0.1),
        losses.point_info_nce(f[:0], f[:0], 0.1, torch.zeros(0, 0, dtype=torch.bool)),
        losses.anchored_cycle(f[:0], f[:0], x[:0], x[:0], 0.1, 0.1),
        losses.hardest_contrastive(f[:0], f[:0], x[:0], x[:0], (f, x), (f, x), 0.1, 0.1, 1.4),
    ]
    sum(empty).backward()
    assert [loss.item() for loss in empty] == [0, 0, 0, 0]
    assert f.grad.abs().max() == 0


def test_a_loss_that_is_not_finite_is_an_error():
    f = torch.full((4, 3), torch.nan)
    pair = PairFeatures(
        f, f, grid(4).float(), grid(4).float(), torch.arange(4)[:, None].expand(-1, 2)
    )
    with pytest.raises(ValueError, match="not finite"):
        pair_loss(pair, LossConfig(), 0.05, torch.Generator())


def test_the_last_channel_of_both_clouds_is_told_left_from_right():
    f, g = unit(4, 3, 13).float(), unit(4, 3, 14).float()
    f[:, -1], g[:, -1] = torch.tensor([0.3, -0.2, 0.1, 0.9]), torch.tensor([-0.1, -0.4, 0.5, 0.9])
    x = grid(4).float()
    matches = torch.tensor([[0, 1], [1, 0], [2, 2], [3, 3]])
    pair = PairFeatures(f, g, x, x, matches, True, torch.tensor([1, -1, -1, 0], dtype=torch.int8))

    def cost(last: float, side: int) -> float:
        return math.log(1 + math.exp(-10 * last * side))

    first = (cost(0.3, 1) + cost(-0.2, -1) + cost(0.1, -1)) / 3
    second = (cost(-0.4, 1) + cost(-0.1, -1) + cost(0.5, -1)) / 3
    assert losses.side_loss(pair).item() == pytest.approx((first + second) / 2, rel=1e-5)
    # It adds to the loss of the pair by its weight, whichever that loss is.
    for name in ("point_info_nce", "cycle"):
        without, with_it = (
            pair_loss(pair, LossConfig(name, side=side), 0.05, torch.Generator().manual_seed(0))
            for side in (0.0, 2.0)
        )
        assert (with_it - without).item() == pytest.approx(first + second, rel=1e-4)
    unknown = pair._replace(sides=torch.zeros(4, dtype=torch.int8))
    assert losses.side_loss(unknown) == 0
    with pytest.raises(ValueError, match="side must be 0 or a positive weight, got -1"):
        LossConfig(side=-1)


def test_coarse_cells_are_on_the_side_of_most_of_their_voxels():
    cells = torch.tensor([[0, 0, 0, 0], [0, 4, 0, 0], [1, 4, 0, 0], [0, -4, 0, 0], [1, 0, 0, 0]])
    logits = torch.tensor([0.5, -1.0, 2.0, 0.3, 9.0])
    voxels, sides = zip(
        ([0, 0, 1, 2], 1), ([0, 3, 3, 3], 1), ([0, 1, 0, 0], -1),  # two of three on the left
        ([0, 5, 0, 0], -1),
        ([1, 7, 0, 3], 1), ([1, 4, 0, 0], -1), ([1, 4, 1, 0], 0),  # on both: unknown
        ([0, -1, 0, 0], -1),  # the cell below zero
    )  # fmt: skip
    found = losses.coarse_side_losses(
        logits, cells, 4, torch.tensor(voxels), torch.tensor(sides, dtype=torch.int8)
    )
    expected = [math.log1p(math.exp(x)) for x in (-0.5, -1.0, 0.3)]
    torch.testing.assert_close(found, torch.tensor(expected))
    nothing = torch.zeros(len(voxels), dtype=torch.int8)
    assert losses.coarse_side_losses(logits, cells, 4, torch.tensor(voxels), nothing).shape == (0,)


def test_many_voxels_of_a_cell_are_counted_in_half_precision_too():
    # 600 on the left and 599 on the right: bfloat16 cannot count that far.
    voxels = torch.cat(
        [torch.zeros(1199, 1), torch.cartesian_prod(*[torch.arange(11.0)] * 3)[:1199]], 1
    )
    sides = torch.tensor([1] * 600 + [-1] * 599, dtype=torch.int8)
    cells, logits = torch.zeros(1, 4, dtype=torch.int32), torch.ones(1, dtype=torch.bfloat16)
    found = losses.coarse_side_losses(logits, cells, 16, voxels.int(), sides)
    torch.testing.assert_close(found, torch.tensor([math.log1p(math.exp(-1))]))


@pytest.mark.parametrize("deformed", [False, True])
def test_points_outside_the_overlap_are_negatives_too_where_all_are(deformed):
    """As its definition in loops: matched points of either cloud look for their place among all points of the other."""
    f, g = unit(6, 4, 0), unit(5, 4, 1)
    generator = torch.Generator().manual_seed(2)
    x, y = (torch.rand(n, 3, generator=generator, dtype=torch.float64) for n in (6, 5))
    matches = torch.tensor([[0, 4], [3, 1], [5, 2]])
    radius, temperature = 0.5, 0.2
    terms = []
    for here, there, rows in (
        ((f, x), (g, y), matches),
        ((g, y), (f, x), matches.flip(1)),
    ):
        hops = (here[0] @ there[0].t() / temperature).softmax(1)
        for i, j in rows.tolist():
            place = there[1][j] if deformed else here[1][i]
            right = {j} | {k for k in range(len(there[1])) if (there[1][k] - place).norm() < radius}
            terms.append(-math.log(sum(hops[i, k] for k in right)))
    config = LossConfig(
        "point_info_nce", negatives="all", temperature=temperature, radius_voxels=radius
    )
    found = pair_loss(PairFeatures(f, g, x, y, matches, deformed), config, 1.0, generator)
    assert found.item() == pytest.approx(sum(terms) / len(terms), rel=1e-6)
