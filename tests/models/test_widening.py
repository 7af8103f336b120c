"""Wider networks that begin with the features of a narrower one."""

from __future__ import annotations

import pytest
import torch

from sparsefeat.checkpoint import save_checkpoint
from sparsefeat.models import create_model
from sparsefeat.models.voxel_cloud import voxelize
from sparsefeat.pretrain.build import build_model
from sparsefeat.pretrain.config import ModelConfig

PAIR = {"kernels": "pair", "oriented": True, "in_channels": 6, "context": 1}
GRID = {"kernels": "grid", "oriented": False, "in_channels": 1, "context": 0}


@pytest.fixture
def cloud():
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(800, 3, generator=generator, dtype=torch.float64)
    points[:, 2] *= 0.2
    normals = torch.randn(800, 3, generator=generator, dtype=torch.float64)
    return voxelize(points, 0.05, normals=torch.nn.functional.normalize(normals, dim=1))


def trained(path, **options):
    """A small network whose norms have seen something, saved."""
    torch.manual_seed(0)
    model = create_model(
        "ResUNetBN2C",
        out_channels=8,
        conv1_kernel_size=3,
        channels=[4, 6, 8, 10],
        tr_channels=[6, 6, 8, 10],
        **options,
    )
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    save_checkpoint(path, model, 0.05)
    return model.eval()


@pytest.mark.parametrize("options", [PAIR, GRID], ids=["pair", "grid"])
@pytest.mark.parametrize("widths", [[8, 12, 16, 20], [4, 6, 8, 20]], ids=["all", "deepest"])
def test_a_wider_network_computes_what_the_narrow_one_did_and_trains_all_of_its_weights(
    cloud, options, widths, tmp_path
):
    narrow = trained(tmp_path / "narrow.safetensors", **options)
    given = {name: options[name] for name in ("kernels", "oriented", "context")}
    wide = build_model(
        ModelConfig(
            init=str(tmp_path / "narrow.safetensors"),
            conv1_kernel_size=3,
            out_channels=8,
            channels=widths,
            tr_channels=[12, 12, 16, 20],
            **given,
        )
    )
    expected, got = (m.eval()(m.inputs(cloud)).features for m in (narrow, wide))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    assert wide.config["channels"] == widths and wide.config["tr_channels"] == [12, 12, 16, 20]
    wide.train()(wide.inputs(cloud)).features[:, 0].sum().backward()
    kernel = wide.conv4_tr.kernel
    assert kernel.grad[..., 10:, :10].abs().sum() > 0, "old channels learn to use new ones"
    assert kernel[..., 10:].abs().sum() > 0, "new channels are alive"


def test_a_narrower_network_is_refused(tmp_path):
    trained(tmp_path / "wide.safetensors", **PAIR)
    with pytest.raises(ValueError, match=r"channels = \[4, 6, 8, 10\], model.channels says"):
        build_model(
            ModelConfig(
                init=str(tmp_path / "wide.safetensors"),
                conv1_kernel_size=3,
                out_channels=8,
                channels=[4, 6, 8, 8],
                kernels="pair",
                oriented=True,
                context=1,
            )
        )


@pytest.mark.parametrize("widths", [[4, 6, 8, 10], [8, 12, 16, 20]], ids=["same", "wider"])
def test_more_widths_than_levels_are_ignored_here_too(widths, tmp_path):
    trained(tmp_path / "narrow.safetensors", **PAIR)
    model = build_model(
        ModelConfig(
            init=str(tmp_path / "narrow.safetensors"),
            conv1_kernel_size=3,
            out_channels=8,
            channels=[*widths, 99],
            kernels="pair",
            oriented=True,
            context=1,
        )
    )
    assert model.config["channels"] == widths
