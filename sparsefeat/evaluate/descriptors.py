"""What can be evaluated: a checkpoint, and the baselines it is compared with, as functions of points."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from sparsefeat.errors import InputError
from sparsefeat.evaluate.fpfh import fpfh_descriptor
from sparsefeat.evaluate.keypoints import Describe
from sparsefeat.extract import FeatureExtractor
from sparsefeat.extras import import_extra
from sparsefeat.models import create_model

BASELINES = ("fpfh", "random")


def checkpoint_descriptor(
    name_or_path: str | os.PathLike, voxel_size: float | None = None, device: str | None = None
) -> FeatureExtractor:
    """The features of a checkpoint; ``.voxel_size`` is its own unless given."""
    return FeatureExtractor.from_pretrained(name_or_path, voxel_size, device)


def random_network(model: nn.Module, seed: int = 0) -> nn.Module:
    """A network of the same architecture as ``model`` with random weights.

    Its batch norms take the statistics of the cloud at hand, in eval mode too: the running statistics of
    a network that saw nothing say nothing, and with them its features are close to constant.

    Args:
        model: with ``config``, as ``sparsefeat.create_model`` builds it.
        seed: of the weights; the state of torch's generator is left as it was.

    Raises:
        InputError: ``model`` does not carry its configuration.
    """
    config = getattr(model, "config", None)
    if not config:
        raise InputError(
            f"random baseline: {type(model).__name__} has no config to build its like from"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = create_model(**config)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            # Without running statistics torch's batch norm uses those of its input, in eval mode too.
            module.track_running_stats = False
            module.running_mean = module.running_var = None
    return network.eval()


def baseline_descriptor(
    name: str, extractor: FeatureExtractor, voxel_size: float, seed: int = 0
) -> Describe:
    """A baseline by name: ``"fpfh"``, or ``"random"``, the extractor's architecture with random weights.

    Raises:
        InputError: an unknown name.
        MissingExtraError: FPFH without Open3D.
    """
    makers: dict[str, Callable[[], Describe]] = {
        "fpfh": lambda: partial(fpfh_descriptor, voxel_size=voxel_size),
        "random": lambda: FeatureExtractor(
            random_network(extractor.model, seed),
            extractor.voxel_size,
            extractor.device,
            unit=extractor.unit,
        ),
    }
    if name not in makers:
        raise InputError(f"baseline: expected one of {', '.join(BASELINES)}, got {name!r}")
    if name == "fpfh":
        import_extra(
            "open3d", "the FPFH baseline"
        )  # said now, not after the first descriptor's hours
    return makers[name]()
