"""What the sections of a configuration refuse alike."""

from __future__ import annotations

import math

from sparsefeat.errors import InputError


def check_least(config: object, **least: float) -> None:
    """Refuse numbers, or numbers in lists, that are below these; None is left alone.

    Raises:
        InputError: see above.
    """
    for name, lowest in least.items():
        value = getattr(config, name)
        values = value if isinstance(value, list) else [] if value is None else [value]
        if any(number < lowest for number in values):
            raise InputError(f"{name}: expected at least {lowest:g}, got {value}")


def check_positive(config: object, *names: str) -> None:
    """Refuse numbers that are not above 0; None is left alone.

    Raises:
        InputError: see above.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{name} must be positive, got {value}")


def check_distinct(config: object, *names: str) -> None:
    """Refuse lists that say a thing twice, which would count twice in means; None is left alone.

    Raises:
        InputError: see above.
    """
    for name in names:
        values = getattr(config, name) or []
        if len(set(values)) < len(values):
            raise InputError(f"{name}: expected each of them once, got {values}")
