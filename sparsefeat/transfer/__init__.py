"""Transfer of pretrained features to shapes: segmentation, correspondence, classification."""

from sparsefeat.transfer.config import AdapterConfig, TransferConfig
from sparsefeat.transfer.report import format_table, save_report
from sparsefeat.transfer.run import TransferResult, run_transfer

__all__ = [
    "AdapterConfig",
    "TransferConfig",
    "TransferResult",
    "format_table",
    "run_transfer",
    "save_report",
]
