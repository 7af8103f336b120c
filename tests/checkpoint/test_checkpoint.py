"""Checkpoints: the released ones and ours give their network back, and what does not fit is named."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_checkpoints import (
    LAYOUTS,
    DictConfig,
    EasyDict,
    assert_same_network,
    released,
    save_foreign,
    small_network,
)

from sparsefeat import models
from sparsefeat.checkpoint import (
    find_checkpoint,
    from_pretrained,
    read_checkpoint,
    read_state,
    save_checkpoint,
)
from sparsefeat.checkpoint import native as checkpoint
from sparsefeat.errors import InputError
from sparsefeat.evaluate.descriptors import random_network
from sparsefeat.io.torchfile import read_torch_file

# --- released files ---


@LAYOUTS
def test_a_released_fcgf_checkpoint_gives_its_network_without_easydict(tmp_path, zipped):
    model = small_network()
    path = save_foreign(released(model), tmp_path / "fcgf.pth", zipped)
    loaded = from_pretrained(path)
    assert "easydict" not in sys.modules
    assert loaded.config == model.config
    assert (loaded.voxel_size, loaded.unit) == (0.025, "m")
    assert_same_network(loaded, model)


def test_the_published_resunet_is_read_at_full_size(tmp_path):
    model = models.ResUNetBN2C(1, 32, bn_momentum=0.05, normalize_feature=True, conv1_kernel_size=7)
    path = save_foreign(released(model, "ResUNetBN2C"), tmp_path / "fcgf.pth")
    content = read_torch_file(path)
    content["config"]["conv1_kernel_size"] = 7
    save_foreign({**content, "config": EasyDict(content["config"])}, path)
    assert_same_network(from_pretrained(path), model)


def test_what_the_configuration_lacks_is_read_off_the_weights(tmp_path):
    model = small_network(conv1_kernel_size=7)
    content = released(
        model, config=EasyDict(model="SimpleNetBNE", normalize_feature=True, bn_momentum=0.05)
    )
    loaded = from_pretrained(save_foreign(content, tmp_path / "fcgf.pth"))
    assert loaded.config == model.config
    assert loaded.voxel_size is None
    assert_same_network(loaded, model)


def test_bare_weights_are_recognised_by_their_shapes_and_the_assumption_is_said(tmp_path):
    model = models.ResUNetIN2B(
        2,
        7,
        conv1_kernel_size=5,
        normalize_feature=True,
        depth=1,
        channels=(3, 4),
        tr_channels=(5, 6),
    )
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    with pytest.warns(UserWarning, match="whether its features are normalised"):
        loaded = from_pretrained(tmp_path / "weights.pth")
    assert loaded.config["conv1_kernel_size"] == 5
    assert loaded.config["block_norm"] == "IN"
    assert_same_network(loaded, model)


def test_the_prefix_of_dataparallel_is_taken_off(tmp_path):
    model = small_network()
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    assert_same_network(
        from_pretrained(save_foreign(released(model, state_dict=state), tmp_path / "a.pth")), model
    )


def test_of_a_dgr_checkpoint_the_feature_network_is_read(tmp_path):
    model = small_network()
    config = EasyDict(
        feat_model="SimpleNetBNE", feat_model_n_out=16, feat_conv1_kernel_size=5, bn_momentum=0.05,
        normalize_feature=True, voxel_size=0.05, inlier_model="ResUNetBNFX", inlier_conv1_kernel_size=3,
        conv1_kernel_size=3, model="ResUNetBNFX",
    )  # fmt: skip
    content = released(
        model, config=config, state_dict_inlier={"conv1.kernel": torch.zeros(729, 6, 16)}
    )
    loaded = from_pretrained(save_foreign(content, tmp_path / "dgr.pth"))
    assert loaded.voxel_size == 0.05
    assert_same_network(loaded, model)


def _hybrid_place(x: int, y: int, z: int) -> int:
    """Place of a cell in a hybrid 3^3 region; x, y, z are 0 at the centre, 1 at -1 and 2 at +1.

    One cell, then two more along x, then two for each of these three along y, then two for each of nine along z.
    """
    place = x
    if y:
        place = 3 + 2 * place + (y - 1)
    if z:
        place = 9 + 2 * place + (z - 1)
    return place


@pytest.mark.parametrize("key", ["state_dict", "pretrained_weights"])
def test_a_pointcontrast_checkpoint_with_its_grouped_configuration(tmp_path, key):
    model = models.Res16UNet14A(
        3, 32, bn_momentum=0.05, normalize_feature=True, conv1_kernel_size=3
    )
    # Early engine versions wrote pointwise kernels with a leading 1, and biases without it.
    state = model.state_dict()
    state["final.kernel"] = state["final.kernel"][None]
    state["final.bias"] = state["final.bias"][0]
    # The residual blocks' kernels are stored as hybrid regions: the cells at the centre line of an axis before
    # those beside it, the last axis outermost.
    steps = {0: 0, -1: 1, 1: 2}
    cube = [(x, y, z) for z in (-1, 0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    place = {(x, y, z): _hybrid_place(steps[x], steps[y], steps[z]) for x, y, z in cube}
    assert sorted(place.values()) == list(range(27))
    for name, kernel in state.items():
        if name.startswith("block") and kernel.ndim == 3:
            stored = torch.empty_like(kernel)
            for cell, weights in zip(cube, kernel):
                stored[place[cell]] = weights
            state[name] = stored
    config = {
        "net": {
            "model": "Res16UNet14A",
            "model_n_out": 32,
            "conv1_kernel_size": 3,
            "normalize_feature": True,
        },
        "opt": {"bn_momentum": 0.05},
        "data": {"voxel_size": 0.025},
    }
    content = {"curr_iter": 60000, key: state, "config": DictConfig(config)}
    loaded = from_pretrained(save_foreign(content, tmp_path / "pointcontrast.pth"))
    assert "omegaconf" not in sys.modules
    assert loaded.config == model.config
    assert loaded.voxel_size == 0.025
    assert_same_network(loaded, model)


def test_a_configuration_in_an_argparse_namespace(tmp_path):
    model = small_network()
    config = argparse.Namespace(**released(model)["config"])
    assert_same_network(
        from_pretrained(save_foreign(released(model, config=config), tmp_path / "a.pth")), model
    )


def test_loading_draws_no_random_numbers_and_leaves_the_weights_trainable(tmp_path):
    path = save_foreign(released(small_network()), tmp_path / "fcgf.pth")
    before = torch.get_rng_state()
    loaded = from_pretrained(path)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(
        parameter.requires_grad and not parameter.is_meta for parameter in loaded.parameters()
    )


def test_arguments_that_leave_the_weights_alone_can_be_overridden(tmp_path):
    path = save_foreign(released(small_network()), tmp_path / "fcgf.pth")
    loaded = from_pretrained(path, dilation=2, normalize_feature=False)
    assert loaded.config["dilation"] == [2, 2, 2]
    assert not loaded.normalize_feature
    with pytest.raises(
        ValueError, match=r"1 misshapen \(conv1.kernel \(125, 1, 16\) instead of \(27, 1, 16\)\)"
    ):
        from_pretrained(path, conv1_kernel_size=3)


# --- real files of other networks ---


def test_a_real_minkowskiengine_file_of_another_network_is_refused_and_its_weights_readable(
    dataset,
):
    path = dataset("checkpoints") / "linr_pcgc_minkowski_model.pth"
    with pytest.raises(
        ValueError, match="unknown network: its 189 weights begin with scale_emb.weight"
    ):
        from_pretrained(path)
    state = read_state(path)
    assert len(state) == 189
    assert state["upsampler.block_in.0.kernel"].shape == (27, 8, 8)


def test_weights_elsewhere_in_a_file_are_found_by_their_place(dataset):
    path = dataset("checkpoints") / "ulrssm_faust_scape.pth"
    with pytest.raises(ValueError, match="there are weights under networks.feature_extractor"):
        read_state(path)
    assert "first_linear.weight" in read_state(path, "networks.feature_extractor")


def test_missing_unexpected_and_misshapen_keys_are_listed_with_their_counts(tmp_path):
    model = small_network()
    state = model.state_dict()
    del state["final.bias"]
    state["extra.weight"] = torch.zeros(1)
    state["conv2.kernel"] = torch.zeros(27, 16, 8)
    with pytest.raises(ValueError) as raised:
        from_pretrained(save_foreign(released(model, state_dict=state), tmp_path / "a.pth"))
    text = str(raised.value)
    assert "the weights do not fit SimpleNetBNE" in text
    assert "1 missing (final.bias)" in text
    assert "1 unexpected (extra.weight)" in text
    assert "1 misshapen (conv2.kernel (27, 16, 8) instead of (27, 16, 32))" in text
    with pytest.raises(ValueError, match=r"misshapen \(.*, \.\.\.\)") as raised:
        from_pretrained(save_foreign(released(model, "ResUNetBN2C"), tmp_path / "b.pth"))
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "PyramidNet6"}, "unknown network 'PyramidNet6'"),
        ({"voxel_size": "big"}, "voxel_size: expected a positive number of metres, got 'big'"),
        ({"voxel_size": -1.0}, "voxel_size: expected a positive number of metres, got -1.0"),
        ({"conv1_kernel_size": 0}, "conv1_kernel_size must be a positive integer"),
    ],
)
def test_a_configuration_that_cannot_be_is_named(tmp_path, change, message):
    content = released(small_network())
    content["config"] = EasyDict({**content["config"], **change})
    with pytest.raises(ValueError, match=f"a.pth: .*{message}"):
        from_pretrained(save_foreign(content, tmp_path / "a.pth"))


# --- our own files ---


def test_our_own_files_give_back_network_scale_and_extras(tmp_path):
    model = small_network()
    path = tmp_path / "ours.safetensors"
    save_checkpoint(path, model, 0.05, {"steps": 10, "scenes": ["a", "b"]})
    loaded = from_pretrained(path)
    assert loaded.config == model.config
    assert (loaded.voxel_size, loaded.unit) == (0.05, "m")
    assert_same_network(loaded, model)
    assert read_checkpoint(path).extra == {"steps": 10, "scenes": ["a", "b"]}
    assert read_state(path).keys() == model.state_dict().keys()
    assert [file.name for file in tmp_path.iterdir()] == ["ours.safetensors"]


@pytest.mark.parametrize("voxel_size", [np.float32(0.05), np.float64(0.05), 1])
def test_a_voxel_size_may_be_any_kind_of_number(tmp_path, voxel_size):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, small_network(), voxel_size)
    assert from_pretrained(path).voxel_size == float(voxel_size)


def test_a_compiled_network_is_saved_as_the_network_itself(tmp_path):
    model = small_network()
    whole, part = tmp_path / "whole.safetensors", tmp_path / "part.safetensors"
    save_checkpoint(whole, torch.compile(model), 0.05)
    assert_same_network(from_pretrained(whole), model)
    model.conv2 = torch.compile(model.conv2)
    save_checkpoint(part, model, 0.05)
    assert part.read_bytes() == whole.read_bytes()


def test_a_full_disk_while_saving_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "ours.safetensors"
    old = small_network(seed=1)
    save_checkpoint(path, old, 0.05)

    def full(self, data):
        with open(self, "wb") as file:
            file.write(data[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        ValueError, match="ours.safetensors: cannot be written .No space left on device"
    ):
        save_checkpoint(path, small_network(seed=2), 0.05)
    assert [file.name for file in tmp_path.iterdir()] == ["ours.safetensors"]
    assert_same_network(from_pretrained(path), old)


def test_what_cannot_be_saved_is_said_before_anything_is_written(tmp_path):
    model, path = small_network(), tmp_path / "a.safetensors"
    with pytest.raises(ValueError, match="ends in .safetensors"):
        save_checkpoint(tmp_path / "a.pth", model, 0.05)
    with pytest.raises(ValueError, match="extra cannot be written as JSON"):
        save_checkpoint(path, model, 0.05, {"x": object()})
    endless: dict = {}
    endless["itself"] = endless
    with pytest.raises(InputError, match="extra cannot be written as JSON"):
        save_checkpoint(path, model, 0.05, endless)
    with pytest.raises(InputError, match="extra is a list, expected a dict"):
        save_checkpoint(path, model, 0.05, [1])
    with pytest.raises(ValueError, match="voxel_size: expected a positive number"):
        save_checkpoint(path, model, float("nan"))
    with pytest.raises(InputError, match="a.safetensors: unit None, expected a text"):
        save_checkpoint(path, model, 0.05, unit=None)
    with pytest.raises(InputError, match="a.safetensors: .* do not fit SimpleNetBNE: .* missing"):
        save_checkpoint(path, random_network(model), 0.05)
    other = small_network()
    other.config = {**other.config, "out_channels": 3}
    with pytest.raises(InputError, match="a.safetensors: .* do not fit SimpleNetBNE: .* misshapen"):
        save_checkpoint(path, other, 0.05)
    other.config = {"name": "SimpleNetBNE", "layers": 1}
    with pytest.raises(InputError, match="a.safetensors: .*unknown argument 'layers'"):
        save_checkpoint(path, other, 0.05)
    broken = small_network()
    torch.nn.init.constant_(broken.conv2.kernel, torch.nan)
    with pytest.raises(InputError, match="a.safetensors: 1 of .* weights have NaN"):
        save_checkpoint(path, broken, 0.05)
    with pytest.raises(ValueError, match="cannot write there"):
        save_checkpoint(tmp_path / "none" / "a.safetensors", model, 0.05)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (None, "weights without our header"),
        ({"format": "pt"}, "weights without our header"),
        ({"format": "sparsefeat", "config": "{"}, "its header is damaged"),
        ({"format": "sparsefeat", "config": "[]"}, "its header is damaged"),
        (
            {"format": "sparsefeat", "config": '{"name": "os.system"}'},
            "unknown network 'os.system'",
        ),
        (
            {"format": "sparsefeat", "config": '{"name": "SimpleNetBNE", "layers": 1}'},
            "unknown argument 'layers'",
        ),
        (
            {"format": "sparsefeat", "config": '{"name": "SimpleNetBNE", "in_channels": "1"}'},
            "in_channels must be",
        ),
        (
            {"format": "sparsefeat", "config": '{"name": "SimpleNetBNE"}', "voxel_size": "0"},
            "its header is damaged",
        ),
        (
            {"format": "sparsefeat", "config": '{"name": "SimpleNetBNE"}'},
            "the weights do not fit SimpleNetBNE",
        ),
    ],
)
def test_a_wrong_header_is_named(tmp_path, header, message):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors", header)
    with pytest.raises(ValueError, match=f"a.safetensors: .*{message}"):
        from_pretrained(tmp_path / "a.safetensors")


def test_a_cut_safetensors_file_is_one_clear_error(tmp_path):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, small_network(), 0.05)
    data = path.read_bytes()
    for length in (0, 4, 9, 500, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match="a.safetensors: .*(truncated|empty)"):
            from_pretrained(path)


# --- names ---


def test_a_name_under_sparsefeat_is_a_file_in_assets(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "ASSETS", tmp_path)
    save_checkpoint(tmp_path / "rooms.safetensors", small_network(), 0.05)
    assert from_pretrained("sparsefeat/rooms").voxel_size == 0.05
    with pytest.raises(
        ValueError, match="sparsefeat/room: no such checkpoint; there are: sparsefeat/rooms"
    ):
        from_pretrained("sparsefeat/room")


@pytest.mark.parametrize("name", ["nothing.pth", "runs/nothing.safetensors", "./a/b", "a/b/c", ""])
def test_a_path_to_nothing_is_not_taken_for_a_hub_id(name):
    with pytest.raises(ValueError, match="no such file|a folder"):
        find_checkpoint(name)


def test_a_hub_id_is_downloaded(tmp_path, monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    save_checkpoint(tmp_path / "model.safetensors", small_network(), 0.05)
    asked = []

    def download(repository, filename, revision=None):
        asked.append((repository, filename, revision))
        return str(tmp_path / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert from_pretrained("some-org/some.model").voxel_size == 0.05
    from_pretrained("some-org/model@v1")
    assert asked == [
        ("some-org/some.model", "model.safetensors", None),
        ("some-org/model", "model.safetensors", "v1"),
    ]

    def offline(*args, **kwargs):
        raise OSError("no connection\nand more")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(
        ValueError,
        match=r"some-org/model: neither a file here nor a hub repository.*no connection\)",
    ):
        from_pretrained("some-org/model")


# --- what stands beside or around the weights ---


@LAYOUTS
def test_empty_arrays_and_tuples_as_keys_beside_the_weights_do_no_harm(tmp_path, zipped):
    model = small_network()
    content = released(
        model, losses=np.array([]), seen={("scene", 3): 1, (0, 1): np.zeros((0, 3), np.float32)}
    )
    loaded = from_pretrained(save_foreign(content, tmp_path / "a.pth", zipped))
    assert_same_network(loaded, model)
    bare = {**model.state_dict(), "history": np.array([])}
    torch.save(bare, tmp_path / "b.pth", _use_new_zipfile_serialization=zipped)
    assert read_state(tmp_path / "b.pth").keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."]
)
def test_the_names_of_compiled_and_parallel_networks_are_their_own_again(tmp_path, prefix):
    model = small_network()
    state = {f"{prefix}{name}": value for name, value in model.state_dict().items()}
    path = save_foreign(released(model, state_dict=state), tmp_path / "a.pth")
    assert_same_network(from_pretrained(path), model)


def test_a_part_that_was_compiled_has_its_names_again(tmp_path):
    model = small_network()
    state = {
        name.replace("conv2.", "conv2._orig_mod."): value
        for name, value in model.state_dict().items()
    }
    path = save_foreign(released(model, state_dict=state), tmp_path / "a.pth")
    assert_same_network(from_pretrained(path), model)


def test_plain_safetensors_are_inferred_as_the_same_weights_in_a_pth_are(tmp_path):
    from safetensors.torch import save_file

    model = models.ResUNetIN2B(
        2,
        7,
        conv1_kernel_size=5,
        normalize_feature=True,
        depth=1,
        channels=(3, 4),
        tr_channels=(5, 6),
    )
    for number, header in enumerate((None, {"format": "pt"})):
        path = tmp_path / f"{number}.safetensors"
        save_file(model.state_dict(), path, header)
        with pytest.warns(UserWarning, match="whether its features are normalised"):
            loaded = from_pretrained(path)
        assert_same_network(loaded, model)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_what_a_download_leaves_in_place_of_weights_is_said(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(ValueError, match="a git-lfs pointer .run git lfs pull"):
        from_pretrained(path)
    path.write_text("<!DOCTYPE html><html></html>")
    with pytest.raises(ValueError, match="a web page"):
        from_pretrained(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path, value):
    model = small_network()
    state = model.state_dict()
    state["conv2.kernel"].view(-1)[:3] = value
    path = save_foreign(released(model, state_dict=state), tmp_path / "a.pth")
    said = r"1 of \d+ weights have NaN or infinite values: conv2.kernel \(3 of 13824\)"
    with pytest.raises(ValueError, match=f"a.pth: {said}"):
        from_pretrained(path)


def test_a_name_in_assets_without_its_prefix_gets_a_hint(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "ASSETS", tmp_path)
    save_checkpoint(tmp_path / "rooms.safetensors", small_network(), 0.05)
    for name in ("rooms", "rooms.safetensors"):
        with pytest.raises(
            ValueError, match=f"{name}: no such file; did you mean sparsefeat/rooms?"
        ):
            from_pretrained(name)
    with pytest.raises(ValueError, match="halls: no such file$"):
        from_pretrained("halls")


@pytest.mark.parametrize("value", [[1, [2]], {"a": 1}, (1, 2), b"x"])
def test_values_of_a_configuration_that_are_no_numbers_are_named(tmp_path, value):
    content = released(small_network())
    content["config"] = EasyDict({**content["config"], "voxel_size": value})
    path = save_foreign(content, tmp_path / "a.pth")
    if isinstance(value, dict):  # a group of values, which is looked into
        assert from_pretrained(path).voxel_size is None
        return
    with pytest.raises(ValueError, match="a.pth: config: voxel_size is a"):
        from_pretrained(path)


@pytest.mark.parametrize("device", ["gpu", "cpu:x", "cuda:99"])
def test_a_device_that_is_not_there_is_one_line(device):
    with pytest.raises(InputError, match=f"device '{device}' cannot be used: ") as error:
        from_pretrained("sparsefeat/rooms-5cm-v1", device=device)
    assert "\n" not in str(error.value)


def test_what_is_no_network_of_ours_is_not_saved(tmp_path):
    with pytest.raises(InputError, match="Linear has no config, expected a network"):
        save_checkpoint(tmp_path / "a.safetensors", torch.nn.Linear(1, 1), 0.05)
    assert not list(tmp_path.iterdir())
