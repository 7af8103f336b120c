"""Published numbers: one JSON file each, with what it takes to measure them again."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from sparsefeat.errors import InputError, opening
from sparsefeat.io.atomic import atomic_write, sweep

RESULTS = Path("results")
"""Where results go, below the working folder."""

_KEYS = ("task", "name", "date", "command", "commit", "versions", "machine", "seeds", "numbers")
_NAME = re.compile(r"\w[\w.+-]*")
# The folders of an absolute path within a text, such as a traceback; not those of an address or of "km/h".
_FOLDERS = re.compile(r"""(?<![\w./:\\-])(?:[A-Za-z]:)?[/\\](?:[^\s/\\"':,]+[/\\])+""")


def write_result(
    task: str,
    name: str,
    numbers: dict[str, Any],
    command: Sequence[str],
    seeds: Sequence[int],
    root: str | os.PathLike = RESULTS,
    cpu_seconds: float | None = None,
) -> Path:
    """Write ``<root>/<task>/<name>.json``, whole or not at all.

    Beside the numbers it has the command, the commit (None outside of a checkout) and whether files differ from it,
    versions, machine, seeds, date (UTC) and the CPU time that the command took. Absolute paths are cut to their last part and host names left out:
    the files are published.

    Args:
        task: what was measured, such as ``"matching"``.
        name: of the result, such as the checkpoint with its version.
        numbers: anything that JSON can hold.
        command: the words of the command line.
        seeds: of everything that is random.
        root: folder of all results.
        cpu_seconds: that all processes of the command took, which other work on the machine does not change; None
            where the command took over what an earlier run had measured.

    Returns:
        The file.

    Raises:
        InputError: a name with other characters than letters, digits and ``_ . + -``, or the file cannot be written.
    """
    path = result_path(task, name, root)
    result = {
        "task": task,
        "name": name,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(_shortened(word) for word in command),
        **_commit(),
        "versions": versions(),
        "machine": machine(),
        "seeds": list(seeds),
        "cpu_seconds": None if cpu_seconds is None else round(cpu_seconds, 1),
        "numbers": numbers,
    }
    text = json.dumps(_without_places(result), indent=1, allow_nan=False, ensure_ascii=False)
    with opening(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, deep=False, name=path.name)
        with atomic_write(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    return path


def result_path(task: str, name: str, root: str | os.PathLike = RESULTS) -> Path:
    """Where :func:`write_result` writes.

    Raises:
        InputError: a name that would be another folder's, or hidden.
    """
    for text in (task, name):
        if not _NAME.fullmatch(text):
            raise InputError(
                f"result {text!r}: expected letters, digits and _ . + -, beginning with a letter or digit"
            )
    return Path(root) / task / f"{name}.json"


def read_result(path: str | os.PathLike) -> dict[str, Any]:
    """What :func:`write_result` wrote.

    Raises:
        InputError: no such file, or another file.
    """
    try:
        with opening(path):
            found = json.loads(Path(path).read_text(encoding="utf-8"))
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected a result, got what is not JSON") from error
    missing = [key for key in _KEYS if not isinstance(found, dict) or key not in found]
    if missing:
        raise InputError(f"{path}: expected a result, got a file without {', '.join(missing)}")
    return dict(found)


def versions() -> dict[str, str]:
    """Versions of what numbers depend on."""
    import numpy as np
    import torch

    import sparsefeat

    found = {
        "sparsefeat": sparsefeat.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    for name in ("open3d", "kiss_matcher"):
        if name in sys.modules:  # its baselines were measured too
            found[name] = sys.modules[name].__version__
    return found


def machine() -> dict[str, Any]:
    """Processor, threads and GPU of this machine; not its name."""
    import torch

    return {
        "processor": processor(),
        "architecture": platform.machine(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def processor() -> str:
    """The model of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), ""
    )


_CHANGES = "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)results"
_CHECKOUT = Path(__file__).resolve().parents[2]


def _commit(checkout: Path = _CHECKOUT) -> dict[str, Any]:
    if not (checkout / ".git").exists():  # installed: an outer repository is not ours
        return {"commit": None, "modified": None}
    try:
        commit = _git(checkout, "rev-parse", "HEAD")
        return {
            "commit": commit,
            # Results that were written before change nothing in what is measured.
            "modified": bool(_git(checkout, *_CHANGES)),
        }
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "modified": None}


def _git(checkout: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", checkout, *words], capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.strip()


def _without_places(value: Any) -> Any:
    """The value with absolute paths cut to their last part, within texts too."""
    if isinstance(value, dict):
        return {key: _without_places(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_places(item) for item in value]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    return _shortened(value) if isinstance(value, str) else value


def _shortened(text: str) -> str:
    key, equals, place = text.rpartition("=")
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(place).is_absolute():  # with blanks in it, perhaps
            return f"{key}{equals}.../{kind(place).name}"
    return _FOLDERS.sub(".../", text)
