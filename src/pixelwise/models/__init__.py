"""The networks, one file a paper. They see tensors: no data, no losses, no configuration."""

from pixelwise.models.dense import convolutionalize, shift_and_stitch
from pixelwise.models.measures import (
    count_activations,
    count_multiply_adds,
    count_parameters,
)
from pixelwise.models.registry import MODELS, ModelEntry, backbone_name, create_model
from pixelwise.models.segmenter import Segmenter

__all__ = [
    "MODELS",
    "ModelEntry",
    "Segmenter",
    "backbone_name",
    "convolutionalize",
    "count_activations",
    "count_multiply_adds",
    "count_parameters",
    "create_model",
    "shift_and_stitch",
]
