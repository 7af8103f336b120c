"""Norms, broadcasting, unions, duplicates, fields and grids against MinkowskiEngine's recorded outputs."""

from __future__ import annotations

import pytest
import torch
from engine_oracle import PRECISIONS, TOLERANCE, Record, assert_close, recorded, rows_at

from sparsefeat.sparse import SparseTensor, TensorField, collate, modules, quantize, slice_field
from sparsefeat.sparse import functional as fn

REDUCTIONS = {
    "RANDOM_SUBSAMPLE": "first",
    "UNWEIGHTED_AVERAGE": "average",
    "UNWEIGHTED_SUM": "sum",
    "MAX_POOL": "max",
}


FLOAT32_SHARES = 1e-7
"""The engine averages duplicates with shares 1/n rounded to float32, in float64 too; ours are exact."""


def check_gradients(
    output: torch.Tensor, grad_out: torch.Tensor, pairs: list, tolerance: float | None = None
):
    """Compare gradients: pairs of (leaf, what its gradient should be)."""
    grads = torch.autograd.grad(output, [leaf for leaf, _ in pairs], grad_out)
    for grad, (_, expected) in zip(grads, pairs):
        assert_close(grad, expected, tolerance)


def means_by_hand(features: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """The mean of the rows that share a voxel, one voxel after the other."""
    return torch.stack(
        [features[inverse == voxel].mean(0) for voxel in range(int(inverse.max()) + 1)]
    ).detach()


@PRECISIONS
@recorded("batchnorm_train", "batchnorm_eval")
def test_batch_norm_with_its_running_statistics(golden, name, dtype):
    record = Record(golden, name, dtype)
    layer = modules.BatchNorm(6, eps=record.meta["eps"], momentum=record.meta["momentum"]).to(dtype)
    assert list(layer.state_dict()) == record.meta["state_keys"]
    state = {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "running_mean",
        "running_var": "running_var",
    }
    layer.load_state_dict({f"bn.{key}": record[name] for key, name in state.items()}, strict=False)
    layer.train(record.meta["mode"] == "train")
    leaf = record.leaf("feats")
    y = layer(SparseTensor(leaf, record["coords"]))
    assert torch.equal(y.C, record["out_coords"])
    assert_close(y.F, record["out_feats"])
    assert_close(layer.bn.running_mean, record["running_mean_after"])
    assert_close(layer.bn.running_var, record["running_var_after"])
    assert layer.bn.num_batches_tracked == record["num_batches_tracked"]
    check_gradients(
        y.F,
        record["grad_out"],
        [
            (leaf, record["grad_feats"]),
            (layer.bn.weight, record["grad_gamma"]),
            (layer.bn.bias, record["grad_beta"]),
        ],
    )


@PRECISIONS
@recorded("instancenorm")
def test_instance_norm(golden, name, dtype):
    record = Record(golden, name, dtype)
    layer = modules.InstanceNorm(6, eps=record.meta["eps"]).to(dtype)
    assert {key: list(value.shape) for key, value in layer.state_dict().items()} == record.meta[
        "state_keys"
    ]
    layer.load_state_dict({"weight": record["gamma"], "bias": record["beta"]})
    leaf = record.leaf("feats")
    y = layer(SparseTensor(leaf, record["coords"]))
    assert torch.equal(y.C, record["out_coords"])
    assert_close(y.F, record["out_feats"])
    wanted = [(leaf, "grad_feats"), (layer.weight, "grad_gamma"), (layer.bias, "grad_beta")]
    grads = torch.autograd.grad(y.F, [leaf for leaf, _ in wanted], record["grad_out"])
    # In the cloud of one voxel the engine's input gradient is rounding noise of its own; ours is zero.
    single = record["coords"][:, 0] == 2
    assert int(single.sum()) == 1 and not grads[0][single].any()
    for grad, (_, key) in zip(grads, wanted):
        assert_close(grad, record[key])


@PRECISIONS
@recorded("global_pool_avg", "global_pool_max", "global_pool_sum")
def test_global_pooling(golden, name, dtype):
    record = Record(golden, name, dtype)
    kinds = {
        "avg": modules.GlobalAvgPooling,
        "max": modules.GlobalMaxPooling,
        "sum": modules.GlobalSumPooling,
    }
    leaf = record.leaf("feats")
    y = kinds[name.removeprefix("global_pool_")]()(SparseTensor(leaf, record["coords"]))
    assert list(y.tensor_stride) == record.meta["out_tensor_stride"]
    rows = rows_at(y.C, record["out_coords"])
    assert_close(y.F[rows], record["out_feats"])
    check_gradients(y.F[rows], record["grad_out"], [(leaf, record["grad_feats"])])


@PRECISIONS
@recorded("broadcast_add", "broadcast_cat", "broadcast_copy", "broadcast_mul")
def test_broadcast(golden, name, dtype):
    record = Record(golden, name, dtype)
    kinds = {
        "broadcast_add": modules.BroadcastAddition,
        "broadcast_cat": modules.BroadcastConcatenation,
        "broadcast_copy": modules.Broadcast,
        "broadcast_mul": modules.BroadcastMultiplication,
    }
    leaf, summary_leaf = record.leaf("feats"), record.leaf("glob_feats")
    x = SparseTensor(leaf, record["coords"])
    key = x.manager.origin(x.key)
    rows = rows_at(record["glob_coords"], x.manager[key].coordinates)
    y = kinds[name]()(x, x.replace(summary_leaf[rows], key))
    assert torch.equal(y.C, record["out_coords"])
    assert_close(y.F, record["out_feats"])
    pairs = [(summary_leaf, record["grad_glob"])]
    if "grad_feats" in record:
        pairs.append((leaf, record["grad_feats"]))
    check_gradients(y.F, record["grad_out"], pairs)


@PRECISIONS
@recorded("cat")
def test_cat(golden, name, dtype):
    record = Record(golden, name, dtype)
    a, b = record.leaf("feats_a"), record.leaf("feats_b")
    x = SparseTensor(a, record["coords"])
    y = fn.cat(x, x.replace(b))
    assert torch.equal(y.C, record["out_coords"])
    assert_close(y.F, record["out_feats"])
    check_gradients(y.F, record["grad_out"], [(a, record["grad_a"]), (b, record["grad_b"])])


@PRECISIONS
@recorded("union", "binary_add_union", "binary_sub_union")
def test_union_and_arithmetic_across_maps(golden, name, dtype):
    record = Record(golden, name, dtype)
    operation = {
        "union": modules.Union(),
        "binary_add_union": lambda x, y: x + y,
        "binary_sub_union": lambda x, y: x - y,
    }[name]
    a, b = record.leaf("feats_a"), record.leaf("feats_b")
    x = SparseTensor(a, record["coords_a"])
    z = operation(x, SparseTensor(b, record["coords_b"], manager=x.manager))
    assert torch.equal(z.C[: len(a)], record["coords_a"]), "the first operand's rows come first"
    rows = rows_at(z.C, record["out_coords"])
    assert_close(z.F[rows], record["out_feats"])
    if "grad_out" in record:
        check_gradients(
            z.F[rows], record["grad_out"], [(a, record["grad_a"]), (b, record["grad_b"])]
        )


@PRECISIONS
@recorded("pruning")
def test_pruning(golden, name, dtype):
    record = Record(golden, name, dtype)
    leaf = record.leaf("feats")
    y = modules.Pruning()(SparseTensor(leaf, record["coords"]), record["keep"])
    assert torch.equal(y.C, record["coords"][record["keep"]]), "the rows that stay keep their order"
    rows = rows_at(y.C, record["out_coords"])
    assert_close(y.F[rows], record["out_feats"])
    check_gradients(y.F[rows], record["grad_out"], [(leaf, record["grad_feats"])])


@recorded("collate")
def test_collate(golden, name):
    record = Record(golden, name)
    coordinates, features = collate([record["c0"], record["c1"]], [record["f0"], record["f1"]])
    assert torch.equal(coordinates, record["batched"]) and torch.equal(coordinates, record["sc"])
    assert torch.equal(features, record["sf"])
    floats = collate([record["fl0"], record["fl1"]])
    assert floats.dtype == torch.int32
    assert torch.equal(floats, record["batched_int_from_float"])
    assert torch.equal(floats, torch.floor(record["batched_float"]).int())


@recorded("sparse_quantize")
def test_quantize(golden, name):
    record = Record(golden, name)
    out = quantize(record["int_coords"], record["int_feats"])
    assert torch.equal(out.coordinates, record["int_out_coords"])
    assert torch.equal(out.features, record["int_out_feats"])
    assert torch.equal(out.index, record["int_index"]) and torch.equal(
        out.inverse, record["int_inverse"]
    )

    floats = torch.from_numpy(record.arrays["float_coords"])
    out = quantize(floats, voxel_size=float(record["voxel"]))
    assert torch.equal(out.coordinates, record["float_out_coords"])
    assert torch.equal(out.index, record["float_index"]) and torch.equal(
        out.inverse, record["float_inverse"]
    )
    assert torch.equal(out.index, record["floatT_index"]) and torch.equal(
        out.index, record["float64_index"]
    )

    # Labels: the engine's are wrong where duplicates interleave (test_engine_departures); the rest agrees.
    out = quantize(record["int_coords"], record["int_feats"], record["labels"], ignore_label=-100)
    assert torch.equal(out.coordinates, record["lab_out_coords"])
    assert torch.equal(out.features, record["lab_out_feats"])
    assert torch.equal(out.index, record["lab_index"].long())
    assert torch.equal(out.inverse, record["lab_inverse"].long())
    assert torch.equal(out.index, record["labT_index"])
    out = quantize(record["cd"], labels=record["ld"])
    assert torch.equal(out.coordinates, record["cd_out_coords"])
    assert torch.equal(out.index, record["cd_index"].long())


@pytest.mark.parametrize("mode", ["RANDOM_SUBSAMPLE", "UNWEIGHTED_AVERAGE", "UNWEIGHTED_SUM"])
@PRECISIONS
@recorded("sparse_tensor_duplicates")
def test_duplicate_rows_of_a_sparse_tensor(golden, name, dtype, mode):
    record = Record(golden, name, dtype)
    leaf = record.leaf("feats")
    x = SparseTensor(leaf, record["coords"], reduce=REDUCTIONS[mode])
    assert torch.equal(x.C, record[f"{mode}_coords"])
    tolerance = None
    if mode == "UNWEIGHTED_AVERAGE":
        assert_close(x.F, means_by_hand(leaf, x.inverse_mapping))
        tolerance = max(FLOAT32_SHARES, TOLERANCE[dtype])
    assert_close(x.F, record[f"{mode}_feats"], tolerance)
    assert torch.equal(x.unique_index, record[f"{mode}_unique_index"])
    assert torch.equal(x.inverse_mapping, record[f"{mode}_inverse"])
    check_gradients(x.F, record[f"{mode}_grad_out"], [(leaf, record[f"{mode}_grad"])], tolerance)


@recorded("sparse_tensor_float_coords")
def test_float_coordinates_are_rounded_down(golden, name):
    record = Record(golden, name, torch.float32)
    x = SparseTensor(torch.zeros(len(record["coords"]), 1), record["coords"])
    assert torch.equal(x.C, record["out_coords"])
    assert torch.equal(x.unique_index, record["unique_index"])
    assert torch.equal(x.inverse_mapping, record["inverse"])


@recorded("to_dense")
def test_dense(golden, name):
    record = Record(golden, name)
    grid, low, stride = SparseTensor(record["feats"], record["coords"]).dense(
        shape=record["shape"].tolist(), min_coordinate=record["min_coordinate"]
    )
    assert (
        torch.equal(low, record["min_coordinate"]) and list(stride) == record.meta["tensor_stride"]
    )
    expected = torch.zeros(record["shape"].tolist(), dtype=torch.float64)
    expected[tuple(record["nz"])] = record["vals"]
    assert torch.equal(grid, expected)


@recorded("decompose")
def test_decompose(golden, name):
    record = Record(golden, name)
    coordinates, features = SparseTensor(record["feats"], record["coords"]).decompose()
    assert [len(c) for c in coordinates] == record.meta["n"] == [len(f) for f in features]
    # The engine sorts within a cloud, ours keep the order of the input: compare cloud by cloud.
    for got_c, got_f, want_c, want_f in zip(
        coordinates,
        features,
        record["dec_coords"].split(record.meta["n"]),
        record["dec_feats"].split(record.meta["n"]),
    ):
        rows = rows_at(got_c, want_c)
        assert_close(got_f[rows], want_f)


@pytest.mark.parametrize("mode", REDUCTIONS)
@PRECISIONS
@recorded("tensorfield_sparse")
def test_tensor_field_to_voxels(golden, name, dtype, mode):
    record = Record(golden, name, dtype)
    leaf = record.leaf("feats")
    field = TensorField(leaf, torch.from_numpy(record.arrays["coords"]))
    x = field.sparse(REDUCTIONS[mode])
    assert torch.equal(x.C, record[f"{mode}_coords"])
    assert torch.equal(x.inverse_mapping, record[f"{mode}_inverse"])
    expected, tolerance = record[f"{mode}_feats"], None
    if (
        mode == "MAX_POOL"
    ):  # the engine's maximum starts at 0; the right ones are in test_engine_departures
        right = (x.F.detach() > 0).all(1)
        assert_close(x.F[right], expected[right])
        return
    if mode == "UNWEIGHTED_AVERAGE":
        assert_close(x.F, means_by_hand(leaf, x.inverse_mapping))
        tolerance = max(FLOAT32_SHARES, TOLERANCE[dtype])
    assert_close(x.F, expected, tolerance)
    check_gradients(x.F, record[f"{mode}_grad_out"], [(leaf, record[f"{mode}_grad"])], tolerance)


@PRECISIONS
@recorded("slice")
def test_slice_gathers_back_to_the_points(golden, name, dtype):
    record = Record(golden, name, dtype)
    leaf, positions = record.leaf("feats"), torch.from_numpy(record.arrays["coords"])
    field = TensorField(leaf, positions)
    x = field.sparse()
    rows = rows_at(x.C, record["sparse_coords"])
    tolerance = max(FLOAT32_SHARES, TOLERANCE[dtype])
    assert_close(x.F[rows], record["sparse_feats"], tolerance)
    out = slice_field(x, field)
    assert torch.equal(out.C, torch.from_numpy(record.arrays["out_coords"]))
    assert_close(out.F, means_by_hand(leaf, x.inverse_mapping)[x.inverse_mapping])
    assert_close(out.F, record["out_feats"], tolerance)
    assert_close(torch.cat([out.F, field.F], 1), record["cat_slice_feats"], tolerance)
    check_gradients(out.F, record["grad_out"], [(leaf, record["grad_feats"])], tolerance)


@PRECISIONS
@recorded("splat")
def test_splat(golden, name, dtype):
    record = Record(golden, name, dtype)
    out = TensorField(record["feats"], record["coords"]).splat()
    rows = rows_at(out.C, record["out_coords"])
    # The engine recorded this one in float32.
    assert_close(out.F[rows], record["out_feats"], tolerance=1e-5)


@PRECISIONS
@recorded("interpolate")
def test_interpolate(golden, name, dtype):
    record = Record(golden, name, dtype)
    leaf = record.leaf("feats")
    out = fn.interpolate(SparseTensor(leaf, record["coords"]), record["query"])
    assert_close(out, record["out_feats"])
    check_gradients(out, record["grad_out"], [(leaf, record["grad_feats"])])


@recorded("interpolation_maps")
def test_interpolation_maps(golden, name):
    record = Record(golden, name)
    x = SparseTensor(torch.zeros(len(record["coords"]), 1, dtype=torch.float64), record["coords"])
    plan, weights = fn.interpolation_map(x, record["query"])
    ours = {
        (i, o): w
        for i, o, w in zip(plan.in_rows.tolist(), plan.out_rows.tolist(), weights.tolist())
    }
    theirs = zip(record["in_map"].tolist(), record["out_map"].tolist(), record["weights"].tolist())
    theirs = {(i, o): w for i, o, w in theirs if w > 0}
    assert ours.keys() == theirs.keys()
    assert ours == pytest.approx(theirs, abs=1e-9)
