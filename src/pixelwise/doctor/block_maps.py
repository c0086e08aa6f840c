"""Maps of the windows of rasters: which part of each raster belongs to which split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from pixelwise.data.label_borders import at_border
from pixelwise.data.rasters.blocks import RasterWindow
from pixelwise.data.rasters.raster_file import Raster
from pixelwise.data.source import Sample
from pixelwise.doctor.diagnosis import relative
from pixelwise.doctor.finding_images import PageImage
from pixelwise.doctor.pair_inspection import Scan
from pixelwise.errors import InputError
from pixelwise.pages import css_color, data_url

SIDE = 900
"""The longer side of a map on the page, in pixels."""
MAX_MAPS = 12
COLORS = {"train": (38, 110, 214), "val": (240, 140, 0), "test": (200, 40, 160)}
_UNUSED = (0.45, 0.45, 0.45)
"""Factor of the colors where nothing is used."""
_TINT = 0.42
_LINE = (255, 255, 255)


@dataclass(frozen=True)
class BlockMaps:
    """The maps of a dataset of rasters.

    Attributes:
        images: A map of each raster, at most MAX_MAPS.
        unlisted: Number of further rasters.
        legend: Color (CSS), split, number of windows and of blocks.
    """

    images: list[PageImage] = field(default_factory=list)
    unlisted: int = 0
    legend: list[tuple[str, str, int, int]] = field(default_factory=list)


def draw_block_maps(scan: Scan) -> BlockMaps | None:
    """Draw the maps; None if the images of the dataset are no windows of rasters."""
    placed: dict[Raster, list[tuple[str, Sample]]] = {}
    for pair in scan.pairs:
        if isinstance(pair.sample.part, RasterWindow):
            found = placed.setdefault(pair.sample.part.raster, [])
            found.append((pair.split, pair.sample))
    if not placed:
        return None
    legend = []
    for split, pairs in scan.splits.items():
        blocks = {pair.sample.group for pair in pairs}
        color = css_color(COLORS.get(split, COLORS["train"]))
        legend.append((color, split, len(pairs), len(blocks)))
    shown = list(placed.items())[:MAX_MAPS]
    images = [_draw(raster, samples, scan) for raster, samples in shown]
    return BlockMaps(images, len(placed) - len(shown), legend)


def _draw(raster: Raster, samples: Sequence[tuple[str, Sample]], scan: Scan) -> PageImage:
    name = relative(raster.path, scan.root)
    try:
        pixels = raster.thumbnail(SIDE).astype(np.float32)
    except InputError:  # the findings say why
        return PageImage(f"{name}: cannot be displayed", None)
    height, width = pixels.shape[:2]
    blocks = np.zeros((height, width), np.int32)
    used = np.zeros((height, width), bool)
    numbers: dict[str, int] = {}
    for split, sample in samples:
        assert isinstance(sample.part, RasterWindow)
        top, left, rows, columns = sample.part.window
        (down, across) = (np.array([top, top + rows]), np.array([left, left + columns]))
        (y0, y1) = (down * height / raster.size[0]).round().astype(int)
        (x0, x1) = (across * width / raster.size[1]).round().astype(int)
        area = np.s_[y0:y1, x0:x1]
        color = np.array(COLORS.get(split, COLORS["train"]), np.float32)
        pixels[area] += _TINT * (color - pixels[area])
        used[area] = True
        blocks[area] = numbers.setdefault(f"{split} {sample.group}", len(numbers) + 1)
    pixels[~used] *= _UNUSED
    pixels[at_border(blocks)] = _LINE
    drawn = Image.fromarray(pixels.round().astype(np.uint8))
    source = data_url(drawn, kind="JPEG", quality=85)
    return PageImage(name, source, width, height, small=max(height, width) < SIDE // 2)
