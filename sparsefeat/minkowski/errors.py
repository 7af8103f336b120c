"""The exception for arguments that cannot be used."""

from __future__ import annotations


class ArgumentError(ValueError, AssertionError):
    """An argument that cannot be used: what it is and what was expected.

    An AssertionError too, because MinkowskiEngine asserts and code written for it catches that.
    """
