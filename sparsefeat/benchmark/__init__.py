"""How fast the engine is: layers and networks on real clouds, beside other engines and beside what is possible."""

from sparsefeat.benchmark.cases import PRESETS, select
from sparsefeat.benchmark.run import Options, run_benchmark

__all__ = ["PRESETS", "Options", "run_benchmark", "select"]
