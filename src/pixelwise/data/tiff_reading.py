"""Read with tifffile what Pillow cannot: many channels, planes, floating-point color."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data import image_decoding
from pixelwise.data.pixel_format import MAX_CHANNELS
from pixelwise.errors import InputError

INSTALL = "pip install 'tifffile>=2025.5.10' imagecodecs"
PHOTOMETRIC = (1, 2)  # black is zero, RGB
ALPHA = (1, 2)  # values of the tag ExtraSamples: associated, unassociated
ORIENTATION = 274

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # it logs warnings about odd files


def read_tiff(path: Path) -> tuple[NDArray[Any], bool, int]:
    """Read a TIFF file.

    Channels may be interleaved, in planes, or in pages that OME or ImageJ mark as channels.

    Returns:
        The stored values (H, W, C), whether the last channel is labeled alpha, and the EXIF
        orientation.

    Raises:
        InputError: For several images, sizes over the limits, complex values, missing bytes, and
            if tifffile is not installed. A damaged file may raise any other error.
    """
    try:
        import tifffile
    except ImportError as error:
        raise InputError(
            f"{path}: reading this TIFF (many channels or floating point) requires tifffile: "
            f"{INSTALL}"
        ) from error
    with tifffile.TiffFile(path) as file:
        if not file.pages:
            raise InputError(f"{path}: has no image in it: restore the file or remove it")
        first = file.pages.first
        series = file.series[0] if len(file.pages) > 1 else None
        if series is not None and (len(file.series) > 1 or set(series.axes) - set("CSYX")):
            raise InputError(
                f"{path}: the file has several images (pages): save a single one, with its channels"
            )
        axes, shape = (first.axes, first.shape) if series is None else (series.axes, series.shape)
        _check(path, first, axes, shape)
        for page in file.pages if series is not None else [first]:
            _check_complete(path, page)
        stored = first.asarray() if series is None else series.asarray()
        orientation = first.tags.valueof(ORIENTATION, 1)
        extra = tuple(first.extrasamples)
    channels = tuple(i for i, axis in enumerate(axes) if axis in "CS")
    order = (axes.index("Y"), axes.index("X"), *channels)
    pixels = np.transpose(stored, order)
    height, width = pixels.shape[:2]
    alpha = len(extra) > 0 and int(extra[-1]) in ALPHA
    return pixels.reshape(height, width, -1), alpha, int(orientation)


def _check(path: Path, page: Any, axes: str, shape: tuple[int, ...]) -> None:
    """Raise InputError for an unsupported file, from its tags alone."""
    sizes = dict(zip(axes, shape, strict=True))
    if not {"Y", "X"} <= set(axes) <= set("CSYX"):
        raise InputError(
            f"{path}: the axes {axes} are not supported: save one two-dimensional image"
        )
    values = int(np.prod([int(size) for size in shape], dtype=object))
    height, width = int(sizes["Y"]), int(sizes["X"])
    if height * width > image_decoding.MAX_PIXELS or values > 4 * image_decoding.MAX_PIXELS:
        raise image_decoding.too_large(path)
    if values == 0 or values // (height * width) > MAX_CHANNELS:
        raise InputError(
            f"{path}: {values // max(1, height * width)} channels: 1 to {MAX_CHANNELS} are allowed"
        )
    if page.dtype is None or page.dtype.kind not in "uif" or page.photometric not in PHOTOMETRIC:
        raise InputError(
            f"{path}: {page.dtype} as {getattr(page.photometric, 'name', page.photometric)} is not "
            "supported: save gray or RGB, integers or floating-point numbers"
        )


def _check_complete(path: Path, page: Any) -> None:
    """Raise InputError if a strip or tile is beyond the end of the file: tifffile returns zeros."""
    end = path.stat().st_size
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if not segments or any(offset + count > end or count == 0 for offset, count in segments):
        raise InputError(f"{path}: is damaged or cut off: restore the file or remove it")
