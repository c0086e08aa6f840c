"""From photographs to masks."""

from pixelwise.inference.predictor import Predictor
from pixelwise.inference.result import Prediction

__all__ = ["Prediction", "Predictor"]
