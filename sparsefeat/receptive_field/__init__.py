"""How large a neighbourhood a feature sees, as a parameter: voxel size and dilation, tuned by gradient, and measured.

The voxel grid has no derivative by its own size, so gradients come from what varies continuously. Two ways, the
cheaper first:

- :class:`ScaleLadder`: features at a few voxel sizes, blended smoothly in the logarithm of the size;
- :class:`SoftNetwork`: voxels that appear and fade as points move through a grid of continuous size.
"""

from sparsefeat.receptive_field.dilation import ContinuousDilation
from sparsefeat.receptive_field.ladder import ScaleLadder, blend_weights
from sparsefeat.receptive_field.measurement import MeasuredReceptiveField, measure
from sparsefeat.receptive_field.objectives import (
    CorrespondenceObjective,
    CycleObjective,
    DistributionObjective,
    Objective,
    ProbeObjective,
    RoundTripObjective,
)
from sparsefeat.receptive_field.parameter import PositiveParameter
from sparsefeat.receptive_field.shapes import SurfaceShape
from sparsefeat.receptive_field.soft import SoftNetwork
from sparsefeat.receptive_field.tuning import (
    GridSearch,
    TunedReceptiveField,
    search_receptive_field,
    tune_receptive_field,
)

__all__ = [
    "ContinuousDilation",
    "CorrespondenceObjective",
    "CycleObjective",
    "DistributionObjective",
    "GridSearch",
    "MeasuredReceptiveField",
    "Objective",
    "PositiveParameter",
    "ProbeObjective",
    "RoundTripObjective",
    "ScaleLadder",
    "SoftNetwork",
    "SurfaceShape",
    "TunedReceptiveField",
    "blend_weights",
    "measure",
    "search_receptive_field",
    "tune_receptive_field",
]
