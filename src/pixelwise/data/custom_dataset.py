"""Use your own dataset: any sequences of (image, mask) arrays in place of a folder of files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE, Classes
from pixelwise.data.dataset import SegmentationData, checksum
from pixelwise.data.dataset_scan import ProgressCallback
from pixelwise.data.pixel_format import Pixels
from pixelwise.data.source import MaskFile, Sample
from pixelwise.errors import InputError

CUSTOM_LAYOUT = "custom"


class PairSequence(Protocol):
    """A sequence of (image, mask) pairs, for example a `torch.utils.data.Dataset`.

    Images are uint8 RGB (H, W, 3). Masks are uint8 (H, W) of class indices, with 255 for ignored
    pixels. An index must always give the same pair: pixelwise does the augmentation.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Any, Any]: ...


@dataclass
class CustomData(SegmentationData):
    """A dataset that reads its pairs from sequences, by split."""

    pairs: dict[str, PairSequence] = field(default_factory=dict, repr=False)

    def read(self, sample: Sample) -> tuple[Pixels, NDArray[np.uint8]]:
        """Return the image (H, W, 3) and the mask (H, W) of a sample.

        Raises:
            InputError: If the pair is not as `PairSequence` defines it.
        """
        split, _, index = sample.name.rpartition("/")
        image, mask = (np.asarray(array) for array in self.pairs[split][int(index)])
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise InputError(
                f"{sample.name}: the image is {image.dtype} {image.shape}: it must be uint8 RGB "
                "(H, W, 3)"
            )
        if mask.dtype != np.uint8 or mask.shape != image.shape[:2]:
            raise InputError(
                f"{sample.name}: the mask is {mask.dtype} {mask.shape}: it must be uint8 "
                f"{image.shape[:2]}, the size of its image"
            )
        largest, count = np.where(mask == IGNORE, 0, mask).max(), len(self.classes)
        if largest >= count:
            raise InputError(
                f"{sample.name}: the mask holds class index {largest}: allowed are 0 to "
                f"{count - 1}, and {IGNORE} for ignored pixels"
            )
        return image, mask


def from_datasets(
    *,
    train: PairSequence,
    val: PairSequence,
    classes: Sequence[str],
    name: str = "custom",
    progress: ProgressCallback | None = None,
) -> CustomData:
    """Make a dataset for `train` and `evaluate` from sequences of (image, mask) pairs.

    Every pair is read and checked once.

    Args:
        train: The training pairs; see `PairSequence`.
        val: The validation pairs.
        classes: The class names, by class index.
        name: A name for reports.
        progress: Called with (done, total) after each pair.

    Raises:
        InputError: If a pair has the wrong type, shape or class indices.
    """
    data = CustomData(
        root=Path(name),
        layout=CUSTOM_LAYOUT,
        splits={},
        classes=Classes.make(tuple(classes), ignore=IGNORE),
        notes=[],
        sizes={},
        pixel_counts={},
        pairs={"train": train, "val": val},
    )
    for split, sequence in data.pairs.items():
        if len(sequence) == 0:
            raise InputError(f"{name}: the {split} split is empty: give at least one pair")
        names = [f"{split}/{index}" for index in range(len(sequence))]
        samples = [Sample(each, Path(each), MaskFile(Path(each))) for each in names]
        counts = np.zeros(len(classes), dtype=np.int64)
        for sample in samples:
            image, mask = data.read(sample)
            data.sizes[sample.name] = (image.shape[0], image.shape[1])
            data.checksums[sample.name] = checksum(image, mask)
            counts += np.bincount(mask[mask != IGNORE], minlength=len(classes))
            if progress is not None:
                progress(len(data.sizes), len(train) + len(val))
        data.splits[split], data.pixel_counts[split] = samples, counts
    return data
