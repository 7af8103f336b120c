"""Convolution and pooling against MinkowskiEngine's recorded outputs and gradients."""

from __future__ import annotations

import json

import test_engine_departures  # noqa: F401  (fills RECORDED)
import test_engine_golden_tensors  # noqa: F401  (fills RECORDED)
import torch
from engine_oracle import (
    PATHS_AND_PRECISIONS,
    PRECISIONS,
    RECORDED,
    Record,
    assert_close,
    recorded,
    rows_at,
    take_path,
)

from sparsefeat.sparse import CoordinateManager, Kernel, SparseTensor, modules
from sparsefeat.sparse import functional as fn

POOLINGS = {"avg": modules.AvgPooling, "max": modules.MaxPooling, "sum": modules.SumPooling}


def test_every_recorded_output_has_a_test(golden):
    files = {path.stem for path in golden.few.iterdir()}
    assert sum(path.stat().st_size for path in golden.few.iterdir()) < 1e6
    assert files <= RECORDED
    kept = {Record(golden, name).meta["op"] for name in files}
    index = json.loads((golden / "index.json").read_text())
    assert kept == {meta["op"] for meta in index.values()}, "one of each operation"
    assert set(index) == {
        path.stem for path in golden.all.glob("*.npz") if not path.stem.startswith("resunet")
    }
    assert set(index) == RECORDED


def layer_of(record: Record, cls, transposed: bool = False):
    """The module that a record describes, holding its weights."""
    meta = record.meta
    extra = meta.get("extra", {})
    kernel = None
    if "HYPER_CROSS" in extra.get("kernel_generator", ""):
        kernel = Kernel((meta["kernel_size"],) * 3, (1, 1, 1), "cross")
    layer = cls(
        record["feats"].shape[1],
        record["weight"].shape[-1],
        meta["kernel_size"],
        meta["stride"],
        meta.get("dilation", 1),
        bias="bias" in record,
        kernel=kernel,
        expand_coordinates="expand_coordinates" in extra,
    ).to(record.dtype)
    layer.load_state_dict(
        {
            key: record[name]
            for key, name in (("kernel", "weight"), ("bias", "bias"))
            if name in record
        }
    )
    return layer


def check_layer(
    record: Record, layer, x: SparseTensor, leaf: torch.Tensor, same_rows: bool
) -> None:
    """Output, row order where it is defined, and gradients of input, weight and bias."""
    y = layer(x)
    assert list(y.tensor_stride) == record.meta["out_tensor_stride"]
    if same_rows:
        assert torch.equal(y.C, record["out_coords"])
    rows = rows_at(y.C, record["out_coords"])
    assert_close(y.F[rows], record["out_feats"])
    parameters = [p for p in (layer.kernel, layer.bias) if p is not None]
    grads = torch.autograd.grad(y.F[rows], [leaf, *parameters], record["grad_out"])
    for name, grad in zip(("feats", "weight", "bias"), grads):
        assert_close(grad, record[f"grad_{name}"])


@PATHS_AND_PRECISIONS
@recorded(
    "conv_k1s1", "conv_k1s1_bias", "conv_k1s2", "conv_k2s1", "conv_k2s1d2", "conv_k2s2", "conv_k2s3",
    "conv_k3s1", "conv_k3s1_bias", "conv_k3s1d2", "conv_k3s1d3", "conv_k3s2", "conv_k3s3", "conv_k4s1",
    "conv_k5s1", "conv_k5s2", "conv_k7s1", "conv_k7s2", "conv_k123s1", "conv_k3s1_cross", "conv_k5s1_cross",
    "conv_k2s2_ts2", "conv_k2s2_ts4", "conv_k3s1_ts2", "conv_k3s1_ts2_misaligned", "conv_k3s1_ts4",
    "conv_k3s1d2_ts2", "conv_k3s2_ts2", "conv_k3s2_ts4", "conv_k3s1_expand", "conv_k3s2_expand",
)  # fmt: skip
def test_convolution(golden, monkeypatch, name, dtype, path):
    take_path(monkeypatch, path)
    record = Record(golden, name, dtype)
    leaf = record.leaf("feats")
    x = SparseTensor(leaf, record["coords"], record.meta["in_tensor_stride"])
    layer = layer_of(record, modules.Convolution)
    assert layer.kernel.shape == record["weight"].shape
    check_layer(
        record, layer, x, leaf, same_rows=record.meta["stride"] == 1 and "expand" not in name
    )


@PATHS_AND_PRECISIONS
@recorded("convtr_k1s1", "convtr_k2s1", "convtr_k3s1", "convtr_k2s2_nomap")
def test_transposed_convolution_where_no_finer_map_exists(golden, monkeypatch, name, dtype, path):
    take_path(monkeypatch, path)
    record = Record(golden, name, dtype)
    leaf = record.leaf("feats")
    x = SparseTensor(leaf, record["coords"], record.meta["in_tensor_stride"])
    check_layer(
        record, layer_of(record, modules.ConvolutionTranspose), x, leaf, record.meta["stride"] == 1
    )


@PATHS_AND_PRECISIONS
@recorded("generative_convtr_k2s2", "generative_convtr_k3s2")
def test_generative_transposed_convolution(golden, monkeypatch, name, dtype, path):
    take_path(monkeypatch, path)
    record = Record(golden, name, dtype)
    leaf = record.leaf("feats")
    x = SparseTensor(leaf, record["coords"], record.meta["in_tensor_stride"])
    check_layer(
        record, layer_of(record, modules.GenerativeConvolutionTranspose), x, leaf, same_rows=False
    )


def coarse_tensor(record: Record) -> tuple[SparseTensor, torch.Tensor]:
    """The record's input on the coarse level of its base cloud, rows as we order them, and its leaf."""
    leaf = record.leaf("feats")
    base = record["base_coords"] if "base_coords" in record else record["fine_coords"]
    manager = CoordinateManager(3)
    key = manager.insert(base)
    for _ in range(record.meta.get("levels", 1)):
        key = manager.stride(key, record.meta["stride"])
    rows = rows_at(record["coords"], manager[key].coordinates)
    return SparseTensor(leaf[rows], manager=manager, key=key), leaf


@PATHS_AND_PRECISIONS
@recorded(
    "convtr_k2s2_back", "convtr_k2s2_back_down3", "convtr_k3s2_back", "convtr_k3s2_back_bias",
    "convtr_k3s2_back_down2", "convtr_k3s2_back_lvl2", "convtr_k3s2d2_back", "convtr_k3s3_back",
    "convtr_k4s2_back", "convtr_k5s2_back",
)  # fmt: skip
def test_transposed_convolution_onto_the_existing_finer_map(golden, monkeypatch, name, dtype, path):
    take_path(monkeypatch, path)
    record = Record(golden, name, dtype)
    x, leaf = coarse_tensor(record)
    # The fine level of a two-level record is itself a strided map, whose order is ours to choose.
    same_rows = record.meta["levels"] == 1
    check_layer(record, layer_of(record, modules.ConvolutionTranspose), x, leaf, same_rows)


@PRECISIONS
@recorded("chwise_k3s1", "chwise_k3s2")
def test_channelwise_convolution(golden, name, dtype):
    record = Record(golden, name, dtype)
    leaf, stride = record.leaf("feats"), record.meta["stride"]
    layer = modules.ChannelwiseConvolution(4, record.meta["kernel_size"], stride).to(dtype)
    layer.load_state_dict({"kernel": record["weight"]})
    record.meta["out_tensor_stride"] = [stride] * 3
    check_layer(record, layer, SparseTensor(leaf, record["coords"]), leaf, same_rows=stride == 1)


@PRECISIONS
@recorded(
    "pool_avg_k2s1", "pool_avg_k2s2", "pool_avg_k3s1", "pool_avg_k3s1d2", "pool_avg_k3s2", "pool_avg_k3s3",
    "pool_max_k2s1", "pool_max_k2s2", "pool_max_k3s1", "pool_max_k3s1d2", "pool_max_k3s2",
    "pool_sum_k2s1", "pool_sum_k2s2", "pool_sum_k3s1", "pool_sum_k3s1d2", "pool_sum_k3s2", "pool_sum_k3s3",
)  # fmt: skip
def test_pooling(golden, name, dtype):
    record = Record(golden, name, dtype)
    meta, leaf = record.meta, record.leaf("feats")
    layer = POOLINGS[meta["op"].removeprefix("pool_")](
        meta["kernel_size"], meta["stride"], meta["dilation"]
    )
    y = layer(SparseTensor(leaf, record["coords"]))
    assert list(y.tensor_stride) == meta["out_tensor_stride"]
    if meta["stride"] == 1:
        assert torch.equal(y.C, record["out_coords"])
    rows = rows_at(y.C, record["out_coords"])
    assert_close(y.F[rows], record["out_feats"])
    assert_close(torch.autograd.grad(y.F[rows], leaf, record["grad_out"])[0], record["grad_feats"])


@PRECISIONS
@recorded("pool_transpose_k2s2_back")
def test_transposed_pooling(golden, name, dtype):
    record = Record(golden, name, dtype)
    x, leaf = coarse_tensor(record)
    y = modules.PoolingTranspose(record.meta["kernel_size"], record.meta["stride"])(x)
    assert torch.equal(y.C, record["out_coords"])
    assert_close(y.F, record["out_feats"])
    assert_close(torch.autograd.grad(y.F, leaf, record["grad_out"])[0], record["grad_feats"])


@recorded("kernel_maps")
def test_kernel_maps(golden, name):
    record = Record(golden, name)
    for case in ("k3s1d1", "k2s2d1", "k3s2d1", "k2s1d1", "k3s1d2"):
        size, stride, dilation = int(case[1]), int(case[3]), int(case[5])
        x = SparseTensor(torch.zeros(len(record["coords"]), 1), record["coords"])
        kernel = Kernel.of(size, dilation)
        key = fn.strided_key(x, kernel, (stride,) * 3)
        plan = x.manager.kernel_map(x.key, key, kernel)
        rows = rows_at(record[f"{case}_out_coords"], x.manager[key].coordinates)
        triples = torch.stack([plan.cells, plan.in_rows, rows[plan.out_rows]], 1)
        assert sorted(triples.tolist()) == record[case].tolist()
