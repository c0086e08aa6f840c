"""Offsets that a bundle adds to the logits of each class, without any cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.errors import InputError
from pixelwise.models import Segmenter
from pixelwise.weights.bundle import Bundle


def offset_logits(
    bundle: Bundle, offsets: Mapping[str, float], scores: Mapping[str, Any] | None = None
) -> Bundle:
    """Return a bundle whose last bias adds a number to the logits of each class.

    Args:
        bundle: The bundle, which remains as it is.
        offsets: The number of each class, by its name. They are kept as scores["class_offsets"].
        scores: Scores of the new bundle, as plain JSON. The old scores are dropped.

    Raises:
        InputError: If the names are not the classes, or the network has no bias that adds to its
            logits.
    """
    names = bundle.classes.names
    try:
        if {*offsets} != {*names}:
            raise InputError(f"offsets of {list(offsets)}: the classes are {list(names)}")
        model = bundle.build()
        values = torch.tensor([float(offsets[name]) for name in names])
        add_to_logits(model, values, channels=bundle.pixels.channels)
    except InputError as error:
        raise InputError(f"{bundle.path}: {error}") from error
    kept = {**(scores or {}), "class_offsets": dict(offsets)}
    return replace(bundle, weights=model.state_dict(), scores=kept, path=None)


def add_to_logits(model: Segmenter, offsets: Tensor, *, channels: int = 3) -> None:
    """Add a number per class to the logits of a network, by one bias of its head.

    The head may have several layers with a number for each class. The one whose bias shifts all
    logits equally is found by trying.

    Args:
        model: The network, in evaluation mode. Changed in place.
        offsets: (C,) what is added.
        channels: Number of channels of the images.

    Raises:
        InputError: If there is none.
    """
    images = torch.randn(1, channels, 96, 128, generator=torch.Generator().manual_seed(0))
    candidates = [
        layer.bias
        for layer in model.head.modules()
        if isinstance(layer, nn.Conv2d) and layer.bias is not None
        if len(layer.bias) == len(offsets)
    ]
    with torch.inference_mode():
        expected = model(images) + offsets[:, None, None]
        tolerance = 1e-4 * (1 + float(expected.abs().max()))
        for bias in candidates:
            original = bias.clone()
            bias += offsets
            if float((model(images) - expected).abs().max()) <= tolerance:
                return
            bias.copy_(original)
    raise InputError("no bias of its head adds equally to all logits: it cannot be tuned")
