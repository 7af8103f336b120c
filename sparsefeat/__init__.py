"""Local features for deformable 3D shapes, pretrained on rigid indoor scans.

Notation used throughout: N points, V voxels, C channels, K kernel cells, D spatial dimensions, E eigenpairs,
F faces, M matches; lengths in metres unless said otherwise.
"""

from sparsefeat import models, receptive_field
from sparsefeat.checkpoint import from_pretrained, save_checkpoint
from sparsefeat.errors import InputError
from sparsefeat.extract import FeatureExtractor
from sparsefeat.mesh import voxelize_mesh
from sparsefeat.models import create_model
from sparsefeat.receptive_field import tune_receptive_field
from sparsefeat.sparse import CoordinateManager, SparseTensor, TensorField, collate, quantize
from sparsefeat.visualize.viewer import view

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
    "models",
    "quantize",
    "receptive_field",
    "save_checkpoint",
    "tune_receptive_field",
    "view",
    "voxelize_mesh",
]
