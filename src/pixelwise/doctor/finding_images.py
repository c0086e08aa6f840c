"""Images of a finding: its images, and their masks laid over them, small enough for a page."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.classes import IGNORE, distinct_colors
from pixelwise.data.image_files import IMAGE_SUFFIXES, read_raw
from pixelwise.doctor.dataset_scan import UNKNOWN, DatasetScan
from pixelwise.doctor.diagnosis import Finding, relative
from pixelwise.doctor.pair_inspection import PairReport, levels_of, shown
from pixelwise.errors import InputError
from pixelwise.pages import data_url

SIDE = 420
"""The longer side of an image on the page, in pixels."""

MAX_PAIRS = 2
"""Of one finding: two show a duplicate."""

UNKNOWN_COLOR = (255, 0, 200)


@dataclass(frozen=True)
class PageImage:
    """source: a data URL, None where the file cannot be shown. small: to be shown unsmoothed."""

    caption: str
    source: str | None
    width: int = 0
    height: int = 0
    small: bool = False


class FindingImages:
    """Draws the images of findings; files are read again, one at a time."""

    def __init__(self, scan: DatasetScan) -> None:
        self.scan = scan
        self.of_file: dict[Path, PairReport] = {}
        for pair_report in scan.pair_reports:
            for path in (pair_report.image.path, pair_report.mask.path):
                self.of_file.setdefault(path, pair_report)

    def images(self, finding: Finding) -> list[PageImage]:
        """Image and overlay of each pair that a finding is about, up to MAX_PAIRS."""
        pairs = {
            pair_report.sample.name: pair_report
            for path in finding.files
            if (pair_report := self.of_file.get(path)) is not None
        }
        if not pairs:  # as where one of the two is missing
            first = finding.files[:1]
            return [self._alone(path) for path in first if path.suffix in IMAGE_SUFFIXES]
        return [
            picture
            for pair_report in list(pairs.values())[:MAX_PAIRS]
            for picture in self._of_pair(pair_report)
        ]

    def _alone(self, path: Path) -> PageImage:
        name = relative(path, self.scan.root)
        try:
            return _picture(name, shown(read_raw(path)))
        except InputError:
            return PageImage(f"{name}: cannot be shown", None)

    def _of_pair(self, pair_report: PairReport) -> list[PageImage]:
        name = relative(pair_report.image.path, self.scan.root)
        mask_name = relative(pair_report.mask.path, self.scan.root)
        image = colors = None
        try:
            image = shown(read_raw(pair_report.image.path))
            size = image.shape[0], image.shape[1]
        except InputError:
            size = pair_report.image.size
        with suppress(InputError):
            colors = self._colored(pair_report, size)
        first = PageImage(f"{name}: cannot be shown", None)
        if image is not None:
            first = _picture(name, image)
        if colors is None or 0 in colors.shape:
            return [first, PageImage(f"{mask_name}: cannot be shown", None)]
        if image is None or image.shape != colors.shape:
            return [first, _picture(mask_name, colors)]
        blend = (image.astype(np.uint16) * 9 + colors.astype(np.uint16) * 11) // 20
        return [first, _picture(f"{mask_name}, over its image", blend.astype(np.uint8))]

    def _colored(self, pair_report: PairReport, size: tuple[int, int]) -> NDArray[np.uint8] | None:
        """The mask (H, W, 3) in its classes' colors, or in any where it has no classes."""
        stored = pair_report.sample.mask.read(size)
        levels = levels_of(stored)
        if levels is None:
            return stored if stored.ndim == 3 and stored.dtype == np.uint8 else None
        indices = self.scan.indices(pair_report.mask)
        table = np.zeros((256, 3), dtype=np.uint8)
        if self.scan.classes is None:
            table[: len(indices)] = distinct_colors(len(indices))
        else:
            colors = self.scan.classes.color_table()
            for place, index in enumerate(indices):
                table[place] = UNKNOWN_COLOR if index == UNKNOWN else colors[index]
                if index == IGNORE:
                    table[place] = self.scan.classes.ignore_color
        return table[levels]


def _picture(caption: str, pixels: NDArray[np.uint8]) -> PageImage:
    picture = Image.fromarray(pixels)
    small = max(picture.size) < SIDE // 2
    if small:  # upsampled here, a JPEG of few pixels would be all blocks
        factor = -(-SIDE // 2 // max(picture.size))
        picture = picture.resize(
            (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
        )
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    return PageImage(
        caption, data_url(picture, kind="JPEG", quality=80), picture.width, picture.height, small
    )
