"""Published results: rendered into documents, and measured again."""

from sparsefeat.results.agreement import COMPARED, Comparison, compare
from sparsefeat.results.documents import documents, fill
from sparsefeat.results.store import command_words, find_result, list_results

__all__ = [
    "COMPARED",
    "Comparison",
    "command_words",
    "compare",
    "documents",
    "fill",
    "find_result",
    "list_results",
]
