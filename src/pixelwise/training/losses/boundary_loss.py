"""The boundary loss (arXiv:1812.07032): probabilities weighted by distance to the boundary."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelwise.data.classes import IGNORE
from pixelwise.distributed.collectives import all_reduce_sum
from pixelwise.errors import needs_package


def boundary(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Compute the mean of probability times signed distance over valid pixels and classes.

    The loss is negative if the prediction is right. The paper adds it to a region loss with a
    small factor, as in `dice+0.01*boundary`. Needs scipy.

    Args:
        logits: Logits (B, C, H, W).
        labels: Class indices and IGNORE (B, H, W).
        weights: Weights (C,) of the mean over classes, or None.

    Returns:
        The loss, with distances in pixels; 0 if all pixels are IGNORE.
    """
    distances = signed_distances(labels.cpu().numpy(), classes=logits.shape[1])
    valid = (labels != IGNORE)[:, None]
    weighted = logits.softmax(dim=1) * torch.from_numpy(distances).to(logits) * valid
    count = all_reduce_sum(valid.sum()).clamp(min=1)
    by_class = all_reduce_sum(weighted.sum(dim=(0, 2, 3))) / count
    if weights is None:
        return by_class.mean()
    return (by_class * weights).sum() / weights.sum()


def signed_distances(labels: NDArray[Any], *, classes: int) -> NDArray[np.float32]:
    """Compute the signed distance map of each class, in pixels.

    Outside a class the value is the distance to it. Inside it is 1 minus the distance to the
    nearest pixel of another class, so at most 0. IGNORE does not count as another class. A class
    that an image lacks or consists of has zeros.

    Args:
        labels: Class indices and IGNORE (B, H, W).
        classes: Number of classes.

    Returns:
        Distances (B, classes, H, W).
    """
    distance_transform = require_scipy()
    distances = np.zeros((len(labels), classes, *labels.shape[1:]), dtype=np.float32)
    for image, maps in zip(labels, distances, strict=True):
        valid = image != IGNORE
        for index in np.unique(image[valid]):
            inside = image == index
            others = valid & ~inside
            if others.any():
                maps[index] = np.where(
                    inside, 1 - distance_transform(~others), distance_transform(~inside)
                )
    return distances


def require_scipy() -> Any:
    """Return the distance transform of scipy. Raises InputError if scipy is not installed."""
    with needs_package(
        "the boundary loss needs scipy, which is not installed: pip install 'scipy>=1.14'"
    ):
        from scipy.ndimage import distance_transform_edt
    return distance_transform_edt
