"""A checkpoint as a folder in the hub's layout: what is written is what is read."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from networks import small_network

import sparsefeat
from sparsefeat.checkpoint import HUB_FILE, find_checkpoint, read_checkpoint, write_folder
from sparsefeat.errors import InputError

NAME = "sparsefeat/rooms-5cm-v1"


def test_a_folder_loads_as_its_checkpoint(tmp_path):
    folder = write_folder(tmp_path / "rooms-5cm-v1", NAME)
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", HUB_FILE]
    points = np.random.default_rng(0).uniform(0, 1, (500, 3))
    of_name, of_folder = (
        sparsefeat.FeatureExtractor.from_pretrained(name)(points) for name in (NAME, folder)
    )
    np.testing.assert_array_equal(of_folder, of_name)


def test_the_configuration_is_that_of_the_weights(tmp_path):
    folder = write_folder(tmp_path / "a", "sparsefeat/creatures-oriented-v5")
    found = json.loads((folder / "config.json").read_text())
    model = sparsefeat.from_pretrained(folder)
    checkpoint = read_checkpoint(folder / HUB_FILE)
    assert found["config"] == model.config == checkpoint.config
    assert (found["voxel_size"], found["unit"]) == (model.voxel_size, model.unit) == (0.05, "m")
    assert found["extra"] == checkpoint.extra


def test_the_card_is_the_checkpoints_with_the_hubs_header(tmp_path):
    folder = write_folder(tmp_path / "a", NAME)
    header, card = (folder / "README.md").read_text().split("---\n\n", 1)
    assert header.startswith("---\n") and "license: mit\n" in header
    assert card == find_checkpoint(NAME).with_suffix(".md").read_text()
    (tmp_path / "mine.md").write_text("# mine\n")
    folder = write_folder(tmp_path / "b", NAME, tmp_path / "mine.md")
    assert (folder / "README.md").read_text().endswith("---\n\n# mine\n")


def test_a_checkpoint_without_a_card_is_refused(tmp_path):
    shutil.copy(find_checkpoint(NAME), tmp_path / "net.safetensors")
    with pytest.raises(InputError, match=r"net\.md"):
        write_folder(tmp_path / "a", tmp_path / "net.safetensors")
    assert not (tmp_path / "a").exists()


@pytest.mark.filterwarnings("ignore:the checkpoint does not say")
def test_a_foreign_checkpoint_is_refused(tmp_path):
    model = small_network()
    config = {"model": "ResUNetBN2C", "model_n_out": 32, "conv1_kernel_size": 5}
    torch.save({"state_dict": model.state_dict(), "config": config}, tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"net\.pth"):
        write_folder(tmp_path / "a", tmp_path / "net.pth")


def test_a_folder_with_files_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError):
        write_folder(tmp_path, NAME)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_without_weights_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"a folder without model\.safetensors, expected a check"):
        sparsefeat.from_pretrained(tmp_path)
