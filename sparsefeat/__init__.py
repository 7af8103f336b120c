"""Local features for deformable 3D shapes, pretrained on rigid indoor scans.

Notation used throughout: N points, V voxels, C channels, K kernel cells, D spatial dimensions, E eigenpairs,
F faces, M matches; lengths in metres unless said otherwise.
"""

from sparsefeat import models, receptive_field
from sparsefeat.checkpoint import from_pretrained, save_checkpoint
from sparsefeat.errors import InputError
from sparsefeat.extract import FeatureExtractor
from sparsefeat.match.folder import match_folder
from sparsefeat.match.register import register
from sparsefeat.mesh import voxelize_mesh
from sparsefeat.models import create_model
from sparsefeat.receptive_field import tune_receptive_field
from sparsefeat.sparse import CoordinateManager, SparseTensor, TensorField, collate, quantize

__version__ = "0.1.0"

__all__ = [
    "CoordinateManager",
    "FeatureExtractor",
    "InputError",
    "SparseTensor",
    "TensorField",
    "collate",
    "create_model",
    "from_pretrained",
    "match_folder",
    "models",
    "quantize",
    "receptive_field",
    "register",
    "save_checkpoint",
    "tune_receptive_field",
    "voxelize_mesh",
]
