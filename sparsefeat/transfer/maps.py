"""Maps between shapes by a head that learns from pairs: training that can be cut and continued, and its scores."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sparsefeat.data.shapes import Shape, load_dataset
from sparsefeat.errors import InputError, opening
from sparsefeat.extract.descriptors import SHAPE_VOXEL
from sparsefeat.extract.surfaces import SHAPE_SCALES
from sparsefeat.heads.functional_map import points_from_map, spread_samples, zoomout
from sparsefeat.heads.functional_map_head import FunctionalMapHead
from sparsefeat.io.atomic import atomic_write
from sparsefeat.io.config import to_dict
from sparsefeat.mesh.geodesic import correspondence_error, geodesic_distances
from sparsefeat.mesh.laplacian import LaplaceBasis
from sparsefeat.transfer.config import DataConfig, FeatureConfig
from sparsefeat.transfer.features import Coordinates, FeatureSource, make_sources
from sparsefeat.transfer.shapes import LoadedShape, ShapeStore

STATE = "last.pt"
Say = Callable[[str], None]

_STEP = 8  # eigenpairs that ZoomOut adds at a time
_SAMPLES = 8  # samples of ZoomOut per eigenpair


@dataclass
class MapHeadConfig:
    """The network and its map layer, see :class:`sparsefeat.heads.FunctionalMapHead`."""

    features: int = 64  # channels that it gives
    width: int = 64
    blocks: int = 4
    dropout: float = 0.0
    eigenpairs: int = 128  # that diffusion runs in
    size: int = 50  # eigenpairs of the functional map
    weight: float = 1.0  # of the mask in the map layer
    temperature: float = 0.07


@dataclass
class MapsConfig:
    """Training of a functional-map head on pairs of shapes, and its errors on pairs of others."""

    task: Literal["maps"] = "maps"
    data: DataConfig = field(default_factory=lambda: DataConfig(normalize="area"))
    held_out: float = (
        0.0  # score on this share of the training individuals, for development; 0: on data.test
    )
    shapes: int | None = None  # random training shapes; null: all
    supervision: Literal["landmarks", "none"] = "landmarks"  # none: no correspondences are used
    inputs: Literal["joined", "ours", "hks", "wks", "fpfh", "fpfh_context", "xyz"] = "joined"
    features: FeatureConfig = field(
        default_factory=lambda: FeatureConfig(
            checkpoint="sparsefeat/creatures-oriented-v2",
            voxel_size=SHAPE_VOXEL,
            scales=list(SHAPE_SCALES),
        )
    )
    head: MapHeadConfig = field(default_factory=MapHeadConfig)
    steps: int = 3000  # one pair each
    learning_rate: float = 3e-3  # of Adam at its highest; one cycle
    samples: int = 800  # points of a pair that the losses take
    snapshots: int = 5  # weights that are scored, evenly over the training, the last one among them
    save_every: int = 50  # steps that an interruption may lose
    zoomout: int = 120  # eigenpairs after refinement; 0: none
    pairs: int | None = None  # random pairs of test shapes; null: all unordered ones
    points: int = 1000  # random landmarks that errors are taken at
    rotate: bool = True  # also score every source and target turned at random
    seed: int = 0
    cache: Path | None = Path("runs/cache/maps")  # of bases and descriptors; null: none
    output: Path = Path("runs/transfer/maps")

    def __post_init__(self) -> None:
        least = {
            "steps": 1,
            "samples": 2,
            "snapshots": 1,
            "save_every": 1,
            "zoomout": 0,
            "points": 1,
        }
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise InputError(f"{name}: expected at least {lowest}, got {getattr(self, name)}")
        if not 0 <= self.held_out < 1:
            raise InputError(f"held_out: expected a share from 0 to below 1, got {self.held_out}")
        if self.shapes is not None and self.shapes < 2:
            raise InputError(f"shapes: expected 2 or more, got {self.shapes}")
        if self.data.normalize != "area":
            raise InputError("data.normalize: expected area, which diffusion times are for")
        if self.features.voxel_size is None:
            raise InputError("features.voxel_size: expected a number, in roots of the area")
        if 0 < self.zoomout < self.head.size:
            raise InputError(
                f"zoomout: expected 0, or at least head.size {self.head.size}, got {self.zoomout}"
            )


@dataclass
class MapsResult:
    """What was found.

    Attributes:
        config: the experiment.
        records: ``step``, ``seconds`` of training, ``rotated``, ``map`` (nearest, functional, refined) and
            ``error``, in hundredths of the root of the target's area.
        losses: of each step: its terms and the seconds of training so far.
        pairs: names of the scored pairs.
        picture: the first pair and its refined map: for each vertex of the second shape, one of the first.
    """

    config: MapsConfig
    records: list[dict[str, Any]]
    losses: list[dict[str, float]]
    pairs: list[tuple[str, str]]
    picture: tuple[LoadedShape, LoadedShape, np.ndarray]


class Inputs:
    """Descriptors and bases of shapes as the head takes them, kept in memory and in a folder.

    Args:
        config: the experiment.
        store: of the shapes.
        device: where networks run and are trained; None: the CPU.
    """

    def __init__(self, config: MapsConfig, store: ShapeStore, device: str | None = None):
        self.config, self.store, self.device = config, store, torch.device(device or "cpu")
        name = "tuned" if config.inputs == "ours" else config.inputs
        self.source: FeatureSource = make_sources([name], config.features, 1.0, device)[name]
        self._kept: dict[tuple[str, bool], Tensor] = {}
        self._bases: dict[str, LaplaceBasis] = {}

    def descriptors(self, shape: Shape, turned: bool) -> Tensor:
        """Of the vertices. Shape: (N, C) float32."""
        turned = turned and not self.source.intrinsic
        key = (shape.name, turned)
        if key not in self._kept:
            loaded = self.store(shape)
            path = self._path(loaded, turned)
            values = None if path is None else _read(path, len(loaded.vertices))
            if values is None:
                values = np.asarray(self.source(loaded, turned), dtype=np.float32)
                if path is not None:
                    with opening(path), atomic_write(path) as temporary, open(temporary, "wb") as f:
                        np.save(f, values)
            self._kept[key] = torch.from_numpy(values)
        return self._kept[key]

    def basis(self, shape: Shape) -> LaplaceBasis:
        """Of the surface at unit area, float32."""
        if shape.name not in self._bases:
            basis = self.store(shape).basis(max(self.config.head.eigenpairs, self.config.zoomout))
            self._bases[shape.name] = basis.to(dtype=torch.float32)
        return self._bases[shape.name]

    def _path(self, shape: LoadedShape, turned: bool) -> Path | None:
        if self.config.cache is None or self.config.inputs == "xyz":
            return None
        with opening(self.config.cache):
            self.config.cache.mkdir(parents=True, exist_ok=True)
        text = repr((self.config.inputs, to_dict(self.config.features), turned, shape.name))
        digest = hashlib.sha256(text.encode())
        digest.update(np.ascontiguousarray(shape.vertices).tobytes())
        return self.config.cache / f"descriptors-{digest.hexdigest()[:40]}.npy"


def _read(path: Path, rows: int) -> np.ndarray | None:
    try:
        values: np.ndarray = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        return None
    except Exception:  # a damaged file counts as absent: it can be computed again
        return None
    return (
        values if values.ndim == 2 and len(values) == rows and np.isfinite(values).all() else None
    )


def run_maps(
    config: MapsConfig,
    output: Path,
    progress: Callable[[int, str], None] = lambda done, text: None,
    device: str | None = None,
) -> MapsResult:
    """Train, or go on where the output folder's training stopped, and score.

    Args:
        config: the experiment.
        output: folder of ``last.pt``; it exists.
        progress: called with steps done and what is worked on.
        device: where networks run and are trained; None: the CPU. Maps are scored on the CPU.

    Raises:
        InputError: data that does not fit, or a ``last.pt`` of another experiment.
    """
    dataset = load_dataset(config.data.name, config.data.root, **config.data.options)
    store = ShapeStore(dataset, config.data.normalize, config.cache)
    if config.held_out:
        train, test = dataset.hold_out(config.data.train, config.held_out, 0)
    else:
        train, test = dataset.subset(config.data.train), dataset.subset(config.data.test)
    if config.shapes is not None:
        if config.shapes > len(train):
            raise InputError(f"shapes: {config.shapes}, but there are {len(train)} to train on")
        order = np.random.default_rng(config.seed).permutation(len(train))[: config.shapes]
        train = [train[k] for k in sorted(order)]
    pairs = _pairs(train)
    scored = _pairs(test)
    if config.pairs is not None and config.pairs < len(scored):
        chosen = np.random.default_rng(config.seed).permutation(len(scored))[: config.pairs]
        scored = [scored[k] for k in sorted(chosen)]
    for shape in (*train, *test):
        if (config.supervision == "landmarks" or shape in test) and store(
            shape
        ).data.correspondence is None:
            raise InputError(f"{shape.name}: it has no landmarks")
    inputs = Inputs(config, store, device)
    training = MapTraining(config, inputs, train, pairs, output / STATE)
    training.run(progress)
    return _scored(config, inputs, training, scored, lambda text: progress(config.steps, text))


@torch.no_grad()
def _scored(
    config: MapsConfig,
    inputs: Inputs,
    training: MapTraining,
    pairs: Sequence[tuple[Shape, Shape]],
    say: Say,
) -> MapsResult:
    """Errors of every snapshot, and the map of the first pair by the last one."""
    scorer, head = _Scorer(config, inputs, pairs, say), training.head
    records: list[dict[str, Any]] = []
    for step, weights in sorted(training.snapshots.items()):
        head.load_state_dict(weights)
        head.eval()
        for rotated in (False, True) if config.rotate and step == config.steps else (False,):
            title = f"step {step}{', turned' if rotated else ''}"
            for kind, error in scorer.errors(head, rotated, title).items():
                records.append(
                    {
                        "step": step,
                        "seconds": training.losses[step - 1]["seconds"],
                        "rotated": rotated,
                        "map": kind,
                        "error": error,
                    }
                )
    a, b = pairs[0]
    rows = torch.arange(len(scorer.meshes[b.name].vertices))
    found = scorer.maps(head, scorer.features(head, False), a, b, rows)
    picture = (scorer.meshes[a.name], scorer.meshes[b.name], list(found.values())[-1].numpy())
    names = [(x.name, y.name) for x, y in pairs]
    return MapsResult(config, records, training.losses, names, picture)


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
        self.step, self.losses = 0, []  # type: ignore[var-annotated]
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
        try:
            self.head.load_state_dict(state["head"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.losses = state["step"], state["losses"]
            self.snapshots = state["snapshots"]
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{self.path}: does not fit the training ({reason})") from error


# What may differ between a training and its continuation: it says how scores are taken, or where things lie.
_FREE = ("pairs", "points", "zoomout", "rotate", "cache", "output", "save_every")


def _rate(done: float) -> float:
    """Of the highest rate: a tenth of the steps up from 4 %, then down along a cosine."""
    if done < 0.1:
        return 0.04 + 0.96 * done / 0.1
    return 0.5 * (1 + float(np.cos(np.pi * (done - 0.1) / 0.9)))


def _pairs(shapes: Sequence[Shape]) -> list[tuple[Shape, Shape]]:
    """All unordered pairs whose landmarks correspond."""
    found = [(a, b) for a, b in itertools.combinations(shapes, 2) if a.template == b.template]
    if not found:
        raise InputError("no two shapes correspond; expected two or more of one template")
    return found


def _by_area(basis: LaplaceBasis, count: int, rng: np.random.Generator) -> Tensor:
    share = basis.mass.double().cpu().numpy()
    count = min(count, int((share > 0).sum()))
    return torch.from_numpy(rng.choice(len(share), count, replace=False, p=share / share.sum()))


class _Scorer:
    """Errors of maps from the second shape of each pair to the first."""

    def __init__(
        self, config: MapsConfig, inputs: Inputs, pairs: Sequence[tuple[Shape, Shape]], say: Say
    ):
        self.config, self.inputs, self.pairs, self.say = config, inputs, list(pairs), say
        self.shapes = {shape.name: shape for pair in pairs for shape in pair}
        self.meshes = {name: inputs.store(shape) for name, shape in self.shapes.items()}
        landmarks = {name: mesh.data.correspondence for name, mesh in self.meshes.items()}
        count = len(next(iter(landmarks.values())))
        chosen = np.sort(np.random.default_rng(0).permutation(count)[: config.points])
        self.landmarks = {name: rows[chosen] for name, rows in landmarks.items()}
        self.samples = {
            name: torch.from_numpy(spread_samples(mesh.vertices, _SAMPLES * config.zoomout))
            for name, mesh in self.meshes.items()
            if config.zoomout
        }
        self._distances: dict[str, np.ndarray] = {}

    def features(self, head: FunctionalMapHead, rotated: bool) -> dict[str, Tensor]:
        """What the head makes of every shape."""
        return {
            name: head(
                self.inputs.descriptors(shape, rotated),
                self.inputs.basis(shape).truncate(self.config.head.eigenpairs),
            )
            for name, shape in self.shapes.items()
        }

    def errors(self, head: FunctionalMapHead, rotated: bool, title: str) -> dict[str, float]:
        """Mean error by kind of map."""
        features = self.features(head, rotated)
        errors: dict[str, list[np.ndarray]] = {}
        for number, (a, b) in enumerate(self.pairs):
            self.say(f"{title}: pair {number + 1} of {len(self.pairs)}")
            mesh, true = self.meshes[a.name], self.landmarks[a.name]
            rows = torch.from_numpy(self.landmarks[b.name])
            for kind, points in self.maps(head, features, a, b, rows).items():
                errors.setdefault(kind, []).append(
                    correspondence_error(
                        mesh.vertices, mesh.faces, points.numpy(), true, self._along(a.name)
                    )
                )
        return {kind: float(np.concatenate(values).mean()) for kind, values in errors.items()}

    def maps(
        self,
        head: FunctionalMapHead,
        features: dict[str, Tensor],
        a: Shape,
        b: Shape,
        rows: Tensor,
    ) -> dict[str, Tensor]:
        """For rows of b, vertices of a, by kind of map. Shape: (R,) -> (R,) each."""
        first, second = self.inputs.basis(a), self.inputs.basis(b)
        of_a, of_b = features[a.name], features[b.name]
        matrix = head.functional_map(of_a, first, of_b, second)
        found = {
            "nearest": (of_b[rows] @ of_a.T).argmax(1),
            "functional": points_from_map(matrix, first, _restricted(second, rows)),
        }
        if self.config.zoomout:
            sampled = self.samples[b.name]
            used = torch.unique(torch.cat([rows, sampled]))  # no others are mapped in the end
            pair = self.samples[a.name], torch.searchsorted(used, sampled)
            refined = zoomout(
                matrix, first, _restricted(second, used), self.config.zoomout, _STEP, pair
            )[1]
            found["refined"] = refined[torch.searchsorted(used, rows)]
        return found

    def _along(self, name: str) -> np.ndarray:
        if name not in self._distances:
            mesh = self.meshes[name]
            self._distances[name] = geodesic_distances(
                mesh.vertices, mesh.faces, self.landmarks[name]
            ).astype(np.float32)
        return self._distances[name]


def _restricted(basis: LaplaceBasis, rows: Tensor) -> LaplaceBasis:
    """Some vertices of a basis, to be mapped alone: its gradients remain those of the whole."""
    return replace(basis, eigenvectors=basis.eigenvectors[rows], mass=basis.mass[rows])
