"""Let ``import MinkowskiEngine`` answer with this package."""

from __future__ import annotations

import codecs
import collections
import collections.abc
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import ClassVar

_PACKAGE = "sparsefeat.minkowski"

FILES = {
    "MinkowskiBroadcast": "broadcast",
    "MinkowskiChannelwiseConvolution": "convolution",
    "MinkowskiCommon": "common",
    "MinkowskiConvolution": "convolution",
    "MinkowskiCoordinateManager": "coordinate_manager",
    "MinkowskiFunctional": "functional",
    "MinkowskiInterpolation": "interpolation",
    "MinkowskiKernelGenerator": "kernel_generator",
    "MinkowskiNetwork": "network",
    "MinkowskiNonlinearity": "nonlinearity",
    "MinkowskiNormalization": "normalization",
    "MinkowskiOps": "ops",
    "MinkowskiPooling": "pooling",
    "MinkowskiPruning": "pruning",
    "MinkowskiSparseTensor": "sparse_tensor",
    "MinkowskiTensor": "tensor",
    "MinkowskiTensorField": "tensor_field",
    "MinkowskiUnion": "union",
    "diagnostics": "diagnostics",
    "sparse_matrix_functions": "spmm",
}
"""The files of MinkowskiEngine 0.5.4, and which of ours answers for each."""

FOLDERS = {
    "modules": ("resnet_block", "senet_block"),
    "utils": ("collation", "coords", "gradcheck", "init", "quantization", "summary"),
}


def submodules() -> dict[str, ModuleType]:
    """Our module for each name below MinkowskiEngine."""
    found = {name: importlib.import_module(f"{_PACKAGE}.{ours}") for name, ours in FILES.items()}
    for folder, names in FOLDERS.items():
        found[folder] = importlib.import_module(f"{_PACKAGE}.{folder}")
        found.update(
            {
                f"{folder}.{name}": importlib.import_module(f"{_PACKAGE}.{folder}.{name}")
                for name in names
            }
        )
    return found


class _Fallback:
    """Finds the engine's ``utils`` and ``modules`` as top-level modules where nothing else has these names.

    The engine puts its own folder at the end of the search path, and its tests import from there.
    """

    def __init__(self, modules: dict[str, ModuleType]):
        self.modules = modules

    def find_spec(self, name: str, path=None, target=None):
        if name not in self.modules:
            return None
        return importlib.util.spec_from_loader(name, self, is_package=name in FOLDERS)

    def create_module(self, spec):
        return None

    def exec_module(self, module: ModuleType) -> None:
        # With its files at once: they would be found again, by path, under their bare names.
        top = module.__name__
        sys.modules.update(
            {n: m for n, m in self.modules.items() if n == top or n.startswith(f"{top}.")}
        )


class _Installed:
    """What :func:`uninstall` must undo."""

    hidden: dict[str, ModuleType] | None = None
    finder: _Fallback | None = None
    added: ClassVar[list[str]] = []


def _plain_codec(name: str) -> codecs.CodecInfo | None:
    """FCGF's files declare the encoding of a package that brought f-strings to Python 3.5: UTF-8 today."""
    return codecs.lookup("utf-8") if name == "future_fstrings" else None


def _is_engine(name: str) -> bool:
    top = name.partition(".")[0]
    return top in ("MinkowskiEngine", "MinkowskiEngineBackend") or (
        top in FILES and top.startswith("Minkowski")
    )


def install() -> ModuleType:
    """Make ``import MinkowskiEngine`` and its submodules answer with this package, until :func:`uninstall`.

    Modules that are already imported keep what they have. A real MinkowskiEngine is hidden, not
    touched. As published model files need them, the names that Python 3.10 removed from
    ``collections`` (Sequence, ...) are put back, and the encoding ``future_fstrings`` is known.

    Returns:
        This package.
    """
    package = importlib.import_module(_PACKAGE)
    if _Installed.hidden is not None:
        return package
    parts = submodules()
    backend = importlib.import_module(f"{_PACKAGE}.backend")
    outer = ModuleType("MinkowskiEngineBackend", "Stands for the compiled part of MinkowskiEngine.")
    outer._C = backend
    outer.__path__ = []
    names = {
        "MinkowskiEngine": package,
        "MinkowskiEngineBackend": outer,
        "MinkowskiEngineBackend._C": backend,
    }
    names.update({f"MinkowskiEngine.{name}": module for name, module in parts.items()})
    names.update({name: module for name, module in parts.items() if _is_engine(name)})
    names["sparse_matrix_functions"] = parts["sparse_matrix_functions"]
    _Installed.hidden = {
        name: m for name, m in sys.modules.items() if _is_engine(name) or name in names
    }
    for name in _Installed.hidden:
        del sys.modules[name]
    sys.modules.update(names)
    _Installed.finder = _Fallback(
        {n: m for n, m in parts.items() if n.partition(".")[0] in FOLDERS}
    )
    sys.meta_path.append(_Installed.finder)
    _Installed.added = [n for n in collections.abc.__all__ if not hasattr(collections, n)]
    for name in _Installed.added:
        setattr(collections, name, getattr(collections.abc, name))
    codecs.register(_plain_codec)
    return package


def uninstall() -> None:
    """Undo :func:`install`; without effect where it was not called."""
    if _Installed.hidden is None:
        return
    ours = set(_Installed.finder.modules.values())
    for name in list(sys.modules):
        bare = name in _Installed.finder.modules and sys.modules[name] in ours
        if _is_engine(name) or name == "sparse_matrix_functions" or bare:
            del sys.modules[name]
    sys.modules.update(_Installed.hidden)
    sys.meta_path.remove(_Installed.finder)
    for name in _Installed.added:
        delattr(collections, name)
    codecs.unregister(_plain_codec)
    _Installed.hidden, _Installed.finder, _Installed.added = None, None, []


@contextmanager
def installed() -> Iterator[ModuleType]:
    """:func:`install` for the length of a ``with`` block; an installation around it stays."""
    outermost = _Installed.hidden is None
    try:
        yield install()
    finally:
        if outermost:
            uninstall()
