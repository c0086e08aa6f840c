"""Windows of a TIFF file: plain, tiled, BigTIFF, GeoTIFF.

tifffile takes the file apart; what is decoded here is one strip or tile at a time, kept as long as
the neighboring windows need it. Nothing is mapped into memory, so that memory is ours to bound.
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
from pixelwise.data.pixel_format import PixelFormat, Pixels, RawImage
from pixelwise.errors import InputError

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what it finds odd, it logs

CACHE_BYTES = 192 << 20
SEGMENT_BYTES = 128 << 20  # the largest strip or tile that is decoded

REWRITE = "rewrite it in tiles, as by `gdal_translate -co TILED=YES -co BIGTIFF=YES IN OUT`"

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


class TiffSource:
    """A TIFF file as an image that is read by windows: see `open`.

    Gray, palette and RGB of 8 bits, with or without alpha, or what `pixels` asks for: deeper
    numbers, other channels; by strips or tiles, with any compression that tifffile and imagecodecs
    know. `georeference` is what places it on the earth, as tags for the mask; `nodata` the value
    that stands for no data, or None.
    """

    def __init__(self, path: Path, file: TiffFile, page: TiffPage, pixels: PixelFormat) -> None:
        self.path, self.file, self.page, self.pixels = path, file, page, pixels
        self.size = (page.imagelength, page.imagewidth)
        self.planes = page.samplesperpixel if page.planarconfig == 2 else 1
        self.tiled = page.is_tiled
        self.segment = (
            (page.tilelength, page.tilewidth)
            if self.tiled
            else (min(page.rowsperstrip, page.imagelength), page.imagewidth)
        )
        self.cache: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self.cached = 0
        self.palette = None if page.colormap is None else (page.colormap >> 8).astype(np.uint8).T
        kinds = [*page.extrasamples]
        opaque = bool(kinds) and kinds[-1] in {ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA}
        # Programs call a fourth channel opacity, whatever it holds.
        self.alpha = opaque and pixels.channels < page.samplesperpixel
        self._check()
        self.nodata = self._nodata()
        self.georeference = [
            (tag.code, int(tag.dtype), tag.count, tag.value, True)
            for code in GEOREFERENCE
            if (tag := page.tags.get(code)) is not None
        ]

    @classmethod
    @contextmanager
    def open(cls, path: Path, pixels: PixelFormat = RGB_BYTES) -> Iterator[TiffSource]:
        """pixels: what its network was trained on.

        Raises InputError for what is not such a file, is cut off, or cannot be read by windows,
        and where tifffile is not installed; while it is read, for a damaged strip or tile."""
        try:
            import tifffile
        except ImportError as error:
            raise InputError(
                f"{path}: reading large TIFF files needs tifffile: "
                "pip install 'tifffile>=2025.5.10' imagecodecs"
            ) from error
        with open_file(tifffile, path) as file:
            every = (page.aspage() for page in file.pages)
            pages = [page for page in every if not page.subfiletype & (REDUCED | MASK)]
            if len(pages) != 1:
                raise InputError(
                    f"{path}: holds {len(pages)} images (pages): save the one you mean"
                )
            yield cls(path, file, pages[0], pixels)

    def read(self, top: int, left: int, height: int, width: int) -> Pixels:
        """The window (height, width, C) in units of 0..255, as the network is given images.

        Of deeper images the pixels without data are 0, since their numbers may lie anywhere.
        Raises InputError for other numbers that are not finite.
        """
        samples = self._samples(top, left, height, width)
        if self.palette is not None:
            samples = self.palette[samples[..., 0]]
        if self.page.photometric == MINISWHITE:
            samples = 255 - samples
        raw = RawImage(_held(samples), self.alpha)
        found = self.pixels.scale(self.pixels.select(raw, self.path))
        if not self.pixels.is_bytes:
            missing = self.missing(top, left, height, width)
            if missing is not None:
                found[missing] = 0
            self._check_finite(found, top, left)
        whole: Pixels = np.ascontiguousarray(found)  # type: ignore[assignment]
        return whole

    def missing(self, top: int, left: int, height: int, width: int) -> NDArray[np.bool_] | None:
        """Where the window has no data, (height, width): all channels have the nodata value, or
        alpha is 0. None where it has data everywhere."""
        if self.nodata is None and not self.alpha:
            return None
        samples = self._samples(top, left, height, width)
        missing = np.zeros((height, width), bool)
        if self.alpha:
            missing |= samples[..., -1] == 0
            samples = samples[..., :-1]
        if self.nodata is not None:
            without = np.isnan(samples) if np.isnan(self.nodata) else samples == self.nodata
            missing |= without.all(axis=2)
        return missing if missing.any() else None

    def _check_finite(self, pixels: Pixels, top: int, left: int) -> None:
        if not np.isfinite(pixels).all():
            row, column, channel = (int(place) for place in np.argwhere(~np.isfinite(pixels))[0])
            raise InputError(
                f"{self.path}: holds a value that is not finite at row {top + row}, column "
                f"{left + column}, channel {channel}: fill it with a number, or say which value "
                "stands for no data, as by `gdal_translate -a_nodata nan IN OUT`"
            )

    def _check(self) -> None:
        page, path = self.page, self.path
        if page.dtype is None or page.bitspersample != 8 * page.dtype.itemsize:
            raise InputError(
                f"{path}: has {page.bitspersample} bits a channel, which are not read by windows: "
                "convert it to 8 or 16 bits"
            )
        if page.dtype.kind not in "uif":
            raise InputError(f"{path}: holds {page.dtype}: save whole or floating point numbers")
        deep = page.dtype != np.uint8
        known = {MINISBLACK, RGB} if deep else {MINISWHITE, MINISBLACK, RGB, PALETTE}
        if page.photometric not in known and not (
            page.photometric == YCBCR and page.compression in JPEGS
        ):
            raise InputError(
                f"{path}: has colors of kind {_name(page.photometric)}, read are gray, RGB, and "
                "palettes of 8 bits: convert it to RGB"
            )
        channels = page.samplesperpixel if self.palette is None else 3
        self.pixels.select(
            RawImage(_held(np.empty((1, 1, channels), page.dtype)), self.alpha),
            path,
            remedy=CONVERT_TO_RGB if self.pixels == RGB_BYTES else LIKE_THE_TRAINING,
        )
        if page.imagedepth != 1:
            raise InputError(f"{path}: is a volume, not an image: save one slice of it")
        turned = page.tags.valueof(274, default=1)
        if turned != 1:
            raise InputError(
                f"{path}: is to be turned (orientation {int(turned)}), which needs the whole of "
                "it: save it upright"
            )
        samples = page.samplesperpixel // self.planes
        rows, columns = self.segment
        if rows * columns * samples * self._dtype.itemsize > SEGMENT_BYTES and not self._plain_rows:
            kind = "tile" if self.tiled else "strip"
            raise InputError(
                f"{path}: has a {kind} of {columns}x{rows} pixels, which can only be decoded as a "
                f"whole: {REWRITE}"
            )
        ends = [
            offset + count
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)
        ]
        across, down = self._grid
        if len(ends) < across * down * self.planes or max(ends, default=0) > path.stat().st_size:
            raise InputError(f"{path}: is cut off: restore the file or remove it")

    def _nodata(self) -> float | None:
        text = str(self.page.tags.valueof(GDAL_NODATA, default="")).strip("\0 ")
        try:
            value = float(text)
        except ValueError:
            return None
        if self._dtype.kind == "f":
            with np.errstate(over="ignore"):
                return float(self._dtype.type(value))
        info = np.iinfo(self._dtype)  # no pixel has another
        return value if value.is_integer() and info.min <= value <= info.max else None

    @property
    def _dtype(self) -> np.dtype[Any]:
        """Of the numbers stored."""
        return np.dtype(self.page.dtype)

    @property
    def _plain_rows(self) -> bool:
        """Whether parts of rows can be read from the file as they are."""
        return self.page.compression == UNCOMPRESSED and not self.tiled

    @property
    def _grid(self) -> tuple[int, int]:
        """How many strips or tiles there are across and down."""
        (height, width), (rows, columns) = self.size, self.segment
        return -(-width // columns), -(-height // rows)

    def _samples(self, top: int, left: int, height: int, width: int) -> NDArray[Any]:
        """The window as the file has it, (height, width, samples)."""
        if self._plain_rows:
            return self._rows(top, left, height, width)
        rows, columns = self.segment
        across, down = self._grid
        samples = self.page.samplesperpixel
        window = np.empty((height, width, samples), self._dtype)
        for plane in range(self.planes):
            target = window if self.planes == 1 else window[..., plane : plane + 1]
            for i in range(top // rows, -(-(top + height) // rows)):
                for j in range(left // columns, -(-(left + width) // columns)):
                    piece = self._decoded((plane * down + i) * across + j)
                    y, x = i * rows, j * columns
                    y0, x0 = max(top, y), max(left, x)
                    y1 = min(top + height, y + len(piece))
                    x1 = min(left + width, x + piece.shape[1])
                    target[y0 - top : y1 - top, x0 - left : x1 - left] = piece[
                        y0 - y : y1 - y, x0 - x : x1 - x
                    ]
        return window

    def _rows(self, top: int, left: int, height: int, width: int) -> NDArray[Any]:
        """The same from strips that are not compressed: only what is asked for is read."""
        per_strip = self.segment[0]
        down = self._grid[1]
        samples = self.page.samplesperpixel // self.planes
        stored = self._dtype.newbyteorder(self.file.byteorder)
        size = samples * stored.itemsize
        window = np.empty((height, width, self.page.samplesperpixel), self._dtype)
        for plane in range(self.planes):
            for y in range(top, top + height):
                strip, row = divmod(y, per_strip)
                offset = self.page.dataoffsets[plane * down + strip]
                data = self._bytes(offset + (row * self.size[1] + left) * size, width * size)
                line = np.frombuffer(data, stored).reshape(width, samples)
                window[y - top, :, plane : plane + samples] = line
        return window

    def _decoded(self, index: int) -> NDArray[Any]:
        """A strip or tile, (rows, columns, samples), from the cache where it is there."""
        piece = self.cache.pop(index, None)
        if piece is None:
            piece = self._decode(index)
            self.cached += piece.nbytes
            while self.cache and self.cached > CACHE_BYTES:
                self.cached -= self.cache.popitem(last=False)[1].nbytes
        self.cache[index] = piece  # the latest is last
        return piece

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
        except Exception as error:  # codecs raise whatever the file's bytes provoke
            if "requires the 'imagecodecs'" in str(error):
                raise InputError(
                    f"{self.path}: is compressed by {_name(page.compression)}, which needs "
                    "imagecodecs: pip install imagecodecs"
                ) from error
            raise self._damaged(f"{type(error).__name__}: {error}") from error
        _, rows, columns, samples = shape
        if decoded is None:  # left out by who wrote it: all nodata
            return np.full((rows, columns, samples), self.nodata or 0, self._dtype)
        piece: NDArray[Any] = np.asarray(decoded, self._dtype).reshape(rows, columns, samples)
        return piece

    def _bytes(self, offset: int, count: int) -> bytes:
        try:
            self.file.filehandle.seek(offset)
            data: bytes = self.file.filehandle.read(count)
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be read ({error.strerror}): check the disk it lies on"
            ) from error
        if len(data) < count:
            raise self._damaged("it ends too early")
        return data

    def _damaged(self, reason: str) -> InputError:
        line = " ".join(reason.split())
        return InputError(
            f"{self.path}: is damaged or cut off ({line}): restore the file or remove it"
        )


def _held(samples: NDArray[Any]) -> NDArray[Any]:
    """As decoded images are held: other types than 8 and 16 bits become float32."""
    if samples.dtype.kind == "u" and samples.dtype.itemsize <= 2:
        return samples
    with np.errstate(over="ignore"):
        return samples.astype(np.float32)


def _name(value: object) -> str:
    """Of one of tifffile's enumerations; a number that it does not know stays one."""
    return str(getattr(value, "name", value))


@contextmanager
def open_file(tifffile: Any, path: Path) -> Iterator[TiffFile]:
    """A TIFF file that is closed again; whatever is wrong with it is one InputError."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not an image: give a file")
    try:
        file = tifffile.TiffFile(path)
        try:
            len(file.pages)
            file.pages[0].aspage()
        except Exception:
            file.close()
            raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: is not there: check the path") from error
    except (tifffile.TiffFileError, struct.error, ValueError, KeyError, IndexError) as error:
        raise InputError(
            f"{path}: is not a TIFF file that can be read by windows, or is damaged "
            f"({' '.join(str(error).split())}): for another format {CONVERT}"
        ) from error
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}): check the path and its permissions"
        ) from error
    with file:
        yield file


CONVERT = "convert it, as by `vips tiffsave IN OUT.tif --tile --compression deflate --bigtiff`"
CONVERT_TO_RGB = (
    "convert it, as by `gdal_translate -ot Byte -scale -b 1 -b 2 -b 3 -colorinterp red,green,blue "
    "IN OUT`"
)
LIKE_THE_TRAINING = "give images like those that the network was trained on"
