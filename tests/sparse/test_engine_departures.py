"""Where MinkowskiEngine 0.5.4 is wrong and this engine is not, one test for each: the right value by hand."""

from __future__ import annotations

import pytest
import torch
from engine_oracle import (
    Record,
    assert_close,
    convolve_by_definition,
    neighbours,
    numbers,
    recorded,
    rows_at,
    sparse,
    window,
)

from sparsefeat.models import ResUNetIN2C
from sparsefeat.sparse import (
    CoordinateManager,
    Kernel,
    SparseTensor,
    TensorField,
    modules,
    quantize,
)
from sparsefeat.sparse import functional as fn


def coordinates(*rows: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int32)


def test_strided_coordinates_above_2_24_are_exact():
    """The engine strides in float32, which has no odd numbers above 2^24."""
    far = 2**24
    x = SparseTensor(
        torch.tensor([[1.0], [2.0], [4.0], [8.0], [16.0]]),
        coordinates(
            (0, far + 3, 0, 0),
            (0, far + 4, 0, 0),
            (0, far + 5, 0, 0),
            (0, -far - 1, 0, 0),
            (0, -far - 3, 0, 0),
        ),
    )
    y = modules.SumPooling(3, 3)(x)  # 2^24 = 3 * 5592405 + 1
    values = dict(zip(y.C[:, 1].tolist(), y.F[:, 0].tolist()))
    assert values == {far + 2: 3.0, far + 5: 4.0, -far - 2: 8.0, -far - 5: 16.0}


def test_coordinates_beyond_the_key_range_are_an_error():
    """The engine hashes them without a word."""
    edge = 2**31 - 1
    with pytest.raises(ValueError, match="beyond the key range"):
        SparseTensor(
            torch.zeros(2, 1), coordinates((0, -edge, -edge, -edge), (0, edge, edge, edge))
        )


def test_a_voxel_whose_labels_disagree_is_ignored_wherever_its_points_are(golden):
    """The engine compares each point with the one before it, so interleaved voxels get wrong labels."""
    record = Record(golden, "sparse_quantize")
    for points, labels, theirs, wrong in (
        ("int_coords", "labels", "lab_out_labels", 74),
        ("cd", "ld", "cd_labels", None),
    ):
        seen: dict[tuple[int, ...], set[int]] = {}
        for point, label in zip(record[points].tolist(), record[labels].tolist()):
            seen.setdefault(tuple(point), set()).add(label)
        right = [labels.pop() if len(labels) == 1 else -100 for labels in seen.values()]
        out = quantize(record[points], labels=record[labels], ignore_label=-100)
        assert out.labels.tolist() == right
        assert [tuple(c) for c in out.coordinates.tolist()] == list(seen)
        if wrong is not None:
            assert sum(a != b for a, b in zip(record[theirs].tolist(), right)) == wrong


def test_the_maximum_of_a_field_may_be_negative(golden):
    """The engine's starts at 0."""
    record = Record(golden, "tensorfield_sparse")
    leaf = record.leaf("feats")
    x = TensorField(leaf, torch.from_numpy(record.arrays["coords"])).sparse("max")
    for voxel in range(len(x)):
        points = x.inverse_mapping == voxel
        assert torch.equal(x.F[voxel], leaf[points].amax(0))
    assert (x.F < 0).any()
    assert torch.equal(x.F.clamp(min=0), record["MAX_POOL_feats"]), "theirs is max(0, ours)"
    grad_out = record["MAX_POOL_grad_out"]
    gradient = torch.autograd.grad(x.F, leaf, grad_out)[0]
    winner = leaf == x.F[x.inverse_mapping]
    assert torch.equal(gradient, torch.where(winner, grad_out[x.inverse_mapping], 0))


def test_a_product_is_zero_where_one_factor_is_missing():
    """The engine's is the first factor there."""
    a = SparseTensor(torch.tensor([[2.0], [3.0]]), coordinates((0, 0, 0, 0), (0, 1, 0, 0)))
    b = SparseTensor(
        torch.tensor([[5.0], [7.0]]), coordinates((0, 1, 0, 0), (0, 2, 0, 0)), manager=a.manager
    )
    product, quotient = a * b, a / b
    assert product.C.tolist() == [[0, 0, 0, 0], [0, 1, 0, 0], [0, 2, 0, 0]]
    assert product.F.tolist() == [[0.0], [15.0], [0.0]]
    assert quotient.F.tolist() == [[0.0], [pytest.approx(3 / 5)], [0.0]]


@pytest.mark.parametrize("stride", [1, 2])
def test_raw_target_coordinates_get_the_tensor_stride_that_was_asked_for(stride):
    """The engine's get tensor stride 0."""
    x = sparse(coordinates((0, 0, 0, 0), (0, 4, 0, 0)), tensor_stride=2)
    target = coordinates((0, 4, 0, 0), (0, 0, 0, 0), (0, 8, 8, 8))
    for layer in (modules.Convolution(3, 4, 3, stride).double(), modules.SumPooling(3, stride)):
        y = layer(x, target)
        assert y.tensor_stride == (2 * stride,) * 3 and torch.equal(y.C, target)
        assert not y.F[2].any()
        again = modules.Convolution(y.F.shape[1], 1, 3).double()(y)
        assert again.tensor_stride == y.tensor_stride
    up = modules.ConvolutionTranspose(3, 4, 2, 2).double()(x, target)
    assert up.tensor_stride == (1, 1, 1)


def test_global_pooling_and_instance_norm_of_clouds_of_one_voxel_each():
    """The engine crashes."""
    x = SparseTensor(
        torch.tensor([[1.0, -2.0], [3.0, 4.0]]), coordinates((0, 5, 5, 5), (1, 2, 2, 2))
    )
    for layer in (
        modules.GlobalMaxPooling(),
        modules.GlobalAvgPooling(),
        modules.GlobalSumPooling(),
    ):
        assert layer(x).F.tolist() == x.F.tolist()
    norm = modules.InstanceNorm(2)
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([[0.5, 0.25]]))
    assert norm(x).F.tolist() == [[0.5, 0.25]] * 2


def test_two_clouds_in_one_manager_are_each_up_sampled_onto_their_own_map():
    """In the engine the second lands on the first one's."""
    manager = CoordinateManager()
    down, up = (
        modules.Convolution(3, 3, 2, 2).double(),
        modules.ConvolutionTranspose(3, 3, 2, 2).double(),
    )
    first = sparse(coordinates((0, 0, 0, 0), (0, 1, 0, 0), (0, 4, 4, 4)), manager=manager)
    second = sparse(coordinates((0, 9, 9, 9), (0, 8, 9, 9)), manager=manager, seed=1)
    for x in (first, second):
        y = up(down(x))
        alone = up(down(SparseTensor(x.F, x.C)))
        assert y.key == x.key and torch.equal(y.C, x.C) and torch.equal(y.F, alone.F)


def test_expanded_strided_coordinates_of_negative_voxels():
    """The engine takes the remainder of a negative coordinate as unsigned."""
    x = sparse(coordinates((0, -3, -1, -5)))
    y = modules.Convolution(3, 1, 3, 3, expand_coordinates=True).double()(x)
    assert y.C.tolist() == [[0, -3, 0, -6]], "of c - 1, c, c + 1 only the multiples of 3"


@recorded("conv_k2s2_expand")
def test_expanded_coordinates_are_the_places_whose_window_holds_a_voxel(golden, name):
    """The engine expands to input + offset. Its window looks forward, so that of an even kernel holds input - offset."""
    record = Record(golden, name)
    x = SparseTensor(record["feats"], record["coords"])
    layer = modules.Convolution(*record["weight"].shape[1:], 2, 2, expand_coordinates=True).double()
    layer.load_state_dict({"kernel": record["weight"]})
    offsets = window((2,) * 3, (1,) * 3, (1,) * 3)
    seen = {
        (b, *(v - o for v, o in zip(c, offset))) for b, *c in x.C.tolist() for offset in offsets
    }
    y = layer(x)
    assert {tuple(c) for c in y.C.tolist()} == {c for c in seen if all(v % 2 == 0 for v in c[1:])}
    triples = neighbours(x.C, y.C, offsets)
    assert len(triples) == len(x), "every voxel is in one window"
    assert_close(y.F, convolve_by_definition(x.F, record["weight"], triples, len(y)))
    assert torch.equal(fn.pool(x, "sum", Kernel.of(2), 2, expand_coordinates=True).C, y.C)

    theirs = record["out_coords"]
    assert_close(layer(x, theirs).F, record["out_feats"])
    ours = {tuple(c) for c in y.C.tolist()}
    assert (len(ours), len(theirs)) == (35, 34)
    assert len(ours & {tuple(c) for c in theirs.tolist()}) == 8, (
        "theirs are the places whose window, turned round, holds a voxel"
    )


def test_a_kernel_of_one_cell_with_stride_2_in_one_dimension_strides():
    """The engine takes it as stride 1."""
    layer = modules.Convolution(1, 1, kernel_size=1, stride=2, dimension=1)
    assert layer.kernel.shape == (1, 1, 1)
    with torch.no_grad():
        layer.kernel.fill_(2.0)
    x = SparseTensor(torch.tensor([[1.0], [3.0], [5.0]]), coordinates((0, 0), (0, 2), (0, 5)))
    y = layer(x)
    assert y.tensor_stride == (2,)
    assert y.C.tolist() == [[0, 0], [0, 2], [0, 4]]
    assert y.F.tolist() == [[2.0], [6.0], [0.0]], "no voxel at 4"


def test_the_maximum_of_an_empty_window_is_zero():
    """The engine's is the smallest float32."""
    x = SparseTensor(torch.tensor([[-3.0]], requires_grad=True), coordinates((0, 1, 1, 1)))
    y = fn.pool(x, "max", Kernel.of(1), 2)  # the window holds the voxel at (0, 0, 0) alone
    assert y.C.tolist() == [[0, 0, 0, 0]] and y.F.tolist() == [[0.0]]
    assert torch.autograd.grad(y.F.sum(), x.F)[0].tolist() == [[0.0]]


def test_float16_convolves_on_the_cpu():
    """The engine has no half precision there."""
    x = sparse(coordinates((0, 0, 0, 0), (0, 1, 0, 0), (0, 1, 1, 1)))
    layer = modules.Convolution(3, 8, 3).double()
    y = layer.half()(x.replace(x.F.half()))
    assert y.dtype == torch.float16
    assert_close(y.F, layer.double()(x).F, tolerance=2e-3)


def test_the_instance_norm_variants_of_fcgfs_backbone_can_be_built():
    """In the engine's version of FCGF the norm gets an argument that it does not take."""
    x = sparse(coordinates(*((0, i, i // 3, 0) for i in range(30))), channels=1)
    y = ResUNetIN2C(1, 8).double()(x)
    assert y.F.shape == (30, 8) and y.F.isfinite().all()


def test_an_average_in_float64_has_no_share_in_float32(golden):
    """The engine multiplies by 1/n rounded to float32: off by 3e-8 where three points share a voxel."""
    record = Record(golden, "sparse_tensor_duplicates")
    x = SparseTensor(record["feats"], record["coords"], reduce="average")
    right = torch.stack([record["feats"][x.inverse_mapping == v].sum(0) for v in range(len(x))])
    count = torch.bincount(x.inverse_mapping)[:, None]
    assert_close(x.F, right / count, tolerance=1e-14)
    theirs = right * (1 / count.float()).double()
    assert_close(theirs, record["UNWEIGHTED_AVERAGE_feats"], tolerance=1e-14)


def test_instance_norm_goes_through_backward_with_every_cloud_of_one_voxel():
    x = sparse(coordinates((0, 0, 0, 0), (1, 0, 0, 0)), grad=True)
    y = modules.InstanceNorm(3).double()(x)
    gradient = torch.autograd.grad((y.F * numbers(2, 3)).sum(), x.F)[0]
    assert torch.equal(gradient, torch.zeros(2, 3, dtype=torch.float64))


def test_rows_of_a_strided_map_come_in_the_order_of_their_coordinates():
    """In the engine they come in hash order; ours do not depend on the order of the input."""
    x = sparse(coordinates((1, 4, 0, 0), (0, 2, 2, 0), (0, -1, 0, 0), (1, 0, 0, 0)))
    y = modules.SumPooling(2, 2)(x)
    assert y.C.tolist() == sorted(y.C.tolist())
    flipped = modules.SumPooling(2, 2)(SparseTensor(x.F.flip(0), x.C.flip(0)))
    assert torch.equal(flipped.C, y.C) and torch.equal(flipped.F, y.F)
    assert len(rows_at(y.C, flipped.C)) == 4
