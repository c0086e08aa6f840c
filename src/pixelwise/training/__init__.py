"""Training: the recipe, the loss, the loop."""

from pixelwise.training.events import Listener
from pixelwise.training.loop import TrainingError, TrainingStoppedError, plan, resume, train
from pixelwise.training.recipe import Recipe, load_recipe
from pixelwise.training.run import Run

__all__ = [
    "Listener",
    "Recipe",
    "Run",
    "TrainingError",
    "TrainingStoppedError",
    "load_recipe",
    "plan",
    "resume",
    "train",
]
