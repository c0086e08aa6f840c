"""The networks, one file a paper. They see tensors: no data, no losses, no configuration."""

from pixelwise.models.convolutionalize import convolutionalize, shift_and_stitch
from pixelwise.models.profiling import (
    count_activations,
    count_multiply_adds,
    count_parameters,
    peak_bytes,
)
from pixelwise.models.receptive_field import alignment, measure_receptive_radius, trace_sizes
from pixelwise.models.registry import MODELS, ModelEntry, backbone_name, create_model
from pixelwise.models.segmenter import Segmenter

__all__ = [
    "MODELS",
    "ModelEntry",
    "Segmenter",
    "alignment",
    "backbone_name",
    "convolutionalize",
    "count_activations",
    "count_multiply_adds",
    "count_parameters",
    "create_model",
    "measure_receptive_radius",
    "peak_bytes",
    "shift_and_stitch",
    "trace_sizes",
]
