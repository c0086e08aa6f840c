"""What is minimized: a file a family of losses, their names in `registry`."""

from pixelwise.training.losses.pixel_losses import cross_entropy
from pixelwise.training.losses.segmentation_loss import Loss

__all__ = ["Loss", "cross_entropy"]
