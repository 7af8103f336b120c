"""Modules of version 0.1 answer to their old names."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from sparsefeat.moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_is_todays_module_with_a_warning(old):
    sys.modules.pop(f"sparsefeat.{old}", None)
    new = f"sparsefeat.{MOVED[old]}"
    with pytest.warns(FutureWarning, match=f"sparsefeat.{old} is {new} since version 0.2"):
        found = importlib.import_module(f"sparsefeat.{old}")
    assert found is importlib.import_module(new)
    assert found.__name__ == found.__spec__.name == new


def test_what_lies_below_a_moved_package_is_not_loaded_twice():
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "import sparsefeat.data.synthetic.camera as old\n"
        "from sparsefeat.data.synthetic import camera\n"
        "import sparsefeat.synthetic.camera as new\n"
        "assert old is new and camera is new"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_that_never_were_are_not_found():
    with pytest.raises(ModuleNotFoundError, match=r"sparsefeat\.configs"):
        importlib.import_module("sparsefeat.configs")
