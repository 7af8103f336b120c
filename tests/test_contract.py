"""The public contract: names, signatures, exit codes. Change it with a new major version only."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import numpy as np
import pytest
import torch

import sparsefeat
from sparsefeat.cli import frame
from sparsefeat.cli.main import VERBS

# Name -> the arguments that calls may rely on, in this order; more may follow, with defaults.
# One line for each name that is added.
SIGNATURES = {
    "from_pretrained": "name_or_path device",
    "save_checkpoint": "path model voxel_size",
    "create_model": "name",
    "FeatureExtractor.from_pretrained": "name_or_path voxel_size device",
    "FeatureExtractor.__call__": "self points",
    "SparseTensor": "features coordinates",
    "models.ResUNetBN2C": "in_channels out_channels bn_momentum normalize_feature conv1_kernel_size",
    "describe": "shape join",
    "voxelize_mesh": "vertices faces voxel_size",
    "tune_receptive_field": "extractor shapes objective",
    "view": "shapes features",
    "register": "source target extractor",
    "correspond": "a b extractor",
    "minkowski.install": "",
}

# Verb -> what its help must name. One line for each verb that is added.
OPTIONS = {
    "pretrain": "CONFIG key=value --output --resume --device --overfit",
    "transfer": "CONFIG key=value --output --json --result",
    "extract": "INPUT --checkpoint --output --voxel-size",
    "evaluate matching": "--checkpoint --data --pairs 3DMatch,3DLoMatch --json --result",
    "voxelize": "INPUT --output --voxel-size --resolution --device",
    "make_data rooms": "--output --seed",
    "make_data creatures": "--output --seed",
    "make_data fuse": "FOLDER --output --seed",
    "match": "INPUT --output --rigid --shapes --transfer --html --checkpoint --device",
    "view": "INPUT --html --checkpoint --features --labels",
    "benchmark": "--json --result",
    "results render": "--check",
    "results check": "NAME --long",
    "results list": "",
}


def find(name: str):
    value = sparsefeat
    for part in name.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_name_takes_the_arguments_that_it_promises(name):
    wanted = SIGNATURES[name].split()
    parameters = inspect.signature(find(name)).parameters
    missing = [argument for argument in wanted if argument not in parameters]
    if missing:  # handed on by **options
        assert any(p.kind is p.VAR_KEYWORD for p in parameters.values()), f"{name} lacks {missing}"
    named = [argument for argument in wanted if argument in parameters]
    assert sorted(named, key=list(parameters).index) == named
    required = [
        p.name
        for p in parameters.values()
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    assert set(required) <= set(wanted), (
        f"{name} cannot be called without {set(required) - set(wanted)}"
    )


def test_every_public_name_is_there_and_documented():
    assert len(set(sparsefeat.__all__)) == len(sparsefeat.__all__)
    for name in sparsefeat.__all__:
        assert inspect.getdoc(getattr(sparsefeat, name)), name
    assert set(sparsefeat.__all__) <= set(dir(sparsefeat))
    with pytest.raises(AttributeError, match="'sparsefeat' has no attribute 'nothing'"):
        sparsefeat.nothing  # noqa: B018


def test_names_for_type_checkers_are_those_at_run_time():
    tree = ast.parse(Path(sparsefeat.__file__).read_text(encoding="utf-8"))
    listed = {"InputError"}
    for node in ast.walk(tree):
        if isinstance(node, ast.If):
            listed |= {
                a.name for part in node.body if isinstance(part, ast.ImportFrom) for a in part.names
            }
    assert (
        listed
        == set(sparsefeat.__all__)
        == {*sparsefeat._ROOMS, "InputError", "models", "receptive_field"}
    )


def test_the_published_networks_take_fcgfs_arguments_and_keep_rows():
    model = sparsefeat.models.ResUNetBN2C(
        1, 32, bn_momentum=0.05, normalize_feature=True, conv1_kernel_size=7
    ).eval()
    coordinates = torch.tensor([[0, 3, 0, 0], [0, 0, 0, 0], [0, 1, 2, 0]], dtype=torch.int32)
    with torch.no_grad():
        y = model(sparsefeat.SparseTensor(torch.ones(3, 1), coordinates=coordinates))
    assert y.F.shape == (3, 32) and torch.equal(y.C, coordinates)


def test_an_extractor_gives_a_feature_per_point():
    extractor = sparsefeat.FeatureExtractor.from_pretrained(
        "sparsefeat/rooms-5cm", voxel_size=None, device=None
    )
    assert extractor(np.zeros((3, 3))).shape == (3, 32)


def test_voxels_are_the_cells_that_a_surface_touches():
    voxels = sparsefeat.voxelize_mesh(np.eye(3) * 0.5, np.array([[0, 1, 2]]), 1.0)
    assert voxels.coordinates.tolist() == [[0, 0, 0]]


def test_minkowskis_names_are_ours():
    engine = importlib.import_module("sparsefeat.minkowski")
    assert engine.SparseTensor and engine.MinkowskiConvolution and engine.utils.sparse_quantize


def test_input_errors_are_value_errors():
    from sparsefeat.errors import MissingExtraError

    assert issubclass(sparsefeat.InputError, ValueError)
    assert issubclass(MissingExtraError, sparsefeat.InputError) and issubclass(
        MissingExtraError, ImportError
    )


def test_exit_codes():
    assert (frame.DONE, frame.BUG, frame.WRONG_INPUT, frame.INTERRUPTED) == (0, 1, 2, 130)


@pytest.mark.parametrize("words", OPTIONS)
def test_a_verb_has_the_options_that_it_promises(words, capsys):
    verb, *task = words.split()
    with pytest.raises(SystemExit) as end:
        importlib.import_module(f"sparsefeat.cli.{verb}").main([*task, "--help"])
    help_text = capsys.readouterr().out
    assert end.value.code == 0
    assert [option for option in OPTIONS[words].split() if option not in help_text] == []


def test_every_verb_is_in_the_contract_and_has_a_script():
    assert {words.split()[0] for words in OPTIONS} == set(VERBS)
    scripts = Path(__file__).resolve().parents[1] / "tools"
    assert {path.stem for path in scripts.glob("*.py")} == set(VERBS)
