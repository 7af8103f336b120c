"""Files of version 0.1: names of checkpoints, options of networks and of runs."""

from __future__ import annotations

import json

import pytest
import torch
from networks import small_network
from safetensors.torch import save_file

from sparsefeat.checkpoint import find_checkpoint, from_pretrained, save_checkpoint
from sparsefeat.checkpoint.legacy import current_network_options, current_run_options


@pytest.mark.parametrize(
    ("old", "new"), [("rooms-5cm", "rooms-5cm-v1"), ("rooms-5cm-sides", "rooms-5cm-oriented-v1")]
)
def test_released_names_answer_with_the_new_ones(old, new):
    with pytest.warns(FutureWarning, match=f"sparsefeat/{old} is sparsefeat/{new} since"):
        assert find_checkpoint(f"sparsefeat/{old}") == find_checkpoint(f"sparsefeat/{new}")
    with pytest.warns(FutureWarning, match="the old name will go"):
        assert find_checkpoint(f"sparsefeat/{old}.safetensors").name == f"{new}.safetensors"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({}, {}),
        ({"geometry": False, "symmetric": False}, {}),
        ({"geometry": True, "pair_kernels": True, "symmetric": False}, {"kernels": "pair"}),
        (
            {"geometry": True, "pair_kernels": True, "sides": True},
            {"kernels": "pair", "oriented": True},
        ),
        ({"kernels": "pair", "oriented": True, "chiral": True},) * 2,
    ],
)
def test_options_of_networks_have_todays_names(old, new):
    assert current_network_options({"depth": 2} | old) == {"depth": 2} | new


@pytest.mark.parametrize(
    ("options", "what"),
    [({"symmetric": True}, "symmetric kernels"), ({"geometry": True}, "geometry channels")],
)
def test_what_was_removed_names_the_last_version_that_reads_it(options, what):
    with pytest.raises(
        ValueError,
        match=f"the network has {what}, which sparsefeat 0.1 is the last version to read",
    ):
        current_network_options(options)


def test_a_checkpoint_written_by_0_1_is_the_same_network(tmp_path):
    model = small_network(kernels="pair", oriented=True)
    save_checkpoint(tmp_path / "new.safetensors", model, 0.05)
    config = {
        name: value
        for name, value in model.config.items()
        if name not in ("kernels", "oriented", "chiral")
    }
    config |= {"geometry": True, "pair_kernels": True, "sides": True, "symmetric": False}
    header = {
        "format": "sparsefeat",
        "config": json.dumps(config),
        "voxel_size": "0.05",
        "unit": "m",
        "extra": "{}",
    }
    save_file(model.state_dict(), tmp_path / "old.safetensors", header)
    again = from_pretrained(tmp_path / "old.safetensors")
    assert again.config == model.config
    for name, weights in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weights)
    save_file(
        model.state_dict(),
        tmp_path / "gone.safetensors",
        header | {"config": json.dumps(config | {"pair_kernels": False})},
    )
    with pytest.raises(ValueError, match=r"gone\.safetensors: the network has geometry channels"):
        from_pretrained(tmp_path / "gone.safetensors")


def test_options_of_runs_have_todays_names():
    old = {
        "data": {"root": "rooms", "also": ["more"]},
        "model": {"name": "ResUNetBN2C", "geometry": True, "pair_kernels": True, "sides": False},
        "augment": {"sideless": 0.1, "dropout": 0.6},
        "rotation": {"max_deg": 180.0, "symmetric_share": 0.0},
        "steps": 5,
    }
    assert current_run_options(old) == {
        "data": {"root": "rooms", "extra_roots": ["more"]},
        "model": {"name": "ResUNetBN2C", "kernels": "pair", "oriented": False},
        "augment": {"drop_orientation": 0.1, "dropout": 0.6},
        "rotation": {"max_deg": 180.0},
        "steps": 5,
    }
    assert old["model"]["geometry"] is True  # the caller's dictionary stays as it was
