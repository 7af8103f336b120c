"""Checkpoint files as other projects write them, made without their packages."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from sparsefeat import models
from sparsefeat.sparse import SparseTensor

LAYOUTS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])


class EasyDict(dict):
    """Pickles as easydict's class does: its items, and the same again as attributes."""

    def __init__(self, *args, **kwargs):
        super().__init__()
        for name, value in dict(*args, **kwargs).items():
            self[name] = value
            setattr(self, name, value)


class DictConfig:
    """Pickles as omegaconf's class does: nodes that know their parent, below ``_content``."""

    def __init__(self, content, parent=None):
        self._metadata = {"flags": {}}
        self._parent = parent
        self._content = {
            name: DictConfig(value, self) if isinstance(value, dict) else AnyNode(value, self)
            for name, value in content.items()
        }


class AnyNode:
    def __init__(self, value, parent):
        self._parent = parent
        self._val = value


def save_foreign(content, path: Path, zipped: bool = True) -> Path:
    """Save an object while the packages of its classes pretend to be installed."""
    homes = {EasyDict: "easydict", DictConfig: "omegaconf.dictconfig", AnyNode: "omegaconf.nodes"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
        for kind, home in homes.items():
            module = types.ModuleType(home)
            setattr(module, kind.__name__, kind)
            patch.setitem(sys.modules, home, module)
            patch.setattr(kind, "__module__", home)
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def small_network(seed: int = 0, **config):
    """A SimpleNet with random weights and running statistics, the smallest of the published networks."""
    config = {"bn_momentum": 0.05, "normalize_feature": True, "conv1_kernel_size": 5, **config}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = models.SimpleNetBNE(1, 16, **config)
        model.train()(make_cloud())
    return model.eval()


def make_cloud(voxels: int = 80, channels: int = 1) -> SparseTensor:
    generator = torch.Generator().manual_seed(1)
    coordinates = torch.randint(-4, 5, (voxels, 4), generator=generator, dtype=torch.int32)
    coordinates[:, 0] = 0
    return SparseTensor(torch.ones(voxels, channels), coordinates=coordinates)


def released(model, name: str = "SimpleNetBNE", **changes) -> dict:
    """What FCGF's trainer saves."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.8)
    config = EasyDict(
        model=name, model_n_out=model.out_channels, conv1_kernel_size=5, normalize_feature=True,
        voxel_size=0.025, bn_momentum=0.05, dataset="ThreeDMatchPairDataset", weights=None,
    )  # fmt: skip
    return {
        "epoch": 100,
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99).state_dict(),
        "config": config,
        "best_val": np.float64(0.93),
        "best_val_metric": "feat_match_ratio",
        **changes,
    }


def assert_same_network(loaded, model) -> None:
    cloud = make_cloud(channels=model.in_channels)
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(cloud).F, model.eval()(cloud).F)
