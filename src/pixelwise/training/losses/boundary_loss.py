"""The boundary loss (arXiv:1812.07032): probabilities weighed by their distance from the border."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelwise.data.classes import IGNORE
from pixelwise.distributed.collectives import total
from pixelwise.errors import InputError


def boundary(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over counted pixels and classes of probability times signed distance, in pixels;
    0 where all are IGNORE.

    logits: (B, C, H, W); labels: (B, H, W) class indices; weights: (C,) of the mean over classes,
    or None. Below zero where the prediction is right. The paper adds it to a loss of regions with
    a small factor, as in `dice+0.01*boundary`. Needs scipy.
    """
    distances = signed_distances(labels.cpu().numpy(), classes=logits.shape[1])
    counted = (labels != IGNORE)[:, None]
    weighed = logits.softmax(dim=1) * torch.from_numpy(distances).to(logits) * counted
    by_class = total(weighed.sum(dim=(0, 2, 3))) / total(counted.sum()).clamp(min=1)
    if weights is None:
        return by_class.mean()
    return (by_class * weights).sum() / weights.sum()


def signed_distances(labels: NDArray[Any], *, classes: int) -> NDArray[np.float32]:
    """(B, H, W) labels to (B, classes, H, W): the distance in pixels to a class outside of it; in
    it 1 less than that to the nearest pixel of another, and negative.

    IGNORE is no class, and borders on none. Zero for a class that an image lacks or is full of.
    """
    distance_to = require_scipy()
    out = np.zeros((len(labels), classes, *labels.shape[1:]), dtype=np.float32)
    for image, maps in zip(labels, out, strict=True):
        known = image != IGNORE
        for number in np.unique(image[known]):
            inside = image == number
            others = known & ~inside
            if others.any():
                maps[number] = np.where(inside, 1 - distance_to(~others), distance_to(~inside))
    return out


def require_scipy() -> Any:
    """scipy's distance transform. Raises InputError where scipy is not installed."""
    try:
        from scipy.ndimage import distance_transform_edt
    except ImportError as error:
        raise InputError(
            "the loss boundary needs scipy, which is not installed: pip install 'scipy>=1.14'"
        ) from error
    return distance_transform_edt
