"""Prediction: from images to masks."""

from pixelwise.inference.answer_options import AnswerOptions
from pixelwise.inference.batch.predict_folder import FolderResult, PredictionError, predict_folder
from pixelwise.inference.inference_options import InferenceOptions
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.results import Prediction, Segmentation

__all__ = [
    "AnswerOptions",
    "FolderResult",
    "InferenceOptions",
    "Prediction",
    "PredictionError",
    "Predictor",
    "Segmentation",
    "predict_folder",
]
