"""Losses over a pair of overlapping clouds, and the softmaxes that they need."""

from sparsefeat.losses.pairs import (
    SIDE_SHARPNESS,
    LossConfig,
    PairFeatures,
    coarse_side_losses,
    hardest_contrastive,
    one_to_one,
    pair_loss,
    side_loss,
)
from sparsefeat.losses.softmax import log_partitions
from sparsefeat.losses.walks import (
    CYCLE_FORMS,
    anchored_cycle,
    distance_cycle,
    identity_cycle,
    info_nce_among_all,
    landing_cycle,
    point_info_nce,
)

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
