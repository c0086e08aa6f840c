"""Tune the biases of a network's classifier so that the mean IoU is highest.

A network labels a pixel with the class that it considers most probable, which suits the pixel
accuracy. In the mean IoU a thin or rare class counts as much as any other, so predicting it more
readily, or less, can raise the mean. An offset per class is added to the logits, by the bias of the
last layer, so prediction takes no longer. Menon et al. (arXiv:2007.07314, section 3) derive such
offsets from the frequencies of the classes; here they are fitted to labeled images. The gain is
measured by cross-validation over two halves of the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.dataset import SegmentationData
from pixelwise.data.dataset_scan import ProgressCallback
from pixelwise.evaluation.confusion import ConfusionMatrix, Scores, ratios
from pixelwise.evaluation.logit_samples import SampledLogits, divide_in_halves, sample_logits
from pixelwise.inference import Predictor
from pixelwise.overwriting import check_output

OFFSETS = np.linspace(-3, 3, 61).astype(np.float32)
"""The offsets that are tried for a class."""
ROUNDS = 10
"""How often each class is tried, at most."""
IMAGE_PIXELS = 65_536
"""The number of labeled pixels, at random places, that are taken from an image."""


@dataclass(frozen=True)
class BiasTuning:
    """The offsets of all classes, and what they gain.

    Attributes:
        classes: Names of the classes.
        offsets: (C,) what is added to the logits, fitted to all images. Zeros if the mean IoU of
            the halves does not rise.
        before: Scores of the network as it was.
        after: Scores of each half of the images, with the offsets that were fitted to the other.
        images: The number of images.
    """

    classes: tuple[str, ...]
    offsets: NDArray[np.float32]
    before: Scores
    after: Scores
    images: int

    @property
    def helps(self) -> bool:
        """Whether the offsets raise the mean IoU of images that they were not fitted to."""
        return self.after.mean_iou > self.before.mean_iou

    def to_json(self) -> dict[str, Any]:
        return {
            "helps": self.helps,
            "images": self.images,
            "offsets": {
                name: round(float(offset), 2)
                for name, offset in zip(self.classes, self.offsets, strict=True)
            },
            "before": self.before.to_json(self.classes),
            "after": self.after.to_json(self.classes),
        }


def tune_bias(
    predictor: Predictor,
    data: SegmentationData,
    split: str = "val",
    *,
    progress: ProgressCallback | None = None,
) -> BiasTuning:
    """Fit an offset per class, and measure what the offsets gain on images not fitted to.

    The network must not have been trained on the split. For the arguments and errors see
    `sample_logits`.
    """
    images = sample_logits(predictor, data, split, most=IMAGE_PIXELS, progress=progress)
    classes = data.classes.names
    before, after = ConfusionMatrix(len(classes)), ConfusionMatrix(len(classes))
    for tested in divide_in_halves([image.name for image in images]):
        offsets = fit_offsets([image for i, image in enumerate(images) if i not in tested])
        for image in (images[i] for i in tested):
            before.update(image.truth, image.logits.argmax(axis=1).astype(np.uint8))
            after.update(image.truth, (image.logits + offsets).argmax(axis=1).astype(np.uint8))
    tuning = BiasTuning(
        classes, np.zeros(len(classes), np.float32), before.scores(), after.scores(), len(images)
    )
    return replace(tuning, offsets=fit_offsets(images)) if tuning.helps else tuning


def write_tuned(
    bundle: Path, tuning: BiasTuning, out: Path, *, split: str, overwrite: bool = False
) -> None:
    """Write a bundle with the offsets, and with the scores that were measured with them.

    Args:
        bundle: The bundle that was tuned.
        tuning: Its offsets.
        out: The bundle to write.
        split: Name of the split of the scores.
        overwrite: Whether to replace `out`.

    Raises:
        InputError: If the network has no bias that adds to its logits, or `out` exists or cannot be
            written.
    """
    from pixelwise.weights.bundle import Bundle  # imports PyTorch, which the fit does not need
    from pixelwise.weights.logit_offsets import offset_logits

    content = tuning.to_json()
    scores = {"split": split, **content["after"]}
    tuned = offset_logits(Bundle.load(bundle), content["offsets"], scores)
    check_output(out, overwrite=overwrite)  # it may have appeared meanwhile
    tuned.save(out)


def fit_offsets(images: Sequence[SampledLogits]) -> NDArray[np.float32]:
    """Find the offsets (C,) with the highest mean IoU, one class after the other.

    Classes without a labeled pixel keep 0, and so does a class if no offset raises the mean.
    """
    logits = np.concatenate([image.logits for image in images])
    truth = np.concatenate([image.truth for image in images])
    count = logits.shape[1]
    present = np.flatnonzero(np.bincount(truth, minlength=count))
    offsets = np.zeros(count, np.float32)
    highest = -1.0
    for _ in range(ROUNDS):
        start = highest
        for index in present:
            means = _means(logits + offsets, truth, logits[:, index], int(index), present)
            current = means[np.abs(OFFSETS - offsets[index]).argmin()]
            best = int(np.lexsort((np.abs(OFFSETS), -means))[0])
            highest = float(means[best])
            if highest > current + 1e-6:
                offsets[index] = OFFSETS[best]
        if highest <= start + 1e-6:
            break
    return offsets


def _means(
    shifted: NDArray[np.float32],
    truth: NDArray[np.uint8],
    own: NDArray[np.float32],
    index: int,
    present: NDArray[np.intp],
) -> NDArray[np.float64]:
    """Return the mean IoU over `present` for each of OFFSETS of one class.

    A pixel is the class `index` from the offset on at which it exceeds the best other class.

    Args:
        shifted: (pixels, C) logits with the offsets of all classes. Overwritten.
        truth: (pixels,) class indices.
        own: (pixels,) logits of the class, without an offset.
        index: The class.
        present: The classes that are averaged over.
    """
    count = shifted.shape[1]
    shifted[:, index] = -np.inf
    other = shifted.argmax(axis=1)
    needed = shifted[np.arange(len(other)), other] - own
    step = np.searchsorted(OFFSETS, needed, side="right")  # len(OFFSETS): at none
    correct = (other == truth).astype(np.intp)
    cells = np.bincount(
        (step * count + other) * 2 + correct, minlength=(len(OFFSETS) + 1) * count * 2
    ).reshape(-1, count, 2)
    remaining = cells.sum(axis=0) - cells.cumsum(axis=0)[:-1]  # (offsets, C, wrong and correct)
    hits = np.bincount(step[truth == index], minlength=len(OFFSETS) + 1).cumsum()[:-1]
    counts = np.empty((len(OFFSETS), 3, count))
    counts[:, 0] = remaining[..., 1]
    counts[:, 1] = np.bincount(truth, minlength=count)
    counts[:, 2] = remaining.sum(axis=2)
    counts[:, 0, index] = hits
    counts[:, 2, index] = len(truth) - remaining.sum(axis=(1, 2))
    iou: NDArray[np.float64] = ratios(counts)["iou"][:, present].mean(axis=1)
    return iou
