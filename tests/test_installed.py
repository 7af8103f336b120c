"""What is installed from a wheel works away from the checkout, with all that comes along."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

import sparsefeat

pytest.importorskip("setuptools", minversion="70.1", reason="builds the wheel")

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {
    "OMP_NUM_THREADS": "1"
}
NOT_COPIED = (".*", "data", "runs", "output", "results", "build", "dist", "*.egg-info")


def run(*command: object, cwd: Path) -> str:
    words = list(map(str, command))
    done = subprocess.run(
        words, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def build(kind: str, source: Path, target: Path) -> Path:
    """Build a wheel or sdist of a copy of the sources, with the setuptools that is installed."""
    target.mkdir()
    code = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
    run(sys.executable, "-c", code, target, cwd=source)
    (built,) = target.iterdir()
    return built


def environment(folder: Path, *install: object) -> Path:
    """An environment with sparsefeat and nothing else of its own; what it needs comes from the running one."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    packages = Path(
        run(
            python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder
        ).strip()
    )
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    run(
        *pip,
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--ignore-installed",
        *install,
        cwd=folder,
    )
    return python


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "sparsefeat"
    here, anywhere = shutil.ignore_patterns(*NOT_COPIED), shutil.ignore_patterns("__pycache__")
    shutil.copytree(
        ROOT, folder, ignore=lambda at, names: (here if Path(at) == ROOT else anywhere)(at, names)
    )
    return folder


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    """Built from the sdist, so that both are complete."""
    folder = tmp_path_factory.mktemp("built")
    with tarfile.open(build("sdist", source, folder / "sdist")) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return build("wheel", unpacked, folder / "wheel")


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    return environment(tmp_path_factory.mktemp("installed"), wheel)


def test_a_wheel_has_checkpoints_configurations_types_and_licence(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (*(ROOT / "assets").glob("*.*"), *(ROOT / "configs").rglob("*.yaml")):
        assert f"sparsefeat/{path.relative_to(ROOT).as_posix()}" in names
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "sparsefeat").rglob("*.py")}
    assert modules <= names and "sparsefeat/py.typed" in names
    assert not [
        name
        for name in names
        if name.startswith(("tests/", "tools/", "configs/", "assets/", "build/"))
    ]
    info = f"sparsefeat-{sparsefeat.__version__}.dist-info"
    assert any(name.startswith(info) and name.endswith("LICENSE") for name in names)
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"{info}/METADATA").decode()
    assert "MIT" in metadata and "Provides-Extra: rooms" in metadata


def test_an_installed_wheel_extracts_features_away_from_the_checkout(installed, tmp_path):
    np.save(tmp_path / "scan.npy", np.random.default_rng(0).random((500, 3)) * [2, 2, 0.1])
    command = installed.with_name("sparsefeat")
    assert run(command, "--version", cwd=tmp_path) == f"sparsefeat {sparsefeat.__version__}\n"
    options = ["--checkpoint", "sparsefeat/rooms-5cm-v1", "--output", "features"]
    assert (
        run(command, "extract", "scan.npy", *options, cwd=tmp_path)
        == "1 of 1 inputs written to features\n"
    )
    with np.load(tmp_path / "features" / "scan.npz") as archive:
        features = archive["features"]
    here = sparsefeat.FeatureExtractor.from_pretrained("sparsefeat/rooms-5cm-v1")
    np.testing.assert_allclose(features, here(tmp_path / "scan.npy"), atol=1e-6)
    assert (tmp_path / "features" / "features.png").is_file()


FIND = """
import json, sparsefeat
from sparsefeat.checkpoint import find_checkpoint
from sparsefeat.io.packaged import find_config
found = [sparsefeat.__file__, find_checkpoint("sparsefeat/rooms-5cm-v1"), find_config("quickstart"),
         find_config("configs/quickstart.yaml"), find_config("quickstart", "transfer")]
print(json.dumps([str(path) for path in found]))
"""


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_what_comes_along_is_found(kind, source, request, tmp_path):
    if kind == "wheel":
        python = request.getfixturevalue("installed")
    else:
        python = environment(tmp_path / "environment", "-e", source)
    package, checkpoint, config, same, transfer = map(
        Path, json.loads(run(python, "-c", FIND, cwd=tmp_path))
    )
    root = package.parent if kind == "wheel" else source
    assert package.is_relative_to(python.parents[1] if kind == "wheel" else source)
    assert checkpoint == root / "assets" / "rooms-5cm-v1.safetensors"
    assert config == same == root / "configs" / "quickstart.yaml"
    assert transfer == root / "configs" / "transfer" / "quickstart.yaml"


def test_an_installed_wheel_reads_its_configurations_by_name(installed, tmp_path):
    command = [
        installed.with_name("sparsefeat"),
        "pretrain",
        "quickstart",
        "data.rooms=null",
        "data.root=nowhere",
    ]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("nowhere: no such folder")
    command[2] = "quickstrat"
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert (
        done.returncode == 2
        and done.stderr.startswith("quickstrat: no such file")
        and "quickstart" in done.stderr
    )
