"""Render the images of a finding with their masks as overlays, small enough for an HTML page."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.classes import UNKNOWN, distinct_colors
from pixelwise.data.image_files import IMAGE_SUFFIXES, read_raw
from pixelwise.doctor.diagnosis import Finding, relative
from pixelwise.doctor.pair_inspection import InspectedPair, Scan, to_display, to_levels
from pixelwise.errors import InputError
from pixelwise.pages import data_url

SIDE = 420
"""The longer side of an image on the page, in pixels."""

MAX_PAIRS = 2
"""Pairs shown per finding: two show a duplicate."""

UNKNOWN_COLOR = (255, 0, 200)


@dataclass(frozen=True)
class PageImage:
    """An image of the page.

    Attributes:
        caption: Text below it.
        source: A data URL; None if the file cannot be displayed.
        small: Whether to display it without smoothing.
    """

    caption: str
    source: str | None
    width: int = 0
    height: int = 0
    small: bool = False


class FindingImages:
    """Render the images of findings. Files are read again, one at a time."""

    def __init__(self, scan: Scan) -> None:
        self.scan = scan
        self.pair_of: dict[Path, InspectedPair] = {}
        for pair in scan.pairs:
            for path in (pair.image.path, pair.mask.path):
                self.pair_of.setdefault(path, pair)

    def images(self, finding: Finding) -> list[PageImage]:
        """Return image and overlay of each pair of the finding, at most MAX_PAIRS pairs."""
        pairs = {
            pair.sample.name: pair
            for path in finding.files
            if (pair := self.pair_of.get(path)) is not None
        }
        if not pairs:  # for example an image without a mask
            first = finding.files[:1]
            return [self._single(path) for path in first if path.suffix in IMAGE_SUFFIXES]
        return [image for pair in list(pairs.values())[:MAX_PAIRS] for image in self._of_pair(pair)]

    def _single(self, path: Path) -> PageImage:
        name = relative(path, self.scan.root)
        try:
            return _page_image(name, to_display(read_raw(path)))
        except InputError:
            return PageImage(f"{name}: cannot be displayed", None)

    def _of_pair(self, pair: InspectedPair) -> list[PageImage]:
        name = relative(pair.image.path, self.scan.root)
        mask_name = relative(pair.mask.path, self.scan.root)
        first = PageImage(f"{name}: cannot be displayed", None)
        image = colors = None
        with suppress(InputError):
            image = to_display(pair.sample.read_raw())
            first = _page_image(name, image)
        with suppress(InputError):
            colors = self._colored(pair)
        if colors is None or 0 in colors.shape:
            return [first, PageImage(f"{mask_name}: cannot be displayed", None)]
        if image is None or image.shape != colors.shape:
            return [first, _page_image(mask_name, colors)]
        blend = (image.astype(np.uint16) * 9 + colors.astype(np.uint16) * 11) // 20
        return [first, _page_image(f"{mask_name}, over its image", blend.astype(np.uint8))]

    def _colored(self, pair: InspectedPair) -> NDArray[np.uint8] | None:
        """Color the mask (H, W, 3) by its classes, or by distinct colors if it has none."""
        stored = pair.sample.mask.read(pair.image.size)
        levels = to_levels(stored, pair.mask)
        if levels is None:
            return stored if stored.ndim == 3 and stored.dtype == np.uint8 else None
        indices = self.scan.class_indices(pair.mask)
        table = np.zeros((256, 3), dtype=np.uint8)
        if self.scan.classes is None:
            table[: len(indices)] = distinct_colors(len(indices))
        else:
            table[: len(indices)] = self.scan.classes.color_table()[indices]
            table[: len(indices)][indices == UNKNOWN] = UNKNOWN_COLOR
        return table[levels]


def _page_image(caption: str, pixels: NDArray[np.uint8]) -> PageImage:
    image = Image.fromarray(pixels)
    small = max(image.size) < SIDE // 2
    if small:  # upsample it here: a JPEG of few pixels shows block artifacts
        factor = -(-SIDE // 2 // max(image.size))
        image = image.resize(
            (image.width * factor, image.height * factor), Image.Resampling.NEAREST
        )
    image.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    source = data_url(image, kind="JPEG", quality=80)
    return PageImage(caption, source, image.width, image.height, small)
