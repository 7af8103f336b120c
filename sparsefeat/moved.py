"""Modules of version 0.1 under their old names: importing one gives today's, with a warning."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "config": "io.config",
    "data.pcd": "io.pcd",
    "data.ply": "io.ply",
    "data.pointcloud": "io.pointcloud",
    "data.synthetic": "synthetic",
    "evaluate.geodesic": "mesh.geodesic",
    "evaluate.signatures": "mesh.signatures",
    "files": "io.atomic",
    "heads.eigen": "mesh.eigen",
    "heads.laplacian": "mesh.laplacian",
    "mesh.features": "extract.surfaces",
    "mesh.reading": "io.meshes",
    "neighbours": "match.nearest",
    "released": "checkpoint.foreign",
    "yaml12": "io.yaml12",
}
"""Module of 0.1 -> today's, both within the package. What lies below moves along."""
_PACKAGE = "sparsefeat."


def new_name(name: str) -> str | None:
    """Today's full name of a module of 0.1; None for any other module."""
    if not name.startswith(_PACKAGE):
        return None
    place = name.removeprefix(_PACKAGE)
    for old, new in MOVED.items():
        if place == old or place.startswith(f"{old}."):
            return _PACKAGE + new + place.removeprefix(old)
    return None


class MovedModules(MetaPathFinder, Loader):
    """Finds modules by their old names; both names then mean one module."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return None if new_name(name) is None else ModuleSpec(name, self)

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__
        new = new_name(old)
        assert new is not None
        warnings.warn(
            f"{old} is {new} since version 0.2; the old name will go", FutureWarning, stacklevel=2
        )
        # The import system takes what stands here once the module has run.
        sys.modules[old] = importlib.import_module(new)


def install() -> None:
    """Answer to old names from here on. First of all finders: below an old package the ordinary one would load a copy."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, MovedModules())
