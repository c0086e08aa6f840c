"""From images to masks."""

from pixelwise.inference.batch.predict_folder import FolderResult, PredictionError, predict_folder
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.results import Prediction, Segmentation

__all__ = [
    "FolderResult",
    "Prediction",
    "PredictionError",
    "Predictor",
    "Segmentation",
    "predict_folder",
]
