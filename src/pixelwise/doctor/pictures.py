"""Pictures of a finding: its images, and their masks laid over them, small enough for a page."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.classes import IGNORE, distinct_colours
from pixelwise.data.images import IMAGE_SUFFIXES, read_raw
from pixelwise.doctor.diagnosis import Finding, relative
from pixelwise.doctor.sighting import Sighting, levels_of, shown
from pixelwise.doctor.survey import UNKNOWN, Survey
from pixelwise.errors import InputError
from pixelwise.pages import data_url

SIDE = 420
"""The longer side of a picture on the page, in pixels."""

MAX_PAIRS = 2
"""Of one finding: two show a duplicate."""

UNKNOWN_COLOUR = (255, 0, 200)


@dataclass(frozen=True)
class Picture:
    """source: a data URL, None where the file cannot be shown. small: to be shown unsmoothed."""

    caption: str
    source: str | None
    width: int = 0
    height: int = 0
    small: bool = False


class Album:
    """Draws the pictures of findings; files are read again, one at a time."""

    def __init__(self, survey: Survey) -> None:
        self.survey = survey
        self.of_file: dict[Path, Sighting] = {}
        for sighting in survey.sightings:
            for path in (sighting.image.path, sighting.mask.path):
                self.of_file.setdefault(path, sighting)

    def pictures(self, finding: Finding) -> list[Picture]:
        """Image and overlay of each pair that a finding is about, up to MAX_PAIRS."""
        pairs = {
            sighting.sample.name: sighting
            for path in finding.files
            if (sighting := self.of_file.get(path)) is not None
        }
        if not pairs:  # as where one of the two is missing
            first = finding.files[:1]
            return [self._alone(path) for path in first if path.suffix in IMAGE_SUFFIXES]
        return [
            picture
            for sighting in list(pairs.values())[:MAX_PAIRS]
            for picture in self._of_pair(sighting)
        ]

    def _alone(self, path: Path) -> Picture:
        name = relative(path, self.survey.root)
        try:
            return _picture(name, shown(read_raw(path)))
        except InputError:
            return Picture(f"{name}: cannot be shown", None)

    def _of_pair(self, sighting: Sighting) -> list[Picture]:
        name = relative(sighting.image.path, self.survey.root)
        mask_name = relative(sighting.mask.path, self.survey.root)
        image = colours = None
        try:
            image = shown(read_raw(sighting.image.path))
            size = image.shape[0], image.shape[1]
        except InputError:
            size = sighting.image.size
        with suppress(InputError):
            colours = self._coloured(sighting, size)
        first = Picture(f"{name}: cannot be shown", None)
        if image is not None:
            first = _picture(name, image)
        if colours is None or 0 in colours.shape:
            return [first, Picture(f"{mask_name}: cannot be shown", None)]
        if image is None or image.shape != colours.shape:
            return [first, _picture(mask_name, colours)]
        blend = (image.astype(np.uint16) * 9 + colours.astype(np.uint16) * 11) // 20
        return [first, _picture(f"{mask_name}, over its image", blend.astype(np.uint8))]

    def _coloured(self, sighting: Sighting, size: tuple[int, int]) -> NDArray[np.uint8] | None:
        """The mask (H, W, 3) in its classes' colours, or in any where it has no classes."""
        stored = sighting.sample.mask.read(size)
        levels = levels_of(stored)
        if levels is None:
            return stored if stored.ndim == 3 and stored.dtype == np.uint8 else None
        indices = self.survey.indices(sighting.mask)
        table = np.zeros((256, 3), dtype=np.uint8)
        if self.survey.classes is None:
            table[: len(indices)] = distinct_colours(len(indices))
        else:
            colours = self.survey.classes.colour_table()
            for place, index in enumerate(indices):
                table[place] = UNKNOWN_COLOUR if index == UNKNOWN else colours[index]
                if index == IGNORE:
                    table[place] = self.survey.classes.ignore_colour
        return table[levels]


def _picture(caption: str, pixels: NDArray[np.uint8]) -> Picture:
    picture = Image.fromarray(pixels)
    small = max(picture.size) < SIDE // 2
    if small:  # enlarged here, a JPEG of few pixels would be all blocks
        factor = -(-SIDE // 2 // max(picture.size))
        picture = picture.resize(
            (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
        )
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    return Picture(
        caption, data_url(picture, kind="JPEG", quality=80), picture.width, picture.height, small
    )
