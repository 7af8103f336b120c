"""A network on fixed voxels as a program of torch alone."""

from __future__ import annotations

import pytest
import torch
from engine_oracle import cloud, sparse

from sparsefeat.models import create_model
from sparsefeat.sparse.operators import AVAILABLE
from sparsefeat.sparse.portable import export_network

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="torch has no operators of others yet")


def network(**options):
    torch.manual_seed(0)
    model = create_model(
        "ResUNetBN2C", in_channels=2, out_channels=4, depth=1, channels=[4, 8], tr_channels=[4, 4],
        conv1_kernel_size=3, normalize_feature=True, **options,
    )  # fmt: skip
    for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d)):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    return model.eval().double()


def test_it_gives_what_the_network_gives_for_any_features_on_the_same_voxels(tmp_path):
    model, x = network(), sparse(cloud(40), channels=2)
    torch.export.save(export_network(model, x), tmp_path / "network.pt2")
    program = torch.export.load(tmp_path / "network.pt2")
    assert not [n for n in program.graph.nodes if "sparsefeat" in str(n.target)]
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        features = torch.randn(x.F.shape, dtype=x.F.dtype, generator=generator)
        with torch.no_grad():
            expected = model(x.replace(features)).F
            found = program.module()(features)
        torch.testing.assert_close(found, expected)


def test_what_cannot_be_exported_is_refused():
    x = sparse(cloud(40), channels=2)
    with pytest.raises(ValueError, match=r"call network.eval\(\)"):
        export_network(network().train(), x)
    torch.manual_seed(0)
    pair = create_model(
        "ResUNetBN2C", in_channels=3, out_channels=4, depth=0, channels=[4], tr_channels=[4],
        conv1_kernel_size=3, kernels="pair",
    ).eval()  # fmt: skip
    with pytest.raises(ValueError, match=r"sparsefeat\.\w+\.default is not in the operators"):
        export_network(pair, sparse(cloud(40), channels=3))
