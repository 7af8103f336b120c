"""Results as Markdown: one function for each kind of table.

A view takes results and options, both as written in a block of :mod:`sparsefeat.results.documents`.
"""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from sparsefeat.errors import InputError
from sparsefeat.results.cells import DAMAGES, SCENES, markdown, single
from sparsefeat.results.engine_views import kills, timings, voxels
from sparsefeat.results.scan_views import condition_times, conditions, descriptors, scenes
from sparsefeat.results.shape_views import adapter, axis, regimes, trained_maps, transfer, zero_shot
from sparsefeat.results.store import Result, command_words


def origin(results: Sequence[Result]) -> str:
    """Where each result is, how it was measured, and with what."""
    parts = []
    for result in results:
        machine, versions = result["machine"], result["versions"]
        seconds, seeds = result.get("cpu_seconds"), result["seeds"]
        commit = result["commit"]
        facts = [
            str(result["date"])[:10],
            f"commit `{commit[:9]}`" if commit else "no commit recorded",
            *(["files differed from the commit"] if result.get("modified") else []),
            ", ".join(f"{name} {version}" for name, version in versions.items()),
            machine["gpu"] or machine["processor"],
            f"{machine['threads']} thread{'s' * (machine['threads'] != 1)}",
            *([f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"] if seeds else []),
            f"{seconds / 60:.1f} minutes of CPU" if seconds else "duration not recorded",
        ]
        sentence = f"`results/{result['task']}/{result['name']}.json`: {'; '.join(facts)}."
        parts.append(textwrap.fill(sentence, 120, break_long_words=False, break_on_hyphens=False))
        parts.append(f"```text\n{_wrapped(command_words(result))}\n```")
    return "\n\n".join(parts)


def records(
    results: Sequence[Result], columns: str, under: str = "", titles: str = "", first: str = ""
) -> str:
    """A row for each entry of a mapping, such as one reader, one data set or one environment.

    Args:
        results: one.
        columns: keys of an entry, with commas; ``a.b`` is b within a. What an entry lacks stays empty.
        under: key of the mapping within the numbers; empty: the numbers themselves.
        titles: of the columns, with commas; empty: the keys.
        first: title of the first column.
    """
    result = single(results, "records")
    entries = _within(result["numbers"], under) if under else result["numbers"]
    keys = [key.strip() for key in columns.split(",")]
    named = [title.strip() for title in titles.split(",")] if titles else keys
    if len(named) != len(keys):
        raise InputError(f"records: {len(named)} titles for {len(keys)} columns")
    rows = [
        [SCENES.get(name, DAMAGES.get(name, name)), *(_cell(_within(entry, key)) for key in keys)]
        for name, entry in entries.items()
        if isinstance(entry, dict)
    ]
    return markdown([first, *named], rows)


VIEWS: dict[str, Callable[..., str]] = {
    view.__name__: view
    for view in (
        origin, scenes, descriptors, regimes, transfer, adapter, timings, voxels, kills, zero_shot,
        trained_maps, axis, conditions, condition_times, records,
    )
}  # fmt: skip
"""By the name that a block gives."""


def _within(entry: Any, key: str) -> Any:
    for part in key.split("."):
        entry = entry.get(part) if isinstance(entry, dict) else None
    return entry


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return str(len(value))
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _wrapped(words: Sequence[str], width: int = 96) -> str:
    """A command line on several lines, as a shell takes it; an option stays with its value."""
    groups: list[str] = []
    for k, word in enumerate(words):
        if k and words[k - 1].startswith("--") and not word.startswith("--"):
            groups[-1] += f" {shlex.quote(word)}"
        else:
            groups.append(shlex.quote(word))
    lines, line = [], ""
    for group in groups:
        if line and len(line) + 1 + len(group) > width:
            lines.append(line)
            line = "   "
        line = f"{line} {group}" if line else group
    return " \\\n".join([*lines, line])
