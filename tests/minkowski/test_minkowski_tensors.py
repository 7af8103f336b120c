"""sparsefeat.minkowski: SparseTensor, TensorField and CoordinateManager under MinkowskiEngine's names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_oracle import Record, assert_close, cloud, numbers, rows_at

import sparsefeat.minkowski as ME
from sparsefeat.minkowski.tensor_field import create_splat_coordinates
from sparsefeat.minkowski.utils.gradcheck import gradcheck
from sparsefeat.sparse import SparseTensor as EngineTensor

MODES = ME.SparseTensorQuantizationMode
FLOAT32_SHARES = 1e-7
"""The engine averages with shares rounded to float32."""


def tensor(
    count: int = 60, channels: int = 3, seed: int = 0, dimension: int = 3, **keywords
) -> ME.SparseTensor:
    coordinates = cloud(count, seed=seed, dimension=dimension)
    return ME.SparseTensor(numbers(len(coordinates), channels, seed=seed), coordinates, **keywords)


@pytest.fixture(autouse=True)
def separate_managers():
    yield
    ME.set_sparse_tensor_operation_mode(ME.SparseTensorOperationMode.SEPARATE_COORDINATE_MANAGER)
    ME.clear_global_coordinate_manager()


@pytest.mark.parametrize("mode", ["RANDOM_SUBSAMPLE", "UNWEIGHTED_AVERAGE", "UNWEIGHTED_SUM"])
def test_duplicates_are_reduced_as_recorded(golden, mode):
    record = Record(golden, "sparse_tensor_duplicates")
    leaf = record.leaf("feats")
    x = ME.SparseTensor(leaf, record["coords"], quantization_mode=MODES[mode])
    assert torch.equal(x.C, record[f"{mode}_coords"])
    assert_close(x.F, record[f"{mode}_feats"], FLOAT32_SHARES)
    assert torch.equal(x.unique_index, record[f"{mode}_unique_index"])
    assert torch.equal(x.inverse_mapping, record[f"{mode}_inverse"])
    x.F.backward(record[f"{mode}_grad_out"])
    assert_close(leaf.grad, record[f"{mode}_grad"], FLOAT32_SHARES)


def test_float_coordinates_are_rounded_down_with_a_warning(golden):
    record = Record(golden, "sparse_tensor_float_coords", torch.float32)
    with pytest.warns(UserWarning, match="int32"):
        x = ME.SparseTensor(torch.zeros(len(record["coords"]), 1), record["coords"])
    assert torch.equal(x.C, record["out_coords"])
    assert torch.equal(x.unique_index, record["unique_index"])
    assert torch.equal(x.inverse_mapping, record["inverse"])


@pytest.mark.parametrize(
    "mode", ["RANDOM_SUBSAMPLE", "UNWEIGHTED_AVERAGE", "UNWEIGHTED_SUM", "MAX_POOL"]
)
def test_a_field_becomes_voxels_as_recorded(golden, mode):
    record = Record(golden, "tensorfield_sparse")
    leaf = record.leaf("feats")
    field = ME.TensorField(leaf, torch.from_numpy(record.arrays["coords"]))
    x = field.sparse(quantization_mode=MODES[mode])
    assert torch.equal(x.C, record[f"{mode}_coords"])
    assert torch.equal(field.inverse_mapping(x.coordinate_map_key), record[f"{mode}_inverse"])
    expected = record[f"{mode}_feats"]
    if mode == "MAX_POOL":
        # On purpose: the engine's maximum starts from 0.
        assert_close(x.F.clamp(min=0), expected)
        assert (x.F < 0).any()
        return
    assert_close(x.F, expected, FLOAT32_SHARES)
    x.F.backward(record[f"{mode}_grad_out"])
    assert_close(leaf.grad, record[f"{mode}_grad"], FLOAT32_SHARES)


def test_slice_and_cat_slice_lead_back_to_the_points(golden):
    record = Record(golden, "slice")
    points = torch.from_numpy(record.arrays["coords"])
    leaf = record.leaf("feats")
    field = ME.TensorField(leaf, points)
    x = field.sparse()
    out = x.slice(field)
    assert isinstance(out, ME.TensorField) and torch.equal(out.C, points)
    assert_close(out.F, record["out_feats"], FLOAT32_SHARES)
    assert_close(x.cat_slice(field).F, record["cat_slice_feats"], FLOAT32_SHARES)
    out.F.backward(record["grad_out"])
    assert_close(leaf.grad, record["grad_feats"], FLOAT32_SHARES)


def test_slice_of_a_quantized_tensor_restores_its_input_rows():
    coordinates = torch.tensor([[0, 1], [0, 2], [0, 1], [1, 5]], dtype=torch.int32)
    x = ME.SparseTensor(torch.tensor([[1.0], [2.0], [3.0], [4.0]]), coordinates)
    assert x.slice(x).F.flatten().tolist() == [1, 2, 1, 4]
    assert torch.equal(x.slice(x).C, coordinates)
    assert x.cat_slice(x).F.shape == (4, 2)
    with pytest.raises(ValueError, match="inverse_mapping"):
        x.slice(x * 2)


def test_a_field_slices_tensors_of_any_stride_but_not_pruned_ones():
    points = torch.cat([torch.zeros(40, 1), torch.rand(40, 2) * 20 - 10], 1)
    field = ME.TensorField(torch.rand(40, 2), points)
    x = field.sparse()
    coarse = ME.MinkowskiAvgPooling(kernel_size=4, stride=4, dimension=2)(x)
    rows = field.inverse_mapping(coarse.coordinate_map_key)
    assert torch.equal(coarse.C[rows, 1:], (torch.floor(points[:, 1:] / 4) * 4).int())
    back = field.sparse(coordinate_map_key=coarse.coordinate_map_key)
    means = torch.stack([field.F[rows == r].mean(0) for r in range(len(coarse))])
    assert torch.allclose(back.F, means)
    pruned = ME.MinkowskiPruning()(x, torch.arange(len(x)) > 0)
    with pytest.raises(ValueError, match="no voxel"):
        pruned.slice(field)


def test_rows_made_during_inference_serve_training():
    coordinates = torch.cat([cloud(30), cloud(30)])
    with torch.inference_mode():
        field = ME.TensorField(torch.ones(len(coordinates), 3), coordinates + 0.5)
        x = ME.SparseTensor(torch.ones(len(coordinates), 3), coordinates)
        made = field.sparse()
    leaf = torch.rand(len(x), 3, requires_grad=True)
    for tensor_, points in ((x, x), (made, field)):
        manager = tensor_.coordinate_manager
        again = ME.SparseTensor(
            leaf, coordinate_map_key=tensor_.coordinate_map_key, coordinate_manager=manager
        )
        (grad,) = torch.autograd.grad(again.slice(points).F.sum(), leaf)
        assert (grad == 2).all()
        (grad,) = torch.autograd.grad((again.F * again.C[:, 1:]).sum(), leaf)
        assert torch.equal(grad, tensor_.C[:, 1:].float())
    (grad,) = torch.autograd.grad((made.slice(field).F * leaf[:1] * field.C[:, 1:]).sum(), leaf)
    assert torch.allclose(grad[0], (coordinates + 0.5)[:, 1:].sum(0))


def test_a_field_keeps_its_points_whatever_becomes_of_the_callers_tensor():
    points = torch.tensor([[0, 0.5, 0, 0], [0, 3.5, 0, 0]])
    field = ME.TensorField(torch.tensor([[1.0], [2.0]]), points)
    x = field.sparse()
    before = points.clone()
    points += 10
    assert torch.equal(field.C, before)
    assert x.interpolate(field).F.tolist() == [[0.5], [1.0]]
    assert x.slice(field).F.tolist() == [[1.0], [2.0]]


def test_splat_and_interpolation(golden):
    record = Record(golden, "splat")
    field = ME.TensorField(record["feats"], record["coords"])
    out = field.splat()
    assert_close(out.F[rows_at(out.C, record["out_coords"])], record["out_feats"], 1e-5)
    assert out.interpolate(field).F.shape == field.F.shape

    record = Record(golden, "interpolate")
    leaf = record.leaf("feats")
    x = ME.SparseTensor(leaf, record["coords"])
    found = x.features_at_coordinates(record["query"])
    assert_close(found, record["out_feats"])
    assert torch.equal(found, ME.MinkowskiInterpolation()(x, record["query"]))
    found.backward(record["grad_out"])
    assert_close(leaf.grad, record["grad_feats"])


FAR = torch.tensor([[0, 2001, 0, 0], [0, 2002, 0, 0], [0, 301, 5, 5]], dtype=torch.int32)
"""Voxels that bfloat16 cannot tell apart."""


@pytest.mark.parametrize("points", [FAR, FAR.float(), FAR.double()], ids=["int", "float", "double"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_type_of_the_features_moves_no_point(dtype, points):
    x = ME.SparseTensor(torch.tensor([[1.0], [2.0], [3.0]], dtype=dtype), FAR)
    field = ME.TensorField(x.F, points)
    for found in (
        x.interpolate(field).F,
        x.features_at_coordinates(points),
        ME.MinkowskiInterpolation()(x, points),
        ME.MinkowskiInterpolation(return_weights=True)(x, points)[0],
    ):
        assert found.dtype == dtype and torch.equal(found, x.F)
    splat = field.splat()
    here = splat.F[:, 0] != 0
    assert torch.equal(splat.C[here][splat.F[here, 0].argsort()], FAR)


def test_the_voxels_around_a_point():
    around = create_splat_coordinates(torch.tensor([[1, -0.5, 3.25]]))
    assert around.tolist() == [[1, -1, 3], [1, -1, 4], [1, 0, 3], [1, 0, 4]]
    for far in (2**31 - 1.0, 1e30, float("nan")):
        with pytest.raises(ValueError, match="fit int32|not finite"):
            create_splat_coordinates(torch.tensor([[0, far]]).double())


def test_points_finer_than_float32_keep_their_voxels():
    far = torch.tensor([[0, 2**25 + 1, 0, 0]], dtype=torch.int32)
    x = ME.SparseTensor(torch.ones(1, 1), far)
    assert x.interpolate(ME.TensorField(x.F, far.double())).F.item() == 1
    assert x.features_at_coordinates(far).item() == 1
    assert ME.TensorField(x.F, far).splat().features_at_coordinates(far).item() == 1


def test_interpolation_returns_its_pairs_and_weights(golden):
    record = Record(golden, "interpolation_maps")
    x = ME.SparseTensor(
        torch.zeros(len(record["coords"]), 1, dtype=torch.float64), record["coords"]
    )
    layer = ME.MinkowskiInterpolation(return_kernel_map=True, return_weights=True)
    _, (in_map, out_map), weights = layer(x, record["query"])
    assert in_map.dtype == out_map.dtype == torch.int32
    ours = dict(zip(zip(in_map.tolist(), out_map.tolist()), weights.tolist()))
    theirs = dict(
        zip(zip(record["in_map"].tolist(), record["out_map"].tolist()), record["weights"].tolist())
    )
    assert ours == pytest.approx({pair: w for pair, w in theirs.items() if w > 0})


def test_dense_with_a_minimum_as_recorded(golden):
    record = Record(golden, "to_dense")
    x = ME.SparseTensor(record["feats"], record["coords"])
    grid, low, stride = x.dense(
        torch.Size(record["shape"].tolist()), min_coordinate=record["min_coordinate"].int()
    )
    expected = torch.zeros(record["shape"].tolist(), dtype=torch.float64)
    expected[tuple(record["nz"])] = record["vals"]
    assert torch.equal(grid, expected)
    assert low.shape == (1, 3) and stride.tolist() == record.meta["tensor_stride"]


def test_dense_without_a_minimum_starts_at_the_origin():
    x = ME.SparseTensor(
        torch.tensor([[1.0], [2.0]]), torch.tensor([[0, 4, 6], [1, 2, 2]]).int(), tensor_stride=2
    )
    grid, low, stride = x.dense()
    assert grid.shape == (2, 1, 3, 4) and grid[0, 0, 2, 3] == 1 and grid[1, 0, 1, 1] == 2
    assert low.tolist() == [[2, 2]] and stride.tolist() == [2, 2]
    assert x.dense(contract_stride=False)[0].shape == (2, 1, 5, 7)
    with pytest.raises(ValueError, match="outside"):
        x.dense(torch.Size([2, 1, 2, 2]))
    negative = ME.SparseTensor(torch.ones(1, 1), torch.tensor([[0, -1]]).int())
    with pytest.raises(ValueError, match="min_coordinate"):
        negative.dense()


def test_an_empty_tensor_has_no_extent_of_its_own():
    x = ME.SparseTensor(torch.zeros(0, 2), torch.zeros(0, 4, dtype=torch.int32))
    low, high = torch.IntTensor([0, 0, 0]), torch.IntTensor([3, 4, 5])
    for bounds in ({}, {"min_coords": low}, {"max_coords": high}):
        with pytest.raises(ValueError, match="give min_coords= and max_coords="):
            x.sparse(**bounds)
    assert x.sparse(low, high)[0].shape == (0, 4, 5, 6, 2)


def test_features_gather_a_gradient_or_not_as_asked_for():
    twice = torch.zeros(2, 4, dtype=torch.int32)
    weight = torch.ones(2, 1, requires_grad=True)
    for given in (weight, weight * 2, torch.ones(2, 1)):
        for kind in (ME.SparseTensor, ME.TensorField):
            for mode in (MODES.RANDOM_SUBSAMPLE, MODES.UNWEIGHTED_AVERAGE):
                for asked in (False, True):
                    x = kind(given, twice, quantization_mode=mode, requires_grad=asked)
                    assert x.F.requires_grad is asked
    assert weight.requires_grad


def test_sparse_is_torchs_own_sparse_tensor():
    x = tensor()
    out, low, stride = x.sparse()
    dense = x.dense(min_coordinate=low)[0].movedim(1, -1)
    assert torch.equal(out.to_dense(), dense) and stride.tolist() == [1, 1, 1]


def test_decomposition_as_recorded(golden):
    record = Record(golden, "decompose")
    x = ME.SparseTensor(record["feats"], record["coords"])
    coordinates, features = x.decomposed_coordinates_and_features
    assert [len(c) for c in coordinates] == record.meta["n"]
    sizes = record.meta["n"]
    for batch, (c, f) in enumerate(
        zip(record["dec_coords"].split(sizes), record["dec_feats"].split(sizes))
    ):
        rows = rows_at(coordinates[batch], c)
        assert_close(features[batch][rows], f)
        assert torch.equal(x.coordinates_at(batch), coordinates[batch])
        assert torch.equal(x.features_at(batch), features[batch])
        assert torch.equal(x.F[x.decomposition_permutations[batch]], features[batch])


def test_an_absent_batch_index_decomposes_to_an_empty_cloud():
    x = ME.SparseTensor(torch.ones(2, 1), torch.tensor([[0, 3], [2, 3]]).int())
    assert [len(c) for c in x.decomposed_coordinates] == [1, 0, 1]
    assert [len(f) for f in x.decomposed_features] == [1, 0, 1]


def test_what_a_tensor_says_of_itself():
    x = tensor(tensor_stride=2)
    assert isinstance(x, EngineTensor)
    assert x.tensor_stride == [2, 2, 2] == x.coordinate_map_key.get_tensor_stride()
    assert (
        x.coordinate_map_key.get_key() == ([2, 2, 2], "")
        and x.coordinate_map_key.get_coordinate_size() == 4
    )
    assert x.D == x.dimension == 3 and x.shape == x.size() == x.F.size() and x.size(1) == 3
    assert x.coordinate_key == x.coordinate_map_key == x.coords_key
    assert x.coordinate_manager == x.coords_man and x.coords is not None and x.feats is x.F
    assert x.dtype == torch.float64 and x.float().dtype == torch.float32 and x.device.type == "cpu"
    assert x.requires_grad is False and x.requires_grad_().requires_grad is True
    assert x.detach().requires_grad is False and x.requires_grad is True
    assert "coordinate map key:[2, 2, 2]" in repr(x)


def test_arithmetic_on_one_map_and_in_place():
    x = tensor()
    y = x.replace(numbers(len(x), 3, seed=1))
    for name, result in (("add", x + y), ("sub", x - y), ("mul", x * y), ("div", x / y)):
        assert torch.equal(result.F, getattr(torch, name)(x.F, y.F))
        assert result.coordinate_map_key == x.coordinate_map_key
    assert torch.equal((x + torch.ones(3)).F, x.F + 1)
    assert torch.equal((x**2).F, x.F**2)
    before = x.F
    z = x
    z += y
    assert z is x and torch.equal(x.F, before + y.F) and not torch.equal(x.F, before)
    z -= y
    z *= y
    assert torch.allclose(x.F, before * y.F)
    z /= y
    assert z is x and torch.allclose(x.F, before)
    with pytest.raises(ValueError, match="manager"):
        x += tensor(seed=3)


def test_a_product_across_maps_is_zero_where_a_factor_is_missing():
    x = tensor()
    y = tensor(seed=1, coordinate_manager=x.coordinate_manager)
    product = x * y
    both = {tuple(c) for c in x.C.tolist()} & {tuple(c) for c in y.C.tolist()}
    nonzero = {tuple(c) for c, f in zip(product.C.tolist(), product.F) if f.any()}
    assert len(product) > len(x) and nonzero == both


def test_version_04_names_are_accepted_and_others_are_not():
    coordinates = cloud(20)
    x = ME.SparseTensor(feats=torch.ones(len(coordinates), 1), coords=coordinates)
    y = ME.SparseTensor(x.F * 2, coords_key=x.coords_key, coords_manager=x.coords_man)
    assert torch.equal((x + y).F, x.F * 3)
    with pytest.raises(TypeError, match="colour"):
        ME.SparseTensor(x.F, coordinates, colour=1)


def test_wrong_arguments_raise_one_line():
    coordinates = cloud(20)
    features = torch.ones(len(coordinates), 1)
    for arguments, message in (
        ({"features": features}, "either coordinates"),
        ({"features": features[0], "coordinates": coordinates}, r"\(V, C\)"),
        ({"features": features, "coordinates": coordinates[1:]}, "expected a tensor of shape"),
        (
            {"features": features, "coordinate_map_key": ME.CoordinateMapKey([1], "")},
            "coordinate_manager",
        ),
        (
            {"features": features, "coordinates": coordinates, "quantization_mode": 3},
            "quantization_mode",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            ME.SparseTensor(**arguments)
    twice = torch.cat([coordinates, coordinates[:1]])
    with pytest.raises(ValueError, match="duplicates"):
        ME.SparseTensor(torch.ones(len(twice), 1), twice, quantization_mode=MODES.NO_QUANTIZATION)


def test_what_the_engine_asserts_is_an_assertion_error_too():
    x = tensor()
    conv = ME.MinkowskiConvolution(3, 2, kernel_size=3, dimension=3).double()
    for call in (
        lambda: ME.SparseTensor(torch.ones(3), cloud(3)),
        lambda: ME.TensorField(torch.ones(3, 1)),
        lambda: ME.KernelGenerator(kernel_size=3, region_type=0, dimension=3),
        lambda: ME.MinkowskiConvolution(3, 2, kernel_size=3, dimension=-1),
        lambda: conv(x.F),
        lambda: conv(x.replace(x.F[:, :2])),
        lambda: conv(tensor(dimension=2)),
        lambda: x.coordinate_manager.union_map([x.coordinate_map_key], x.coordinate_map_key),
        lambda: ME.cat(x, tensor()),
        lambda: x.slice(x * 2),
        lambda: ME.utils.sparse_quantize(torch.ones(3)),
        lambda: ME.utils.batched_coordinates([]),
        lambda: ME.convert_to_int_list([1, 2], 3),
    ):
        with pytest.raises(AssertionError):
            call()
        with pytest.raises(ValueError):
            call()


def test_sharing_one_manager_until_it_is_cleared():
    share = ME.SparseTensorOperationMode.SHARE_COORDINATE_MANAGER
    ME.set_sparse_tensor_operation_mode(share)
    assert ME.sparse_tensor_operation_mode() == share
    a, b = tensor(), tensor(seed=1)
    assert a.coordinate_manager == b.coordinate_manager == ME.global_coordinate_manager()
    assert len(a + b) > len(a)
    ME.clear_global_coordinate_manager()
    assert tensor().coordinate_manager != a.coordinate_manager


def test_two_clouds_in_one_manager_are_up_sampled_each_to_its_own():
    down = ME.MinkowskiConvolution(3, 3, kernel_size=2, stride=2, dimension=3).double()
    up = ME.MinkowskiConvolutionTranspose(3, 3, kernel_size=2, stride=2, dimension=3).double()
    a = tensor()
    b = tensor(seed=1, coordinate_manager=a.coordinate_manager)
    assert torch.equal(up(down(a)).C, a.C) and torch.equal(up(down(b)).C, b.C)


def test_a_level_put_back_by_its_coordinates_still_knows_its_finer_one():
    down = ME.MinkowskiConvolution(3, 3, kernel_size=2, stride=2, dimension=3).double()
    up = ME.MinkowskiConvolutionTranspose(3, 3, kernel_size=2, stride=2, dimension=3).double()
    x = tensor()
    y = down(x)
    again = ME.SparseTensor(y.F, y.C, tensor_stride=2, coordinate_manager=y.coordinate_manager)
    assert torch.equal(up(again).C, x.C) and torch.equal(up(again).F, up(y).F)


def test_queries_of_the_manager():
    x = tensor()
    m, key = x.coordinate_manager, x.coordinate_map_key
    coarse = m.stride(key, 2)
    assert (
        m.exists(coarse)
        and not m.exists(ME.CoordinateMapKey([8, 8, 8], ""))
        and not m.exists(ME.CoordinateMapKey(4))
    )
    assert m.size(coarse) == len(m.get_coordinates(coarse)) == len(m.get_coordinates(2))
    assert torch.equal(m.get_coordinates(key), x.C)
    fine_rows, coarse_rows = m.stride_map(key, coarse)
    assert torch.equal(m.get_coordinates(coarse)[coarse_rows, 1:], x.C[fine_rows, 1:] // 2 * 2)
    assert torch.equal(fine_rows, torch.arange(len(x)))
    batches, rows = m.origin_map(key)
    assert batches.tolist() == [0, 1] and all((x.C[r, 0] == b).all() for b, r in enumerate(rows))
    assert m.number_of_unique_batch_indices() == 2 == len(m.get_coordinates(m.origin()))
    other = tensor(seed=1, coordinate_manager=m)
    union = ME.CoordinateMapKey(4)
    maps = m.union_map([key, other.coordinate_map_key], union)
    for source, (ins, outs) in zip((x, other), maps):
        assert torch.equal(m.get_coordinates(union)[outs], source.C[ins])
    unique = m.get_unique_coordinate_map_key([2, 2, 2])
    assert unique.get_tensor_stride() == [2, 2, 2] and not m.exists(unique)
    named, _ = m.insert_and_map(x.C * 3, 3, "mine")
    assert named.get_key() == ([3, 3, 3], "mine") and m.stride(named, 2).get_key() == (
        [6, 6, 6],
        "mine",
    )
    assert m.stride(key, 2, "apart").get_key() == ([2, 2, 2], "apart")
    assert "60" not in repr(m) and "[2, 2, 2]" in repr(m)
    with pytest.raises(ValueError, match="tensor stride"):
        m.get_coordinates(7)


def test_a_key_is_empty_until_it_is_set():
    key = ME.CoordinateMapKey(4)
    assert not key.is_key_set() and key != ME.CoordinateMapKey(4)
    with pytest.raises(ValueError, match="empty"):
        key.get_key()
    key.set_key([1, 2, 3], "a")
    assert (
        key == ME.CoordinateMapKey([1, 2, 3], "a")
        and len({key, ME.CoordinateMapKey([1, 2, 3], "a")}) == 1
    )
    assert (
        key != ME.CoordinateMapKey([1, 2, 3], "b") and repr(key) == "coordinate map key:[1, 2, 3]:a"
    )
    with pytest.raises(ValueError, match="strides"):
        key.set_key([1, 2], "a")


def test_layers_keep_fields_fields():
    points = torch.cat([torch.arange(30)[:, None] % 2, torch.rand(30, 3) * 8], 1)
    field = ME.TensorField(torch.rand(30, 4), points)
    net = torch.nn.Sequential(
        ME.MinkowskiLinear(4, 8),
        ME.MinkowskiBatchNorm(8),
        ME.MinkowskiReLU(),
        ME.MinkowskiSinusoidal(8, 5),
    )
    out = net(field)
    assert isinstance(out, ME.TensorField) and out.F.shape == (30, 5) and torch.equal(out.C, points)
    assert torch.equal((out + out).F, out.F * 2) and torch.equal((out * 2).F, out.F * 2)
    assert torch.equal(ME.cat(out, out).F, torch.cat([out.F, out.F], 1))
    pooled = ME.MinkowskiGlobalMaxPooling()(out)
    assert torch.equal(pooled.F, torch.stack([f.amax(0) for f in out.decomposed_features]))
    assert pooled.tensor_stride == [0, 0, 0] and pooled.C.tolist() == [[0, 0, 0, 0], [1, 0, 0, 0]]
    assert ME.MinkowskiToFeature()(out) is out.F
    assert ME.MinkowskiToSparseTensor()(out).F.shape[1] == 5


@pytest.mark.parametrize("kind", ["Max", "Avg", "Sum"])
def test_a_function_is_applied_with_a_fields_key(kind):
    points = torch.cat([torch.arange(12)[:, None] % 3, torch.arange(12)[:, None] // 6 + 0.25], 1)
    field = ME.TensorField(numbers(12, 2).requires_grad_(), points)
    m, key = field.coordinate_manager, field.coordinate_field_map_key
    pool = getattr(ME, f"MinkowskiGlobal{kind}Pooling")()
    out = ME.CoordinateMapKey(2)
    arguments = (field.F, pool.pooling_mode, key, out, m)
    pooled = ME.MinkowskiGlobalPoolingFunction.apply(*arguments)
    clouds = [field.F[points[:, 0] == b] for b in range(3)]
    by_hand = {"Max": lambda f: f.amax(0), "Avg": lambda f: f.mean(0), "Sum": lambda f: f.sum(0)}[
        kind
    ]
    assert torch.allclose(pooled, torch.stack([by_hand(f) for f in clouds]))
    assert torch.equal(pooled, pool(field).F)
    assert m.get_coordinates(out).tolist() == [
        [0, 0],
        [1, 0],
        [2, 0],
    ] and out.get_tensor_stride() == [0]
    assert gradcheck(
        ME.MinkowskiGlobalPoolingFunction(), (field.F, pool.pooling_mode, key, None, m)
    )

    x = field.sparse()
    assert x.coordinate_map_key != key, "the field's voxels have a key of their own"
    assert len(x.F) < len(field.F)
    conv = ME.MinkowskiConvolution(2, 2, kernel_size=3, dimension=1).double()
    with pytest.raises(ValueError, match="key of a field"):
        conv.conv.apply(
            field.F, conv.kernel, conv.kernel_generator, conv.convolution_mode, key, None, m
        )


def test_fields_and_voxels_never_have_one_key():
    points = torch.tensor([[0, 0.5], [0, 1.7]])
    field = ME.TensorField(torch.rand(2, 1), points)
    m = field.coordinate_manager
    name = field.coordinate_field_map_key.get_key()[1]
    named, _ = m.insert_and_map(torch.tensor([[0, 5]]).int(), 1, name)
    second = ME.TensorField(torch.rand(2, 1), points, coordinate_manager=m)
    keys = [
        field.coordinate_field_map_key,
        named,
        second.coordinate_field_map_key,
        m.insert_field(points, 1, ""),
    ]
    assert len(set(keys)) == 4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_largest_value_of_zero_has_a_whole_gradient(dtype):
    """Of several that are equal the first has it all, whoever takes the maximum."""
    rows = torch.tensor([[0, 4], [0, 4], [1, 0], [1, 0]], dtype=torch.int32)
    values = torch.tensor([[0.0, -1], [-2, 0], [0, 0], [-1, 0]], dtype=dtype)
    maximum = MODES.MAX_POOL
    pairs = torch.arange(4), torch.tensor([0, 0, 1, 1])
    ways = {
        "duplicates": lambda f: ME.SparseTensor(f, rows, quantization_mode=maximum).F,
        "field": lambda f: ME.TensorField(f, rows + 0.5, quantization_mode=maximum).sparse().F,
        "clouds of a field": lambda f: (
            ME.MinkowskiGlobalMaxPooling()(ME.TensorField(f, rows + 0.5)).F
        ),
        "pairs": lambda f: ME.MinkowskiDirectMaxPoolingFunction.apply(*pairs, f, 2),
    }
    for name, way in ways.items():
        leaf = values.clone().requires_grad_()
        y = way(leaf)
        assert y.tolist() == [[0, 0], [0, 0]], name
        gradient = torch.autograd.grad(y, leaf, torch.tensor([[2.0, 3], [5, 7]], dtype=dtype))[0]
        assert gradient.tolist() == [[2, 0], [0, 3], [5, 7], [0, 0]], name


def test_field_queries_of_the_manager():
    points = torch.tensor([[0, 0.5], [0, 0.7], [1, -1.5]])
    field = ME.TensorField(torch.rand(3, 1), points)
    m, key = field.coordinate_manager, field.coordinate_field_map_key
    assert torch.equal(m.get_coordinate_field(key), points) and field.coordinate_key == key
    sparse_key, (index, inverse) = m.field_to_sparse_insert_and_map(key, [1])
    assert index.tolist() == [0, 2] and inverse.tolist() == [0, 0, 1]
    assert m.exists_field_to_sparse(key, sparse_key) and m.field_to_sparse_keys(key) == [sparse_key]
    assert [a.tolist() for a in m.get_field_to_sparse_map(key, sparse_key)] == [[0, 2], [0, 0, 1]]
    assert [a.tolist() for a in m.field_to_sparse_map(key, sparse_key)] == [[0, 0, 1], [0, 1, 2]]
    assert m.get_coordinates(m.origin_field()).tolist() == [[0, 0], [1, 0]]
    assert [r.tolist() for r in m.origin_field_map(key)[1]] == [[0, 1], [2]]


def test_empty_tensors_and_single_voxels_pass():
    empty = ME.SparseTensor(torch.zeros(0, 2), torch.zeros(0, 4).int())
    conv = ME.MinkowskiConvolution(2, 3, kernel_size=3, stride=2, dimension=3)
    assert conv(empty).F.shape == (0, 3) and empty.decomposed_features == []
    assert empty.dense(torch.Size([1, 2, 4, 4, 4]))[0].sum() == 0
    one = ME.SparseTensor(torch.ones(1, 2), torch.tensor([[0, 1, 2, 3]]).int())
    assert torch.equal(ME.MinkowskiGlobalAvgPooling()(one).F, one.F)
    assert not ME.MinkowskiInstanceNorm(2)(one).F.any()


def test_numpy_strides_are_understood():
    x = tensor(tensor_stride=np.array([1, 2, 1]))
    assert x.tensor_stride == [1, 2, 1]
    assert ME.convert_to_int_tensor(torch.tensor([1, 2, 3]), 3).tolist() == [1, 2, 3]
    assert ME.convert_to_int_list(2, 3) == [2, 2, 2]
    with pytest.raises(ValueError, match="per axis"):
        ME.convert_to_int_list([1, 2], 3)


def test_a_global_pool_is_sliced_to_every_point_of_its_cloud():
    points = torch.tensor([[0, -3.5, 1, 2], [0, 4, 4.2, 0], [1, 7.5, -8, 9]])
    field = ME.TensorField(torch.tensor([[1.0], [3.0], [10.0]]), points)
    summary = ME.MinkowskiGlobalAvgPooling()(field.sparse())
    assert summary.slice(field).F.tolist() == [[2], [2], [10]]
