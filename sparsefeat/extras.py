"""Optional packages, and the extra of sparsefeat that installs each of them."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from sparsefeat.errors import MissingExtraError

# Module -> its name for pip, and the extra in setup.cfg.
_PACKAGES = {
    "MinkowskiEngine": ("MinkowskiEngine", "minkowski"),
    "embreex": ("embreex", "rooms"),
    "huggingface_hub": ("huggingface_hub", "hub"),
    "open3d": ("Open3D", "open3d"),
    "robust_laplacian": ("robust-laplacian", "shapes"),
    "skimage": ("scikit-image", "shapes"),
    "trimesh": ("trimesh", "shapes"),
}

# What an installed package may lack all the same.
_HINTS = {"open3d": "; on Debian it wants libusb-1.0-0 libgl1 libegl1 libx11-6 libudev1 libidn2-0"}


def install_command(extra: str) -> str:
    """How to install an extra: in the clone that this package runs from, or else in a clone."""
    clone = Path(__file__).resolve().parents[1]
    if (clone / "setup.cfg").is_file():
        return f"pip install -c constraints.txt -e '.[{extra}]' in {clone}"
    return f"pip install -c constraints.txt '.[{extra}]' in a clone of sparsefeat"


def import_extra(module: str, purpose: str, instead: str = "") -> ModuleType:
    """Import a module of an optional package.

    Args:
        module: such as ``"open3d"`` or ``"embreex.rtcore_scene"``.
        purpose: what needs it, begins the message.
        instead: what works without it, ends the message.

    Raises:
        MissingExtraError: the package is not installed, or cannot be loaded.
    """
    root = module.partition(".")[0]
    package, extra = _PACKAGES[root]
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a system library that it links to is absent
        command = install_command(extra)
        if isinstance(error, ModuleNotFoundError) and error.name == root:
            line = f"{purpose} needs {package}: {command}"
        else:
            line = f"{purpose} needs {package} ({command}), which is installed but cannot be loaded: {error}"
            line += _HINTS.get(root, "")
        raise MissingExtraError(f"{line}; {instead}" if instead else line) from error
