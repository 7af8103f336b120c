"""Losses of walks from one cloud to the other: the cycles, there and back, and PointInfoNCE, one way.

Notation: f_i, g_j are the unit-norm features of cloud 0 and 1, x_i the true image of point i of cloud 0 in
the frame of cloud 1, y_j the points of cloud 1, r the radius within which two points count as one place.
Row-softmax maps S01 = softmax(f g^T / t) and S10 = softmax(g f^T / t) are the steps of a random walker
from one cloud to the other; both run over points of the overlap alone, since from outside it a walk has
nowhere to come back to.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsefeat.losses.softmax import log_partitions


def anchored_cycle(
    f: Tensor, g: Tensor, x: Tensor, y: Tensor, radius: float, temperature: float
) -> Tensor:
    """Cycle consistency through the true place: the default.

    A walker leaves i for cloud 1 and comes back. The loss is minus the log of the probability that it goes
    through the true image of i *and* returns from where it went to the place it came from::

        L0 = - mean_i log sum_{j: |x_i - y_j| < r} S01(i, j) sum_{k: |x_k - y_j| < r} S10(j, k)

    and the same from cloud 1, averaged and halved (two hops). A round trip that closes somewhere else, which
    is what the label-free forms reward, earns nothing; stopping at a neighbour within r costs nothing. With
    one point per place it is the symmetric InfoNCE loss.

    Args:
        f, g: Shape (n, C), (m, C), unit norm.
        x, y: Shape (n, 3), (m, 3), one frame, metres.
        radius: r, metres.
        temperature: t.

    Returns:
        A scalar; zero (with a gradient of zero) when no point has a counterpart.
    """
    starts, ends = within(x, y, radius).nonzero(as_tuple=True)
    # Only places that are near enough count: a few of the n m pairs.
    hop01, hop10 = _hops(f, g, starts, ends, temperature)
    return _round_trip(hop01, hop10, starts, ends, len(f), len(g)) + _round_trip(
        hop10, hop01, ends, starts, len(g), len(f)
    )


def within(x: Tensor, y: Tensor, radius: float) -> Tensor:
    """Which points lie nearer to each other than the radius. Shape: (n, 3), (m, 3) -> (n, m), bool."""
    # torch takes distances of many points from squares of their coordinates, which must not be large.
    origin = y.mean(0)
    return torch.cdist(x - origin, y - origin) < radius


def _logits(f: Tensor, g: Tensor, starts: Tensor, ends: Tensor, temperature: float) -> Tensor:
    """Entries of ``f g^T / t``. Shape: (P,), (P,) -> (P,)."""
    return (f.index_select(0, starts) * g.index_select(0, ends)).sum(1) / temperature


def _hops(
    f: Tensor, g: Tensor, starts: Tensor, ends: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of going from a start to its end, and back. Shape: (P,), (P,) -> (P,), (P,)."""
    logits = _logits(f, g, starts, ends, temperature)
    if not len(starts):  # perhaps no points at all
        return logits, logits
    over_g, over_f = log_partitions(f, g, temperature)
    return logits - over_g[starts], logits - over_f[ends]


def _round_trip(
    out: Tensor, back: Tensor, starts: Tensor, ends: Tensor, count: int, count_there: int
) -> Tensor:
    """A quarter of the mean log-loss of going out through a true place and back to it.

    Shape: (P,) each: log-probabilities of the hops between the near pairs, and the pairs' rows.
    """
    if not len(starts):
        return out.sum() * 0
    returned = _log_sum_exp(back, ends, count_there)
    trip = _log_sum_exp(out + returned[ends], starts, count)
    return -trip[torch.bincount(starts, minlength=count) > 0].mean() / 4


def _log_sum_exp(values: Tensor, groups: Tensor, count: int) -> Tensor:
    """log of the sum of exp over each group; 0 for an empty one. Shape: (P,), (P,) -> (count,)."""
    largest = values.new_full((count,), -torch.inf).scatter_reduce(
        0, groups, values.detach(), "amax"
    )
    largest = torch.where(largest.isfinite(), largest, 0)
    sums = values.new_zeros(count).index_add(0, groups, (values - largest[groups]).exp())
    return torch.where(sums == 0, 1, sums).log() + largest


def _around_origin(x: Tensor, y: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
    """Points about their middle in the type of the features: means of places far away would be rounded."""
    origin = y.mean(0)
    return (x - origin).to(f), (y - origin).to(f)


def landing_cycle(
    f: Tensor, g: Tensor, x: Tensor, y: Tensor, radius: float, temperature: float
) -> Tensor:
    """Expected landing points in metres, of one hop and of two.

    mean_i |S01 y - x|_i + |S01 S10 x - x|_i, and the same from cloud 1, averaged. The known transform
    enters through the first hop. Arguments as in :func:`anchored_cycle`; ``radius`` is not used.
    """
    logits = f @ g.t() / temperature
    hop01, hop10 = logits.softmax(1), logits.t().softmax(1)
    x, y = _around_origin(x, y, f)
    total = f.new_zeros(())
    for out, back, here, there in ((hop01, hop10, x, y), (hop10, hop01, y, x)):
        # Squared under a small floor: the norm has no gradient at zero.
        first = ((out @ there - here).square().sum(1) + 1e-6).sqrt()
        second = ((out @ (back @ here) - here).square().sum(1) + 1e-6).sqrt()
        total = total + (first.mean() + second.mean()) / 2
    return total


def identity_cycle(
    f: Tensor, g: Tensor, x: Tensor, y: Tensor, radius: float, temperature: float
) -> Tensor:
    """Label-free: cross-entropy of P = S01 S10 to the identity, and of S10 S01 to it.

    Jabri et al., Space-Time Correspondence as a Contrastive Random Walk, NeurIPS 2020, eq. 3, for a
    walk of two steps. Any consistent bijection is an optimum, so the loss may fall while the matches get
    worse; kept to compare with. Arguments as in :func:`anchored_cycle`; places and ``radius`` are not used.
    """
    logits = f @ g.t() / temperature
    hop01, hop10 = logits.softmax(1), logits.t().softmax(1)
    there_and_back = (hop01 * hop10.t()).sum(1)
    back_and_there = (hop10 * hop01.t()).sum(1)
    return (
        -(
            there_and_back.clamp(min=1e-12).log().mean()
            + back_and_there.clamp(min=1e-12).log().mean()
        )
        / 2
    )


def distance_cycle(
    f: Tensor, g: Tensor, x: Tensor, y: Tensor, radius: float, temperature: float
) -> Tensor:
    """Label-free: mean |P x - x| in metres with P = S01 S10, from both clouds; kept to compare with.

    Arguments as in :func:`anchored_cycle`; ``radius`` is not used.
    """
    logits = f @ g.t() / temperature
    hop01, hop10 = logits.softmax(1), logits.t().softmax(1)
    x, y = _around_origin(x, y, f)
    trip0 = ((hop01 @ (hop10 @ x) - x).square().sum(1) + 1e-6).sqrt().mean()
    trip1 = ((hop10 @ (hop01 @ y) - y).square().sum(1) + 1e-6).sqrt().mean()
    return (trip0 + trip1) / 2


CYCLE_FORMS = {
    "anchored": anchored_cycle,
    "landing": landing_cycle,
    "identity": identity_cycle,
    "distance": distance_cycle,
}
"""All take the same arguments, so that a form can be chosen by its name; some do not use all of them."""


def point_info_nce(f: Tensor, g: Tensor, temperature: float, near: Tensor | None = None) -> Tensor:
    """PointInfoNCE: cross-entropy of each match against the other matched points.

    Xie et al., PointContrast, ECCV 2020, eq. 2; both directions averaged. Of no rows it is zero.

    Args:
        f, g: Shape (n, C) each, unit norm; row i of one matches row i of the other.
        temperature: t.
        near: rows that are the same place, each near itself: to end at any of them is right. None: only its own.
            Shape: (n, n), bool.
    """
    if not len(f):
        return (f.sum() + g.sum()) * 0
    if near is None:
        rows = torch.arange(len(f), device=f.device)
        hop01, hop10 = _hops(f, g, rows, rows, temperature)
        return -(hop01.mean() + hop10.mean()) / 2
    starts, ends = near.nonzero(as_tuple=True)
    hop01, hop10 = _hops(f, g, starts, ends, temperature)
    right = _log_sum_exp(hop01, starts, len(f)).mean() + _log_sum_exp(hop10, ends, len(g)).mean()
    return -right / 2


def info_nce_among_all(f: Tensor, g: Tensor, near: Tensor, temperature: float) -> Tensor:
    """InfoNCE of points of one cloud against all points of the other, as matches are searched for.

    ``- mean_i log sum_{j near i} S01(i, j)``, where the softmax S01 runs over the whole of cloud 1. Points outside the
    overlap are negatives, too. To end at any near point costs nothing more: the sum is inside the logarithm, which is the
    form L_in of Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, eq. 3.

    Args:
        f: of the points whose place is in both clouds. Shape: (n, C), unit norm
        g: of all points of the other cloud. Shape: (m, C), unit norm
        near: which of these are at that place, at least one for each. Shape: (n, m), bool
        temperature: t.

    Returns:
        A scalar; zero (with a gradient of zero) for no points.
    """
    starts, ends = near.nonzero(as_tuple=True)
    if not len(starts):
        return (f.sum() + g.sum()) * 0
    over_g, _ = log_partitions(f, g, temperature)
    hop = _logits(f, g, starts, ends, temperature) - over_g[starts]
    return -_log_sum_exp(hop, starts, len(f)).mean()
