"""The networks: the published ones to the last digit, their configuration, and the choice of backend."""

from __future__ import annotations

import copy
import importlib
import json
import sys
import types

import numpy as np
import pytest
import torch

from sparsefeat import models
from sparsefeat.models import create_model, model_names
from sparsefeat.sparse import SparseTensor, functional, modules

NARROW = {"channels": (4, 6, 8, 10), "tr_channels": (4, 6, 8, 10)}


def make_cloud(
    seed: int = 0, voxels: int = 60, channels: int = 1, extent: int = 12, batch: int = 1
):
    """A sparse tensor with shuffled rows and negative coordinates."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate([np.full((voxels, 1), b) for b in range(batch)])
    coordinates = np.concatenate([rows, rng.integers(-extent // 2, extent // 2, (len(rows), 3))], 1)
    coordinates = rng.permutation(np.unique(coordinates, axis=0))
    features = rng.normal(size=(len(coordinates), channels))
    return SparseTensor(
        torch.from_numpy(features).float(),
        coordinates=torch.from_numpy(coordinates).to(torch.int32),
    )


# --- the published layouts ---


def test_res16unet34c_has_the_published_layers():
    with torch.device("meta"):
        state = models.Res16UNet34C(3, 32, conv1_kernel_size=3, normalize_feature=True).state_dict()
    expected = {
        "conv0p1s1.kernel": (27, 3, 32),
        "bn0.bn.weight": (32,),
        "conv1p1s2.kernel": (8, 32, 32),
        "bn1.bn.running_mean": (32,),
        "block1.1.conv2.kernel": (27, 32, 32),
        "conv2p2s2.kernel": (8, 32, 32),
        "block2.0.conv1.kernel": (27, 32, 64),
        "block2.0.downsample.0.kernel": (32, 64),
        "block2.0.downsample.1.bn.weight": (64,),
        "conv3p4s2.kernel": (8, 64, 64),
        "block3.3.norm2.bn.bias": (128,),
        "conv4p8s2.kernel": (8, 128, 128),
        "block4.5.conv2.kernel": (27, 256, 256),
        "convtr4p16s2.kernel": (8, 256, 256),
        "bntr4.bn.weight": (256,),
        "block5.0.conv1.kernel": (27, 384, 256),
        "convtr5p8s2.kernel": (8, 256, 128),
        "block6.0.conv1.kernel": (27, 192, 128),
        "convtr6p4s2.kernel": (8, 128, 96),
        "block7.0.downsample.0.kernel": (128, 96),
        "convtr7p2s2.kernel": (8, 96, 96),
        "bntr7.bn.weight": (96,),
        "block8.0.conv1.kernel": (27, 128, 96),
        "block8.1.conv2.kernel": (27, 96, 96),
        "final.kernel": (96, 32),
        "final.bias": (1, 32),
    }
    assert {name: tuple(state[name].shape) for name in expected} == expected
    counts = {
        n: sum(1 for key in state if key.startswith(f"block{n}.") and "conv1.kernel" in key)
        for n in range(1, 9)
    }
    assert list(counts.values()) == [2, 3, 4, 6, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        (
            "SimpleNetBN",
            {"conv3.kernel": (27, 64, 128), "norm1_tr.bn.weight": (32,), "final.kernel": (32, 16)},
        ),
        (
            "SimpleNetIN2",
            {"norm4_tr.weight": (1, 64), "conv1_tr.kernel": (27, 64, 32), "final.bias": (1, 16)},
        ),
        (
            "SimpleNetBN3E",
            {
                "conv5_tr.kernel": (27, 256, 128),
                "conv1_tr.kernel": (48, 16),
                "conv1_tr.bias": (1, 16),
            },
        ),
    ],
)
def test_simple_nets_have_the_published_layers(name, layers):
    state = create_model(name, in_channels=1, out_channels=16).state_dict()
    assert {key: tuple(state[key].shape) for key in layers} == layers
    assert not any(key.startswith("block") for key in state)


# --- configuration ---


@pytest.mark.parametrize("name", model_names())
def test_every_network_is_rebuilt_by_its_configuration_after_a_trip_through_json(name):
    with torch.device("meta"):
        model = create_model(
            name, in_channels=2, out_channels=8, conv1_kernel_size=5, normalize_feature=True
        )
        again = create_model(**json.loads(json.dumps(model.config)))
    assert again.config == model.config
    assert type(again).__name__ == name
    assert [(k, v.shape) for k, v in again.state_dict().items()] == [
        (k, v.shape) for k, v in model.state_dict().items()
    ]


@pytest.mark.parametrize(
    "name", ["ResUNetBN2C", "ResUNetIN2E", "SimpleNetBN2", "SimpleNetIN", "SimpleNetBN3"]
)
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_output_rows_are_input_rows_and_have_unit_norm(name, train):
    narrow = {"channels": (4, 4, 6, 6, 8), "tr_channels": (4, 4, 6, 6, 8)}
    model = create_model(
        name, in_channels=1, out_channels=5, normalize_feature=True, **narrow
    ).train(train)
    cloud = make_cloud(batch=2)
    out = model(cloud)
    assert torch.equal(out.C, cloud.C)
    assert out.F.shape == (len(cloud), 5)
    torch.testing.assert_close(out.F.norm(dim=1), torch.ones(len(cloud)))
    out.F[:, 0].sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


WIDTHS = {
    "ResUNetBN2C": NARROW,
    "ResUNetIN2C": NARROW,
    "SimpleNetBN2": NARROW,
    "SimpleNetIN": {"channels": (4, 6, 8), "tr_channels": (4, 6, 8)},
    "Res16UNet14A": {"planes": (4, 6, 8, 10, 8, 6, 4, 4), "initial": 4},
}
"""A narrow network of each kind: both norms, blocks or none, with and without a first large kernel."""


def narrow_network(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return create_model(
        name, in_channels=1, out_channels=8, normalize_feature=True, **WIDTHS[name]
    ).eval()


@pytest.mark.parametrize("name", WIDTHS)
def test_a_cloud_has_the_same_features_alone_and_in_a_batch(name):
    """Rows of the two clouds alternate, the second lies a kilometre away, and the third is one voxel."""
    model = narrow_network(name).double()
    alone = [
        make_cloud(1).to(torch.float64),
        make_cloud(2).to(torch.float64),
        make_cloud(3, voxels=1).to(torch.float64),
    ]
    far = torch.tensor([0, 2**14, -(2**14), 0], dtype=torch.int32)
    alone[1] = SparseTensor(alone[1].F, alone[1].C + far)
    batch = torch.repeat_interleave(
        torch.arange(3, dtype=torch.int32), torch.tensor([len(x) for x in alone])
    )
    coordinates = torch.cat([x.C for x in alone])
    coordinates[:, 0] = batch
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = model(SparseTensor(torch.cat([x.F for x in alone])[order], coordinates[order])).F
        expected = torch.cat([model(x).F for x in alone])
    assert expected[: len(alone[0])].std(0).min() > 1e-4
    torch.testing.assert_close(together, expected[order], rtol=0, atol=1e-10)


@pytest.fixture
def float64_by_default():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", WIDTHS)
def test_networks_do_not_depend_on_the_default_type(name, float64_by_default):
    cloud = make_cloud()
    model = narrow_network(name)
    assert all(p.dtype == torch.float64 for p in model.parameters())
    wide = model(cloud.to(torch.float64)).F
    wide.sum().backward()
    narrow = model.float()(cloud).F
    assert wide.dtype == torch.float64 and narrow.dtype == torch.float32
    torch.set_default_dtype(torch.float32)
    assert torch.equal(narrow, model(cloud).F)
    torch.testing.assert_close(model.double()(cloud.to(torch.float64)).F, wide, rtol=0, atol=1e-5)


@pytest.mark.parametrize("voxels", [0, 1])
@pytest.mark.parametrize("name", ["ResUNetBN2C", "ResUNetIN2C"])
def test_an_empty_cloud_and_a_single_voxel_go_through(name, voxels):
    model = create_model(name, in_channels=1, out_channels=8, **NARROW)
    cloud = SparseTensor(
        torch.ones(voxels, 1), coordinates=torch.zeros(voxels, 4, dtype=torch.int32)
    )
    for train in (False, True):
        assert model.train(train)(cloud).F.shape == (voxels, 8)


def test_features_move_with_the_cloud_by_multiples_of_the_coarsest_stride():
    model = models.ResUNetBN2C(1, 8, conv1_kernel_size=5, **NARROW).eval()
    cloud = make_cloud(3)
    moved = SparseTensor(
        cloud.F, coordinates=cloud.C + torch.tensor([0, 8, -16, 24], dtype=torch.int32)
    )
    with torch.no_grad():
        torch.testing.assert_close(model(moved).F, model(cloud).F, rtol=1e-5, atol=1e-6)


def test_a_shallower_network_leaves_out_the_deepest_levels_and_keeps_the_other_names():
    full = models.ResUNetBN2C(1, 32, conv1_kernel_size=7)
    for depth in range(3):
        names = list(models.ResUNetBN2C(1, 32, conv1_kernel_size=7, depth=depth).state_dict())
        gone = tuple(
            f"{kind}{level}" for level in range(depth + 2, 5) for kind in ("conv", "norm", "block")
        )
        assert names == [name for name in full.state_dict() if not name.startswith(gone)]


def measured_field(model, length: int, dimension: int = 3) -> int:
    """The widest range of inputs along a line of voxels that reaches one output, over sixteen outputs."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()  # so that no ReLU closes and nothing cancels
    line = torch.zeros(length, 1 + dimension, dtype=torch.int32)
    line[:, 1] = torch.arange(length) - 5
    features = torch.ones(length, 1, requires_grad=True)
    out = model(SparseTensor(features, coordinates=line)).F
    widest = 0
    for row in range(length // 2, length // 2 + 16):
        (grad,) = torch.autograd.grad(out[row, 0], features, retain_graph=True)
        touched = grad[:, 0].nonzero()[:, 0]
        widest = max(widest, int(touched.max() - touched.min()) + 1)
    return widest


@pytest.mark.parametrize(("depth", "expected"), [(0, 11), (1, 27), (2, 59), (3, 123)])
def test_the_receptive_field_is_the_published_one_at_every_depth(depth, expected):
    model = models.ResUNetBN2C(
        1, 2, conv1_kernel_size=7, depth=depth, norm="none", block_norm="none", **NARROW
    )
    assert model.receptive_field == expected
    # How a voxel sits in the coarser grids can cost a step of one level on one side.
    assert expected - 2 <= measured_field(model, 200) <= expected


@pytest.mark.parametrize(
    "model",
    [
        models.SimpleNetBN2(1, 2, norm="none", **NARROW),
        models.ResUNetBN2(1, 2, depth=1, dilation=[3, 2], norm="none", block_norm="none", **NARROW),
        models.ResUNetBN2(
            1, 2, conv1_kernel_size=5, depth=1, dilation=2, norm="none", block_norm="none", **NARROW
        ),
        models.SimpleNetBN2(1, 2, depth=0, dilation=4, norm="none", **NARROW),
        models.Res16UNet14A(
            1, 2, conv1_kernel_size=5, depth=2, planes=[4] * 8, initial=4, norm="none"
        ),
    ],
    ids=["simple", "per level", "dilated", "flat", "res16"],
)
def test_the_receptive_field_is_the_measured_one(model):
    measured = measured_field(model, 220)
    # An even window looks to one side only; the cube around an output is wider than what is seen.
    even = isinstance(model, models.Res16UNet)
    assert measured <= model.receptive_field if even else measured == model.receptive_field


@pytest.mark.parametrize("dimension", [1, 2, 4])
def test_the_receptive_field_in_other_dimensions(dimension):
    model = models.ResUNetBN2C(
        1, 2, conv1_kernel_size=3, D=dimension, depth=1, norm="none", block_norm="none", **NARROW
    )
    assert model.receptive_field == measured_field(model, 120, dimension) == 23


def test_dilation_changes_the_receptive_field_and_no_weight():
    plain = models.ResUNetBN2C(1, 32)
    dilated = models.ResUNetBN2C(1, 32, dilation=2)
    assert dilated.receptive_field > plain.receptive_field
    assert {k: v.shape for k, v in dilated.state_dict().items()} == {
        k: v.shape for k, v in plain.state_dict().items()
    }


def test_networks_can_be_copied_and_saved_whole(tmp_path):
    model = models.ResUNetBN2C(1, 8, **NARROW).eval()
    cloud = make_cloud(4)
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(model)(cloud).F, model(cloud).F)
    torch.save(model, tmp_path / "model.pt")


# --- wrong input ---


def build(**config):
    return create_model("ResUNetBN2C", **config)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: create_model("ResUNetBN2X"), r"unknown network 'ResUNetBN2X' \(did you mean 'ResUNetBN2"),
        (lambda: create_model("resnet"), r"choices: Res16UNet14A, .*SimpleNetINE"),
        (lambda: build(dialtion=2), r"unknown argument 'dialtion' \(did you mean 'dilation'\?"),
        (lambda: build(depth=-1), "depth must be an integer of at least 0, got -1"),
        (lambda: build(depth=4), "channels must be at least 5 positive integers"),
        (lambda: build(channels=5), r"channels must be at least \d positive integers, got \[5\]"),
        (lambda: build(dilation=None), "dilation must be a positive integer or one for each"),
        (lambda: create_model(["ResUNetBN2C"]), "unknown network"),
        (lambda: create_model("Res16UNet34C", depth=5), "depth must be an integer from 0 to 4, got 5"),
        (lambda: build(channels=(32, 64.0, 128, 256)), "channels must be at least 4 positive"),
        (lambda: build(dilation=[1, 2]), "one for each of 4 levels"),
        (lambda: build(dilation=0), "dilation must be a positive integer"),
        (lambda: build(norm="LN"), "norm must be one of BN, IN, none, got 'LN'"),
        (lambda: create_model("SimpleNetBN2", block_norm="BN"), "no residual blocks"),
        (lambda: build(conv1_kernel_size=2.5), "conv1_kernel_size must be a positive integer"),
        (lambda: build(bn_momentum=0), r"bn_momentum must lie in \(0, 1\], got 0"),
        (lambda: build(out_channels=0), "out_channels must be a positive integer, got 0"),
        (lambda: build(backend="cuda"), "backend: expected one of auto, torch, minkowski"),
    ],
)  # fmt: skip
def test_wrong_configuration_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_wrong_number_of_feature_channels_is_named():
    with pytest.raises(ValueError, match="ResUNetBN2C takes 1 feature channels, got 3"):
        models.ResUNetBN2C(1, 8, **NARROW)(make_cloud(channels=3))


# --- backends ---


def test_the_minkowski_backend_without_the_package_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "MinkowskiEngine", None)
    with pytest.raises(ImportError, match="needs MinkowskiEngine"):
        create_model("ResUNetBN2C", backend="minkowski")


def test_auto_is_this_engine_whatever_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "MinkowskiEngine", make_shuffling_engine())
    assert models.ResUNetBN2C(1, 8, **NARROW).ops.name == "torch"


def make_shuffling_engine() -> types.ModuleType:
    """Stands in for MinkowskiEngine, with its names, on our layers; it reorders rows, as a GPU's does."""

    class Tensor(SparseTensor):
        def __init__(
            self, features, coordinates=None, tensor_stride=1, coordinate_map_key=None,
            coordinate_manager=None, manager=None, key=None,
        ):  # fmt: skip
            if coordinates is not None:
                order = torch.arange(len(features)).flip(0)
                features, coordinates = features[order], coordinates[order]
            manager, key = manager or coordinate_manager, key or coordinate_map_key
            super().__init__(features, coordinates, tensor_stride, manager=manager, key=key)

        coordinate_manager = property(lambda self: self.manager)
        coordinate_map_key = property(lambda self: self.key)

    engine = types.ModuleType("MinkowskiEngine")
    engine.SparseTensor = Tensor
    engine.cat = functional.cat
    for name in ("Convolution", "ConvolutionTranspose", "BatchNorm", "InstanceNorm"):
        layer = getattr(modules, name)
        setattr(engine, f"Minkowski{name}", type(f"Minkowski{name}", (layer,), {}))
    return engine


def compat_engine() -> types.ModuleType:
    try:
        return importlib.import_module("sparsefeat.minkowski")
    except ImportError:
        pytest.skip("sparsefeat.minkowski is not there")


@pytest.mark.parametrize(
    "engine", [make_shuffling_engine, compat_engine], ids=["shuffling", "sparsefeat.minkowski"]
)
@pytest.mark.parametrize("name", ["ResUNetBN2C", "ResUNetIN2C", "Res16UNet14A"])
def test_the_minkowski_backend_gives_the_same_numbers_with_the_same_weights(
    monkeypatch, engine, name
):
    monkeypatch.setitem(sys.modules, "MinkowskiEngine", engine())
    narrow = {"planes": [4] * 8, "initial": 4} if name.startswith("Res16") else NARROW
    config = {"in_channels": 2, "out_channels": 6, "normalize_feature": True, **narrow}
    ours, theirs = create_model(name, **config), create_model(name, backend="minkowski", **config)
    assert theirs.ops.name == "minkowski"
    theirs.load_state_dict(ours.state_dict())
    assert theirs.config == ours.config
    cloud = make_cloud(5, channels=2, batch=2)
    a, b = ours(cloud), theirs(cloud)
    assert torch.equal(b.C, cloud.C)
    torch.testing.assert_close(b.F, a.F, rtol=1e-4, atol=1e-5)
    for out, model in ((a, ours), (b, theirs)):
        (out.F**3).sum().backward()
        assert model.conv1.kernel.grad is not None if name.startswith("ResUNet") else True
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(other.grad, mine.grad, rtol=1e-3, atol=1e-4)
