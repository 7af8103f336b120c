"""What reads features: probes, small networks, functional maps; none of it knows where features come from."""

from sparsefeat.heads.classification import PooledHead, pool_features, pool_shapes
from sparsefeat.heads.commuting_map import commuting_functional_map, orientation_agreement
from sparsefeat.heads.diffusion import DiffusionNet
from sparsefeat.heads.diffusion_weights import load_diffusionnet
from sparsefeat.heads.functional_map import (
    commutativity_mask,
    functional_map,
    map_from_points,
    points_from_map,
    solve_functional_map,
    zoomout,
)
from sparsefeat.heads.functional_map_head import FunctionalMapHead
from sparsefeat.heads.metric import LandmarkMetric
from sparsefeat.heads.mlp import MLPHead
from sparsefeat.heads.probes import KNNProbe, LinearProbe
from sparsefeat.heads.training import HeadTraining, predict, train
from sparsefeat.mesh.laplacian import LaplaceBasis, laplace_basis

__all__ = [
    "DiffusionNet",
    "FunctionalMapHead",
    "HeadTraining",
    "KNNProbe",
    "LandmarkMetric",
    "LaplaceBasis",
    "LinearProbe",
    "MLPHead",
    "PooledHead",
    "commutativity_mask",
    "commuting_functional_map",
    "functional_map",
    "laplace_basis",
    "load_diffusionnet",
    "map_from_points",
    "orientation_agreement",
    "points_from_map",
    "pool_features",
    "pool_shapes",
    "predict",
    "solve_functional_map",
    "train",
    "zoomout",
]
