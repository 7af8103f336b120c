"""Training of a functional-map head: one pair of shapes a step; it can be cut and continued."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sparsefeat.data.shapes import Shape
from sparsefeat.errors import InputError, opening
from sparsefeat.heads.functional_map_head import FunctionalMapHead
from sparsefeat.io.atomic import atomic_write
from sparsefeat.io.config import to_dict
from sparsefeat.mesh.laplacian import LaplaceBasis
from sparsefeat.transfer.features import Coordinates
from sparsefeat.transfer.maps.config import MapsConfig
from sparsefeat.transfer.maps.inputs import Inputs

STATE = "last.pt"
"""File in the output folder."""

# What may differ between a training and its continuation: it says how scores are taken, or where things lie.
_FREE = ("pairs", "points", "zoomout", "rotate", "cache", "output", "save_every")


class MapTraining:
    """A head in training: one pair a step, all state in one file.

    The draw of each step depends on the seed and the step alone, so that a training that was cut gives the same
    bits as one that was not.

    Args:
        config: the experiment.
        inputs: of the shapes.
        train: shapes.
        pairs: of them.
        path: of the state; what is there is continued.
    """

    def __init__(
        self,
        config: MapsConfig,
        inputs: Inputs,
        train: Sequence[Shape],
        pairs: Sequence[tuple[Shape, Shape]],
        path: Path,
    ):
        self.config, self.inputs, self.pairs, self.path = config, inputs, list(pairs), path
        self.step = 0
        self.losses: list[dict[str, float]] = []
        self.snapshots: dict[int, dict[str, Tensor]] = {}
        first = inputs.descriptors(train[0], False)
        options = {k: v for k, v in vars(config.head).items() if k != "eigenpairs"}
        self.head = FunctionalMapHead(first.shape[1], **options, seed=config.seed)
        self.head.to(inputs.device)
        self.optimizer = torch.optim.Adam(self.head.parameters(), lr=config.learning_rate)
        self._train = list(train)
        if path.exists():
            self._resume()

    def run(self, progress: Callable[[int, str], None]) -> None:
        """All steps that are left."""
        config, head = self.config, self.head
        if not head.standardize.fitted:
            progress(0, f"descriptors of {len(self._train)} shapes")
            head.standardize.fit([self.inputs.descriptors(s, False) for s in self._train])
        progress(self.step, "training")
        kept = {round((k + 1) * config.steps / config.snapshots) for k in range(config.snapshots)}
        seconds = self.losses[-1]["seconds"] if self.losses else 0.0
        before = time.monotonic()
        head.train()
        while self.step < config.steps:
            losses = self._step()
            now = time.monotonic()
            seconds, before = seconds + now - before, now
            self.step += 1
            self.losses.append({**losses, "seconds": seconds})
            if self.step in kept:
                self.snapshots[self.step] = {
                    k: v.to("cpu", copy=True) for k, v in head.state_dict().items()
                }
            if self.step % config.save_every == 0 or self.step == config.steps:
                self._save()
            progress(self.step, f"loss {losses['total']:.3g}")
        head.eval().to("cpu")

    def _step(self) -> dict[str, float]:
        config, rng = self.config, np.random.default_rng([self.config.seed, self.step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        pair = self.pairs[rng.integers(len(self.pairs))]
        features, bases, samples = [], [], []
        for shape in pair:
            values = self.inputs.descriptors(shape, bool(rng.integers(2))).to(self.inputs.device)
            if isinstance(self.inputs.source, Coordinates):
                values = Coordinates.augment(values, generator)
            bases.append(self.inputs.basis(shape).to(self.inputs.device))
            features.append(self.head(values, bases[-1].truncate(config.head.eigenpairs)))
        if config.supervision == "landmarks":
            landmarks = [self.inputs.store(shape).data.correspondence for shape in pair]
            chosen = rng.permutation(len(landmarks[0]))[: config.samples]
            samples = [torch.from_numpy(rows[chosen]) for rows in landmarks]
        else:
            samples = [_by_area(basis, config.samples, rng) for basis in bases]
        samples = [rows.to(self.inputs.device) for rows in samples]
        losses = self.head.losses(
            features[0], bases[0], features[1], bases[1], *samples, config.supervision != "none"
        )
        total = losses.total()
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * _rate(self.step / config.steps)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.head.parameters(), 1.0)
        self.optimizer.step()
        found = {name: float(value.detach()) for name, value in losses._asdict().items()}
        found["total"] = float(total.detach())
        if not np.isfinite(found["total"]):
            raise InputError(f"the loss of step {self.step} is {found['total']}")
        return found

    def _save(self) -> None:
        state = {
            "config": to_dict(self.config),
            "weights": self.inputs.weights,
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "losses": self.losses,
            "snapshots": self.snapshots,
        }
        with opening(self.path), atomic_write(self.path) as temporary, open(temporary, "wb") as f:
            torch.save(state, f)

    def _resume(self) -> None:
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            theirs, mine = state["config"], to_dict(self.config)
        except Exception as error:  # what torch raises on a damaged file is not bounded
            raise InputError(f"{self.path}: not the state of a training of maps") from error
        for name in mine:
            if name not in _FREE and mine[name] != theirs.get(name):
                raise InputError(
                    f"{self.path}: was made with {name} = {theirs.get(name)}, the configuration says "
                    f"{mine[name]}; name another output"
                )
        # An older state does not say.
        if state.get("weights", self.inputs.weights) != self.inputs.weights:
            raise InputError(
                f"{self.path}: was made with other weights of features.checkpoint "
                f"{self.config.features.checkpoint}; name another output"
            )
        try:
            self.head.load_state_dict(state["head"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.losses = state["step"], state["losses"]
            self.snapshots = state["snapshots"]
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{self.path}: does not fit the training ({reason})") from error


def _rate(done: float) -> float:
    """Of the highest rate: a tenth of the steps up from 4 %, then down along a cosine."""
    if done < 0.1:
        return 0.04 + 0.96 * done / 0.1
    return 0.5 * (1 + float(np.cos(np.pi * (done - 0.1) / 0.9)))


def _by_area(basis: LaplaceBasis, count: int, rng: np.random.Generator) -> Tensor:
    """Random vertices, each as likely as the area that belongs to it. Shape: (count,)."""
    share = basis.mass.double().cpu().numpy()
    count = min(count, int((share > 0).sum()))
    return torch.from_numpy(rng.choice(len(share), count, replace=False, p=share / share.sum()))
