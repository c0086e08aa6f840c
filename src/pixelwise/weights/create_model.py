"""Create a network whose backbone may have published weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pixelwise import models
from pixelwise.models import Segmenter, backbone_name
from pixelwise.weights.load_backbone import load_backbone
from pixelwise.weights.published.fetch import provide_weights


def create_model(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    weights: str | Path | None = None,
    **options: Any,
) -> Segmenter:
    """Create a network, with random weights or with published weights in its backbone.

    The network is a plain `torch.nn.Module` from normalized images (B, in_channels, H, W) to logits
    (B, num_classes, H, W). Images must be normalized as the weights expect. For torchvision's
    ImageNet weights that is `pixelwise.weights.normalization.IMAGENET`; for other files
    `pixelwise.weights.load_backbone.load_backbone` returns the normalization.

    Args:
        name: Name of the network; see `pixelwise.list_models`.
        num_classes: Number of classes, 1 to 255.
        in_channels: Number of image channels. If it is not 3, the first convolution is adapted.
        weights: "imagenet" for the ImageNet weights of the backbone or a name of `list_weights`,
            which are downloaded if they are not on this machine; the path of a file with weights
            (.pth, .caffemodel, a TensorFlow checkpoint or a bundle); or "none" or None for random
            weights.
        options: Options of the network, such as `backbone` and `output_stride`.

    Returns:
        The network, in training mode. Its head always has random weights.

    Raises:
        InputError: If the name, an option or a value is not allowed, or the weights are missing or
            do not fit the backbone.

    Example:
        >>> import pixelwise, torch
        >>> model = pixelwise.create_model("deeplab_v3plus", num_classes=11, weights="imagenet")
        >>> logits = model(torch.zeros(2, 3, 321, 321))
    """
    model = models.create_model(name, num_classes=num_classes, in_channels=in_channels, **options)
    if weights is not None and weights != "none":
        backbone = backbone_name(name, options)
        load_backbone(model.backbone, backbone, provide_weights(str(weights), backbone))
    return model
