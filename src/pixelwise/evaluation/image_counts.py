"""What each image of a split adds to the scores: enough to draw images anew, and small."""

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
class Tallies:
    """names: of the images. counts: (N, 3, C) int64, of each class the pixels of the image that
    are right, that are true, that are predicted."""

    names: tuple[str, ...]
    counts: NDArray[np.int64]

    @cached_property
    def mean_iou(self) -> dict[str, float]:
        """Each image's own, over the classes in it; NaN where all of it is void."""
        return dict(zip(self.names, ratios(self.counts)["mean_iou"].tolist(), strict=True))

    def save(self, path: Path, *, classes: tuple[str, ...], split: str) -> None:
        """Write a file, whole or not at all. Raises InputError where that is impossible."""
        import torch

        from pixelwise.weights.tensor_file import write_tensor_file

        about = {"format": FORMAT, "split": split, "classes": classes, "names": self.names}
        write_tensor_file(path, {"counts": torch.from_numpy(self.counts)}, about, key=KEY)


@dataclass(frozen=True)
class SavedTallies:
    """As read from a file: with the names of the classes, and of the split."""

    tallies: Tallies
    classes: tuple[str, ...]
    split: str


def load_tallies(path: Path) -> SavedTallies:
    """What `Tallies.save` wrote. Raises InputError for any other file, and a damaged one."""
    from pixelwise.weights.tensor_file import read_tensor_file

    remedy = "write it with pixelwise evaluate --images"
    tensors, about = read_tensor_file(path, key=KEY, kind="file of scores by image", remedy=remedy)
    if about.get("format") != FORMAT:
        raise InputError(f"{path}: has format {about.get('format')}, not {FORMAT}: {remedy}")
    names, counts = tuple(about["names"]), tensors["counts"].numpy()
    return SavedTallies(Tallies(names, counts), tuple(about["classes"]), str(about["split"]))
