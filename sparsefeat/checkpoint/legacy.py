"""Names of earlier versions, and what became of them: options of networks and of runs, and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsefeat.errors import InputError

RENAMED_CHECKPOINTS = {"rooms-5cm": "rooms-5cm-v1", "rooms-5cm-sides": "rooms-5cm-oriented-v1"}
"""Released names of version 0.1, and today's."""

_RENAMED = {
    "data": {"also": "extra_roots"},
    "augment": {"sideless": "drop_orientation"},
}
"""Sections of a run's configuration: old option -> new option."""


def current_network_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a network under today's names.

    Version 0.1 had four booleans: ``geometry`` (input channels that describe surfaces), ``pair_kernels`` (only with
    ``geometry``), ``sides`` (only with ``pair_kernels``) and ``symmetric``. Today ``kernels`` and ``oriented`` say the
    same.

    Raises:
        InputError: the network has parts that were removed after version 0.1.
    """
    options = dict(options)
    geometry = options.pop("geometry", False)
    pair_kernels = options.pop("pair_kernels", False)
    oriented = options.pop("sides", False)
    for removed, what in (
        (options.pop("symmetric", False), "symmetric kernels"),
        (geometry and not pair_kernels, "geometry channels"),
    ):
        if removed:
            raise InputError(
                f"the network has {what}, which sparsefeat 0.1 is the last version to read"
            )
    if pair_kernels:
        options["kernels"] = "pair"
    if oriented:
        options["oriented"] = True
    return options


def current_run_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a pretraining run, as a nested dictionary, under today's names.

    Raises:
        InputError: as :func:`current_network_options`.
    """
    config = {
        name: dict(part) if isinstance(part, Mapping) else part for name, part in config.items()
    }
    for section, names in _RENAMED.items():
        part = config.get(section)
        if isinstance(part, dict):
            config[section] = {names.get(name, name): value for name, value in part.items()}
    if isinstance(config.get("rotation"), dict):
        config["rotation"].pop("symmetric_share", None)
    if isinstance(config.get("model"), dict):
        model = config["model"]
        old = any(name in model for name in ("geometry", "pair_kernels", "sides"))
        config["model"] = current_network_options(model)
        if old:
            # A run's configuration lists every option.
            config["model"] = {"kernels": "grid", "oriented": False} | config["model"]
    return config
