"""Measuring features: matching of fragment pairs (FMR, IR), registration recall, and what to compare with."""

from sparsefeat.evaluate.fpfh import fpfh_descriptor
from sparsefeat.evaluate.keypoints import FragmentDescriber
from sparsefeat.evaluate.matching import (
    MatchingResult,
    PairResult,
    evaluate_matching,
    inlier_ratio,
    match_fragments,
)
from sparsefeat.evaluate.registration import RansacRegister, transformation_error

__all__ = [
    "FragmentDescriber",
    "MatchingResult",
    "PairResult",
    "RansacRegister",
    "evaluate_matching",
    "fpfh_descriptor",
    "inlier_ratio",
    "match_fragments",
    "transformation_error",
]
