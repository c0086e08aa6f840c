"""Training: the recipe, the loss, the loop."""

from pixelwise.recipes.schema import Recipe, load_recipe
from pixelwise.training.callbacks import Callback
from pixelwise.training.run_folder import Run
from pixelwise.training.trainer import (
    TrainingError,
    TrainingStoppedError,
    plan_training,
    resume,
    train,
)

__all__ = [
    "Callback",
    "Recipe",
    "Run",
    "TrainingError",
    "TrainingStoppedError",
    "load_recipe",
    "plan_training",
    "resume",
    "train",
]
