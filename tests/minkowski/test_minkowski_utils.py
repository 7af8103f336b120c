"""sparsefeat.minkowski.utils: quantisation, collation, initialisation, summary."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_oracle import Record, cloud

import sparsefeat.minkowski as ME
from sparsefeat.minkowski import backend, utils
from sparsefeat.minkowski.utils.coords import get_coords_map


def labels_by_hand(inverse: np.ndarray, labels: np.ndarray, ignore: int) -> np.ndarray:
    groups = [set(labels[inverse == voxel].tolist()) for voxel in range(inverse.max() + 1)]
    return np.array([group.pop() if len(group) == 1 else ignore for group in groups])


def test_sparse_quantize_of_arrays_and_tensors_as_recorded(golden):
    record = Record(golden, "sparse_quantize").arrays
    for convert in (lambda a: a, torch.from_numpy):
        coordinates, features = convert(record["int_coords"]), convert(record["int_feats"])
        out = utils.sparse_quantize(coordinates, features, return_index=True, return_inverse=True)
        assert all(isinstance(out[i], torch.Tensor) for i in (0, 2, 3))
        assert [out[i].dtype for i in (0, 2, 3)] == [torch.int32, torch.int64, torch.int64]
        assert type(out[1]) is type(features)
        for got, name in zip(out, ("int_out_coords", "int_out_feats", "int_index", "int_inverse")):
            assert np.array_equal(np.asarray(got), record[name])


def test_sparse_quantize_of_floats_as_recorded(golden):
    record = Record(golden, "sparse_quantize").arrays
    points, voxel = record["float_coords"], float(record["voxel"])
    coordinates, index, inverse = utils.sparse_quantize(
        points, return_index=True, return_inverse=True, quantization_size=voxel
    )
    assert np.array_equal(coordinates, record["float_out_coords"])
    assert np.array_equal(index, record["float_index"]) and np.array_equal(
        inverse, record["float_inverse"]
    )
    maps = {"return_maps_only": True, "quantization_size": voxel}
    assert np.array_equal(
        utils.sparse_quantize(torch.from_numpy(points), **maps), record["floatT_index"]
    )
    assert np.array_equal(
        utils.sparse_quantize(points.astype(np.float64), **maps), record["float64_index"]
    )
    maps["quantization_size"] = [voxel] * 3
    assert np.array_equal(utils.sparse_quantize(points, **maps), record["float_index"])
    assert np.array_equal(
        utils.sparse_quantize(torch.from_numpy(points), **maps), record["float_index"]
    )


@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor])
def test_sparse_quantize_merges_no_voxels_by_rounding(convert):
    far = np.array([[2**25 + 1, 0], [2**25, 0], [450000001, 0], [450000001, 1]])
    for size, expected in (
        (1, far),
        (2, [[2**24, 0], [225000000, 0]]),
        ([2, 1], far[1:] // [2, 1]),
    ):
        voxels = utils.sparse_quantize(convert(far), quantization_size=size)
        assert np.array_equal(voxels, expected)
    half = convert(np.array([[1000, 2], [1001, 2]], dtype=np.float16))
    for size in (2**-7, [2**-7, 2**-7]):
        voxels = utils.sparse_quantize(half, quantization_size=size)
        assert voxels.tolist() == [[128000, 256], [128128, 256]]


def test_labels_are_ignored_exactly_where_they_disagree(golden):
    record = Record(golden, "sparse_quantize").arrays
    coordinates, features, labels = record["int_coords"], record["int_feats"], record["labels"]
    out = utils.sparse_quantize(
        coordinates, features, labels, return_index=True, return_inverse=True
    )
    assert all(isinstance(part, np.ndarray) for part in out)
    assert [part.dtype.name for part in out] == ["int32", "float32", "int32", "int32", "int32"]
    names = ("lab_out_coords", "lab_out_feats", None, "lab_index", "lab_inverse")
    for got, name in zip(out, names):
        assert name is None or np.array_equal(got, record[name])
    right = labels_by_hand(out[4], labels, -100)
    assert np.array_equal(out[2], right)
    # On purpose: the engine's own labels are wrong where duplicates interleave.
    assert (record["lab_out_labels"] != right).sum() == 74
    tensors = utils.sparse_quantize(
        torch.from_numpy(coordinates),
        labels=torch.from_numpy(labels).int(),
        ignore_label=7,
        return_index=True,
    )
    assert [part.dtype for part in tensors] == [torch.int32, torch.int64, torch.int64]
    assert np.array_equal(tensors[1], labels_by_hand(out[4], labels, 7))
    assert np.array_equal(tensors[2], record["labT_index"])
    assert len(utils.sparse_quantize(record["cd"], labels=record["ld"])) == 2


@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor])
def test_labels_may_come_as_a_column(convert):
    points = convert(np.array([[0, 0], [0, 0], [0, 1], [0, 0], [2, 2], [2, 2]]))
    labels = convert(np.array([[0], [1], [3], [0], [5], [5]]))
    coordinates, kept = utils.sparse_quantize(points, labels=labels, ignore_label=255)
    assert coordinates.tolist() == [[0, 0], [0, 1], [2, 2]] and kept.tolist() == [255, 3, 5]
    with pytest.raises(ValueError, match="one for each of 6 points"):
        utils.sparse_quantize(points, labels=convert(np.zeros((6, 2), dtype=np.int64)))
    with pytest.raises(ValueError, match="the type of the coordinates"):
        utils.sparse_quantize(points, labels=labels.tolist())


def test_sparse_quantize_returns_what_is_asked_for():
    points = np.array([[0.1, 0.2], [0.3, 0.4], [1.5, 0.0]])
    assert torch.equal(utils.sparse_quantize(points), torch.tensor([[0, 0], [1, 0]]).int())
    assert utils.sparse_quantize(points, return_maps_only=True).tolist() == [0, 2]
    both = utils.sparse_quantize(
        points, return_index=True, return_inverse=True, return_maps_only=True
    )
    assert [part.tolist() for part in both] == [[0, 2], [0, 0, 1]]
    assert utils.sparse_quantize(points, quantization_size=1).shape == (2, 2)
    for arguments, message in (
        ({"coordinates": points[0]}, r"\(N, D\)"),
        ({"coordinates": points, "features": points[1:]}, "2 features"),
        ({"coordinates": points, "return_inverse": True}, "return_index"),
        ({"coordinates": points, "quantization_size": 0.0}, "positive"),
        ({"coordinates": points, "quantization_size": [1.0]}, "quantization_size"),
        ({"coordinates": points * np.nan}, "not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            utils.sparse_quantize(**arguments)


def test_the_back_ends_quantize_functions():
    coordinates = np.array([[0, 0], [0, 0], [0, 1], [0, 0]], dtype=np.int32)
    labels = np.array([0, 1, 3, 0], dtype=np.int32)
    index, inverse = backend.quantize_np(coordinates)
    assert np.array_equal(coordinates[index][inverse], coordinates)
    index, inverse = backend.quantize_th(torch.from_numpy(coordinates))
    assert torch.equal(torch.from_numpy(coordinates)[index[inverse]], torch.from_numpy(coordinates))
    assert [part.tolist() for part in backend.quantize_label_np(coordinates, labels, 255)] == [
        [0, 2],
        [0, 0, 1, 0],
        [255, 3],
    ]
    with pytest.raises(AttributeError, match="ConvolutionForwardCPU"):
        backend.ConvolutionForwardCPU  # noqa: B018
    index, inverse = utils.unique_coordinate_map(torch.from_numpy(coordinates))
    assert index.tolist() == [0, 2] and inverse.tolist() == [0, 0, 1, 0]


def test_collation_as_recorded(golden):
    record = Record(golden, "collate").arrays
    clouds, features = [record["c0"], record["c1"]], [record["f0"], record["f1"]]
    assert np.array_equal(utils.batched_coordinates(clouds), record["batched"])
    coordinates, stacked = utils.sparse_collate(clouds, features)
    assert np.array_equal(coordinates, record["sc"]) and np.array_equal(stacked, record["sf"])
    floats = [torch.from_numpy(record["fl0"]), record["fl1"]]
    assert np.array_equal(
        utils.batched_coordinates(floats, dtype=torch.float32), record["batched_float"]
    )
    assert np.array_equal(utils.batched_coordinates(floats), record["batched_int_from_float"])


def test_batched_coordinates_fit_int32():
    whole = torch.tensor([[2**31 - 1, -(2**31), 0]])
    assert utils.batched_coordinates([whole[:0], whole]).tolist() == [[1, *whole[0].tolist()]]
    for values in ([2**31, 0], [-(2**31) - 1, 0], [3e9, 0.0], [0.0, float("nan")]):
        for cloud_ in (torch.tensor([values]), np.array([values])):
            with pytest.raises(ValueError, match="fit int32|not finite"):
                utils.batched_coordinates([cloud_])
    narrow = utils.batched_coordinates([np.full((1, 2), 200, dtype=np.uint8)] * 300)
    assert narrow[-1].tolist() == [299, 200, 200]


def test_collate_functions_for_a_data_loader():
    items = [(np.full((n, 3), n), np.ones((n, 2)), np.arange(n)) for n in (3, 2, 4)]
    coordinates, features, labels = utils.batch_sparse_collate(items)
    assert (
        coordinates.shape == (9, 4)
        and features.shape == (9, 2)
        and labels.tolist() == [0, 1, 2, 0, 1, 0, 1, 2, 3]
    )
    assert utils.SparseCollation()(items)[0].shape == (9, 4)
    assert utils.SparseCollation(limit_numpoints=6)(items)[0].shape == (5, 4)
    assert utils.sparse_collate([items[0][0]], [items[0][1]], ["chair"])[2] == ["chair"]
    with pytest.raises(ValueError, match="limit"):
        utils.SparseCollation(limit_numpoints=2)(items)
    with pytest.raises(ValueError, match="differ in length"):
        utils.sparse_collate([np.zeros((2, 3))], [np.zeros((3, 1))])
    with pytest.raises(ValueError, match="shapes"):
        utils.batched_coordinates([np.zeros((2, 3)), np.zeros((2, 2))])


def test_hashes_of_rows():
    rows = cloud(80)[:, 1:].numpy()
    keys = utils.ravel_hash_vec(rows)
    assert keys.dtype == np.uint64 and len(np.unique(keys)) == len(np.unique(rows, axis=0))
    hashed = utils.fnv_hash_vec(rows)
    assert hashed.dtype == np.uint64 and np.array_equal(
        utils.fnv_hash_vec(rows[::-1])[::-1], hashed
    )
    offset, prime = 14695981039346656037, 1099511628211
    assert utils.fnv_hash_vec(np.array([[3, 5]])).tolist() == [
        ((offset * prime ^ 3) * prime ^ 5) % 2**64
    ]


def test_kaiming_normal_follows_the_fan():
    torch.manual_seed(0)
    kernel = torch.empty(27, 64, 128)
    for mode, fan in (("fan_in", 27 * 64), ("fan_out", 27 * 128)):
        utils.kaiming_normal_(kernel, mode=mode, nonlinearity="relu")
        assert kernel.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.02)
    with pytest.raises(ValueError, match="fan_in"):
        utils.kaiming_normal_(kernel, mode="fan")


def test_summary_lists_every_layer(capsys):
    net = torch.nn.Sequential(
        ME.MinkowskiConvolution(3, 4, kernel_size=3, stride=2, dimension=3),
        ME.MinkowskiReLU(),
        ME.MinkowskiToFeature(),
        torch.nn.Linear(4, 2),
    )
    coordinates = cloud(30)
    x = ME.SparseTensor(torch.rand(len(coordinates), 3), coordinates)
    assert utils.summary(net, x) == (27 * 12 + 10, 27 * 12 + 10)
    text = capsys.readouterr().out
    assert "MinkowskiConvolution-1" in text and "Linear" in text and "Total params: 334" in text


def test_rows_that_meet_between_levels():
    coordinates = cloud(30)
    x = ME.SparseTensor(torch.rand(len(coordinates), 1), coordinates)
    y = ME.MinkowskiSumPooling(kernel_size=2, stride=2, dimension=3)(x)
    ins, outs = get_coords_map(x, y)
    assert torch.equal(y.C[outs, 1:], torch.div(x.C[ins, 1:], 2, rounding_mode="floor") * 2)
    with pytest.raises(ValueError, match="manager"):
        get_coords_map(x, ME.SparseTensor(x.F, x.C))


def test_facts_about_the_device(capsys):
    assert ME.is_cuda_available() == torch.cuda.is_available()
    assert isinstance(ME.cuda_version(), int) and ME.cudart_version() == ME.cuda_version()
    ME.print_diagnostics()
    assert torch.__version__ in capsys.readouterr().out
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            ME.get_gpu_memory_info()
        with pytest.raises(ValueError, match="CUDA"):
            ME.CoordinateManager(3, coordinate_map_type=ME.CoordinateMapType.CUDA)
