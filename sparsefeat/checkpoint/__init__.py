"""Networks with their weights: our files, and those of other people."""

from sparsefeat.checkpoint.hub import write_folder
from sparsefeat.checkpoint.native import (
    ASSETS,
    HUB_FILE,
    Checkpoint,
    find_checkpoint,
    from_pretrained,
    load_weights,
    read_checkpoint,
    read_state,
    save_checkpoint,
    weights_digest,
)

__all__ = [
    "ASSETS",
    "HUB_FILE",
    "Checkpoint",
    "find_checkpoint",
    "from_pretrained",
    "load_weights",
    "read_checkpoint",
    "read_state",
    "save_checkpoint",
    "weights_digest",
    "write_folder",
]
