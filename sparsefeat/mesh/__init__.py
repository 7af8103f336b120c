"""Meshes: reading and checking, surface sampling, voxelisation, and the way back from voxels to vertices."""

from sparsefeat.io.meshes import MESH_SUFFIXES, Mesh, read_mesh
from sparsefeat.mesh.interpolation import VoxelInterpolation, nearest_voxels, trilinear_weights
from sparsefeat.mesh.sampling import SurfaceSamples, sample_poisson_disk, sample_surface
from sparsefeat.mesh.voxelization import MeshVoxels, voxelize_mesh

__all__ = [
    "MESH_SUFFIXES",
    "Mesh",
    "MeshVoxels",
    "SurfaceSamples",
    "VoxelInterpolation",
    "nearest_voxels",
    "read_mesh",
    "sample_poisson_disk",
    "sample_surface",
    "trilinear_weights",
    "voxelize_mesh",
]
