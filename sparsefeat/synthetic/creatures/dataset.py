"""Creatures as a data set on disk, in the layout that `sparsefeat.data.folder` reads."""

from __future__ import annotations

import colorsys
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from sparsefeat.checks import checked_count
from sparsefeat.errors import InputError, opening, opens_path
from sparsefeat.io import yaml12
from sparsefeat.io.atomic import atomic_folder, made_folder
from sparsefeat.io.lock import LOCK_NAME, locked
from sparsefeat.io.shape_folder import write_lists
from sparsefeat.synthetic.creatures.body import turn
from sparsefeat.synthetic.creatures.creature import Creature, make_creature
from sparsefeat.synthetic.creatures.families import FAMILIES, KINDS, PART_NAMES, VARIED, landmarks
from sparsefeat.synthetic.creatures.varied import POSES, SPECIES_MAKERS
from sparsefeat.synthetic.parallel import run_tasks
from sparsefeat.visualize.meshes import render_meshes
from sparsefeat.visualize.raster import View

CONTACT_SHEET = "creatures.png"
SETTINGS = "settings.yaml"
_SHOWN = 48
# Animals are best known from the side. Degrees.
_TURNED = {"quadruped": -25.0}


def make_creatures(
    output: str | os.PathLike,
    seed: int,
    count: int = 12,
    poses: int = 4,
    families: Sequence[str] = tuple(FAMILIES),
    vertices: int = 5000,
    landmark_count: int = 3000,
    triangulations: int | None = None,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make creatures and write them as ``load_dataset("folder", output)`` reads them.

    ::

        <class>/<class>_<individual>_<pose>.off      meshes, each triangulated on its own
        <class>/labels/<name>.txt                    part of every vertex, from 0, see part_names.txt
        <class>/corres/<name>.vts                    vertex nearest to every landmark of the family, from 1
        <class>/template/<name>.npy                  (N, 3): point of the family's template that each vertex
                                                     is the image of: exact, dense correspondence
        <class>/landmarks/<name>.npy                 (L, 3): where the landmarks themselves are
        templates/<family>/template.off              landmarks of the family, as a mesh
        templates.yaml                               classes that share a family's landmarks
        part_names.txt, splits.yaml, individuals.yaml, settings.yaml, creatures.png

    Individuals, not shapes, are divided: a quarter of each class's, at least one of two or more, are "test".
    The same arguments give the same bytes, whatever the number of workers. Nothing is at ``output`` before
    all is written.

    Args:
        output: folder; it must not exist, or be empty.
        seed: decides everything.
        count: shapes of each class; of a made-up kind (monster, molecule): of all its species together.
        poses: of each individual; of a made-up species: its individuals, in one pose each.
        families: some of ``KINDS``.
        vertices: of a shape, about.
        landmark_count: of a family, about.
        triangulations: shapes of a family share so many triangulations, which makes them three times faster; None:
            each has its own.
        workers: number of processes.
        progress: called with (shapes done, all shapes).

    Returns:
        The output folder.

    Raises:
        InputError: a number out of range, an unknown family, or something is at ``output``.
    """
    output = Path(output)
    limits = {
        "seed": (seed, 0),
        "count": (count, 1),
        "poses": (poses, 1),
        "vertices": (vertices, 2500),
    }
    limits |= {"landmark_count": (landmark_count, 2500), "workers": (workers, 1)}
    for name, (value, least) in limits.items():
        checked_count(value, name, least)
    if triangulations is not None:
        checked_count(triangulations, "triangulations")
    families = list(families) if isinstance(families, Iterable) else [families]
    unknown = [name for name in families if name not in KINDS]
    if unknown or not families:
        raise InputError(f"families: got {unknown or 'none'}, expected some of {', '.join(KINDS)}")
    tasks = _tasks(seed, count, poses, families, vertices, landmark_count, triangulations)
    lock = f".{output.name}{LOCK_NAME}"
    with made_folder(output.parent) as around, locked(around / lock, output):
        with opening(output):
            occupied = output.exists() and (not output.is_dir() or any(output.iterdir()))
        if occupied:
            raise InputError(
                f"{output}: there is something already, expected a new or an empty folder; delete it, or name another"
            )
        with atomic_folder(output) as partial:
            shown: dict[int, Creature] = {}
            step = max(1, -(-len(tasks) // _SHOWN))
            for done, (k, creature) in enumerate(run_tasks(_make, tasks, workers), 1):
                _write(partial, tasks[k], creature)
                if k % step == 0:
                    shown[k] = creature
                if progress is not None:
                    progress(done, len(tasks))
            settings = {"seed": seed, "count": count, "poses": poses, "families": list(families)}
            settings |= {"vertices": vertices, "landmark_count": landmark_count}
            if triangulations is not None:
                settings["triangulations"] = triangulations
            _write_lists(partial, tasks, families, landmark_count, settings)
            contact_sheet([shown[k] for k in sorted(shown)], partial / CONTACT_SHEET)
    return output


def contact_sheet(creatures: Iterable[Creature], path: str | os.PathLike) -> None:
    """Draw creatures, coloured by part, into a PNG. The two sides of a body differ a little in colour."""
    creatures = list(creatures)
    palette = part_colors(PART_NAMES)
    render_meshes(
        [
            (c.vertices @ turn(z=_TURNED.get(c.family, 0)).T, c.faces, palette[c.parts])
            for c in creatures
        ],
        path,
        titles=[f"{c.kind}: {c.pose}" for c in creatures],
        views=View(azimuth_deg=35.0, elevation_deg=12.0, up="z"),
        columns=min(8, len(creatures)),
        panel=(240, 240),
    )


def part_colors(names: Sequence[str]) -> np.ndarray:
    """A colour for each part, (K, 3) in [0, 1]; of a left and a right one the right is darker."""
    plain = [name.removeprefix("left ").removeprefix("right ") for name in names]
    kinds = list(dict.fromkeys(plain))
    colors = []
    for name, kind in zip(names, plain, strict=True):
        hue = (
            0.02 + 0.381966 * kinds.index(kind)
        ) % 1  # the golden angle: neighbours in the list differ most
        value = 0.78 if name.startswith("right ") else 0.95
        colors.append(colorsys.hsv_to_rgb(hue, 0.58, value))
    return np.array(colors)


def _tasks(
    seed: int,
    count: int,
    poses: int,
    families,
    vertices: int,
    landmark_count: int,
    triangulations: int | None,
) -> list[tuple]:
    """(name, individual, arguments of `make_creature`) of every shape."""
    tasks = []
    for kind in KINDS:
        if kind not in families:
            continue
        if kind in FAMILIES or kind in VARIED:
            group = (FAMILIES | VARIED)[kind]
            classes = [(kind, name, known, 0, count) for name, known in group.classes.items()]
        else:
            # Each species is a family and a class of its own; its individuals are shown in one pose each.
            names = [f"{kind}_{seed * 100_000 + k:06d}" for k in range(-(-count // poses))]
            classes = [
                (name, name, POSES, k, min(poses, count - k * poses))
                for k, name in enumerate(names)
            ]
        for family, kind_name, known, species, shapes in classes:
            key = [seed, *kind_name.encode()]
            for k in range(shapes):
                who, nth = divmod(k, 1 if family == kind_name and kind in SPECIES_MAKERS else poses)
                # All poses of the class come up before one does twice.
                order = np.random.default_rng([*key, 0, k // len(known)]).permutation(len(known))
                pose = known[order[k % len(known)]]
                name = f"{kind_name}_{who:03d}_{nth}_{pose}"
                individual = np.random.SeedSequence([*key, 1, who])
                occasion = np.random.SeedSequence([*key, 2, who, nth])
                shared = (
                    None
                    if triangulations is None
                    else shared_triangulation(len(tasks), species, triangulations)
                )
                arguments = (
                    family,
                    kind_name,
                    pose,
                    individual,
                    occasion,
                    vertices,
                    landmark_count,
                    shared,
                )
                tasks.append((name, who, *arguments))
    return tasks


def shared_triangulation(nth: int, species: int, count: int) -> int:
    """Which of the triangulations that the shapes of a family share is that of the nth shape: all come up."""
    # A step that has no divisor in common with their number comes to each of them.
    return (nth * (7 if count % 7 else 1) + species) % count


def _make(name: str, who: int, *arguments) -> Creature:
    return make_creature(*arguments)


@opens_path
def _write(root: Path, task: tuple, creature: Creature) -> None:
    name, folder = task[0], root / creature.kind
    for sub in ("labels", "corres", "template", "landmarks"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    write_off(folder / f"{name}.off", creature.vertices, creature.faces)
    np.savetxt(folder / "labels" / f"{name}.txt", creature.parts, fmt="%d")
    np.savetxt(folder / "corres" / f"{name}.vts", creature.landmarks + 1, fmt="%d")
    np.save(folder / "template" / f"{name}.npy", creature.template.astype(np.float32))
    np.save(folder / "landmarks" / f"{name}.npy", creature.landmark_places.astype(np.float32))


@opens_path
def _write_lists(
    root: Path, tasks: list[tuple], families, landmark_count: int, settings: dict
) -> None:
    splits: dict[str, list[str]] = {"train": [], "test": []}
    individuals: dict[str, list[str]] = {}
    # Of made-up species whole ones are held out, of others individuals.
    units: dict[str, list[tuple]] = {}
    for _, who, _, kind, *_ in tasks:
        of = units.setdefault(_group(kind), [])
        if _unit(kind, who) not in of:
            of.append(_unit(kind, who))
    held = {
        group: set(of[len(of) - max(1, round(len(of) / 4)) :] if len(of) > 1 else [])
        for group, of in units.items()
    }
    for name, who, _, kind, *_ in tasks:
        test = _unit(kind, who) in held[_group(kind)]
        splits["test" if test else "train"].append(f"{kind}/{name}")
        individuals.setdefault(f"{kind}_{who:03d}", []).append(f"{kind}/{name}")
    groups = FAMILIES | VARIED
    templates = {family: list(groups[family].classes) for family in groups if family in families}
    used = {split: names for split, names in splits.items() if names}
    write_lists(root, used, individuals, templates, PART_NAMES)
    (root / SETTINGS).write_text(yaml12.dump(settings), encoding="utf-8")
    for family in templates:
        places, _, faces = landmarks(family, landmark_count)
        (root / "templates" / family).mkdir(parents=True)
        write_off(root / "templates" / family / "template.off", places, faces)


def _group(kind: str) -> str:
    """A class, or of made-up species all of a kind."""
    made, _, number = kind.partition("_")
    return made if made in SPECIES_MAKERS and number.isdigit() else kind


def _unit(kind: str, who: int) -> tuple:
    """What is trained on or held out as a whole."""
    return (kind,) if _group(kind) != kind else (kind, who)


def write_off(path: Path, vertices: np.ndarray, faces: np.ndarray) -> None:
    """Write a mesh as OFF, coordinates to a millionth of the unit."""
    with open(path, "w", encoding="ascii") as file:
        file.write(f"OFF\n{len(vertices)} {len(faces)} 0\n")
        np.savetxt(file, vertices, fmt="%.6f")
        np.savetxt(file, np.insert(faces, 0, 3, axis=1), fmt="%d")
