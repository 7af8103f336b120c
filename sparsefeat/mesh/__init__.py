"""Meshes: reading and checking, surface sampling, voxelisation, and the way back from voxels to vertices."""

from sparsefeat.io.meshes import MESH_SUFFIXES, Mesh, read_mesh
from sparsefeat.mesh.nearest import nearest_voxels
from sparsefeat.mesh.sampling import SurfaceSamples, sample_surface
from sparsefeat.mesh.voxelization import MeshVoxels, voxelize_mesh

__all__ = [
    "MESH_SUFFIXES",
    "Mesh",
    "MeshVoxels",
    "SurfaceSamples",
    "nearest_voxels",
    "read_mesh",
    "sample_surface",
    "voxelize_mesh",
]
