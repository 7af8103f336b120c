"""Installs the library for several Pythons, with the oldest and the newest packages, and runs tests there.

    python tests/compatibility/run.py --python ~/.pyenv/versions/*/bin/python --result packages

Each Python gets an environment of its own per set of packages, which is deleted afterwards. ``oldest`` are the
versions of oldest.txt beside this file; ``newest`` are those of constraints.txt, but for torch, of which pip takes
the newest that it finds. What is already in the result stays, unless ``--again``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sparsefeat.io.results import RESULTS, result_path, write_result

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SETS = ("oldest", "newest")
TESTS = (
    "tests/test_extras.py tests/io tests/checkpoint tests/models/test_models.py tests/models/test_voxel_cloud.py "
    "tests/sparse/test_engine_definition.py tests/sparse/test_engine_dtypes.py tests/sparse/test_pooling.py "
    "tests/minkowski/test_minkowski_layers.py tests/minkowski/test_minkowski_tensors.py tests/extract/test_extract.py "
    "tests/extract/test_extract_tool.py tests/robustness/test_smoke.py"
).split()
PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "matplotlib",
    "pillow",
    "safetensors",
    "trimesh",
)
"""Whose versions the result names."""
_RUNNERS = ("hypothesis", "pytest")
_LINE = re.compile(r"^(tests/\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL)", re.MULTILINE)


def install(python: str, packages: str, folder: Path) -> Path:
    """An environment with the library, its packages and what tests need; returns its Python."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    own = folder / "bin/python"
    constraints = HERE / "oldest.txt"
    if packages == "newest":
        constraints = folder / "newest.txt"
        lines = (ROOT / "constraints.txt").read_text().splitlines()
        constraints.write_text("\n".join(x for x in lines if not x.startswith("torch==")) + "\n")
    pip = [own, "-m", "pip", "install", "--quiet"]
    library = f"{ROOT}[rooms,shapes]"
    subprocess.run([*pip, "-c", constraints, "-e", library, *_RUNNERS], check=True)
    return own


def versions(python: Path) -> dict[str, str]:
    """Versions of what is installed."""
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=json"], capture_output=True, check=True
    )
    found = {item["name"].lower(): item["version"] for item in json.loads(listed.stdout)}
    return {name: found[name] for name in PACKAGES}


def run_tests(python: Path, minutes: float) -> dict:
    """Counts of how the tests ended, and which failed; ``whole`` is false if the time was over before."""
    command = [python, "-m", "pytest", "-o", "addopts=", "-v", "-p", "no:cacheprovider", *TESTS]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            code = child.wait(60 * minutes)
        except subprocess.TimeoutExpired:
            child.terminate()
            child.wait()
            code = None
        output.seek(0)
        text = output.read()
    endings = [ending for _, ending in _LINE.findall(text)]
    if not endings or code not in (0, 1, None):
        print(text[-3000:])
    return {
        **{
            ending.lower(): endings.count(ending)
            for ending in ("PASSED", "SKIPPED", "FAILED", "ERROR")
        },
        "failures": [name for name, ending in _LINE.findall(text) if ending in ("FAILED", "ERROR")],
        "whole": code in (0, 1),
        "exit_code": code,
        "minutes": round((time.monotonic() - start) / 60, 1),
    }


def main() -> int:
    """Try all, print, write the result after each; 1 if anything failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", nargs="+", default=[sys.executable], help="interpreters")
    parser.add_argument("--packages", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--minutes", type=float, default=30, help="of tests each, at most")
    parser.add_argument("--result", metavar="NAME", help="write results/compatibility/NAME.json")
    parser.add_argument("--again", action="store_true", help="also what is in the result already")
    args = parser.parse_args()
    path = args.result and result_path("compatibility", args.result, ROOT / RESULTS)
    rows = json.loads(path.read_text())["numbers"] if path and path.is_file() else {}
    for python in args.python:
        shown = subprocess.run(
            [python, "-c", "import platform; print(platform.python_version())"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        for packages in args.packages:
            name = f"python {shown.stdout.strip()}, {packages} packages"
            if name in rows and not args.again:
                continue
            folder = Path(tempfile.mkdtemp(prefix="compatibility-"))
            try:
                own = install(python, packages, folder)
                rows[name] = {"versions": versions(own), "tests": run_tests(own, args.minutes)}
            except subprocess.CalledProcessError as error:
                rows[name] = {"cannot_be_installed": f"pip ended with {error.returncode}"}
            finally:
                shutil.rmtree(folder)
            print(name, json.dumps(rows[name]), flush=True)
            if args.result:
                write_result(
                    "compatibility", args.result, rows,
                    ["python", "tests/compatibility/run.py", "--result", args.result], [], ROOT / RESULTS,
                )  # fmt: skip
    bad = [name for name, row in rows.items() if row.get("tests", {}).get("exit_code") != 0]
    print(f"{len(rows)} environments, {len(bad)} with failures: {', '.join(bad) or '-'}")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
