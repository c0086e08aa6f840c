"""Read with tifffile what Pillow cannot: many channels, planes, floating-point color."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data import image_decoding
from pixelwise.data.pixel_format import MAX_CHANNELS
from pixelwise.errors import InputError, needs_package

INSTALL = "pip install 'tifffile>=2025.5.10' imagecodecs"
MINISWHITE, MINISBLACK, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6  # PhotometricInterpretation
ALPHA = (1, 2)  # values of the tag ExtraSamples: associated, unassociated
ORIENTATION = 274
REDUCED, MASK = 1, 4  # bits of NewSubfileType: overviews, and GDAL's masks of valid pixels

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # it logs warnings about odd files


@dataclass(frozen=True)
class StoredTiff:
    """A TIFF file as it is stored.

    Attributes:
        values: (H, W, C), without the EXIF orientation applied.
        alpha: Whether the last channel is labeled alpha.
        orientation: The EXIF orientation.
        white_is_zero: Whether the gray tones are inverted.
        bits: Bits per value.
        palette: (N, 3) colors of the values, or None.
        lossy: Whether the compression is JPEG.
    """

    values: NDArray[Any]
    alpha: bool
    orientation: int
    white_is_zero: bool
    bits: int
    palette: NDArray[np.uint8] | None
    lossy: bool

    def upright(self) -> NDArray[Any]:
        """Return the stored values upright."""
        return image_decoding.apply_orientation(self.values, self.orientation)

    def as_shown(self) -> NDArray[Any]:
        """Return the tones or colors, upright; values of less than 8 bits become 0..255."""
        pixels = self.upright()
        if self.palette is not None:
            return np.asarray(self.palette[pixels[..., 0]])
        if self.bits < 8 and pixels.dtype.kind in "bu":
            pixels = pixels.astype(np.uint8) * np.uint8(255 // (2**self.bits - 1))
        if self.white_is_zero:
            pixels = np.iinfo(pixels.dtype).max - pixels
        return pixels


def read_tiff(path: Path) -> StoredTiff:
    """Read a TIFF file.

    Channels may be interleaved, in planes, or in pages that OME or ImageJ mark as channels.
    Overviews and masks of valid pixels are left out.

    Raises:
        InputError: For everything that can be wrong with the file.
    """
    with image_decoding.decoding_errors(path):
        return _read(path)


def _read(path: Path) -> StoredTiff:
    """Read a TIFF file. A damaged one may raise any error."""
    with needs_package(
        f"{path}: reading this TIFF (its compression, channels or pages) requires tifffile: "
        f"{INSTALL}"
    ):
        import tifffile
    with tifffile.TiffFile(path) as file:
        pages = [page for page in all_pages(file) if not page.subfiletype & (REDUCED | MASK)]
        if not pages:
            raise InputError(f"{path}: has no image in it: restore the file or remove it")
        first = pages[0]
        series = file.series[0] if len(pages) > 1 else None
        if series is not None and (len(file.series) > 1 or set(series.axes) - set("CSYX")):
            raise InputError(
                f"{path}: the file has several images ({len(pages)} pages): save a single one, "
                "with its channels"
            )
        axes, shape = (first.axes, first.shape) if series is None else (series.axes, series.shape)
        _check(path, first, axes, shape)
        check_jpeg_components(path, first)
        for page in pages:
            _check_complete(path, page)
        stored = first.asarray() if series is None else series.asarray()
        orientation = first.tags.valueof(ORIENTATION, 1)
        extra = tuple(first.extrasamples)
        colors = first.colormap if first.photometric == PALETTE else None
    channels = tuple(i for i, axis in enumerate(axes) if axis in "CS")
    order = (axes.index("Y"), axes.index("X"), *channels)
    pixels = np.transpose(stored, order)
    height, width = pixels.shape[:2]
    return StoredTiff(
        pixels.reshape(height, width, -1),
        alpha=len(extra) > 0 and int(extra[-1]) in ALPHA,
        orientation=int(orientation),
        white_is_zero=first.photometric == MINISWHITE,
        bits=int(first.bitspersample),
        palette=None if colors is None else (colors >> 8).astype(np.uint8).T,
        lossy=int(first.compression) in image_decoding.JPEGS,
    )


def all_pages(file: Any) -> Iterator[Any]:
    """Yield each page of a file that tifffile has opened, overviews included.

    Raises:
        ValueError: If the list of pages is damaged, so that it leads back to an earlier page.
    """
    offsets = set()
    for page in file.pages:
        if page.offset in offsets:
            raise ValueError("its list of pages has no end")
        offsets.add(page.offset)
        yield page.aspage()


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
    whole = page.dtype is not None and page.dtype.kind in "bu"
    supported = {MINISBLACK, RGB, *((MINISWHITE,) if whole else ())}
    supported |= {PALETTE} if whole and page.bitspersample <= 8 else set()
    if page.compression in image_decoding.JPEGS and page.bitspersample == 8:
        supported.add(YCBCR)  # tifffile decodes it to RGB
    if page.dtype is None or page.dtype.kind not in "buif" or page.photometric not in supported:
        raise InputError(
            f"{path}: {page.dtype} as {getattr(page.photometric, 'name', page.photometric)} is not "
            "supported: save gray or RGB, integers or floating-point numbers"
        )


def check_jpeg_components(path: Path, page: Any) -> None:
    """Raise InputError for JPEG data whose color space the tags do not tell.

    tifffile would convert several gray channels from YCbCr, as if they were colors.
    """
    interleaved = page.samplesperpixel > 1 and page.planarconfig != 2
    if page.compression in image_decoding.JPEGS and page.photometric == MINISBLACK and interleaved:
        raise InputError(
            f"{path}: holds {page.samplesperpixel} gray channels compressed with JPEG, whose "
            "colors are not clear: save them as RGB, or with another compression"
        )


def _check_complete(path: Path, page: Any) -> None:
    """Raise InputError if a strip or tile is beyond the end of the file: tifffile returns zeros.

    With offset and length 0, it holds no data, and tifffile returns the nodata value or zeros.
    """
    end = path.stat().st_size
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if not segments or any(
        offset + count > end or (count == 0 and offset != 0) for offset, count in segments
    ):
        raise InputError(f"{path}: is damaged or cut off: restore the file or remove it")
