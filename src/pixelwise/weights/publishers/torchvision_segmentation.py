"""FCN, DeepLabV3 and LR-ASPP by torchvision: the names and options of its networks."""

from __future__ import annotations

from typing import Any

from pixelwise.models.deeplab_v3 import TORCHVISION
from pixelwise.weights.import_weights import ImportedWeights

# Prefixes of torchvision's layers by ours, for each model.
HEADS = {
    "fcn_resnet_dilated": {"head.": "classifier.", "auxiliary.": "aux_classifier."},
    "deeplab_v3": {
        **{f"head.context.branches.{n}.": f"classifier.0.convs.{n}." for n in range(4)},
        "head.context.branches.4.project.0.": "classifier.0.convs.4.1.",
        "head.context.branches.4.project.1.": "classifier.0.convs.4.2.",
        "head.context.project.": "classifier.0.project.",
        "head.refine.0.": "classifier.1.",
        "head.refine.1.": "classifier.2.",
        "head.classify.": "classifier.4.",
        "auxiliary.": "aux_classifier.",
    },
    "lraspp": {
        "head.project.0.": "classifier.cbr.0.",
        "head.project.1.": "classifier.cbr.1.",
        "head.gate.": "classifier.scale.1.",
        "head.classify_fine.": "classifier.low_classifier.",
        "head.classify.": "classifier.high_classifier.",
    },
}
SCORES = ("classifier.4.weight", "aux_classifier.4.weight", "classifier.low_classifier.weight")
# Options in which torchvision's networks differ from our defaults and that no tensor shows.
OPTIONS = {"deeplab_v3": {"output_stride": 8, **TORCHVISION}}


def options_of(imported: ImportedWeights, model: str) -> dict[str, Any]:
    """Return the options of torchvision's network; empty if the file is not such a network."""
    if not imported.is_segmenter or model not in HEADS or model == "lraspp":
        return {}
    auxiliary = any(name.startswith("aux_classifier.") for name in imported.tensors)
    options = {**OPTIONS.get(model, {}), "auxiliary": auxiliary}
    if model in OPTIONS and "backbone.0.0.weight" in imported.tensors:  # MobileNetV3
        options |= {"output_stride": 16, "wide_rates": True}
    return options
