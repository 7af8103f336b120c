"""Maps between shapes by a head that learns from pairs."""

from sparsefeat.transfer.maps.config import MapHeadConfig, MapsConfig
from sparsefeat.transfer.maps.run import MapsResult, run_maps
from sparsefeat.transfer.maps.training import STATE

__all__ = ["STATE", "MapHeadConfig", "MapsConfig", "MapsResult", "run_maps"]
