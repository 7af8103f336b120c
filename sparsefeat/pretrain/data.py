"""From a configuration to the pairs that are trained and validated on."""

from __future__ import annotations

import filecmp
from collections.abc import Callable
from pathlib import Path

from torch.utils.data import DataLoader

from sparsefeat.data.threedmatch import FragmentPair, find_pairs, read_scene_list
from sparsefeat.errors import InputError, opening, warn
from sparsefeat.pretrain.config import DataConfig, PretrainConfig
from sparsefeat.pretrain.pairs import PairDataset, collate_pairs
from sparsefeat.pretrain.sampling import PairRequest, PairSampler, select_pairs
from sparsefeat.process.workers import end_with_parent
from sparsefeat.synthetic.rooms import is_room_name, make_rooms


def prepare_rooms(config: DataConfig, progress: Callable[[int, int], None] | None = None) -> None:
    """Make the synthetic rooms that ``config.rooms`` asks for, unless ``config.root`` holds them already.

    Raises:
        InputError: as :func:`sparsefeat.synthetic.make_rooms`.
    """
    if config.rooms is None:
        return
    make_rooms(
        config.root,
        seed=config.rooms.seed,
        rooms=config.rooms.rooms,
        fragments_per_room=config.rooms.fragments_per_room,
        layout="train",
        frames=config.rooms.frames,
        workers=config.rooms.workers,
        progress=progress,
    )


def load_pairs(
    config: DataConfig, seed: int
) -> tuple[list[FragmentPair], dict[str, list[FragmentPair]]]:
    """The training pairs, and the validation pairs by scene.

    Raises:
        InputError: a folder or a list is not as expected, or a scene is in both.
    """
    train = find_pairs(
        config.root, _scenes(config.root, config.scenes, "train"), config.min_overlap
    )
    for root in config.extra_roots:
        train += find_pairs(root, _scenes(root, None, "train"), config.min_overlap)
    if config.validation_pairs == 0:
        return train, {}
    scenes = held_out_pairs(
        config.validation_root or config.root,
        config.validation_scenes,
        config.min_overlap,
        config.validation_pairs,
        seed,
    )
    shared = [
        scene
        for scene, held_out in scenes.items()
        if _same_scene([pair for pair in train if pair.scene == scene], held_out)
    ]
    if shared:
        raise InputError(
            f"data: {', '.join(sorted(shared))} would be trained and validated on; set scenes and validation_scenes"
        )
    return train, scenes


def _same_scene(train: list[FragmentPair], held_out: list[FragmentPair]) -> bool:
    """Whether pairs of scenes of one name share a place.

    A scan's name says where it was taken. Synthetic rooms of two folders are only called alike, unless one folder is a
    copy of the other.
    """
    if not train or not is_room_name(held_out[0].scene):
        return bool(train)
    ours, theirs = (
        {path for pair in pairs for path in (pair.source, pair.target)}
        for pairs in (train, held_out)
    )
    if {path.parent.resolve() for path in ours} & {path.parent.resolve() for path in theirs}:
        return True
    copies = [(path, other) for path in ours for other in theirs if path.name == other.name]
    with opening(held_out[0].source):
        return any(filecmp.cmp(path, other, shallow=False) for path, other in copies)


def held_out_pairs(
    root: str, scenes: list[str] | None, min_overlap: float, limit: int, seed: int
) -> dict[str, list[FragmentPair]]:
    """Pairs to score on, by scene.

    Args:
        root: folder of the fragments.
        scenes: their scenes; None: those of ``<root>/val_*.txt``, or all where there is no such list.
        min_overlap: of a pair.
        limit: pairs in all.
        seed: of their choice.
    """
    pairs = find_pairs(root, _scenes(root, scenes, "val"), min_overlap)
    found: dict[str, list[FragmentPair]] = {}
    for pair in select_pairs(pairs, limit=limit, seed=seed):
        found.setdefault(pair.scene, []).append(pair)
    return found


def _scenes(root: str, named: list[str] | None, split: str) -> list[str] | None:
    """The scenes of a split: those named, else those of ``<root>/<split>_*.txt``, else None for all."""
    if named is not None:
        return named
    with opening(root):
        lists = sorted(Path(root).glob(f"{split}_*.txt"))
    return read_scene_list(lists[0]) if lists else None


class _Overfit(PairSampler):
    """The same batch, in the same pose, at every step."""

    def batch(self, step: int) -> list[PairRequest]:
        return [PairRequest(pair, pair, 0.0) for pair in range(min(self.batch_size, self.n_pairs))]


def make_loader(
    pairs: list[FragmentPair],
    config: PretrainConfig,
    start: int,
    stop: int,
    rank: int,
    world_size: int,
    angle: Callable[[int], float],
    overfit: bool,
) -> DataLoader:
    """Batches ``start`` to ``stop`` of the run, of this process; workers load, augment and search neighbours.

    Args:
        angle: largest rotation of a batch, degrees, from its number.
        overfit: always the first ``batch_size`` pairs, not augmented.
    """
    dataset = PairDataset(
        pairs,
        config.voxel_size,
        None if overfit else config.augment,
        max_voxels=config.max_voxels,
        positive_radius=config.loss.radius_voxels,
        average=config.voxel_points == "mean",
        cache_bytes=config.data.cache_bytes,
        oriented=config.model.oriented,
    )
    dataset.preload()
    if config.model.oriented and any(
        dataset.fragment.viewpoint(pair.source) is None for pair in pairs
    ):
        warn(
            f"{config.data.root}: fragments do not say where their sensor stood (a key 'viewpoint' in their npz); the side of "
            "their surface is estimated"
        )
    sampler_class = _Overfit if overfit else PairSampler
    sampler = sampler_class(
        len(pairs),
        config.batch_size,
        config.seed,
        start,
        stop,
        rank=rank,
        world_size=world_size,
        angle=angle,
    )
    workers = config.data.workers
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate_pairs,
        worker_init_fn=end_with_parent,
        persistent_workers=False,
        prefetch_factor=4 if workers else None,
    )
