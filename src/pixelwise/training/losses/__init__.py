"""What is minimised: a file a family of losses, their names in `registry`."""

from pixelwise.training.losses.per_pixel import cross_entropy
from pixelwise.training.losses.recipe_loss import Loss

__all__ = ["Loss", "cross_entropy"]
