"""How fast surfaces are voxelised, beside Open3D and trimesh on the same mesh, and how the results differ.

``sparsefeat benchmark --voxelization`` prints a line per mesh size and resolution.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
from collections.abc import Callable

import numpy as np
import torch

from sparsefeat.benchmark.timing import process_peak, time_interleaved
from sparsefeat.io.meshes import check_mesh
from sparsefeat.mesh.voxelization import voxelize_mesh

# trimesh cuts triangles in four until their edges are shorter than a voxel; beyond this many triangles that
# takes minutes.
_MOST_FOR_TRIMESH = 250_000


def run(
    vertices: np.ndarray,
    faces: np.ndarray,
    resolution: int,
    *,
    device: str = "cpu",
    runs: int = 5,
    seconds: float = 60.0,
    compare: bool = True,
) -> dict:
    """Time our voxelisation and those that are installed, in turns, and compare what they find.

    All use one grid, that of floor(p / voxel_size). Open3D's time is that of building its grid; what it takes
    to read the voxels' places from it is given apart.

    Args:
        vertices: Shape (N, 3).
        faces: Shape (F, 3).
        resolution: voxels along the longest side.
        device: where ours runs; the others run on the CPU.
        runs: rounds that count.
        seconds: rounds end early after so long.
        compare: whether to run the others.

    Returns:
        ``triangles``, ``resolution``, ``voxels``, and per contender its ``times`` (see Timing.as_dict) and,
        for the others, ``voxels``, ``missing``: voxels that the surface touches and the contender leaves out,
        and ``extra``: those that it has and the surface does not touch.

    Raises:
        ValueError: not a mesh.
    """
    vertices, faces = check_mesh(vertices, faces)
    size = float(np.ptp(vertices, axis=0).max()) / resolution
    where = torch.device(device)
    given = torch.from_numpy(vertices).to(where), torch.from_numpy(faces).to(where)
    contenders: dict[str, Callable[[], object]] = {
        "sparsefeat": lambda: voxelize_mesh(*given, size)
    }
    found: dict[str, Callable[[], np.ndarray]] = {}
    if compare:
        for name, make in (("open3d", _open3d), ("trimesh", _trimesh)):
            if importlib.util.find_spec(name) and (
                name == "open3d" or len(faces) <= _MOST_FOR_TRIMESH
            ):
                contenders[name], found[name] = make(vertices, faces, size)
    times = time_interleaved(contenders, where, runs, seconds)
    ours = _rows(contenders["sparsefeat"]().coordinates.cpu().numpy())
    rows = {name: {"times": timing.as_dict()} for name, timing in times.items()}
    for name, cells in found.items():
        theirs = _rows(cells())
        rows[name] |= {
            "voxels": len(theirs),
            "missing": len(np.setdiff1d(ours, theirs)),
            "extra": len(np.setdiff1d(theirs, ours)),
        }
    return {
        "triangles": len(faces),
        "resolution": resolution,
        "voxels": len(ours),
        "contenders": rows,
    }


def peak_memory(triangles: int, resolution: int) -> dict[str, int]:
    """Voxelise a mesh in a process of its own.

    Returns:
        ``triangles``, ``voxels``, ``peak_bytes`` of the process, and ``before_bytes``, of which what Python,
        torch and the mesh took.
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_measure_memory, (triangles, resolution))


def _measure_memory(triangles: int, resolution: int) -> dict[str, int]:
    vertices, faces = bumpy_torus(triangles)
    size = float(np.ptp(vertices, axis=0).max()) / resolution
    before = process_peak() or 0
    voxels = voxelize_mesh(vertices, faces, size)
    return {
        "triangles": len(faces),
        "voxels": len(voxels),
        "peak_bytes": process_peak() or 0,
        "before_bytes": before,
    }


def bumpy_torus(triangles: int) -> tuple[np.ndarray, np.ndarray]:
    """A closed surface of about so many triangles, in every direction and of uneven size.

    Returns:
        vertices (N, 3) and faces (F, 3).
    """
    side = max(3, round((triangles / 2) ** 0.5))
    around, along = np.meshgrid(*[2 * np.pi * np.arange(side) / side] * 2, indexing="ij")
    radius = 0.35 + 0.05 * np.sin(9 * around) * np.sin(7 * along)
    ring = 1 + radius * np.cos(along)
    vertices = np.stack([ring * np.cos(around), ring * np.sin(around), radius * np.sin(along)], -1)
    here = np.arange(side * side).reshape(side, side)
    right, up = np.roll(here, -1, 0), np.roll(here, -1, 1)
    quads = np.stack([here, right, np.roll(right, -1, 1), up], -1).reshape(-1, 4)
    return vertices.reshape(-1, 3), np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def _open3d(vertices: np.ndarray, faces: np.ndarray, size: float):
    import open3d as o3d

    mesh = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(vertices), o3d.utility.Vector3iVector(faces)
    )
    low = np.floor(vertices.min(0) / size)
    bounds = low * size, (np.floor(vertices.max(0) / size) + 1) * size

    def build():
        return o3d.geometry.VoxelGrid.create_from_triangle_mesh_within_bounds(mesh, size, *bounds)

    return (
        build,
        lambda: np.array([v.grid_index for v in build().get_voxels()]) + low.astype(np.int64),
    )


def _trimesh(vertices: np.ndarray, faces: np.ndarray, size: float):
    import trimesh

    # It rounds where we take the floor.
    mesh = trimesh.Trimesh(vertices - size / 2, faces, process=False)

    def cells() -> np.ndarray:
        grid = mesh.voxelized(size)
        return grid.sparse_indices + np.rint(grid.translation / size).astype(np.int64)

    return lambda: mesh.voxelized(size), cells


def _rows(cells: np.ndarray) -> np.ndarray:
    """Each cell as one number, for set operations; (V, 3) within 2^20 of the origin -> (V,)"""
    shifted = np.asarray(cells, dtype=np.int64) + (1 << 20)
    return (shifted[:, 0] << 42) | (shifted[:, 1] << 21) | shifted[:, 2]


def run_sizes(progress: Callable[[str], None]) -> list[dict]:
    """:func:`run` on four sizes of mesh at three resolutions.

    Args:
        progress: takes a line for each: medians of wall clock in milliseconds, and how many voxels the others miss
            and invent.
    """
    results = []
    for triangles in (2_000, 10_000, 50_000, 200_000):
        for resolution in (64, 128, 256):
            result = run(*bumpy_torus(triangles), resolution)
            line = (
                f"{result['triangles']:>7} triangles, {resolution:>3}, {result['voxels']:>6} voxels"
            )
            for name, row in result["contenders"].items():
                line += f"   {name} {1e3 * row['times']['median_s']:.1f} ms"
                line += f" (-{row['missing']} +{row['extra']})" if "missing" in row else ""
            progress(line)
            results.append(result)
    return results
