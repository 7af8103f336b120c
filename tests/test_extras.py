"""An optional package that is absent is named with its extra, where it is used."""

from __future__ import annotations

import configparser
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sparsefeat import extras
from sparsefeat.errors import InputError, MissingExtraError
from sparsefeat.extras import import_extra

ROOT = Path(__file__).resolve().parents[1]
TRIANGLE = np.eye(3), np.array([[0, 1, 2]])


@pytest.fixture
def without(monkeypatch):
    """Return a function that takes a package away."""

    def take(name: str, error: type[Exception] = ModuleNotFoundError) -> None:
        real = importlib.import_module

        def importing(module, *args, **options):
            if module.partition(".")[0] == name:
                raise (
                    error(f"no {name}", name=name)
                    if error is ModuleNotFoundError
                    else error(f"no lib{name}.so")
                )
            return real(module, *args, **options)

        monkeypatch.setattr(extras.importlib, "import_module", importing)

    return take


def _laplacian(tmp_path):
    from sparsefeat.mesh.laplacian import laplace_basis

    laplace_basis(*TRIANGLE, k=1)


def _rooms(tmp_path):
    from sparsefeat.synthetic.rooms import make_rooms

    make_rooms(tmp_path / "rooms", 0, rooms=1, fragments_per_room=1, frames=2, workers=1)


def _creatures(tmp_path):
    from sparsefeat.synthetic.creatures import make_creatures

    make_creatures(tmp_path / "creatures", 0, count=1, poses=1, families=["hand"], workers=1)


def _glb(tmp_path):
    from sparsefeat.io.meshes import read_mesh

    (tmp_path / "a.glb").write_bytes(b"glTF")
    read_mesh(tmp_path / "a.glb")


def _hub(tmp_path):
    from sparsefeat import from_pretrained

    from_pretrained("someone/something")


def _fpfh(tmp_path):
    from sparsefeat.evaluate import fpfh_descriptor

    fpfh_descriptor(np.zeros((4, 3)), 0.05)


def _minkowski(tmp_path):
    from sparsefeat import create_model

    create_model("ResUNetBN2C", in_channels=1, out_channels=4, backend="minkowski")


@pytest.mark.parametrize(
    ("package", "extra", "use"),
    [
        ("robust_laplacian", "shapes", _laplacian),
        ("skimage", "shapes", _creatures),
        ("trimesh", "shapes", _glb),
        ("embreex", "rooms", _rooms),
        ("huggingface_hub", "hub", _hub),
        ("open3d", "open3d", _fpfh),
        ("MinkowskiEngine", "minkowski", _minkowski),
    ],
)
def test_what_is_absent_is_named_with_its_extra(package, extra, use, without, tmp_path):
    without(package)
    with pytest.raises(
        MissingExtraError, match=rf"needs .*pip install -c constraints.txt -e '\.\[{extra}\]' in "
    ) as caught:
        use(tmp_path)
    assert isinstance(caught.value, InputError) and isinstance(caught.value, ImportError)


def test_the_command_is_one_for_the_clone_or_for_a_clone(monkeypatch, tmp_path):
    assert extras.install_command("rooms").endswith(f" -e '.[rooms]' in {ROOT}")
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "site-packages/sparsefeat/extras.py"))
    command = extras.install_command("rooms")
    assert command == "pip install -c constraints.txt '.[rooms]' in a clone of sparsefeat"


def test_shapes_ask_for_their_extra_before_they_are_described(without, monkeypatch):
    from sparsefeat import correspond, describe

    without("robust_laplacian")
    monkeypatch.setattr("sparsefeat.match.shapes.vertex_features", None)  # minutes of computing
    monkeypatch.setattr("sparsefeat.extract.descriptors.vertex_features", None)
    with pytest.raises(MissingExtraError, match=r"a map between shapes needs robust.*\[shapes\]"):
        correspond(TRIANGLE, TRIANGLE, extractor="sparsefeat/creatures-oriented-v5")
    with pytest.raises(MissingExtraError, match=r"join=\('ours', 'fpfh'\) does without it"):
        describe(TRIANGLE)


def test_what_is_installed_but_broken_says_so(without):
    without("open3d", OSError)
    with pytest.raises(
        MissingExtraError, match="is installed but cannot be loaded: no libopen3d.so; on Debian"
    ):
        import_extra("open3d", "this")


def test_every_optional_package_is_in_the_extra_that_its_message_names():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = config["options.extras_require"]
    for package, extra in extras._PACKAGES.values():
        names = re.findall(r"^[\w-]+", listed[extra], flags=re.MULTILINE)
        assert package.lower().replace("_", "-") in [
            name.lower().replace("_", "-") for name in names
        ]


WITHOUT = """
import importlib, importlib.abc, pathlib, sys
import sparsefeat
from sparsefeat.extras import _PACKAGES

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in _PACKAGES:
            raise ModuleNotFoundError(f"{name} is imported at once", name=name)

sys.meta_path.insert(0, Absent())
root = pathlib.Path(sparsefeat.__file__).parents[1]
for path in sorted((root / "sparsefeat").rglob("*.py")):
    name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    if "triton" not in name and not name.endswith("__main__"):
        importlib.import_module(name)
"""


def test_the_library_loads_without_any_optional_package():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
