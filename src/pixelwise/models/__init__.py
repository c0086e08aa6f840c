"""The networks, one file per paper. They work on tensors: no data, no losses, no configuration."""

from pixelwise.models.convolutionalize import convolutionalize, shift_and_stitch
from pixelwise.models.profiling import (
    count_activations,
    count_multiply_adds,
    count_parameters,
    peak_bytes,
)
from pixelwise.models.receptive_field import measure_receptive_radius, tile_alignment, trace_sizes
from pixelwise.models.registry import MODELS, backbone_name, create_model, find_model, list_models
from pixelwise.models.segmenter import Segmenter

__all__ = [
    "MODELS",
    "Segmenter",
    "backbone_name",
    "convolutionalize",
    "count_activations",
    "count_multiply_adds",
    "count_parameters",
    "create_model",
    "find_model",
    "list_models",
    "measure_receptive_radius",
    "peak_bytes",
    "shift_and_stitch",
    "tile_alignment",
    "trace_sizes",
]
