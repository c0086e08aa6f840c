"""Reading windows of TIFF files: plain, tiled, BigTIFF, GeoTIFF.

tifffile parses the file. This module decodes one strip or tile at a time and caches it for the
neighboring windows. Nothing is memory-mapped, so that the memory of the process stays bounded.
"""

from __future__ import annotations

import logging
import struct
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.pixel_format import RGB as RGB_BYTES
from pixelwise.data.pixel_format import PixelFormat, Pixels, RawImage, to_8_bits
from pixelwise.data.tiff_reading import all_pages, check_jpeg_components
from pixelwise.errors import InputError, needs_package

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # it logs whatever it finds odd

CACHE_BYTES = 192 << 20
SEGMENT_BYTES = 128 << 20  # the largest strip or tile that is decoded

REWRITE = (
    "rewrite it in tiles, for example with `gdal_translate -co TILED=YES -co BIGTIFF=YES IN OUT`"
)

MINISWHITE, MINISBLACK, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6  # PhotometricInterpretation
UNCOMPRESSED, JPEGS = 1, {6, 7, 33007, 34892}  # Compression
ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA = 1, 2  # ExtraSamples
REDUCED, MASK = 1, 4  # bits of NewSubfileType: overviews, and GDAL's masks of valid pixels

GDAL_NODATA = 42113
GEOREFERENCE = (
    33550,  # ModelPixelScaleTag
    33922,  # ModelTiepointTag
    34264,  # ModelTransformationTag
    34735,  # GeoKeyDirectoryTag
    34736,  # GeoDoubleParamsTag
    34737,  # GeoAsciiParamsTag
    50844,  # RPCCoefficientTag
)


def georeference_tags(path: Path) -> list[tuple[Any, ...]]:
    """Return the tags that locate an image on the earth; none for other files than TIFF."""
    from tifffile import TiffFile, TiffFileError

    try:
        with TiffFile(path) as file:
            return _georeference(file.pages.first)
    except (TiffFileError, OSError):
        return []


def _georeference(page: TiffPage) -> list[tuple[Any, ...]]:
    return [
        (tag.code, int(tag.dtype), tag.count, tag.value, True)
        for code in GEOREFERENCE
        if (tag := page.tags.get(code)) is not None
    ]


class TiffSource:
    """A TIFF file as an `ImageSource`, opened with `open`.

    It reads gray, palette and RGB images of 8 bits, with or without alpha, and the data types and
    channels that `pixels` requires, in strips or tiles, with any compression that tifffile and
    imagecodecs support.

    Attributes:
        size: (height, width).
        alpha: Whether the last channel is opacity.
        nodata: The value of pixels without data, or None.
        georeference: Tags that locate the image on the earth, to be copied to the mask.
    """

    def __init__(
        self,
        path: Path,
        file: TiffFile,
        page: TiffPage,
        pixels: PixelFormat,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        self.path, self.file, self.page, self.pixels = path, file, page, pixels
        self.value_range = value_range
        self.size = (page.imagelength, page.imagewidth)
        self.planes = page.samplesperpixel if page.planarconfig == 2 else 1
        self.tiled = page.is_tiled
        self.segment_size = (
            (page.tilelength, page.tilewidth)
            if self.tiled
            else (min(page.rowsperstrip, page.imagelength), page.imagewidth)
        )
        self.cache: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self.cached_bytes = 0
        colors = page.colormap if page.photometric == PALETTE else None
        self.palette = None if colors is None else (colors >> 8).astype(np.uint8).T
        extra = [*page.extrasamples]
        has_alpha = bool(extra) and extra[-1] in {ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA}
        # Programs declare a fourth channel as alpha, whatever it contains.
        self.alpha = has_alpha and pixels.channels < page.samplesperpixel
        self._check()
        self.nodata = self._nodata()
        self.georeference = _georeference(page)

    @classmethod
    @contextmanager
    def open(
        cls,
        path: Path,
        pixels: PixelFormat = RGB_BYTES,
        value_range: tuple[float, float] | None = None,
    ) -> Iterator[TiffSource]:
        """Open a TIFF file.

        Args:
            path: The file.
            pixels: The format that the network was trained on.
            value_range: For a network of 8-bit images: the values of deeper ones that become 0 and
                255.

        Raises:
            InputError: If the file is not a TIFF, is truncated, cannot be read in windows, or has
                another format, or tifffile is not installed. Inside `with`, if a strip or tile is
                damaged.
        """
        with needs_package(
            f"{path}: reading large TIFF files needs tifffile: "
            "`pip install 'tifffile>=2025.5.10' imagecodecs`"
        ):
            import tifffile
        with open_file(tifffile, path) as file:
            pages = [page for page in all_pages(file) if not page.subfiletype & (REDUCED | MASK)]
            if len(pages) != 1:
                raise InputError(
                    f"{path}: contains {len(pages)} images (pages): save one of them separately"
                )
            yield cls(path, file, pages[0], pixels, value_range)

    def read(self, top: int, left: int, height: int, width: int) -> Pixels:
        """Read a window (height, width, C) in units of 0..255.

        In images of more than 8 bits, pixels without data become 0, because their values may be
        far out of range.

        Raises:
            InputError: If another value is not finite, or the window cannot be decoded.
        """
        samples = self._samples(top, left, height, width)
        if self.palette is not None:
            samples = self.palette[samples[..., 0]]
        if self.page.photometric == MINISWHITE:
            samples = 255 - samples
        raw = self._to_network_depth(RawImage(_supported(samples), self.alpha))
        window = self.pixels.scale(self.pixels.select(raw, self.path))
        if not self.pixels.is_bytes:
            missing = self.missing(top, left, height, width)
            if missing is not None:
                window[missing] = 0
            self._check_finite(window, top, left)
        contiguous: Pixels = np.ascontiguousarray(window)  # type: ignore[assignment]
        return contiguous

    def _to_network_depth(self, raw: RawImage) -> RawImage:
        return raw if self.value_range is None else to_8_bits(raw, self.value_range)

    def missing(self, top: int, left: int, height: int, width: int) -> NDArray[np.bool_] | None:
        """Return a mask (height, width) of the pixels without data in a window.

        These are the pixels whose channels all have the nodata value, or whose alpha is 0. None if
        every pixel has data.
        """
        if self.nodata is None and not self.alpha:
            return None
        samples = self._samples(top, left, height, width)
        missing = np.zeros((height, width), bool)
        if self.alpha:
            missing |= samples[..., -1] == 0
            samples = samples[..., :-1]
        if self.nodata is not None:
            equal = np.isnan(samples) if np.isnan(self.nodata) else samples == self.nodata
            missing |= equal.all(axis=2)
        return missing if missing.any() else None

    def _check_finite(self, pixels: Pixels, top: int, left: int) -> None:
        if not np.isfinite(pixels).all():
            row, column, channel = (int(index) for index in np.argwhere(~np.isfinite(pixels))[0])
            raise InputError(
                f"{self.path}: has a value that is not finite at row {top + row}, column "
                f"{left + column}, channel {channel}: replace it with a number, or declare the "
                "nodata value, for example with `gdal_translate -a_nodata nan IN OUT`"
            )

    def _check(self) -> None:
        page, path = self.page, self.path
        if page.dtype is None or page.bitspersample != 8 * page.dtype.itemsize:
            raise InputError(
                f"{path}: has {page.bitspersample} bits per channel, which cannot be read in "
                "windows: convert it to 8 or 16 bits"
            )
        if page.dtype.kind not in "uif":
            raise InputError(f"{path}: has values of type {page.dtype}: save integers or floats")
        deep = page.dtype != np.uint8
        supported = {MINISBLACK, RGB} if deep else {MINISWHITE, MINISBLACK, RGB, PALETTE}
        if page.photometric not in supported and not (
            page.photometric == YCBCR and page.compression in JPEGS
        ):
            raise InputError(
                f"{path}: has the color space {_name(page.photometric)}; supported are gray, RGB "
                "and 8-bit palettes: convert it to RGB"
            )
        check_jpeg_components(path, page)
        channels = page.samplesperpixel if self.palette is None else 3
        self.pixels.select(
            self._to_network_depth(
                RawImage(_supported(np.zeros((1, 1, channels), page.dtype)), self.alpha)
            ),
            path,
            remedy=CONVERT_TO_RGB if self.pixels == RGB_BYTES else LIKE_THE_TRAINING,
        )
        if page.imagedepth != 1:
            raise InputError(f"{path}: is a volume, not an image: save one slice of it")
        orientation = page.tags.valueof(274, default=1)
        if orientation != 1:
            raise InputError(
                f"{path}: has orientation {int(orientation)}, and rotating it needs all of it in "
                "memory: save it upright"
            )
        samples = page.samplesperpixel // self.planes
        rows, columns = self.segment_size
        if rows * columns * samples * self._dtype.itemsize > SEGMENT_BYTES and not self._plain_rows:
            kind = "tile" if self.tiled else "strip"
            raise InputError(
                f"{path}: has a {kind} of {columns}x{rows} pixels, which must be decoded at once: "
                f"{REWRITE}"
            )
        ends = [
            offset + count
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)
        ]
        across, down = self._grid
        if len(ends) < across * down * self.planes or max(ends, default=0) > path.stat().st_size:
            raise InputError(f"{path}: is truncated: restore the file or remove it")

    def _nodata(self) -> float | None:
        text = str(self.page.tags.valueof(GDAL_NODATA, default="")).strip("\0 ")
        try:
            value = float(text)
        except ValueError:
            return None
        if self._dtype.kind == "f":
            with np.errstate(over="ignore"):
                return float(self._dtype.type(value))
        info = np.iinfo(self._dtype)  # no pixel can have another value
        return value if value.is_integer() and info.min <= value <= info.max else None

    @property
    def _dtype(self) -> np.dtype[Any]:
        """The data type of the stored values."""
        return np.dtype(self.page.dtype)

    @property
    def _plain_rows(self) -> bool:
        """Whether rows can be read from the file without decoding whole strips."""
        return self.page.compression == UNCOMPRESSED and not self.tiled

    @property
    def _grid(self) -> tuple[int, int]:
        """The number of strips or tiles (across, down)."""
        (height, width), (rows, columns) = self.size, self.segment_size
        return -(-width // columns), -(-height // rows)

    def _samples(self, top: int, left: int, height: int, width: int) -> NDArray[Any]:
        """Read a window (height, width, samples) of stored values."""
        if self._plain_rows:
            return self._read_rows(top, left, height, width)
        rows, columns = self.segment_size
        across, down = self._grid
        samples = self.page.samplesperpixel
        window = np.empty((height, width, samples), self._dtype)
        for plane in range(self.planes):
            target = window if self.planes == 1 else window[..., plane : plane + 1]
            for i in range(top // rows, -(-(top + height) // rows)):
                for j in range(left // columns, -(-(left + width) // columns)):
                    segment = self._segment((plane * down + i) * across + j)
                    y, x = i * rows, j * columns
                    y0, x0 = max(top, y), max(left, x)
                    y1 = min(top + height, y + len(segment))
                    x1 = min(left + width, x + segment.shape[1])
                    target[y0 - top : y1 - top, x0 - left : x1 - left] = segment[
                        y0 - y : y1 - y, x0 - x : x1 - x
                    ]
        return window

    def _read_rows(self, top: int, left: int, height: int, width: int) -> NDArray[Any]:
        """Read a window from uncompressed strips, without reading anything else."""
        per_strip = self.segment_size[0]
        down = self._grid[1]
        samples = self.page.samplesperpixel // self.planes
        stored = self._dtype.newbyteorder(self.file.byteorder)
        size = samples * stored.itemsize
        window = np.empty((height, width, self.page.samplesperpixel), self._dtype)
        for plane in range(self.planes):
            for y in range(top, top + height):
                strip, row = divmod(y, per_strip)
                if self.page.databytecounts[plane * down + strip] == 0:  # a sparse file
                    window[y - top, :, plane : plane + samples] = self.nodata or 0
                    continue
                offset = self.page.dataoffsets[plane * down + strip]
                data = self._bytes(offset + (row * self.size[1] + left) * size, width * size)
                line = np.frombuffer(data, stored).reshape(width, samples)
                window[y - top, :, plane : plane + samples] = line
        return window

    def _segment(self, index: int) -> NDArray[Any]:
        """Return a strip or tile (rows, columns, samples), from the cache if possible."""
        segment = self.cache.pop(index, None)
        if segment is None:
            segment = self._decode(index)
            self.cached_bytes += segment.nbytes
            while self.cache and self.cached_bytes > CACHE_BYTES:
                self.cached_bytes -= self.cache.popitem(last=False)[1].nbytes
        self.cache[index] = segment  # the most recent is last
        return segment

    def _decode(self, index: int) -> NDArray[Any]:
        page = self.page
        count = page.databytecounts[index]
        data = self._bytes(page.dataoffsets[index], count) if count else None
        options: dict[str, Any] = {}
        if page.compression in JPEGS:
            options = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
        try:
            decoded, _, shape = page.decode(data, index, **options)
        except (InputError, MemoryError):
            raise
        except Exception as error:  # codecs raise many types of errors for damaged data
            if "requires the 'imagecodecs'" in str(error):
                raise InputError(
                    f"{self.path}: is compressed with {_name(page.compression)}, which needs "
                    "imagecodecs: `pip install imagecodecs`"
                ) from error
            if page.compression in JPEGS and self.planes > 1:
                raise InputError(
                    f"{self.path}: stores its JPEG-compressed channels in planes, which cannot be "
                    f"read in windows: {REWRITE}"
                ) from error
            raise self._damaged(f"{type(error).__name__}: {error}") from error
        _, rows, columns, samples = shape
        if decoded is None:  # a sparse file omits segments without data
            return np.full((rows, columns, samples), self.nodata or 0, self._dtype)
        segment: NDArray[Any] = np.asarray(decoded, self._dtype).reshape(rows, columns, samples)
        return segment

    def _bytes(self, offset: int, count: int) -> bytes:
        try:
            self.file.filehandle.seek(offset)
            data: bytes = self.file.filehandle.read(count)
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be read ({error.strerror}): check the disk"
            ) from error
        if len(data) < count:
            raise self._damaged("unexpected end of file")
        return data

    def _damaged(self, reason: str) -> InputError:
        line = " ".join(reason.split())
        return InputError(
            f"{self.path}: is damaged or truncated ({line}): restore the file or remove it"
        )


def _supported(samples: NDArray[Any]) -> NDArray[Any]:
    """Convert to a data type of `PixelFormat`: all but uint8 and uint16 become float32."""
    if samples.dtype.kind == "u" and samples.dtype.itemsize <= 2:
        return samples
    with np.errstate(over="ignore"):
        return samples.astype(np.float32)


def _name(value: object) -> str:
    """Return the name of a tifffile enumeration, or the number if tifffile does not know it."""
    return str(getattr(value, "name", value))


@contextmanager
def open_file(tifffile: Any, path: Path) -> Iterator[TiffFile]:
    """Open a TIFF file for `with`; raise InputError for anything wrong with it."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not an image: give a file")
    try:
        file = tifffile.TiffFile(path)
        try:
            if not list(all_pages(file)):
                raise ValueError("it has no pages")
        except Exception:
            file.close()
            raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: does not exist: check the path") from error
    except (tifffile.TiffFileError, struct.error, ValueError, KeyError, IndexError) as error:
        raise InputError(
            f"{path}: is not a TIFF file that can be read in windows, or is damaged "
            f"({' '.join(str(error).split())}): for another format {CONVERT}"
        ) from error
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}): check the path and its permissions"
        ) from error
    with file:
        yield file


CONVERT = (
    "convert it, for example with `vips tiffsave IN OUT.tif --tile --compression deflate --bigtiff`"
)
CONVERT_TO_RGB = (
    "convert it, for example with `gdal_translate -ot Byte -scale -b 1 -b 2 -b 3 -colorinterp "
    "red,green,blue IN OUT`, or, if its depth is the only difference, add --value-range LOW,HIGH"
)
LIKE_THE_TRAINING = "give images like those that the network was trained on"
