"""Open3D is an extra; one place says so."""

from __future__ import annotations

from types import ModuleType

from sparsefeat.errors import MissingExtraError


def import_open3d(purpose: str) -> ModuleType:
    """The module ``open3d``.

    Args:
        purpose: what needs it, for the message.

    Raises:
        MissingExtraError: it is not installed, or cannot be loaded.
    """
    try:
        import open3d
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{purpose} needs Open3D: pip install 'sparsefeat[open3d]' ({error})") from error
    except (ImportError, OSError) as error:  # installed, but a system library that it links to is absent
        raise MissingExtraError(
            f"{purpose} needs Open3D (pip install 'sparsefeat[open3d]'); it is installed but cannot be "
            f"loaded: {error}; on Debian it wants libusb-1.0-0 libgl1 libegl1 libx11-6 libudev1 libidn2-0"
        ) from error
    return open3d
