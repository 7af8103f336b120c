"""Creatures as a data set on disk, in the layout that `sparsefeat.data.folder` reads."""

from __future__ import annotations

import colorsys
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from sparsefeat.data.folder import INDIVIDUALS, PART_NAMES_FILE, SPLITS, TEMPLATES
from sparsefeat.errors import InputError, opening, opens_path
from sparsefeat.io import yaml12
from sparsefeat.synthetic.creatures.body import turn
from sparsefeat.synthetic.creatures.creature import Creature, make_creature
from sparsefeat.synthetic.creatures.families import FAMILIES, PART_NAMES, landmarks
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
        count: shapes of each class.
        poses: of each individual.
        families: some of ``FAMILIES``.
        vertices: of a shape, about.
        landmark_count: of a family, about.
        workers: number of processes.
        progress: called with (shapes done, all shapes).

    Returns:
        The output folder.

    Raises:
        InputError: a number out of range, an unknown family, or something is at ``output``.
    """
    output = Path(output)
    limits = {"seed": (seed, 0), "count": (count, 1), "poses": (poses, 1), "vertices": (vertices, 2500)}
    limits |= {"landmark_count": (landmark_count, 2500), "workers": (workers, 1)}
    for name, (value, least) in limits.items():
        if value < least:
            raise InputError(f"{name}: got {value}, expected {least} or more")
    unknown = next((name for name in families if name not in FAMILIES), None)
    if unknown is not None or not families:
        raise InputError(f"families: got {unknown or 'none'!r}, expected some of {', '.join(FAMILIES)}")
    with opening(output):
        occupied = output.exists() and (not output.is_dir() or any(output.iterdir()))
    if occupied:
        raise InputError(f"{output}: there is something already, expected a new or an empty folder")
    tasks = _tasks(seed, count, poses, families, vertices, landmark_count)
    with opening(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
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
        _write_lists(partial, tasks, families, landmark_count, settings)
        contact_sheet([shown[k] for k in sorted(shown)], partial / CONTACT_SHEET)
        with opening(output):
            os.chmod(partial, 0o755)
            os.replace(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return output


def contact_sheet(creatures: Iterable[Creature], path: str | os.PathLike) -> None:
    """Draw creatures, coloured by part, into a PNG. The two sides of a body differ a little in colour."""
    creatures = list(creatures)
    palette = part_colors(PART_NAMES)
    render_meshes(
        [(c.vertices @ turn(z=_TURNED.get(c.family, 0)).T, c.faces, palette[c.parts]) for c in creatures],
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


def _tasks(seed: int, count: int, poses: int, families, vertices: int, landmark_count: int) -> list[tuple]:
    """(name, individual, arguments of `make_creature`) of every shape."""
    tasks = []
    for family, group in FAMILIES.items():
        if family not in families:
            continue
        for kind, known in group.classes.items():
            key = [seed, *kind.encode()]
            for k in range(count):
                who, nth = divmod(k, poses)
                # All poses of the class come up before one does twice.
                order = np.random.default_rng([*key, 0, k // len(known)]).permutation(len(known))
                pose = known[order[k % len(known)]]
                name = f"{kind}_{who:03d}_{nth}_{pose}"
                individual = np.random.SeedSequence([*key, 1, who])
                occasion = np.random.SeedSequence([*key, 2, who, nth])
                tasks.append((name, who, family, kind, pose, individual, occasion, vertices, landmark_count))
    return tasks


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
def _write_lists(root: Path, tasks: list[tuple], families, landmark_count: int, settings: dict) -> None:
    splits: dict[str, list[str]] = {"train": [], "test": []}
    individuals: dict[str, list[str]] = {}
    people: dict[str, int] = {}
    for _, who, _, kind, *_ in tasks:
        people[kind] = max(people.get(kind, 0), who + 1)
    for name, who, _, kind, *_ in tasks:
        held = max(1, round(people[kind] / 4)) if people[kind] > 1 else 0
        splits["test" if who >= people[kind] - held else "train"].append(f"{kind}/{name}")
        individuals.setdefault(f"{kind}_{who:03d}", []).append(f"{kind}/{name}")
    templates = {family: list(FAMILIES[family].classes) for family in FAMILIES if family in families}
    lists = {
        SPLITS: {split: names for split, names in splits.items() if names},
        INDIVIDUALS: individuals,
        TEMPLATES: templates,
        SETTINGS: settings,
    }
    for file, value in lists.items():
        (root / file).write_text(yaml12.dump(value), encoding="utf-8")
    (root / PART_NAMES_FILE).write_text("".join(name + "\n" for name in PART_NAMES), encoding="utf-8")
    for family in templates:
        places, _, faces = landmarks(family, landmark_count)
        (root / "templates" / family).mkdir(parents=True)
        write_off(root / "templates" / family / "template.off", places, faces)


def write_off(path: Path, vertices: np.ndarray, faces: np.ndarray) -> None:
    """Write a mesh as OFF, coordinates to a millionth of the unit."""
    with open(path, "w", encoding="ascii") as file:
        file.write(f"OFF\n{len(vertices)} {len(faces)} 0\n")
        np.savetxt(file, vertices, fmt="%.6f")
        np.savetxt(file, np.insert(faces, 0, 3, axis=1), fmt="%d")
