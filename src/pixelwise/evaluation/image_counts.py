"""Pixel counts of each image of a split: small, and enough for all scores of any resample."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError
from pixelwise.evaluation.confusion import ratios

FORMAT = 1
KEY = "pixelwise-images"


@dataclass(frozen=True)
class ImageCounts:
    """Pixel counts of each image.

    Attributes:
        names: Names of the N images.
        counts: (N, 3, C) int64: of each class the correct, the true and the predicted pixels.
    """

    names: tuple[str, ...]
    counts: NDArray[np.int64]

    def __repr__(self) -> str:
        return f"ImageCounts({len(self.names)} images, {self.counts.shape[-1]} classes)"

    @cached_property
    def mean_iou(self) -> dict[str, float]:
        """Mean IoU of each image over its own classes. NaN if the whole image is ignored."""
        return dict(zip(self.names, ratios(self.counts)["mean_iou"].tolist(), strict=True))

    def save(self, path: Path, *, classes: tuple[str, ...], split: str) -> None:
        """Write the counts to a file, atomically.

        Raises:
            InputError: If the file cannot be written.
        """
        import torch

        from pixelwise.weights.tensor_file import write_tensor_file

        about = {"format": FORMAT, "split": split, "classes": classes, "names": self.names}
        write_tensor_file(path, {"counts": torch.from_numpy(self.counts)}, about, key=KEY)


@dataclass(frozen=True)
class SavedImageCounts:
    """Counts read from a file, with the names of the classes and of the split."""

    image_counts: ImageCounts
    classes: tuple[str, ...]
    split: str


def load_image_counts(path: Path) -> SavedImageCounts:
    """Read a file that `ImageCounts.save` wrote.

    Raises:
        InputError: If the file is of another kind or damaged.
    """
    from pixelwise.weights.tensor_file import read_tensor_file

    remedy = "write it with `pixelwise evaluate --image-scores`"
    tensors, about = read_tensor_file(path, key=KEY, kind="file of scores by image", remedy=remedy)
    if about.get("format") != FORMAT:
        raise InputError(f"{path}: has format {about.get('format')}, not {FORMAT}: {remedy}")
    names, counts = tuple(about["names"]), tensors["counts"].numpy()
    image_counts = ImageCounts(names, counts)
    return SavedImageCounts(image_counts, tuple(about["classes"]), str(about["split"]))
