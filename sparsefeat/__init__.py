"""Local features for deformable 3D shapes, pretrained on rigid indoor scans.

Notation used throughout: N points, V voxels, C channels, K kernel cells, D spatial dimensions, E eigenpairs,
F faces, M matches; lengths in metres unless said otherwise.
"""

import importlib
from typing import TYPE_CHECKING, Any

from sparsefeat import moved
from sparsefeat.errors import InputError

if TYPE_CHECKING:
    from sparsefeat import models, receptive_field
    from sparsefeat.checkpoint import from_pretrained, save_checkpoint
    from sparsefeat.extract import FeatureExtractor
    from sparsefeat.extract.descriptors import describe
    from sparsefeat.match.correspond import correspond
    from sparsefeat.match.folder import match_folder
    from sparsefeat.match.register import register
    from sparsefeat.mesh import voxelize_mesh
    from sparsefeat.mesh.orientation import estimate_normals
    from sparsefeat.models import create_model
    from sparsefeat.receptive_field import tune_receptive_field
    from sparsefeat.sparse import CoordinateManager, SparseTensor, TensorField, collate, quantize
    from sparsefeat.visualize.viewer import view

__version__ = "0.2.0"

__all__ = [
    "CoordinateManager",
    "FeatureExtractor",
    "InputError",
    "SparseTensor",
    "TensorField",
    "collate",
    "correspond",
    "create_model",
    "describe",
    "estimate_normals",
    "from_pretrained",
    "match_folder",
    "models",
    "quantize",
    "receptive_field",
    "register",
    "save_checkpoint",
    "tune_receptive_field",
    "view",
    "voxelize_mesh",
]

# Public name -> the room it is in. Imported when asked for: torch alone takes seconds to load, which
# `sparsefeat --help` does not need.
_ROOMS = {
    "CoordinateManager": "sparse",
    "FeatureExtractor": "extract",
    "SparseTensor": "sparse",
    "TensorField": "sparse",
    "collate": "sparse",
    "correspond": "match.correspond",
    "create_model": "models",
    "describe": "extract.descriptors",
    "estimate_normals": "mesh.orientation",
    "from_pretrained": "checkpoint",
    "match_folder": "match.folder",
    "quantize": "sparse",
    "register": "match.register",
    "save_checkpoint": "checkpoint",
    "tune_receptive_field": "receptive_field",
    "view": "visualize.viewer",
    "voxelize_mesh": "mesh",
}

moved.install()


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        value = getattr(importlib.import_module(f"sparsefeat.{_ROOMS[name]}"), name)
        globals()[name] = value
        return value
    if not name.startswith("_"):
        try:
            return importlib.import_module(f"sparsefeat.{name}")  # a room
        except ModuleNotFoundError as error:
            if error.name != f"sparsefeat.{name}":
                raise
    raise AttributeError(f"module 'sparsefeat' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
