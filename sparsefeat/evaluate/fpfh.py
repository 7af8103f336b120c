"""FPFH by Open3D, the baseline on scans: published numbers of scans were measured with this implementation.

:mod:`sparsefeat.mesh.fpfh` is another one, for shapes. The two weight and scale their histograms differently, so that
their numbers cannot stand in one table.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsefeat.errors import InputError
from sparsefeat.extras import import_extra


def fpfh_descriptor(
    points: np.ndarray, voxel_size: float, viewpoint: Sequence[float] | None = (0.0, 0.0, 0.0)
) -> np.ndarray:
    """Fast point feature histograms of a cloud with one point per voxel.

    Normals from up to 30 neighbours within 2 voxels, histograms of up to 100 neighbours within 5 voxels:
    10 and 25 cm at the customary 5 cm. Source: Rusu, Blodow, Beetz, "Fast Point Feature Histograms (FPFH)
    for 3D Registration", ICRA 2009; Open3D's implementation and usual settings.

    The histograms depend on which side a normal points to. A fitted normal has no side: it changes with
    the pose, and then the descriptor does, too. Turning normals to the sensor settles it; a fragment's
    origin is its (first) camera, and stays so when the fragment is turned about it.

    Args:
        points: Shape (N, 3), metres.
        voxel_size: metres.
        viewpoint: where normals point to, in the frame of ``points``, the first if there are several; None leaves them as fitted, which
            makes a weaker baseline.

    Returns:
        (N, 33) float32, not normalised.

    Raises:
        MissingExtraError: Open3D is not installed.
        InputError: ``points`` of another shape, ``voxel_size`` not positive.
    """
    points = np.ascontiguousarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3:
        raise InputError(f"fpfh_descriptor: expected points (N, 3), got {points.shape}")
    if not voxel_size > 0:
        raise InputError(f"voxel_size: expected a positive length in metres, got {voxel_size}")
    o3d = import_extra("open3d", "the FPFH baseline")
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
    cloud.estimate_normals(o3d.geometry.KDTreeSearchParamHybrid(radius=2 * voxel_size, max_nn=30))
    if viewpoint is not None:
        # Open3D knows one camera.
        camera = np.asarray(viewpoint, dtype=np.float64).reshape(-1, 3)[0]
        cloud.orient_normals_towards_camera_location(camera)
    feature = o3d.pipelines.registration.compute_fpfh_feature(
        cloud, o3d.geometry.KDTreeSearchParamHybrid(radius=5 * voxel_size, max_nn=100)
    )
    return np.ascontiguousarray(np.asarray(feature.data).T, dtype=np.float32)
