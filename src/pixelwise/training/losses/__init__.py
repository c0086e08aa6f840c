"""Losses, one file per family; `registry` maps the names of a recipe to them."""

from pixelwise.training.losses.pixel_losses import cross_entropy
from pixelwise.training.losses.segmentation_loss import SegmentationLoss

__all__ = ["SegmentationLoss", "cross_entropy"]
