"""Which pairs are trained on, in which order: a function of the seed and the step alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from sparsefeat.data.threedmatch import FragmentPair
from sparsefeat.errors import InputError


@dataclass(frozen=True)
class PairRequest:
    """One sample to make: which pair, from which seed, rotated by at most which angle (degrees)."""

    pair: int
    seed: int
    max_angle_deg: float = 180.0


class PairSampler(Sampler[list[PairRequest]]):
    """Batches of requests, shuffled epoch after epoch, each a function of the seed and the step alone.

    Step s of all ranks together takes the next ``batch_size * world_size`` pairs of an endless sequence
    of permutations (one per epoch), so that ranks never share a place in it, and what is trained on does
    not depend on how it is divided among ranks.

    Args:
        n_pairs: number of pairs to choose from.
        batch_size: pairs per batch and rank.
        seed: of everything random.
        start_step: first step to yield; resuming at it continues an interrupted run.
        steps: yield steps below this one; None never ends.
        rank: of this process.
        world_size: number of processes.
        angle: maps a step to the largest angle of rotation in degrees; None is 180 at every step.

    Raises:
        InputError: an argument is out of range.
    """

    def __init__(
        self,
        n_pairs: int,
        batch_size: int,
        seed: int = 0,
        start_step: int = 0,
        steps: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        angle: Callable[[int], float] | None = None,
    ):
        for name, value, least in (
            ("n_pairs", n_pairs, 1),
            ("batch_size", batch_size, 1),
            ("seed", seed, 0),
            ("start_step", start_step, 0),
            ("world_size", world_size, 1),
        ):
            if value < least:
                raise InputError(f"{name} is {value}, expected at least {least}")
        if not 0 <= rank < world_size:
            raise InputError(f"rank is {rank}, expected 0 to {world_size - 1}")
        self.n_pairs = n_pairs
        self.batch_size = batch_size
        self.seed = seed
        self.start_step = start_step
        self.steps = steps
        self.rank = rank
        self.world_size = world_size
        self.angle = angle
        self._epoch: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    def __len__(self) -> int:
        if self.steps is None:
            raise TypeError("a sampler without a last step has no length")
        return max(0, self.steps - self.start_step)

    def __iter__(self) -> Iterator[list[PairRequest]]:
        step = self.start_step
        while self.steps is None or step < self.steps:
            yield self.batch(step)
            step += 1

    def batch(self, step: int) -> list[PairRequest]:
        """Return the requests of this rank at a step."""
        first = (step * self.world_size + self.rank) * self.batch_size
        angle = 180.0 if self.angle is None else float(self.angle(step))
        return [self._request(place, angle) for place in range(first, first + self.batch_size)]

    def epoch(self, step: int) -> float:
        """Return how many times all pairs have been drawn before a step."""
        return step * self.world_size * self.batch_size / self.n_pairs

    def _request(self, place: int, angle: float) -> PairRequest:
        epoch, index = divmod(place, self.n_pairs)
        if self._epoch[0] != epoch:
            self._epoch = (
                epoch,
                np.random.default_rng((self.seed, 0, epoch)).permutation(self.n_pairs),
            )
        seed = np.random.SeedSequence((self.seed, 1, place)).generate_state(1, np.uint64)[0]
        return PairRequest(int(self._epoch[1][index]), int(seed), angle)


def select_pairs(
    pairs: Sequence[FragmentPair],
    min_overlap: float = 0.0,
    max_overlap: float = 1.0,
    limit: int | None = None,
    seed: int = 0,
) -> list[FragmentPair]:
    """Return the pairs whose overlap is in a range, at most ``limit`` of them drawn at random, in order.

    Args:
        pairs: to choose from.
        min_overlap: least overlap, a share. Pairs of unknown overlap count as inside the range.
        max_overlap: largest overlap, a share.
        limit: largest number of pairs; None keeps all.
        seed: of the draw.

    Returns:
        At least one pair.

    Raises:
        InputError: the range or the limit is not valid, or no pair is left.
    """
    if not 0 <= min_overlap <= max_overlap <= 1:
        raise InputError(
            f"overlap from {min_overlap} to {max_overlap}: expected shares, the smaller first"
        )
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}, expected at least 1 pair")
    kept = [
        pair for pair in pairs if not (pair.overlap < min_overlap or pair.overlap > max_overlap)
    ]
    if not kept:
        raise InputError(
            f"none of {len(pairs)} pairs has an overlap from {min_overlap:g} to {max_overlap:g}"
        )
    if limit is not None and limit < len(kept):
        drawn = np.random.default_rng(seed).choice(len(kept), limit, replace=False)
        kept = [kept[index] for index in sorted(drawn)]
    return kept
