"""Open3D is an extra; one place says so."""

from __future__ import annotations

from types import ModuleType


def import_open3d(purpose: str) -> ModuleType:
    """The module ``open3d``.

    Args:
        purpose: what needs it, for the message.

    Raises:
        ImportError: it is not installed or cannot be loaded.
    """
    try:
        import open3d
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs Open3D: pip install 'sparsefeat[open3d]' ({error})", name="open3d"
        ) from error
    except OSError as error:  # a system library that Open3D links to is absent
        raise ImportError(
            f"{purpose} needs Open3D, which is installed but cannot be loaded: {error}; on Debian it wants "
            "libusb-1.0-0 libgl1 libegl1 libx11-6 libudev1 libidn2-0", name="open3d"
        ) from error
    return open3d
