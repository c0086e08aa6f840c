"""Predict a folder in a process that kills itself. Not a test: test_folder.py starts it.

python killed_prediction.py IMAGES OUT PLACE TIMES CONCURRENCY: the process dies when it reaches
PLACE for the TIMES-th time; with "-" it survives. The names of the images that are predicted are
appended to OUT.predicted, one per line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dying import dying
from pixelwise.data.classes import Classes
from pixelwise.data.pixel_format import Pixels
from pixelwise.inference import Predictor, predict_folder
from pixelwise.inference.batch import folder_journal
from pixelwise.inference.predictor import ImageLike

CLASSES = Classes.make(["dark", "middle", "light"])


class Brightness:
    """A trivial network: three classes by the red channel."""

    name = "brightness"

    def predict_labels(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return image[..., 0] // 86

    def logits(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise AssertionError("masks need no logits")


class Concurrent(Brightness):
    """The same, for several images at once."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency

    def predict_labels_concurrently(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return super().predict_labels(image)


def arm(owner: Any, name: str, *, times: int, after: bool = False) -> None:
    setattr(owner, name, dying(getattr(owner, name), times=times, after=after))


PLACES: dict[str, Callable[[int], None]] = {
    "before_writing": lambda n: arm(folder_journal.Journal, "stage", times=n),
    "during_writing": lambda n: arm(folder_journal.os, "fsync", times=n),
    "mask_but_no_overlay": lambda n: arm(
        folder_journal.Journal, "stage", times=2 * n - 1, after=True
    ),
    "written_but_no_line": lambda n: arm(folder_journal.Journal, "_append", times=n),
    "line_but_not_renamed": lambda n: arm(
        folder_journal.Journal, "_append", times=n + 1, after=True
    ),
    "mask_renamed_overlay_not": lambda n: arm(Path, "replace", times=2 * n - 1, after=True),
    "renamed": lambda n: arm(folder_journal, "flush_folder", times=n),
    "resumed": lambda n: arm(folder_journal.Journal, "begin", times=1, after=True),
    "finished": lambda n: arm(folder_journal.Journal, "finish", times=1),
}


def main(images: str, out: str, place: str, times: str, concurrency: str) -> None:
    folder_journal.COMMIT_SECONDS = 0.0  # commit each image, for as many places to die as possible
    if place in PLACES:
        PLACES[place](int(times))
    with Path(f"{out}.predicted").open("a", encoding="utf-8") as log:

        class Logging(Predictor):
            def prepare(self, image: ImageLike) -> Pixels:
                log.write(f"{Path(str(image)).name}\n")
                log.flush()
                return super().prepare(image)

        predictor = Logging(Concurrent(int(concurrency)), CLASSES)
        predict_folder(predictor, images, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
