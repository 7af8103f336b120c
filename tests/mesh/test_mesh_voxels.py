"""Surface voxelisation equals {floor(p)} of all points p of the triangles, decided in rational numbers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from mesh_oracle import oracle, random_triangles

from sparsefeat.mesh import read_mesh, voxelization, voxelize_mesh
from sparsefeat.mesh.columns import chunks, expand
from sparsefeat.mesh.keys import Box
from sparsefeat.mesh.surface import Surface
from sparsefeat.sparse import SparseTensor


def found(corners: np.ndarray, voxel_size: float = 1.0, **options) -> set[tuple[int, int, int]]:
    corners = np.asarray(corners, dtype=np.float64)
    faces = np.arange(3 * len(corners)).reshape(-1, 3)
    voxels = voxelize_mesh(corners.reshape(-1, 3), faces, voxel_size, **options)
    cells = [tuple(c) for c in voxels.coordinates.tolist()]
    assert cells == sorted(set(cells))
    return set(cells)


def disagreements(corners: np.ndarray) -> list:
    """Triangles whose cells, found together or one by one, are not the oracle's; each cell must be named once."""
    corners = np.asarray(corners, dtype=np.float64)
    faces = torch.arange(3 * len(corners)).reshape(-1, 3)
    surface = Surface(torch.from_numpy(corners.reshape(-1, 3)), faces, 1.0)
    low, high = surface.bounds()
    box = Box(low.tolist(), (high - low + 1).tolist())
    cells: list[list] = [[] for _ in corners]
    for runs in voxelization._touching_runs(surface, box):
        places = box.coordinates(runs.keys()).tolist()
        for triangle, cell in zip(runs.triangles().tolist(), places, strict=True):
            cells[triangle].append(tuple(cell))
    assert all(len(c) == len(set(c)) for c in cells)
    expected = [oracle(t[None]) for t in corners]
    triples = zip(corners, cells, expected, strict=True)
    return [t.tolist() for t, c, e in triples if set(c) != e or found(t[None]) != e]


@pytest.mark.parametrize("extent", [0.3, 1.5, 3.0, 7.0])
def test_random_triangles_around_the_origin(extent):
    triangles = random_triangles(int(extent * 10), 40, extent)
    assert found(triangles) == oracle(triangles)
    assert not disagreements(triangles)


@pytest.mark.parametrize("step", [1.0, 0.5, 0.25])
def test_corners_on_the_lattice_and_halfway(step):
    # Edges along grid lines, through cells' corners and along their diagonals; planes on grid planes; flat
    # and repeated corners among them.
    rng = np.random.default_rng(int(1 / step))
    triangles = rng.integers(-3, 4, (100, 3, 3)) * step
    assert not disagreements(triangles)


@pytest.mark.parametrize("axis", range(3))
def test_a_triangle_on_a_grid_plane_is_in_the_upper_layer_only(axis):
    triangle = np.array([[0.2, 0.3, 0.0], [3.7, 0.4, 0.0], [0.5, 2.9, 0.0]])
    triangle = np.roll(triangle, axis, axis=1)
    normal = (2 + axis) % 3
    for height in (-2.0, 0.0, 1.0):
        triangle[:, normal] = height
        cells = found(triangle[None])
        assert {c[normal] for c in cells} == {int(height)} and cells == oracle(triangle[None])


def test_meeting_only_an_open_face_edge_or_corner_is_not_touching():
    # From the corner (1, 1, 1) of the cell (0, 0, 0) upwards, in ways that enter different neighbours.
    assert found([[[1, 1, 1], [2, 1, 1], [1, 2, 1]]]) == {(1, 1, 1), (2, 1, 1), (1, 2, 1)}
    assert found([[[1, 1, 1], [1, 1, 1], [1, 1, 1]]]) == {(1, 1, 1)}
    # The plane x + y + z = 3 meets the closed cell (0, 0, 0) in that corner alone, which is open.
    slanted = np.array([[[3.0, 0, 0], [0, 3.0, 0], [0, 0, 3.0]]])
    assert (0, 0, 0) not in found(slanted) and found(slanted) == oracle(slanted)
    # x + y = 1 through the cell (0, 0, 0): its upper ends x = 1 and y = 1 belong to others.
    upright = np.array([[[1.0, 0, 0.2], [0, 1.0, 0.2], [0.5, 0.5, 0.8]]])
    assert found(upright) == {(0, 0, 0), (1, 0, 0), (0, 1, 0)}


def test_a_plane_a_rounding_error_away_from_cell_corners():
    up, down = np.nextafter(3.0, 4), np.nextafter(3.0, 0)
    triangles = np.array([[[h, 0, 0], [0, h, 0], [0, 0, h]] for h in (down, 3.0, up)])
    assert not disagreements(triangles)
    assert (0, 0, 0) in found(triangles[:1]) and (1, 1, 0) in found(triangles[2:])
    shifts = np.array([-np.finfo(float).eps, 0, np.finfo(float).eps])
    for dx, dy in itertools.product(shifts, repeat=2):
        near = np.array([[[-1 + dx, -1, 0], [2, 2 + dy, 0.3], [0.5, 0.5, 5]]])
        assert not disagreements(near)


def test_needles():
    rng = np.random.default_rng(3)
    for width in (1e-3, 1e-9, 1e-15, 0.0):
        start, end = (rng.random((25, 3)) - 0.5) * 8, (rng.random((25, 3)) - 0.5) * 8
        third = start + rng.random((25, 1)) * (end - start) + rng.normal(size=(25, 3)) * width
        assert not disagreements(np.stack([start, end, third], 1))


def test_segments_and_points_touch_cells_too():
    rng = np.random.default_rng(4)
    a, b = rng.integers(-4, 5, (2, 40, 3)) / 2
    assert not disagreements(np.stack([a, b, a], 1))
    assert not disagreements(np.stack([a, b, (a + b) / 2], 1))
    assert not disagreements(np.stack([a, a, a], 1))
    # Through the corners of cells, along the diagonal of space and that of a face.
    assert found([[[0, 0, 0], [3, 3, 3], [0, 0, 0]]]) == {(k, k, k) for k in range(4)}
    assert found([[[0, 3, 0], [3, 0, 0], [0, 3, 0]]]) == oracle(
        np.array([[[0, 3, 0], [3, 0, 0], [0, 3.0, 0]]])
    )


def test_walls_turned_by_a_right_angle_with_rounding():
    # Planes and edges along an axis but for the last digit, also where they cross a side of cells.
    rng = np.random.default_rng(6)
    walls = rng.integers(-6, 7, (40, 3, 3)) * 0.5
    walls[:, 2, :2] = walls[:, 1, :2]
    cos, sin = math.cos(math.pi / 2), math.sin(math.pi / 2)
    turned = walls @ np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])
    for axis in range(3):
        assert not disagreements(np.roll(turned, axis, 2))
    # An edge that crosses x = 2 within a few roundings, of a triangle with many slabs beyond.
    near = [[np.nextafter(2, 1), 0.3, 0.2], [np.nextafter(2, 3), 6.3, 4.1], [6.4, 2.2, 1.7]]
    assert not disagreements(np.array([near]))


def test_steep_flat_and_crossed_triangles_longer_than_the_small_boxes():
    rng = np.random.default_rng(5)
    for scale in ([9, 9, 0.01], [0.01, 9, 9], [9, 0.01, 9], [12, 1, 1], [1, 1, 12]):
        triangles = (rng.random((8, 3, 3)) - 0.5) * np.array(scale)
        assert found(triangles) == oracle(triangles)


def test_coordinates_of_very_different_size():
    tiny = 1e-300
    triangles = np.array(
        [
            [[-tiny, 0.5, 0.5], [0.5, -tiny, 0.5], [0.5, 0.5, 0.5]],
            [[tiny, -tiny, 1.0], [1.0, tiny, -tiny], [-tiny, 1.0, tiny]],
            [[-tiny, -tiny, -tiny], [-tiny, tiny, 0], [0, 0, 0]],
            [[1e5 + 0.1, 1e5, -1e5], [1e5 + 2, 1e5 + 2, 2 - 1e5], [1e5, 1e5 + 2.5, -1e5]],
        ]
    )
    assert not disagreements(triangles)


def test_the_voxel_of_every_vertex_and_of_every_sample_is_there():
    triangles = random_triangles(6, 300, 2.0)
    size = 0.1
    cells = found(triangles, size)
    weights = np.random.default_rng(0).dirichlet([1, 1, 1], 50)
    points = np.concatenate(
        [triangles.reshape(-1, 3), np.einsum("sk,fkd->fsd", weights, triangles).reshape(-1, 3)]
    )
    assert {tuple(c) for c in np.floor(points / size).astype(int).tolist()} <= cells


def test_sizes_that_have_no_exact_number():
    # Vertices on multiples of 0.1, divided by 0.1, are on either side of grid planes by rounding.
    rng = np.random.default_rng(8)
    triangles = rng.integers(-6, 7, (20, 3, 3)) * 0.1
    assert found(triangles, 0.1) == oracle(triangles / 0.1)
    assert not disagreements(triangles / 0.1)


def test_small_portions_give_the_same(monkeypatch):
    from sparsefeat.mesh import attributes

    triangles = random_triangles(9, 20, 7.0)
    vertices, faces = triangles.reshape(-1, 3), np.arange(60).reshape(-1, 3)
    options = {"area": True, "normal": True, "triangle": True}
    whole = voxelize_mesh(vertices, faces, 1.0, **options)
    monkeypatch.setitem(voxelization._TRIANGLES_AT_A_TIME, "cpu", 7)
    monkeypatch.setitem(voxelization._COLUMNS_AT_A_TIME, "cpu", 15)
    monkeypatch.setitem(voxelization._PAIRS_AT_A_TIME, "cpu", 50)
    monkeypatch.setattr(attributes, "_PAIRS_AT_A_TIME", 33)
    parts = voxelize_mesh(vertices, faces, 1.0, **options)
    torch.testing.assert_close(parts.coordinates, whole.coordinates, rtol=0, atol=0)
    torch.testing.assert_close(parts.triangle, whole.triangle, rtol=0, atol=0)
    torch.testing.assert_close((parts.area, parts.normal), (whole.area, whole.normal))
    assert torch.equal(voxelize_mesh(vertices, faces, 1.0).coordinates, whole.coordinates)


def test_lists_are_cut_into_portions():
    counts = torch.tensor([2, 0, 3, 9, 1, 1])
    assert list(chunks(counts, 5)) == [(0, 3), (3, 4), (4, 6)]
    assert list(chunks(counts[:0], 5)) == []
    parent, step = expand(counts[:3])
    assert parent.tolist() == [0, 0, 2, 2, 2] and step.tolist() == [0, 1, 0, 1, 2]


def test_a_triangle_larger_than_the_grid():
    # Its plane z = x / 2 + 0.2 has one or two cells in each column that it crosses.
    triangle = np.array([[[0.1, 0.1, 0.25], [400.5, 0.2, 200.45], [0.3, 300.7, 0.35]]])
    cells = found(triangle)
    columns = {c[:2] for c in cells}
    assert abs(len(columns) - 0.5 * 400.4 * 300.6) < 800
    assert len(columns) <= len(cells) < 2 * len(columns)


def test_sequences_and_batches_are_their_meshes_one_by_one():
    rng = np.random.default_rng(13)
    frames = rng.normal(size=(3, 30, 3))
    faces = rng.integers(0, 30, (15, 3))
    options = {"area": True, "normal": True, "triangle": True}
    sequence = voxelize_mesh(frames, faces, 0.5, **options)
    assert sequence.frames == 3 and sequence.batched_coordinates.shape == (len(sequence), 4)
    for k, part in enumerate(sequence.split()):
        alone = voxelize_mesh(frames[k], faces, 0.5, **options)
        for name in ("coordinates", "area", "normal", "triangle"):
            assert torch.equal(getattr(part, name), getattr(alone, name))
        assert (sequence.frame == k).sum() == len(alone)
    batch = voxelize_mesh([frames[0], frames[1, :20]], [faces, faces % 20], 0.5)
    assert torch.equal(batch.split()[0].coordinates, sequence.split()[0].coordinates)
    shared = voxelize_mesh(list(frames), faces, 0.5)
    assert torch.equal(shared.batched_coordinates, sequence.batched_coordinates)
    single = voxelize_mesh(frames[0], faces, 0.5)
    assert single.frame is None and single.split() == [single]
    tensor = SparseTensor(torch.ones(len(single), 1), coordinates=single.batched_coordinates)
    assert len(tensor) == len(single)


def test_tensors_and_arrays_of_either_precision_are_the_same():
    triangles = random_triangles(14, 20, 4.0).astype(np.float32)
    vertices, faces = triangles.reshape(-1, 3), np.arange(60).reshape(-1, 3).astype(np.uint32)
    expected = oracle(triangles.astype(np.float64) / 0.7)
    for v, f in ((vertices, faces), (torch.tensor(vertices), torch.tensor(faces.astype(np.int32)))):
        voxels = voxelize_mesh(v, f, 0.7)
        assert {tuple(c) for c in voxels.coordinates.tolist()} == expected
        assert voxels.coordinates.dtype == torch.int32 and voxels.voxel_size == 0.7


TRIANGLE = np.eye(3)


@pytest.mark.parametrize(
    ("vertices", "faces", "size", "message"),
    [
        (TRIANGLE, [[0, 1, 3]], 1.0, r"face 0 \(from 0\) with \[0, 1, 3\], expected 0 to 2"),
        (TRIANGLE, [[0, 1, -1]], 1.0, "expected 0 to 2"),
        (TRIANGLE, [[0, 1]], 1.0, r"\(F, 3\) whole numbers"),
        (TRIANGLE, [[0.0, 1.0, 2.0]], 1.0, r"\(F, 3\) whole numbers"),
        (TRIANGLE, np.empty((0, 3), int), 1.0, "no faces"),
        (np.empty((0, 3)), [[0, 1, 2]], 1.0, "no vertices"),
        (TRIANGLE[:, :2], [[0, 1, 2]], 1.0, r"expected \(N, 3\)"),
        (TRIANGLE * np.nan, [[0, 1, 2]], 1.0, "NaN or infinite"),
        (np.stack([TRIANGLE, TRIANGLE + np.inf]), [[0, 1, 2]], 1.0, "frame 1: .*NaN or infinite"),
        (
            [TRIANGLE, TRIANGLE],
            [np.array([[0, 1, 2]])] * 3,
            1.0,
            "2 arrays of vertices and 3 of faces",
        ),
        ([TRIANGLE, TRIANGLE * np.nan], [[0, 1, 2]], 1.0, "mesh 1: .*NaN"),
        ([], [[0, 1, 2]], 1.0, "empty batch"),
        (TRIANGLE, [[0, 1, 2]], 0.0, "voxel size 0.0, expected a positive number"),
        (TRIANGLE, [[0, 1, 2]], float("nan"), "voxel size nan"),
        (TRIANGLE, [[0, 1, 2]], "1", "voxel size '1'"),
        (TRIANGLE, [[0, 1, 2]], 1e-12, "voxels of 1e-12 from the origin"),
    ],
)
def test_what_cannot_be_voxelised_is_refused(vertices, faces, size, message):
    with pytest.raises(ValueError, match=message):
        voxelize_mesh(vertices, faces, size)


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="device 'quantum' cannot be used"):
        voxelize_mesh(TRIANGLE, [[0, 1, 2]], 1.0, device="quantum")


def test_a_real_body(dataset):
    mesh = read_mesh(dataset("faust") / "registrations" / "tr_reg_000.ply")
    size = 0.03
    voxels = voxelize_mesh(mesh.vertices, mesh.faces, size, area=True)
    corners = mesh.vertices[mesh.faces]
    total = (
        np.linalg.norm(
            np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
        ).sum()
        / 2
    )
    assert math.isclose(float(voxels.area.sum()), total, rel_tol=1e-12)
    part = np.arange(0, len(mesh.faces), 40)
    assert found(corners[part], size) == oracle(corners[part] / size)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same():
    triangles = random_triangles(15, 500, 20.0)
    vertices, faces = triangles.reshape(-1, 3), np.arange(1500).reshape(-1, 3)
    options = {"area": True, "normal": True, "triangle": True}
    here = voxelize_mesh(vertices, faces, 1.0, **options)
    there = voxelize_mesh(vertices, faces, 1.0, device="cuda", **options)
    assert torch.equal(there.coordinates.cpu(), here.coordinates)
    torch.testing.assert_close((there.area.cpu(), there.normal.cpu()), (here.area, here.normal))
