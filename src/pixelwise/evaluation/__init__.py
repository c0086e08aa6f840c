"""Scores of a network on a dataset: IoU and other metrics, boundaries, calibration, intervals."""

from pixelwise.evaluation.calibrate import CalibrationReport, calibrate, store_calibration
from pixelwise.evaluation.confusion import ConfusionMatrix, Scores
from pixelwise.evaluation.crf_search import CRFSearch, search_crf
from pixelwise.evaluation.ensemble import evaluate_ensemble
from pixelwise.evaluation.evaluate import Evaluation, evaluate, merge_shards
from pixelwise.evaluation.image_counts import ImageCounts
from pixelwise.evaluation.tune_bias import BiasTuning, tune_bias, write_tuned

__all__ = [
    "BiasTuning",
    "CRFSearch",
    "CalibrationReport",
    "ConfusionMatrix",
    "Evaluation",
    "ImageCounts",
    "Scores",
    "calibrate",
    "evaluate",
    "evaluate_ensemble",
    "merge_shards",
    "search_crf",
    "store_calibration",
    "tune_bias",
    "write_tuned",
]
