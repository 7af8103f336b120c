"""``--device``: networks run and are trained there, and what is found is what the CPU gives.

The device is a pretended CUDA (pretend_device.py), which refuses tensors of two devices in one operation.
"""

# ruff: noqa: F811  (fixtures of other files)

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from pretend_device import PretendDevice, Pretended
from test_maps import config as maps_config
from test_maps import lumps  # noqa: F401
from test_study import study_of
from test_transfer import checkpoint, config_of, peanuts  # noqa: F401
from torch import nn

from sparsefeat.cli.transfer import main
from sparsefeat.heads import training
from sparsefeat.heads.initialization import seeded
from sparsefeat.mesh.laplacian import LaplaceBasis
from sparsefeat.transfer import run_transfer
from sparsefeat.transfer.maps import run_maps
from sparsefeat.transfer.study import run_study

config = maps_config  # a fixture


def dense(basis, device=None, dtype=None):
    """Like LaplaceBasis.to, with matrices that are not sparse."""
    parts = (getattr(basis, part.name) for part in fields(basis))
    return LaplaceBasis(*(part.to_dense().to(device=device, dtype=dtype) for part in parts))


@pytest.fixture
def on_device(monkeypatch):
    """Calls a function with a pretended CUDA, whose generator is the CPU's."""
    monkeypatch.setenv("SPARSEFEAT_ARITHMETIC", "torch")
    # A pretended device has no generator of its own.
    monkeypatch.setattr(training, "seeded", lambda seed, device: seeded(seed))
    # Nor sparse matrices; those have a test of their own with a GPU.
    monkeypatch.setattr(LaplaceBasis, "to", dense)
    monkeypatch.setattr(torch.sparse, "mm", torch.mm)

    def call(function, *arguments):
        ran: set[type] = set()

        def note(module, *_):
            if any(isinstance(p, Pretended) for p in module.parameters(recurse=False)):
                ran.add(type(module))

        hook = nn.modules.module.register_module_forward_pre_hook(note)
        try:
            with PretendDevice():
                return function(*arguments, device="cuda"), {kind.__name__ for kind in ran}
        finally:
            hook.remove()

    return call


@pytest.mark.parametrize("head", ["linear", "mlp", "diffusion"])
def test_heads_and_backbones_learn_there_what_they_learn_on_the_cpu(
    head,
    on_device,
    checkpoint,
    peanuts,
    tmp_path,
):
    methods = ["tuned", "xyz"] + (["finetuned", "random"] if head == "linear" else [])
    config = config_of(checkpoint, peanuts, tmp_path, methods=methods)
    config.head.name, config.head.training.steps, config.finetune.steps = head, 3, 2
    config.head.dropout, config.features.voxel_size = 0.0, 0.1
    found, ran = on_device(run_transfer, config)
    expected = run_transfer(config)
    for mine, other in zip(found.scores, expected.scores):
        assert mine.accuracy == pytest.approx(other.accuracy, abs=0.02)
    assert "PairConvolution" in ran, ran


@pytest.mark.parametrize("supervision", ["landmarks", "none"])
def test_a_head_for_maps_learns_there(supervision, on_device, config, tmp_path):
    config.supervision = supervision
    folders = [tmp_path / "there", tmp_path / "here"]
    for folder in folders:
        folder.mkdir()

    def interrupt(done, text):
        if done == 3:
            raise KeyboardInterrupt

    # What was begun here goes on there.
    with pytest.raises(KeyboardInterrupt):
        run_maps(config, folders[0], interrupt)
    found, ran = on_device(run_maps, config, folders[0])
    expected = run_maps(config, folders[1])
    for mine, other in zip(found.losses, expected.losses, strict=True):
        assert mine["total"] == pytest.approx(other["total"], rel=1e-3)
    assert [r["map"] for r in found.records] == [r["map"] for r in expected.records]
    assert "Linear" in ran


def test_a_study_runs_there_in_this_process(on_device, checkpoint, peanuts, tmp_path):
    options = {"damages": ["clean"], "copies": [], "shots": [2], "workers": 2}
    study = study_of(checkpoint, peanuts, tmp_path, **options)
    path = tmp_path / "there.json"

    def run(study, path, device=None):
        return run_study(study, path, device=device).records

    found, ran = on_device(run, study, path)
    for mine, other in zip(found, run(study, tmp_path / "here.json")):
        assert mine["method"] == other["method"]
        assert mine["accuracy"] == pytest.approx(other["accuracy"], abs=0.02)
    assert ran, "forked workers would not be seen here, and could not use a GPU"


@pytest.mark.parametrize("name", ["nowhere", "cuda:77"])
def test_a_device_that_is_not_there_is_one_line_before_any_work(name, tmp_path, capsys):
    output = tmp_path / "out"
    assert main(["quickstart", "--output", str(output), "--device", name]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"device '{name}' cannot be used: ") and error.count("\n") == 1
    assert not output.exists()
