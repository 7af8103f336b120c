"""FCGF's ResUNets: the U-shaped network with a residual block at every level.

Arguments, layer names and widths are those of :class:`~sparsefeat.models.unet.UNet` and of FCGF's code:
``ResUNetBN2C(1, 32, bn_momentum=0.05, normalize_feature=True, conv1_kernel_size=7)`` takes its released
3DMatch weights.
"""

from __future__ import annotations

from sparsefeat.models.registry import register
from sparsefeat.models.unet import UNet


@register
class ResUNetBN2(UNet):
    __doc__ = "FCGF's ResUNet with batch norm.\n\n" + UNet.__doc__
    BLOCK_NORM = "BN"


@register
class ResUNetBN2B(ResUNetBN2):
    """Wider at the finest level and narrower on the way up."""

    TR_CHANNELS = (64, 64, 64, 64)


@register
class ResUNetBN2C(ResUNetBN2):
    """The network of FCGF's released weights."""

    TR_CHANNELS = (64, 64, 64, 128)


@register
class ResUNetBN2D(ResUNetBN2):
    """Wider on the way up."""

    TR_CHANNELS = (64, 64, 128, 128)


@register
class ResUNetBN2E(ResUNetBN2):
    """128 channels from the first level on."""

    CHANNELS = (128, 128, 128, 256)
    TR_CHANNELS = (64, 128, 128, 128)


@register
class ResUNetIN2(ResUNetBN2):
    """Instance norm inside the residual blocks, batch norm elsewhere."""

    BLOCK_NORM = "IN"


@register
class ResUNetIN2B(ResUNetBN2B):
    """:class:`ResUNetBN2B` with instance norm inside the residual blocks."""

    BLOCK_NORM = "IN"


@register
class ResUNetIN2C(ResUNetBN2C):
    """:class:`ResUNetBN2C` with instance norm inside the residual blocks."""

    BLOCK_NORM = "IN"


@register
class ResUNetIN2D(ResUNetBN2D):
    """:class:`ResUNetBN2D` with instance norm inside the residual blocks."""

    BLOCK_NORM = "IN"


@register
class ResUNetIN2E(ResUNetBN2E):
    """:class:`ResUNetBN2E` with instance norm inside the residual blocks."""

    BLOCK_NORM = "IN"
