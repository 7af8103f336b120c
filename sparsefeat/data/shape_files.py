"""What the loaders of shapes share: meshes beside ``corres/*.vts``, label files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from sparsefeat.data.layouts import contents, natural
from sparsefeat.data.shapes import Shape, ShapeData
from sparsefeat.errors import InputError
from sparsefeat.io.meshes import MESH_SUFFIXES, read_mesh
from sparsefeat.io.text import read_text


def list_meshes(folder: Path, suffixes: Sequence[str] = MESH_SUFFIXES) -> list[Path]:
    """Mesh files of a folder, in natural order of their names. Hidden files are none.

    Raises:
        InputError: two files differ in their suffix only: which of them is the shape?
    """
    found = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and path.is_file() and not path.name.startswith(".")
    ]
    found.sort(key=lambda path: natural(path.name))
    seen: dict[str, Path] = {}
    for path in found:
        if path.stem in seen:
            raise InputError(
                f"{path}: there is also {seen[path.stem].name}, which of the two is the shape?"
            )
        seen[path.stem] = path
    return found


def find_meshes(
    root: Path, folders: Sequence[str], what: str, suffixes: Sequence[str] = MESH_SUFFIXES
):
    """The meshes in the first of several folders that has any.

    Args:
        root: the data set's folder.
        folders: names in it that are tried; "." is ``root`` itself.
        what: pattern of the meshes' names, for the message.

    Returns:
        The folder, and its meshes in natural order.

    Raises:
        InputError: none has a mesh.
    """
    for name in folders:
        folder = root / name
        if folder.is_dir():
            meshes = list_meshes(folder, suffixes)
            if meshes:
                return folder, meshes
    places = " or ".join("here" if name == "." else f"in {name}/" for name in folders)
    raise InputError(f"{root}: no mesh {what} {places}; {contents(root)}")


def class_folders(root: Path, what: str) -> list[Path]:
    """The sub-folders of ``root`` that have meshes, by name.

    Raises:
        InputError: there is none; ``what`` was expected.
    """
    folders = mesh_folders(root)
    if not folders:
        raise InputError(f"{root}: no {what}; {contents(root)}")
    return folders


def mesh_folders(root: Path) -> list[Path]:
    """The sub-folders of ``root`` that have meshes, by name; perhaps none. Hidden folders are left out."""
    return [
        path
        for path in sorted(root.iterdir(), key=lambda path: natural(path.name))
        if path.is_dir() and not path.name.startswith(".") and list_meshes(path)
    ]


def require_files(paths: Iterable[Path], root: Path, what: str) -> None:
    """InputError if some of the files are not there: how many, and which come first."""
    missing = [str(path.relative_to(root)) for path in paths if not path.is_file()]
    if missing:
        more = ", ..." if len(missing) > 3 else ""
        raise InputError(
            f"{root}: {len(missing)} {what} missing ({', '.join(missing[:3])}{more}); {contents(root)}"
        )


def read_names(path: Path) -> list[str]:
    """Names, one a line; blank lines are skipped. Raises InputError if there is none."""
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not names:
        raise InputError(f"{path}: empty, expected one name a line")
    return names


def numbered_lines(path: Path, what: str) -> list[str]:
    """The lines of a file in which the number of a line says whose it is, such as names of parts.

    Args:
        path: the file.
        what: what line n says of thing n, from 0, for the message.

    Raises:
        InputError: an empty line before the last one, which would shift those after it.
    """
    lines = [line.strip() for line in read_text(path).rstrip().splitlines()]
    if "" in lines:
        number = lines.index("")
        raise InputError(f"{path}, line {number + 1}: empty, expected {what} {number}")
    return lines


def read_integers(path: Path) -> np.ndarray:
    """Whole numbers, one a line or several. Shape: (K,) int64.

    Raises:
        InputError: something that is no whole number, with its line.
    """
    text = read_text(path)
    try:
        values = np.array(text.split(), dtype=np.float64)
        if (
            "_" not in text
            and (np.abs(values) < 2**53).all()
            and np.array_equal(values, np.rint(values))
        ):
            return values.astype(np.int64)
    except ValueError:
        pass  # the line is found below
    for number, line in enumerate(text.splitlines(), 1):
        for word in line.split():
            if not re.fullmatch(r"[-+]?[0-9]{1,15}(\.0*)?", word):
                raise InputError(
                    f"{path}, line {number}: expected a whole number, got {word[:40]!r}"
                )
    raise InputError(f"{path}: expected whole numbers, one a line")


def read_landmarks(path: Path) -> np.ndarray:
    """A ``.vts`` or ``.map`` file: 1-based vertices, from 0 here. Shape: (L,) int64.

    Raises:
        InputError: empty, not numbers, a number below 1, or an empty line between others.
    """
    numbered_lines(path, "the vertex of landmark")
    numbers = read_integers(path)
    if len(numbers) == 0:
        raise InputError(f"{path}: empty, expected one vertex a line, from 1")
    if numbers.min() < 1:
        line = int(np.argmin(numbers)) + 1
        raise InputError(f"{path}, line {line}: vertex {numbers.min()}, expected numbers from 1")
    return numbers - 1


def read_pairs(path: Path, names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """A list of pairs of shapes, two names a line, as rows of ``names``.

    Raises:
        InputError: a line without two names, or a name that is not among ``names``.
    """
    rows = {name: row for row, name in enumerate(names)}
    pairs = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        unknown = [word for word in words if word not in rows]
        if len(words) != 2 or unknown:
            got = f"{unknown[0][:60]!r}, which is no shape here" if unknown else repr(line[:60])
            raise InputError(f"{path}, line {number}: expected the names of two shapes, got {got}")
        pairs.append((rows[words[0]], rows[words[1]]))
    return tuple(pairs)


def mesh_loader(
    path: Path,
    *,
    vertex_labels: Path | None = None,
    face_labels: Path | None = None,
    labels: Path | None = None,
    landmarks: Path | None = None,
    one_connectivity: bool = False,
    label_offset: int = 0,
    parts: int | None = None,
) -> Callable[[], ShapeData]:
    """A function that reads a mesh and its files.

    Args:
        path: the mesh.
        vertex_labels: one part a vertex.
        face_labels: one part a face.
        labels: one part a vertex or a face: their number says which.
        landmarks: 1-based vertices.
        one_connectivity: vertex k is the same point of the body in all shapes: landmarks are the vertices.
        label_offset: added to every label, so that they count from 0.
        parts: labels are below this; None: any from 0, or -1 for unknown.
    """

    def read_labels(file: Path | None) -> np.ndarray | None:
        if file is None:
            return None
        found = read_integers(file)
        if parts is not None and len(found):
            # Files that count from 0 have -1 where the part is unknown.
            low, high = -label_offset or -1, parts - 1 - label_offset
            wrong = np.flatnonzero((found < low) | (found > high))
            if len(wrong):
                raise InputError(
                    f"{file}: label {found[wrong[0]]} (number {wrong[0] + 1}), expected {low} to {high}"
                )
        return found + label_offset

    def load() -> ShapeData:
        mesh = read_mesh(path)
        per_vertex, per_face = vertex_labels, face_labels
        if labels is not None:
            count, sizes = len(read_integers(labels)), (len(mesh.vertices), len(mesh.faces))
            if sizes[0] == sizes[1] == count:
                raise InputError(
                    f"{labels}: {path.name} has as many vertices as faces ({count}); name the file "
                    f"{path.stem}.vlabels.txt or {path.stem}.flabels.txt, beside the mesh"
                )
            if count not in sizes:
                raise InputError(
                    f"{labels}: {count} labels, but {path} has {sizes[0]} vertices and {sizes[1]} faces"
                )
            per_vertex, per_face = (labels, None) if count == sizes[0] else (None, labels)
        files = [file for file in (per_vertex, per_face, landmarks) if file is not None]
        try:
            return ShapeData(
                mesh.vertices,
                mesh.faces,
                read_labels(per_vertex),
                read_labels(per_face),
                np.arange(len(mesh.vertices))
                if one_connectivity
                else (None if landmarks is None else read_landmarks(landmarks)),
            )
        except ValueError as error:
            # A file's own error names it; what is left is that files do not fit each other.
            if any(str(file) in str(error) for file in files):
                raise
            raise InputError(f"{', '.join(map(str, files))} with {path}: {error}") from error

    return load


def remeshed_shapes(
    root: Path,
    meshes_in: Sequence[str],
    what: str,
    labels_in: str | None = None,
    parts: int | None = None,
    **attributes: Callable,
) -> list[Shape]:
    """Shapes in the layout of the remeshed sets: ``<name>.off``, and ``corres/<name>.vts`` for every one.

    ``corres`` stands beside the meshes or beside their folder; its ``*.sym.vts`` (the mirrored body) and
    ``*sampleID*`` are something else and are left alone.

    Args:
        root: the data set's folder.
        meshes_in: names of folders that are tried for the meshes; "." is ``root`` itself.
        what: pattern of the meshes' names, for messages.
        labels_in: name of a folder of vertex labels beside ``corres``; used if it is there.
        parts: number of different labels.
        attributes: function name -> value for further fields of `Shape` (``template``, ...).

    Raises:
        InputError: no mesh, no ``corres``, or a mesh without its ``.vts`` or its labels.
    """
    folder, meshes = find_meshes(root, meshes_in, what, (".off", ".ply", ".obj"))
    places = [folder / "corres", root / "corres"]
    corres = next((place for place in places if place.is_dir()), None)
    if corres is None:
        raise InputError(
            f"{root}: no folder corres/ with <name>.vts in {folder} or {root}; {contents(folder)}"
        )
    landmarks = {mesh.stem: corres / f"{mesh.stem}.vts" for mesh in meshes}
    require_files(landmarks.values(), root, "files of correspondence (.vts)")
    labels: dict[str, Path] = {}
    if labels_in is not None and (corres.parent / labels_in).is_dir():
        labels = {mesh.stem: corres.parent / labels_in / f"{mesh.stem}.txt" for mesh in meshes}
        require_files(labels.values(), root, "label files")
    return [
        Shape(
            mesh.stem,
            mesh,
            mesh_loader(
                mesh,
                vertex_labels=labels.get(mesh.stem),
                landmarks=landmarks[mesh.stem],
                parts=parts,
            ),
            **{key: function(mesh.stem) for key, function in attributes.items()},
        )
        for mesh in meshes
    ]


def numbered(
    shapes: Sequence[Shape], pattern: str, expected: Iterable[int], root: Path
) -> dict[int, int]:
    """Number in the name of each shape -> its row.

    Args:
        shapes: of the data set.
        pattern: regular expression whose group 1 is the number.
        expected: the numbers that have to be there.
        root: begins the message.

    Raises:
        InputError: a name of another form, or a number that is expected is not there.
    """
    rows: dict[int, int] = {}
    for row, shape in enumerate(shapes):
        match = re.fullmatch(pattern, shape.name)
        if not match:
            raise InputError(
                f"{root}: shape {shape.name!r} does not have a name of the form {pattern}"
            )
        rows[int(match[1])] = row
    missing = sorted(set(expected) - set(rows))
    if missing:
        more = ", ..." if len(missing) > 5 else ""
        raise InputError(
            f"{root}: {len(missing)} shapes missing, of numbers {', '.join(map(str, missing[:5]))}{more}; "
            f"there are {len(rows)}"
        )
    return rows
