"""Exact voxelisation of surfaces: the cells that a mesh touches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparsefeat.checks import as_array, checked_positive
from sparsefeat.errors import InputError
from sparsefeat.io.meshes import check_mesh
from sparsefeat.mesh.attributes import Pairs, areas_in_cells, nearest_triangles
from sparsefeat.mesh.columns import Runs, runs_in_columns, runs_in_rows
from sparsefeat.mesh.keys import Box, DistinctKeys
from sparsefeat.mesh.surface import Surface
from sparsefeat.mesh.touching import touches_closely

_MAX_COORDINATE = 2**31 - 1
# Triangles, columns of cells and pairs of a triangle and a cell at a time, by type of device: on the CPU such
# that what is worked on stays in the cache.
_TRIANGLES_AT_A_TIME = {"cpu": 1 << 15, "cuda": 1 << 20}
_COLUMNS_AT_A_TIME = {"cpu": 1 << 16, "cuda": 1 << 22}
_PAIRS_AT_A_TIME = {"cpu": 1 << 17, "cuda": 1 << 23}
# Half of what the process may keep of freed memory.
_KEPT_BYTES = 1 << 24


@dataclass(frozen=True)
class MeshVoxels:
    """Voxels of a surface, in ascending order (frame, x, y, z).

    Attributes:
        coordinates: (V, 3) int32; voxel i occupies [i, i + 1) times the voxel size.
        voxel_size: in the unit of the vertices.
        frame: (V,) int64, the mesh of a batch or the frame of a sequence; None for a single mesh.
        frames: number of meshes or frames.
        area: (V,) float64, of the surface within the voxel, in the square of that unit; or None.
        normal: (V, 3) float64, the mean of the triangles' normals by their area in the voxel, scaled to
            length 1; zeros where there is no area or the sides cancel. Or None.
        triangle: (V,) int64, the triangle nearest to the voxel's centre (the first of equally near ones); or
            None. It may be one that touches only a neighbouring voxel.
    """

    coordinates: Tensor
    voxel_size: float
    frame: Tensor | None = None
    frames: int = 1
    area: Tensor | None = None
    normal: Tensor | None = None
    triangle: Tensor | None = None

    def __len__(self) -> int:
        return len(self.coordinates)

    @property
    def batched_coordinates(self) -> Tensor:
        """(V, 4) int32, the frame first, as SparseTensor takes them."""
        frame = self.coordinates.new_zeros(len(self)) if self.frame is None else self.frame.int()
        return torch.cat([frame[:, None], self.coordinates], 1)

    def split(self) -> list[MeshVoxels]:
        """The voxels of each mesh or frame by itself."""
        if self.frame is None:
            return [self]
        sizes = torch.bincount(self.frame, minlength=self.frames).tolist()
        names = ("coordinates", "area", "normal", "triangle")
        parts = {n: getattr(self, n).split(sizes) for n in names if getattr(self, n) is not None}
        return [
            MeshVoxels(
                voxel_size=self.voxel_size, **{name: part[k] for name, part in parts.items()}
            )
            for k in range(self.frames)
        ]


def voxelize_mesh(
    vertices: np.ndarray | Tensor | Sequence,
    faces: np.ndarray | Tensor | Sequence,
    voxel_size: float,
    *,
    area: bool = False,
    normal: bool = False,
    triangle: bool = False,
    device: str | torch.device | None = None,
) -> MeshVoxels:
    """Return the voxels that a surface touches: all floor(p / voxel_size) of points p on its triangles.

    Exact for the float64 quotients of the vertices and the voxel size: a voxel is half-open, so a triangle
    on a plane between two layers is in the upper one only; edges, needles and triangles without area count
    as the points that they are. (Quotients nearer to zero than 2^-200 count as that, of their sign.)
    The voxels of the vertices, floor(p / voxel_size), are always among them.

    Args:
        vertices: (N, 3); or (T, N, 3), the frames of a deforming mesh; or a list of (N_b, 3), a batch.
        faces: (F, 3), whole numbers in [0, N); for a list of vertices a list, or one for all.
        voxel_size: edge of a voxel in the unit of the vertices.
        area: also the area of the surface in each voxel; they add up to the mesh's.
        normal: also the mean normal.
        triangle: also the triangle nearest to each voxel's centre.
        device: where to compute; None: where the vertices are, the CPU for arrays. The voxels are the same
            on all.

    Returns:
        MeshVoxels on that device.

    Raises:
        InputError: not a mesh (see sparsefeat.io.meshes.check_mesh), a voxel size that is not positive
            or so small that coordinates leave int32, or a device without float64.
    """
    size = checked_positive(voxel_size, "voxel size")
    if device is None:
        listed = isinstance(vertices, Sequence) and len(vertices)
        head = vertices[0] if listed else vertices
        device = head.device if isinstance(head, Tensor) else "cpu"
    device = _usable(device)
    single, meshes = _checked_meshes(vertices, faces, device)
    parts = [_voxelize(Surface(v, f, size), size, area, normal, triangle) for v, f in meshes]
    if single:
        return parts[0]
    frame = torch.repeat_interleave(torch.tensor([len(p) for p in parts], device=device))
    joined = {
        name: torch.cat([getattr(p, name) for p in parts])
        for name in ("coordinates", "area", "normal", "triangle")
        if getattr(parts[0], name) is not None
    }
    return MeshVoxels(voxel_size=size, frame=frame, frames=len(parts), **joined)


def _voxelize(
    surface: Surface, size: float, area: bool, normal: bool, triangle: bool
) -> MeshVoxels:
    low, high = surface.bounds()
    furthest = float(torch.maximum(low.abs(), high.abs()).max())
    if not furthest <= _MAX_COORDINATE:
        raise InputError(
            f"the mesh reaches {furthest:.3g} voxels of {size:g} from the origin, expected at most "
            f"{_MAX_COORDINATE}; are the vertices in the unit of the voxel size?"
        )
    box = Box(low.tolist(), (high - low + 1).tolist())
    distinct = DistinctKeys(box)
    with_pairs = area or normal or triangle
    found: list[tuple[Tensor, Tensor]] = []
    for runs in _touching_runs(surface, box, None if with_pairs else distinct):
        if with_pairs:
            found.append((runs.keys(), runs.triangles()))
        else:
            distinct.add(runs.keys())
    if not with_pairs:
        return MeshVoxels(box.coordinates(distinct.sorted()).int(), size)
    pairs = Pairs.sorted(*map(torch.cat, zip(*found, strict=True)))
    del found
    cells = box.coordinates(pairs.keys)
    attributes: dict[str, Tensor] = {}
    if area or normal:
        areas, normals = areas_in_cells(surface, cells, pairs)
        attributes |= {"area": areas * size**2} if area else {}
        attributes |= {"normal": normals} if normal else {}
    if triangle:
        attributes["triangle"] = nearest_triangles(surface, cells, pairs)
    return MeshVoxels(cells.int(), size, **attributes)


def _touching_runs(surface: Surface, box: Box, known: DistinctKeys | None = None) -> Iterator[Runs]:
    """Yield runs of cells with a triangle that touches them: all pairs of both that touch, each once.

    Args:
        surface: the triangles.
        box: of the keys.
        known: where what is yielded is put; a closer look is not taken at pairs with a cell that is there.
    """
    kind = "cpu" if surface.points.device.type == "cpu" else "cuda"
    triangles, columns, pairs = (
        limit[kind] for limit in (_TRIANGLES_AT_A_TIME, _COLUMNS_AT_A_TIME, _PAIRS_AT_A_TIME)
    )
    # What needs a closer look, from all portions together: that is many steps, for few pairs.
    unsure: list[Runs] = []
    waiting = 0
    larger = []
    # The C library of Linux gives memory back when more is free than twice the largest block that ever was,
    # and getting it again, page by page, takes longer than all that is done here. This one is never touched.
    torch.empty(_KEPT_BYTES, dtype=torch.uint8)
    for first in range(0, len(surface), triangles):
        part = surface.triangles(slice(first, first + triangles))
        larger.append(part.index[~part.in_row])
        for runs in runs_in_rows(part, box, columns):
            yield from runs.cut(pairs)
    for index in torch.cat(larger).split(triangles):
        for runs, rest in runs_in_columns(surface.triangles(index), box, columns):
            yield from runs.cut(pairs)
            if len(rest):
                unsure.append(rest)
                waiting += int(rest.count.sum())
            if waiting > pairs:
                yield from _closely(surface, box, unsure, pairs, known)
                unsure, waiting = [], 0
    if unsure:
        yield from _closely(surface, box, unsure, pairs, known)


def _closely(
    surface: Surface, box: Box, unsure: list[Runs], limit: int, known: DistinctKeys | None
) -> Iterator[Runs]:
    # A pair takes the place of some ten here.
    for runs in Runs.joined(unsure).cut(limit // 10):
        keys, triangles = runs.keys(), runs.triangles()
        if known is not None:
            new = torch.nonzero(~known.contains(keys))[:, 0]
            keys, triangles = keys[new], triangles[new]
        if not len(keys):
            continue
        used, rows = torch.unique(triangles, return_inverse=True)
        cells = box.coordinates(keys).T.double()
        keep = torch.nonzero(touches_closely(surface.triangles(used), rows, cells))[:, 0]
        yield Runs(used[rows[keep]], keys[keep], torch.ones_like(keep))


def _checked_meshes(
    vertices, faces, device: torch.device
) -> tuple[bool, Iterator[tuple[Tensor, Tensor]]]:
    """Whether it is one mesh by itself, and the vertices and faces of each."""
    if isinstance(vertices, Sequence) and (not vertices or np.ndim(vertices[0]) == 2):
        if not vertices:
            raise InputError("vertices: an empty batch, expected at least one mesh")
        shared = not (isinstance(faces, Sequence) and np.ndim(faces[0]) == 2)
        if not shared and len(faces) != len(vertices):
            raise InputError(
                f"{len(vertices)} arrays of vertices and {len(faces)} of faces, expected as many"
            )
        given = [(v, faces if shared else faces[k], f"mesh {k}") for k, v in enumerate(vertices)]
        return False, (_checked(v, f, device, where) for v, f, where in given)
    points = _tensor(vertices, "vertices", device)
    if points.ndim == 2:
        return True, iter([_checked(points, faces, device, "mesh")])
    if points.ndim != 3 or points.shape[2] != 3 or not len(points):
        found = tuple(points.shape)
        raise InputError(
            f"vertices have shape {found}, expected (N, 3), (T, N, 3) or a list of (N, 3)"
        )
    _, index = _checked(points[0], faces, device, "frame 0")
    bad = torch.nonzero(~torch.isfinite(points).flatten(1).all(1))[:, 0]
    if len(bad):
        raise InputError(f"frame {int(bad[0])}: vertices have NaN or infinite coordinates")
    return False, ((frame, index) for frame in points)


def _checked(vertices, faces, device: torch.device, where: str) -> tuple[Tensor, Tensor]:
    points, index = _tensor(vertices, "vertices", device), _tensor(faces, "faces", device)
    # numpy has no bfloat16.
    comparable = points.float() if points.dtype == torch.bfloat16 else points
    check_mesh(comparable.cpu().numpy(), index.cpu().numpy(), where)
    return points, index.long()


def _usable(device: str | torch.device) -> torch.device:
    try:
        chosen = torch.device(device)
        torch.empty(0, dtype=torch.float64, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        # Builds without CUDA say so in an AssertionError, MPS lacks float64 with a TypeError.
        raise InputError(
            f"device {str(device)!r} cannot be used: {str(error).splitlines()[0]}"
        ) from error
    return chosen


def _tensor(values, what: str, device: torch.device) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().to(device)
    array = as_array(values, what)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{what}: {array.dtype}, expected an array of numbers")
    # torch has no wide unsigned types, and warns of arrays that cannot be written.
    array = array.astype(np.int64) if array.dtype.kind == "u" else np.array(array)
    return torch.from_numpy(array).to(device)
