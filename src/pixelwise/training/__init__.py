"""Training: the recipe, the loss, the loop."""

from pixelwise.training.events import Listener
from pixelwise.training.loop import Run, TrainingError, train
from pixelwise.training.recipe import Recipe, load_recipe

__all__ = ["Listener", "Recipe", "Run", "TrainingError", "load_recipe", "train"]
