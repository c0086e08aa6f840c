"""How good a model is, counted."""

from pixelwise.evaluation.confusion import ConfusionMatrix, Scores
from pixelwise.evaluation.crf_search import CRFSearch, search_crf
from pixelwise.evaluation.evaluate import Evaluation, evaluate, joined
from pixelwise.evaluation.image_counts import Tallies

__all__ = [
    "CRFSearch",
    "ConfusionMatrix",
    "Evaluation",
    "Scores",
    "Tallies",
    "evaluate",
    "joined",
    "search_crf",
]
