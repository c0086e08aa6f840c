"""From photographs to masks."""

from pixelwise.inference.folder import FolderResult, PredictionError, predict_folder
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.result import Prediction, Segmentation

__all__ = [
    "FolderResult",
    "Prediction",
    "PredictionError",
    "Predictor",
    "Segmentation",
    "predict_folder",
]
