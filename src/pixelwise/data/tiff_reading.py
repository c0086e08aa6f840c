"""TIFF that Pillow cannot read: many channels, planes, floating point color; by tifffile."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.pixel_format import MAX_CHANNELS
from pixelwise.errors import InputError

INSTALL = "pip install 'tifffile>=2025.5.10' imagecodecs"
PHOTOMETRIC = (1, 2)  # black is zero, RGB
ALPHA = (1, 2)  # of the tag ExtraSamples: associated, unassociated
ORIENTATION = 274

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what it finds odd, it logs


def read_tiff(path: Path, *, max_pixels: int) -> tuple[NDArray[Any], bool, int]:
    """(H, W, C) as stored, whether the last channel is called opacity, and EXIF's orientation.

    Channels lie side by side, in planes, or in pages that OME or ImageJ call channels.

    Raises InputError for several images, sizes over the limits, numbers that are not real,
    where bytes are missing, and where tifffile is not installed. Of a damaged file it raises
    anything.
    """
    try:
        import tifffile
    except ImportError as error:
        raise InputError(
            f"{path}: is a TIFF that is not read without tifffile, of many channels or floating "
            f"point: {INSTALL}"
        ) from error
    with tifffile.TiffFile(path) as file:
        if not file.pages:
            raise InputError(f"{path}: holds no image: restore the file or remove it")
        first = file.pages.first
        series = file.series[0] if len(file.pages) > 1 else None
        if series is not None and (len(file.series) > 1 or set(series.axes) - set("CSYX")):
            raise InputError(
                f"{path}: holds several images (pages): save the one you mean, channels within it"
            )
        axes, shape = (first.axes, first.shape) if series is None else (series.axes, series.shape)
        _check(path, first, axes, shape, max_pixels)
        for page in file.pages if series is not None else [first]:
            _check_whole(path, page)
        stored = first.asarray() if series is None else series.asarray()
        orientation = first.tags.valueof(ORIENTATION, 1)
        extra = tuple(first.extrasamples)
    channels = tuple(place for place, axis in enumerate(axes) if axis in "CS")
    order = (axes.index("Y"), axes.index("X"), *channels)
    upright = np.transpose(stored, order)
    height, width = upright.shape[:2]
    alpha = len(extra) > 0 and int(extra[-1]) in ALPHA
    return upright.reshape(height, width, -1), alpha, int(orientation)


def _check(path: Path, page: Any, axes: str, shape: tuple[int, ...], max_pixels: int) -> None:
    """Raise InputError for what is not read, from the tags alone."""
    sizes = dict(zip(axes, shape, strict=True))
    if not {"Y", "X"} <= set(axes) <= set("CSYX"):
        raise InputError(f"{path}: has the axes {axes}: save one flat image")
    values = int(np.prod([int(size) for size in shape], dtype=object))
    height, width = int(sizes["Y"]), int(sizes["X"])
    if height * width > max_pixels or values > 4 * max_pixels:
        raise InputError(
            f"{path}: is over the limit of {max_pixels} pixels: cut it into parts; for predict, "
            "--large takes TIFF files of any size"
        )
    if values == 0 or values // (height * width) > MAX_CHANNELS:
        raise InputError(
            f"{path}: has {values // max(1, height * width)} channels: allowed are 1 "
            f"to {MAX_CHANNELS}"
        )
    if page.dtype is None or page.dtype.kind not in "uif" or page.photometric not in PHOTOMETRIC:
        raise InputError(
            f"{path}: holds {page.dtype} as {getattr(page.photometric, 'name', page.photometric)}, "
            "which is not read: save gray or RGB of whole or floating point numbers"
        )


def _check_whole(path: Path, page: Any) -> None:
    """Raise InputError where a strip or tile lies beyond the file; tifffile fills in zeros."""
    end = path.stat().st_size
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if not parts or any(offset + count > end or count == 0 for offset, count in parts):
        raise InputError(f"{path}: is damaged or cut off: restore the file or remove it")
