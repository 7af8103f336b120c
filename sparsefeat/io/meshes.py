"""Triangle meshes from files, checked: what cannot be used is refused, what is repaired is said."""

from __future__ import annotations

import io
import json
import os
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from sparsefeat.checks import as_array
from sparsefeat.errors import InputError, opening
from sparsefeat.extras import import_extra
from sparsefeat.io import obj, off, ply, polygons, stl
from sparsefeat.io.arrays import Npz
from sparsefeat.io.damage import parsing
from sparsefeat.io.polygons import Geometry

# The names under which an npz has its arrays, in the order in which they are looked for.
VERTEX_KEYS = ("vertices", "verts", "points")
FACE_KEYS = ("faces", "triangles")

_JSON = 0x4E4F534A  # the type of a glb's first chunk


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh; vertex i is vertex i of the file.

    Attributes:
        vertices: (N, 3) float64, in the file's unit, all finite.
        faces: (F, 3) int64, F > 0, all within [0, N).
        repairs: what differs from the file, such as polygons that were cut into triangles.
        notes: what is odd and was left as it is, such as faces without area, so that the vertices and faces
            still fit labels that come with the file.
        path: the file, or None.
    """

    vertices: np.ndarray
    faces: np.ndarray
    repairs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    path: Path | None = None

    def __repr__(self) -> str:
        name = f"{self.path}: " if self.path else ""
        return f"Mesh({name}{len(self.vertices)} vertices, {len(self.faces)} faces)"


def read_mesh(path: str | os.PathLike) -> Mesh:
    """Read a mesh from ply, off, obj, stl, glb or npz.

    Vertices keep the order of the file and none is merged or dropped, so that labels per vertex fit.
    An exception is stl, which has no shared vertices: exactly equal ones become one there. Polygons are cut
    into fans of triangles. Of a glb, all parts are joined, at the places where its scene has them.

    Args:
        path: the file; its suffix (in any case) says how it is read. An npz has ``vertices`` (N, 3) and
            ``faces`` (F, 3).

    Raises:
        InputError: the file is missing, of an unknown kind, cut off or malformed; it has no vertices or no
            faces (a point cloud), NaN or infinite coordinates, or a face that names a vertex that is not
            there.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected a file ({', '.join(MESH_SUFFIXES)})")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(MESH_SUFFIXES)
        raise InputError(f"{path}: unknown suffix {path.suffix!r}, expected one of {known}")
    try:
        vertices, faces, repairs = reader(path)
        vertices, faces = check_mesh(vertices, faces, str(path))
        return Mesh(
            vertices, faces, tuple(repairs), tuple(describe_oddities(vertices, faces)), path
        )
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except MemoryError as error:
        raise InputError(
            f"{path}: its {path.stat().st_size} bytes do not fit into memory as a mesh"
        ) from error


def has_faces(path: str | os.PathLike) -> bool:
    """Whether a file holds a mesh, and not points alone: some formats may hold either. False if there is no file.

    Raises:
        InputError: the file is malformed, or cannot be read.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in (".stl", ".glb"):
        return True
    if suffix not in _READERS or not path.is_file():
        return False
    with opening(path):
        if suffix == ".ply":
            return ply.has_faces(path)
        if suffix == ".npz":
            with Npz(path) as archive:
                return any(key in archive and archive[key].size > 0 for key in FACE_KEYS)
        return len({".off": off.read, ".obj": obj.read}[suffix](path, True).counts) > 0


def check_mesh(
    vertices: np.ndarray, faces: np.ndarray, where: str = "mesh"
) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices (N, 3) float64 and faces (F, 3) int64, or say why they are no mesh.

    Args:
        vertices: numbers. Shape: (N, 3)
        faces: whole numbers in [0, N). Shape: (F, 3)
        where: begins the messages.

    Raises:
        InputError: wrong shapes or types, nothing in them, a vertex that is not finite, or an index that is
            out of range.
    """
    vertices, faces = as_array(vertices, f"{where}: vertices"), as_array(faces, f"{where}: faces")
    if vertices.ndim != 2 or vertices.shape[1] != 3 or vertices.dtype.kind not in "fiu":
        found = f"{vertices.shape} of {vertices.dtype}"
        raise InputError(f"{where}: vertices are {found}, expected (N, 3) numbers")
    if len(vertices) == 0:
        raise InputError(f"{where}: no vertices, expected a triangle mesh")
    if faces.size == 0:
        raise InputError(
            f"{where}: no faces, expected a triangle mesh (a point cloud has no surface)"
        )
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype.kind not in "iu":
        raise InputError(
            f"{where}: faces are {faces.shape} of {faces.dtype}, expected (F, 3) whole numbers"
        )
    vertices = np.ascontiguousarray(vertices, dtype=np.float64)
    finite = np.isfinite(vertices)
    if not finite.all():
        finite = finite.all(1)
        bad = len(vertices) - int(finite.sum())
        raise InputError(
            f"{where}: {bad} of {len(vertices)} vertices have a NaN or infinite coordinate, first vertex "
            f"{int(np.argmin(finite))} (from 0)"
        )
    # Compared before the conversion, which would wrap large unsigned numbers.
    if faces.min() < 0 or faces.max() >= len(vertices):
        outside = ((faces < 0) | (faces >= len(vertices))).any(1)
        row = int(np.argmax(outside))
        raise InputError(
            f"{where}: {int(outside.sum())} of {len(faces)} faces name a vertex that is not there, first "
            f"face {row} (from 0) with {faces[row].tolist()}, expected 0 to {len(vertices) - 1}"
        )
    return vertices, np.ascontiguousarray(faces, dtype=np.int64)


def describe_oddities(vertices: np.ndarray, faces: np.ndarray) -> list[str]:
    """Say what is unusual about a mesh that can be used all the same.

    Args:
        vertices: Shape (N, 3).
        faces: Shape (F, 3).

    Returns:
        Lines on faces without area, vertices in no face, several components, edges of more than two faces.
    """
    notes = []
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        flat = ~np.cross(b - a, c - a).any(1)
    if flat.any():
        notes.append(f"{_count(flat.sum(), 'face')} without area, kept")
    used = np.zeros(len(vertices), dtype=bool)
    used[faces] = True
    if not used.all():
        notes.append(f"{_count((~used).sum(), 'vertex', 'vertices')} in no face, kept")
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    graph = coo_matrix((np.ones(len(edges), dtype=bool), edges.T), shape=(len(vertices),) * 2)
    parts = connected_components(graph, directed=False)[1]
    components = len(np.unique(parts[used]))
    if components > 1:
        notes.append(f"{components} components that share no vertex")
    edges = np.sort(edges[edges[:, 0] != edges[:, 1]], axis=1)
    uses = np.unique(edges[:, 0] * len(vertices) + edges[:, 1], return_counts=True)[1]
    if (uses > 2).any():
        notes.append(f"{_count((uses > 2).sum(), 'edge')} of more than two faces (non-manifold)")
    return notes


def _polygons(reader: Callable[[Path, bool], Geometry]) -> Callable[[Path], tuple]:
    """A reader of meshes that hands over polygons as triangles."""

    def read(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
        points, _, corners, counts, repairs, _ = reader(path, True)
        faces = polygons.triangles(corners, counts)
        many = int((counts > 3).sum())
        if not many:
            return points, faces, list(repairs)
        pieces = len(faces) - len(counts) + many
        return points, faces, [*repairs, f"{_count(many, 'polygon')} cut into {pieces} triangles"]

    return read


def _read_stl(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    corners = stl.read(path).reshape(-1, 3) + 0.0  # -0 is 0, as it should be below
    # In the order of their first appearance, so that nearby vertices stay near each other.
    _, first, inverse = np.unique(corners, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    vertices = corners[first[order]]
    faces = rank[inverse.reshape(-1)].reshape(-1, 3)
    return (
        vertices,
        faces,
        [f"{len(corners)} corners of triangles welded to {len(vertices)} vertices"],
    )


def _read_glb(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    trimesh = import_extra("trimesh", f"{path}: reading glb")

    scene, left_out = _load_glb(path)
    vertices, faces, total, moved = [], [], 0, 0
    for name in sorted(scene.graph.nodes_geometry, key=lambda name: name[:9]):
        transform, geometry = scene.graph[name]
        part = scene.geometry[geometry]
        if not isinstance(part, trimesh.Trimesh):
            continue
        points = np.asarray(part.vertices, dtype=np.float64)
        if not np.array_equal(transform, np.eye(4)):
            points = points @ transform[:3, :3].T + transform[:3, 3]
            moved += 1
        part_faces = np.asarray(part.faces)
        if np.linalg.det(transform[:3, :3]) < 0:
            # A mirror turns triangles over (glTF 2.0, 3.7.4).
            part_faces = part_faces[:, ::-1]
        vertices.append(points)
        faces.append(part_faces + total)
        total += len(points)
    repairs = []
    if len(vertices) > 1:
        repairs.append(f"{len(vertices)} parts joined")
    if moved:
        repairs.append(f"{_count(moved, 'part')} moved to where the scene has it")
    if not vertices:
        return np.empty((0, 3)), np.empty((0, 3), dtype=np.int64), []
    return np.concatenate(vertices), np.concatenate(faces), [*repairs, *left_out]


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    with Npz(path) as archive:
        return archive.first(VERTEX_KEYS, ""), archive.first(FACE_KEYS, ""), []


def _load_glb(path: Path) -> tuple[Any, list[str]]:
    """The scene, its nodes named by their numbers, and what of it is left out."""
    # Here, since it takes a moment and most of the package does without.
    trimesh = import_extra("trimesh", f"{path}: reading glb")

    content, binary = _glb_chunks(path)
    with parsing(path, "a complete glb mesh"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        modes = [p.get("mode", 4) for m in content.get("meshes", []) for p in m["primitives"]]
        if not {*modes} <= {*range(6)}:
            raise InputError(
                f"{path}: triangle fans (primitives of mode {max(modes)}), expected triangles or strips"
            )
        thin = sum(mode < 4 for mode in modes)
        for number, node in enumerate(content.get("nodes", [])):
            # trimesh walks the scene from its end; by these names the parts come in the file's order.
            node["name"] = f"{number:09}"
        header = json.dumps(content).encode()
        header += b" " * (-len(header) % 4)
        total = 20 + len(header) + len(binary)
        data = struct.pack("<4sIIII", b"glTF", 2, total, len(header), _JSON) + header + binary
        # process=False: it would merge, drop and reorder vertices. Pictures of materials are not decoded.
        scene = trimesh.load(
            io.BytesIO(data),
            file_type="glb",
            resolver=trimesh.resolvers.FilePathResolver(str(path)),
            process=False,
            skip_materials=True,
        )
    left_out = [f"{_count(thin, 'primitive')} of points or lines left out"] if thin else []
    return scene, left_out


def _glb_chunks(path: Path) -> tuple[dict[str, Any], bytes]:
    """The content of a glb and what follows it; refused if it promises more than the file has, or its arrays do."""
    data = path.read_bytes()
    size = len(data)
    if size < 20 or data[:4] != b"glTF":
        raise InputError(f"{path}: not a glb mesh, it begins with {data[:4]!r}")
    total, length = struct.unpack_from("<II", data, 8)
    if total > size or length > size - 20:
        raise InputError(
            f"{path}: cut off, {max(total, 20 + length)} bytes promised, {size} are there"
        )
    with parsing(path, "a complete glb mesh"):
        content = json.loads(data[20 : 20 + length])
        for accessor in content.get("accessors", []):
            if not 0 <= accessor["count"] <= size:
                raise InputError(f"an array of {str(accessor['count'])[:40]} items in {size} bytes")
    return content, data[20 + length :]


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{int(number)} {one if number == 1 else many or one + 's'}"


_READERS: dict[str, Callable[[Path], tuple[np.ndarray, np.ndarray, list[str]]]] = {
    ".ply": _polygons(ply.read),
    ".off": _polygons(off.read),
    ".obj": _polygons(obj.read),
    ".stl": _read_stl,
    ".glb": _read_glb,
    ".npz": _read_npz,
}

MESH_SUFFIXES = tuple(_READERS)
"""The suffixes that :func:`read_mesh` knows, in lower case."""
