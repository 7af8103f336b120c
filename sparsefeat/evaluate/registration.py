"""Registration recall: how far a pose is off by the pair's information matrix, and RANSAC by Open3D to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.spatial.transform import Rotation

from sparsefeat.data.threedmatch import FragmentPair
from sparsefeat.errors import InputError
from sparsefeat.evaluate.keypoints import Fragment
from sparsefeat.extras import import_extra
from sparsefeat.io.gtlog import rigid_problem

# A pose counts as found up to this root mean square error, metres.
MAX_ERROR_M = 0.2


class Register(Protocol):
    """What estimates the pose of a pair."""

    def __call__(
        self,
        source: Fragment,
        target: Fragment,
        matches: np.ndarray,
        mutual: np.ndarray,
        seed: Sequence[int],
    ) -> np.ndarray | None:
        """The transform (4, 4) of the source into the target's frame, or None.

        Args:
            source, target: described fragments.
            matches: Shape (K, 2), rows of both: every key point of the source and its nearest neighbour.
            mutual: Shape (K,) bool, which of them are each other's nearest neighbours.
            seed: entropy.
        """


def transformation_error(estimate: np.ndarray, truth: np.ndarray, information: np.ndarray) -> float:
    """Squared error of a pose: ``e^T Info e / Info[0, 0]``, in m^2, approximately that of the points.

    ``e = [t; q]`` with the translation and the vector part (scalar part >= 0) of the rotation of
    ``inv(truth) @ estimate``. Source: Choi, Zhou, Koltun, "Robust Reconstruction of Indoor Scenes",
    CVPR 2015, and the evaluation code of 3DMatch.

    The sign of ``q``: ``Info`` sums ``G^T G`` with ``G = [I | -[p]_x]``, so that ``G e`` is the motion of a
    point p under a translation and an active (Hamilton) rotation vector. The original code writes ``-q``,
    but of MATLAB's ``dcm2quat``, which returns the conjugate; the Python ports that published numbers
    come from write ``+q`` of the active quaternion. With the other sign a rotation about the centre of
    the overlap, which hardly moves it, would count double.

    An estimate that is no pose, since it is not finite or mirrors, scales or flattens space, is infinitely far off.

    Args:
        estimate: Shape (4, 4).
        truth: Shape (4, 4).
        information: Shape (6, 6), translation first, of the points in the target's frame.

    Raises:
        InputError: shapes that do not fit, a truth that is no pose, or ``Info[0, 0]`` not positive.
    """
    information = np.asarray(information, dtype=np.float64)
    if np.shape(estimate) != (4, 4) or np.shape(truth) != (4, 4) or information.shape != (6, 6):
        raise InputError(
            f"transformation_error: expected (4, 4), (4, 4) and (6, 6), got {np.shape(estimate)}, "
            f"{np.shape(truth)} and {information.shape}"
        )
    if not information[0, 0] > 0:
        raise InputError(f"information matrix: expected Info[0, 0] > 0, got {information[0, 0]}")
    estimate, truth = (np.asarray(pose, dtype=np.float64) for pose in (estimate, truth))
    if not _is_pose(truth):
        raise InputError(f"transformation_error: expected a rigid motion as the truth, got {truth}")
    if not _is_pose(estimate):
        return float("inf")
    difference = np.linalg.inv(truth) @ estimate
    quaternion = Rotation.from_matrix(difference[:3, :3]).as_quat(canonical=True)
    e = np.concatenate([difference[:3, 3], quaternion[:3]])
    return float(e @ information @ e / information[0, 0])


def _is_pose(transform: np.ndarray) -> bool:
    """Whether a transform is finite and a rigid motion."""
    return bool(np.isfinite(transform).all()) and rigid_problem(transform) is None


def counts_for_recall(pair: FragmentPair) -> bool:
    """Whether a pair counts for registration recall: neighbours in the sequence (j - i = 1) do not."""
    return pair.j - pair.i > 1


@dataclass(frozen=True)
class RansacRegister:
    """Poses from matches by Open3D's RANSAC, with the settings that the field uses.

    Attributes:
        distance_m: matches closer than this under a candidate pose support it.
        edge_ratio: a sample is dropped unless its edges' lengths agree to this ratio in both clouds.
        iterations: samples drawn at most.
        confidence: stop earlier once a better pose is this unlikely; 1 never does.

    Raises:
        MissingExtraError: on construction, if Open3D is not installed.
    """

    distance_m: float = 0.05
    edge_ratio: float = 0.9
    iterations: int = 50_000
    confidence: float = 0.999

    def __post_init__(self) -> None:
        import_extra("open3d", "registration recall")

    def __call__(
        self,
        source: Fragment,
        target: Fragment,
        matches: np.ndarray,
        mutual: np.ndarray | None = None,
        seed: Sequence[int] = (0,),
    ) -> np.ndarray | None:
        """Estimate the transform of the source into the target's frame from all matches, mutual or not.

        Open3D's random numbers are seeded, but it draws them in several threads: equal seeds give equal
        poses only with OMP_NUM_THREADS=1.

        Args: as :class:`Register` says.

        Returns:
            (4, 4) float64, or None if there are fewer than three matches.
        """
        if len(matches) < 3:
            return None
        o3d = import_extra("open3d", "registration recall")
        pipeline = o3d.pipelines.registration
        o3d.utility.random.seed(int(np.random.SeedSequence(list(seed)).generate_state(1)[0] >> 1))
        result = pipeline.registration_ransac_based_on_correspondence(
            _cloud(o3d, source.points),
            _cloud(o3d, target.points),
            o3d.utility.Vector2iVector(np.ascontiguousarray(matches, dtype=np.int32)),
            self.distance_m,
            pipeline.TransformationEstimationPointToPoint(False),
            3,
            [
                pipeline.CorrespondenceCheckerBasedOnEdgeLength(self.edge_ratio),
                pipeline.CorrespondenceCheckerBasedOnDistance(self.distance_m),
            ],
            pipeline.RANSACConvergenceCriteria(self.iterations, self.confidence),
        )
        return np.array(result.transformation, dtype=np.float64)


def _cloud(o3d, points: np.ndarray):
    return o3d.geometry.PointCloud(
        o3d.utility.Vector3dVector(np.ascontiguousarray(points, dtype=np.float64))
    )
