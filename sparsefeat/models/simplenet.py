"""FCGF's SimpleNets: the U-shaped network without residual blocks, in three depths.

Arguments are those of :class:`~sparsefeat.models.unet.UNet`; layer names and widths are FCGF's.
"""

from __future__ import annotations

from sparsefeat.models.registry import register
from sparsefeat.models.unet import UNet


@register
class SimpleNetBN(UNet):
    __doc__ = "FCGF's SimpleNet: two down-samplings, batch norm.\n\n" + UNet.__doc__
    DEPTH = 2
    CHANNELS = (32, 64, 128)
    TR_CHANNELS = (32, 32, 64)
    LAST_KERNEL = 3
    LAST_NORM = True


@register
class SimpleNetIN(SimpleNetBN):
    """:class:`SimpleNetBN` with instance norm."""

    NORM = "IN"


@register
class SimpleNetBNE(SimpleNetBN):
    """Narrow :class:`SimpleNetBN`."""

    CHANNELS = (16, 32, 32)
    TR_CHANNELS = (16, 16, 32)


@register
class SimpleNetINE(SimpleNetBNE):
    """Narrow :class:`SimpleNetIN`."""

    NORM = "IN"


@register
class SimpleNetBN2(SimpleNetBN):
    """Three down-samplings."""

    DEPTH = 3
    CHANNELS = (32, 64, 128, 256)
    TR_CHANNELS = (32, 32, 64, 64)


@register
class SimpleNetIN2(SimpleNetBN2):
    """:class:`SimpleNetBN2` with instance norm."""

    NORM = "IN"


@register
class SimpleNetBN2B(SimpleNetBN2):
    """Wider at the finest levels."""

    TR_CHANNELS = (64, 64, 64, 64)


@register
class SimpleNetBN2C(SimpleNetBN2):
    """Wider on the way up."""

    TR_CHANNELS = (32, 64, 64, 128)


@register
class SimpleNetBN2D(SimpleNetBN2C):
    """FCGF has the same widths under both names."""


@register
class SimpleNetBN2E(SimpleNetBN2):
    """Narrow :class:`SimpleNetBN2`."""

    CHANNELS = (16, 32, 64, 128)
    TR_CHANNELS = (16, 32, 32, 64)


@register
class SimpleNetIN2E(SimpleNetBN2E):
    """Narrow :class:`SimpleNetIN2`."""

    NORM = "IN"


@register
class SimpleNetBN3(UNet):
    """Four down-samplings; ``conv1_tr`` with a bias is the output layer, and the last width is its."""

    DEPTH = 4
    CHANNELS = (32, 64, 128, 256, 512)
    TR_CHANNELS = (32, 32, 64, 64, 128)
    FINAL = False


@register
class SimpleNetIN3(SimpleNetBN3):
    """:class:`SimpleNetBN3` with instance norm."""

    NORM = "IN"


@register
class SimpleNetBN3B(SimpleNetBN3):
    """Wider at the second level."""

    TR_CHANNELS = (32, 64, 64, 64, 128)


@register
class SimpleNetBN3C(SimpleNetBN3):
    """Wider at the fourth level."""

    TR_CHANNELS = (32, 32, 64, 128, 128)


@register
class SimpleNetBN3D(SimpleNetBN3):
    """Wider at the second and fourth level."""

    TR_CHANNELS = (32, 64, 64, 128, 128)


@register
class SimpleNetBN3E(SimpleNetBN3):
    """Narrow :class:`SimpleNetBN3`."""

    CHANNELS = (16, 32, 64, 128, 256)
    TR_CHANNELS = (16, 32, 32, 64, 128)


@register
class SimpleNetIN3E(SimpleNetBN3E):
    """Narrow :class:`SimpleNetIN3`."""

    NORM = "IN"
