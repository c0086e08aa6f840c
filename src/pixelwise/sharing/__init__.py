"""A batch that is shared out over several processes, so that they compute what one would.

Layers and losses that look at more than one image ask here whether the batch is larger than what
they see: batch normalisation, dropout, and every sum or mean over pixels. Outside of `sharing`
nothing is shared out, and all of it does nothing.
"""

from pixelwise.sharing.batch_norm import shared_batch_norm
from pixelwise.sharing.collectives import gathered, total
from pixelwise.sharing.share import Share, current_share, sharing

__all__ = ["Share", "current_share", "gathered", "shared_batch_norm", "sharing", "total"]
