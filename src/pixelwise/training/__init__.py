"""Train networks: the entry points `train`, `resume` and `plan_training`, and `Trainer` itself."""

from pixelwise.recipes.load_recipe import load_recipe
from pixelwise.recipes.schema import Recipe, ResolvedRecipe
from pixelwise.training.callbacks import Callback
from pixelwise.training.custom_model import load_custom_model
from pixelwise.training.run_folder import Run
from pixelwise.training.runs import plan_training, resume, train
from pixelwise.training.trainer import Trainer, TrainingError, TrainingStoppedError

__all__ = [
    "Callback",
    "Recipe",
    "ResolvedRecipe",
    "Run",
    "Trainer",
    "TrainingError",
    "TrainingStoppedError",
    "load_custom_model",
    "load_recipe",
    "plan_training",
    "resume",
    "train",
]
