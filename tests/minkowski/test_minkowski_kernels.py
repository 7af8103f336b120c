"""sparsefeat.minkowski.KernelGenerator, and the manager's kernel maps."""

from __future__ import annotations

import pytest
import torch
from engine_oracle import Record, cloud, numbers, rows_at
from torch import nn

import sparsefeat.minkowski as ME

CUBE, CROSS = ME.RegionType.HYPER_CUBE, ME.RegionType.HYPER_CROSS


def tensor(channels: int = 2, dimension: int = 2) -> ME.SparseTensor:
    coordinates = cloud(40, dimension=dimension)
    return ME.SparseTensor(numbers(len(coordinates), channels), coordinates)


def test_hybrid_kernels_are_cubes_in_another_order():
    axis_types = [CUBE, CUBE, CUBE]
    hybrid = ME.KernelGenerator(
        kernel_size=3, region_type=ME.RegionType.HYBRID, axis_types=axis_types, dimension=3
    )
    cube = ME.KernelGenerator(kernel_size=3, dimension=3)
    assert hybrid.kernel_volume == cube.kernel_volume == 27
    order = [hybrid.window.cells.index(cell) for cell in cube.window.cells]
    assert (
        sorted(order) == list(range(27))
        and order != list(range(27))
        and hybrid.window.cells[0] == (0, 0, 0)
    )
    a = ME.MinkowskiConvolution(2, 3, kernel_generator=hybrid, dimension=3).double()
    b = ME.MinkowskiConvolution(2, 3, kernel_generator=cube, dimension=3).double()
    with torch.no_grad():
        b.kernel.copy_(a.kernel[order])
    x = tensor(dimension=3)
    assert torch.allclose(a(x).F, b(x).F)


def test_hybrid_kernels_cross_where_they_are_told_to():
    types = [CUBE, CUBE, CROSS]
    generator = ME.KernelGenerator(
        kernel_size=3, region_type=ME.RegionType.HYBRID, axis_types=types, dimension=3
    )
    cells = set(generator.window.cells)
    assert len(cells) == 9 + 2 == generator.kernel_volume
    assert cells == {(i, j, 0) for i in (-1, 0, 1) for j in (-1, 0, 1)} | {(0, 0, -1), (0, 0, 1)}


def test_custom_kernels_take_their_offsets():
    offsets = torch.tensor([[0, 0], [2, 1], [-1, 0]])
    generator = ME.KernelGenerator(
        region_type=ME.RegionType.CUSTOM, region_offsets=offsets, dimension=2
    )
    assert (
        generator.kernel_volume
        == 3
        == ME.get_kernel_volume(ME.RegionType.CUSTOM, -1, offsets, None, 2)
    )
    region, moved, volume = generator.get_kernel([2, 2], False)
    assert (
        region == ME.RegionType.CUSTOM and moved.tolist() == (offsets * 2).tolist() and volume == 3
    )
    x = tensor(channels=1)
    conv = ME.MinkowskiConvolution(1, 1, kernel_generator=generator, dimension=2).double()
    nn.init.ones_(conv.kernel)
    values = {tuple(c): f.item() for c, f in zip(x.C.tolist(), x.F)}
    expected = [
        sum(values.get((b, i + p, j + q), 0) for p, q in offsets.tolist())
        for b, i, j in x.C.tolist()
    ]
    assert conv(x).F.flatten().tolist() == pytest.approx(expected)


def test_wrong_kernels_raise_one_line():
    hybrid = ME.RegionType.HYBRID
    for arguments, message in (
        ({}, "at least 1"),
        ({"kernel_size": 3, "dimension": -1}, "dimension"),
        ({"kernel_size": 2, "region_type": CROSS}, "odd"),
        ({"kernel_size": 3, "region_type": 0}, "RegionType"),
        ({"kernel_size": 3, "region_type": hybrid}, "axis_types"),
        ({"kernel_size": 3, "axis_types": [CUBE] * 2}, "axis_types"),
        ({"kernel_size": 3, "region_type": hybrid, "axis_types": [CUBE]}, "axis_types"),
        ({"region_type": ME.RegionType.CUSTOM}, "region_offsets"),
        ({"kernel_size": 3, "stride": 0}, "stride"),
        ({"kernel_size": [3, 3, 3]}, "one per axis"),
    ):
        with pytest.raises(ValueError, match=message):
            ME.KernelGenerator(**{"dimension": 2, **arguments})
    with pytest.raises(ValueError, match="dimension"):
        ME.MinkowskiConvolution(2, 3, kernel_size=3)
    conv = ME.MinkowskiConvolution(2, 3, kernel_size=3, dimension=3).double()
    with pytest.raises(ValueError, match="spatial axes"):
        conv(tensor())
    with pytest.raises(ValueError, match="channels"):
        conv(tensor(channels=4, dimension=3))
    with pytest.raises(ValueError, match="SparseTensor"):
        conv(torch.zeros(3, 2))
    with pytest.raises(TypeError, match="padding"):
        ME.MinkowskiConvolution(2, 3, kernel_size=3, padding=1, dimension=3)
    with pytest.raises(ValueError, match="pooling mode"):
        ME.MinkowskiGlobalPooling(ME.PoolingMode.LOCAL_MAX_POOLING)


def test_kernel_maps_as_recorded(golden):
    record = Record(golden, "kernel_maps")
    x = ME.SparseTensor(torch.zeros(len(record["coords"]), 1), record["coords"])
    for case in ("k3s1d1", "k2s2d1", "k3s2d1", "k2s1d1", "k3s1d2"):
        size, stride, dilation = int(case[1]), int(case[3]), int(case[5])
        out_key = x.coordinate_manager.stride(x.coordinate_map_key, stride)
        maps = x.coordinate_manager.kernel_map(
            x.coordinate_map_key, out_key, stride=stride, kernel_size=size, dilation=dilation
        )
        assert all(pairs.dtype == torch.int32 and pairs.shape[0] == 2 for pairs in maps.values())
        position = rows_at(
            x.coordinate_manager.get_coordinates(out_key), record[f"{case}_out_coords"]
        )
        recorded_row = torch.empty_like(position)
        recorded_row[position] = torch.arange(len(position))
        ours = {
            (k, i, int(recorded_row[o])) for k, pairs in maps.items() for i, o in pairs.t().tolist()
        }
        assert ours == {tuple(row) for row in record[case].tolist()}


@pytest.mark.parametrize("size", [1, (1, 1), torch.tensor([1, 1])])
def test_a_kernel_map_of_size_1_takes_a_plain_number_as_region_type(size):
    """The engine's completion, reconstruction and VAE examples find the voxels of a target so."""
    x = tensor()
    m = x.coordinate_manager
    target, _ = m.insert_and_map(
        x.C[::3] + torch.tensor([0, 1, 0], dtype=torch.int32), string_id="target"
    )
    pairs = m.kernel_map(x.coordinate_map_key, m.stride(target, 1), kernel_size=size, region_type=1)
    there = {tuple(c) for c in m.get_coordinates(target).tolist()}
    expected = [row for row, c in enumerate(x.C.tolist()) if tuple(c) in there]
    assert (
        list(pairs) == [0]
        and sorted(pairs[0][0].tolist()) == expected
        and 0 < len(expected) < len(x)
    )
    assert torch.equal(x.C[pairs[0][0].long()], m.get_coordinates(target)[pairs[0][1].long()])
    with pytest.raises(ValueError, match="region_type"):
        m.kernel_map(x.coordinate_map_key, target, kernel_size=3, region_type=1)


def test_a_transposed_kernel_map_swaps_the_rows():
    x = tensor()
    m, key = x.coordinate_manager, x.coordinate_map_key
    coarse = m.stride(key, 2)
    forward = m.kernel_map(key, coarse, stride=2, kernel_size=3)
    backward = m.kernel_map(coarse, key, stride=2, kernel_size=3, is_transpose=True)
    assert forward.keys() == backward.keys()
    assert all(torch.equal(forward[k].flip(0), backward[k]) for k in forward)
    assert list(m.kernel_map(key, coarse, stride=2, kernel_size=2, is_pool=True)) == [0]
