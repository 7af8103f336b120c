"""Losses over a pair of overlapping clouds, and the softmaxes that they need."""

from sparsefeat.losses.pairs import (
    CYCLE_FORMS,
    SIDE_SHARPNESS,
    LossConfig,
    PairFeatures,
    anchored_cycle,
    coarse_side_losses,
    distance_cycle,
    hardest_contrastive,
    identity_cycle,
    info_nce_among_all,
    landing_cycle,
    one_to_one,
    pair_loss,
    point_info_nce,
    side_loss,
)
from sparsefeat.losses.softmax import log_partitions

__all__ = [
    "CYCLE_FORMS",
    "SIDE_SHARPNESS",
    "LossConfig",
    "PairFeatures",
    "anchored_cycle",
    "coarse_side_losses",
    "distance_cycle",
    "hardest_contrastive",
    "identity_cycle",
    "info_nce_among_all",
    "landing_cycle",
    "log_partitions",
    "one_to_one",
    "pair_loss",
    "point_info_nce",
    "side_loss",
]
