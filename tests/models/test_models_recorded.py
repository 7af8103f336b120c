"""FCGF's networks against the outputs, gradients and statistics recorded from MinkowskiEngine."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from sparsefeat import models
from sparsefeat.io.torchfile import read_torch_file
from sparsefeat.sparse import SparseTensor


def relative(value, expected) -> float:
    value, expected = np.asarray(value, np.float64), np.asarray(expected, np.float64)
    return np.abs(value - expected).max() / np.abs(expected).max()


@pytest.fixture(scope="module")
def recorded_state(golden):
    stored = read_torch_file(golden / "resunetbn2c_state_f16.pt")

    def state(kernel_size: int, dtype: torch.dtype) -> dict:
        values = {"conv1.kernel": stored[f"conv1.kernel@{kernel_size}"]}
        values |= {name: value for name, value in stored.items() if "@" not in name}
        return {k: v.to(dtype) if v.is_floating_point() else v for k, v in values.items()}

    return state


def published(recorded_state, kernel_size: int, train: bool, dtype: torch.dtype = torch.float32):
    model = models.ResUNetBN2C(
        1, 32, bn_momentum=0.05, normalize_feature=True, conv1_kernel_size=kernel_size
    ).to(dtype)
    model.load_state_dict(recorded_state(kernel_size, dtype))
    return model.train(train)


def test_state_keys_and_shapes_are_those_of_the_published_network_in_its_order(golden):
    expected = json.loads((golden / "resunetbn2c_state_keys.json").read_text())
    model = models.ResUNetBN2C(1, 32, bn_momentum=0.05, normalize_feature=True, conv1_kernel_size=7)
    state = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert state == expected
    assert list(state) == list(expected)


@pytest.mark.parametrize("kernel_size", [5, 7])
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_features_and_running_statistics_on_a_real_fragment_are_the_recorded_ones(
    golden, recorded_state, kernel_size, train
):
    record = np.load(golden / "resunetbn2c_cloud0_v05.npz")
    case = f"k{kernel_size}_{'train' if train else 'eval'}"
    model = published(recorded_state, kernel_size, train)
    coordinates = torch.from_numpy(record["coords"])
    with torch.no_grad():
        out = model(SparseTensor(torch.ones(len(coordinates), 1), coordinates=coordinates))
    assert torch.equal(out.C, coordinates)
    if case in record.files:
        assert np.abs(out.F.numpy() - record[case]).max() < 1e-4
    state = model.state_dict()
    after = [name for name in record.files if name.startswith(f"{case}_after::")]
    assert bool(after) == train
    for name in after:
        assert relative(state[name.split("::")[1]], record[name]) < 1e-5


def test_features_at_the_published_voxel_size_are_the_recorded_ones(golden, recorded_state):
    record = np.load(golden / "resunetbn2c_cloud0_v025_k7_eval.npz")
    coordinates = torch.from_numpy(record["coords"])
    with torch.no_grad():
        model = published(recorded_state, 7, train=False)
        out = (
            model(SparseTensor(torch.ones(len(coordinates), 1), coordinates=coordinates))
            .F.double()
            .numpy()
        )
    assert np.abs(out[record["rows"]] - record["out_rows"]).max() < 1e-4
    assert relative(out.sum(0), record["channel_sum"]) < 1e-4
    assert relative(np.abs(out).sum(0), record["channel_abs_sum"]) < 1e-5


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_activations_and_gradients_in_float64_are_the_recorded_ones(golden, recorded_state, mode):
    record = np.load(golden / f"resunetbn2c_k5_small_{mode}.npz")
    strides = json.loads(bytes(record["meta"]))["act_tensor_stride"]
    model = published(recorded_state, 5, mode == "train", torch.float64)
    activations = {}
    for layer in strides:
        model.get_submodule(layer).register_forward_hook(
            lambda module, inputs, out, layer=layer: activations.__setitem__(layer, out)
        )
    features = torch.from_numpy(record["feats"]).double().requires_grad_()
    out = model(SparseTensor(features, coordinates=torch.from_numpy(record["coords"])))
    assert np.abs(out.F.detach().numpy() - record["out_feats"]).max() < 1e-9

    for layer, stride in strides.items():
        mine = activations[layer]
        row_of = {tuple(c): i for i, c in enumerate(mine.C.tolist())}
        rows = [row_of[tuple(c)] for c in record[f"coords_ts{stride}"].tolist()]
        # The record keeps activations in float32.
        assert relative(mine.F.detach().numpy()[rows], record[f"act::{layer}"]) < 1e-6, layer

    (out.F * torch.from_numpy(record["grad_out"]).double()).sum().backward()
    assert relative(features.grad, record["grad_feats"]) < 1e-9
    check_gradients(model, record)


def check_gradients(model, record) -> None:
    parameters = dict(model.named_parameters())
    for name in record.files:
        if name.startswith("grad::"):
            assert relative(parameters[name[6:]].grad, record[name]) < 1e-9, name
    assert len(record["grad_names"]) == len(parameters)
    for name, (norm, projection) in zip(
        record["grad_names"], record["grad_norm_proj"], strict=True
    ):
        grad = parameters[str(name)].grad.numpy()
        seed = (zlib.crc32(str(name).encode()) + 77) & 0xFFFFFFFF
        direction = np.random.RandomState(seed).standard_normal(grad.shape)
        assert abs(np.linalg.norm(grad) / norm - 1) < 1e-9, name
        assert abs((direction * grad).sum() - projection) < 1e-9 * norm * np.linalg.norm(
            direction
        ), name


# --- ResUNetIN2C, whose record lacks the weights of the instance norms ---

NORMS = Path(__file__).parents[1] / "recorded" / "resunetin2c_norms.npz"
"""Those 2,944 numbers, found by fitting the 19,360 recorded features (rms residual 1.1e-5).

A common factor of each block's first norm leaves the features unchanged; it was set by the recorded
gradients. The values that the features determine best came out on float16's grid, as all the other
recorded weights are, which no wrong network would give.
"""


def test_resunetin2c_with_fitted_instance_norms_gives_the_recorded_features(golden, recorded_state):
    record = np.load(golden / "resunetin2c_k5_small_train.npz")
    model = models.ResUNetIN2C(
        1, 32, bn_momentum=0.05, normalize_feature=True, conv1_kernel_size=5
    ).double()
    state, fitted = recorded_state(5, torch.float64), np.load(NORMS)
    state |= {name: torch.from_numpy(fitted[name]).double() for name in fitted.files}
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    features = torch.from_numpy(record["feats"]).double().requires_grad_()
    out = model.train()(SparseTensor(features, coordinates=torch.from_numpy(record["coords"])))
    assert np.abs(out.F.detach().numpy() - record["out_feats"]).max() < 1e-4

    # The fit did not see the gradients; they are as close as its residual lets them be, across ReLUs.
    (out.F * torch.from_numpy(record["grad_out"]).double()).sum().backward()
    parameters = dict(model.named_parameters())
    for name in record.files:
        if name.startswith("grad::"):
            error = np.linalg.norm(parameters[name[6:]].grad.numpy() - record[name])
            assert error < 0.06 * np.linalg.norm(record[name]), name
    for name, (norm, _) in zip(record["grad_names"], record["grad_norm_proj"], strict=True):
        assert abs(parameters[str(name)].grad.norm().item() / norm - 1) < 0.03, name


def test_instance_norm_variants_have_the_recorded_parameters(golden):
    record = np.load(golden / "resunetin2c_k5_small_train.npz")
    parameters = dict(models.ResUNetIN2C(1, 32, conv1_kernel_size=5).named_parameters())
    assert sorted(str(name) for name in record["grad_names"]) == sorted(parameters)
    for name in record.files:
        if name.startswith("grad::"):
            assert tuple(parameters[name[6:]].shape) == record[name].shape, name
