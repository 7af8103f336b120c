"""Points or a surface in, a feature per point out."""

from sparsefeat.extract.extractor import (
    DEFAULT_MAX_VOXELS,
    INTERPOLATIONS,
    FeatureExtractor,
    check_options,
)

__all__ = ["DEFAULT_MAX_VOXELS", "INTERPOLATIONS", "FeatureExtractor", "check_options"]
