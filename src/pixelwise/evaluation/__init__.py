"""How good a model is, counted."""

from pixelwise.evaluation.confusion import ConfusionMatrix, Scores
from pixelwise.evaluation.evaluate import Evaluation, evaluate

__all__ = ["ConfusionMatrix", "Evaluation", "Scores", "evaluate"]
