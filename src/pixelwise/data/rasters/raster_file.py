"""GeoTIFF files of any size, of which windows are read by rasterio.

A file is opened for each window and closed after it: handles are not shared by threads or forked
processes, and GDAL's cache is emptied, so that memory does not grow with the raster.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.channel_statistics import OPAQUE
from pixelwise.data.image_decoding import warnings_silenced
from pixelwise.data.image_files import check_finite
from pixelwise.data.pixel_format import MAX_CHANNELS, RawImage
from pixelwise.errors import InputError, needs_package
from pixelwise.storage.mirror import present

Transform = tuple[float, float, float, float, float, float]

BLOCK_BYTES = 128 << 20
"""Largest strip or tile, which must be decoded at once."""
_SAMPLES = 256
"""Rows and columns of an alpha band that show whether it holds opacity."""
_DEGREE = 111_320.0
"""Meters of a degree of latitude."""


class Window(NamedTuple):
    """A part of a raster, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def corners(self) -> NDArray[np.float64]:
        """(4, 2) the corners (column, row)."""
        top, left, bottom, right = self.top, self.left, self.top + self.height, self.left
        right += self.width
        return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], float)


@dataclass(frozen=True)
class Raster:
    """What the header of a GeoTIFF says.

    Attributes:
        path: The file.
        size: (height, width).
        bands: Number of bands that hold data, without alpha.
        crs: The reference system as WKT; None if there is none.
        transform: (a, b, c, d, e, f): x = a * column + b * row + c, y = d * column + e * row + f;
            None if the pixels have no position.
        is_partial: Whether pixels may lack data: a nodata value, a mask or alpha.
        block: (height, width) of the strips or tiles, which are decoded as a whole.
        palette: (N, 3) color of each value; None if there is no palette.
    """

    path: Path
    size: tuple[int, int]
    bands: int
    crs: str | None
    transform: Transform | None
    is_partial: bool
    block: tuple[int, int]
    palette: tuple[tuple[int, int, int], ...] | None = None

    @classmethod
    def open(cls, path: Path, *, crs: str | None = None) -> Raster:
        """Read the header.

        Args:
            path: The file.
            crs: The reference system if the file has none, such as `EPSG:25832`.

        Raises:
            InputError: If the file is no readable GeoTIFF, or cannot be read in windows.
            MissingPackageError: If rasterio is not installed.
        """
        with open_tiff(path) as file:
            _check_blocks(path, file)
            own = choose_crs(path, None if file.crs is None else file.crs.to_wkt(), crs)
            transform = None if file.transform.is_identity else tuple(file.transform)[:6]
            if transform is None and file.gcps[0]:
                raise InputError(
                    f"{path}: is located by ground control points: resample it with "
                    f"`gdalwarp {path.name} OUT.tif`, and use that"
                )
            alpha = file.count > 1 and file.colorinterp[-1].name == "alpha"
            opaque = alpha and _holds_opacity(file)
            flags = file.mask_flag_enums[0]
            names = {flag.name for flag in flags}
            masked = "all_valid" not in names and (opaque or "alpha" not in names)
            return cls(
                path,
                (file.height, file.width),
                file.count - opaque,
                own,
                transform,
                masked,
                file.block_shapes[0],
                _palette(file),
            )

    @property
    def pixel_size(self) -> float | None:
        """Side of a pixel in meters at the middle of the raster; None without reference system."""
        if self.crs is None or self.transform is None:
            return None
        crs = parse_crs(self.crs, self.path)
        a, b, _, d, e, f = self.transform
        area = abs(a * e - b * d)
        if crs.is_projected:
            return float(np.sqrt(area) * crs.linear_units_factor[1])
        latitude = np.deg2rad(d * self.size[1] / 2 + e * self.size[0] / 2 + f)
        return float(np.sqrt(area * max(0.0, np.cos(latitude))) * _DEGREE)

    def read(self, window: Window, label: Path) -> RawImage:
        """Read a window with its stored values; `label` names it in errors."""
        with open_tiff(self.path) as file, read_errors(self.path):
            bands = [*range(1, self.bands + 1)]
            stored = file.read(bands, window=_as_rasterio(window))
            valid = self._valid(file, window) if self.is_partial else None
        pixels = np.ascontiguousarray(np.moveaxis(stored, 0, 2))
        if self.palette is not None:
            pixels = _colors(self.palette, pixels[..., 0])
        missing = None if valid is None or valid.all() else ~valid
        if missing is not None and pixels.dtype.kind == "f":
            pixels[missing] = 0  # NaN, for example
        return RawImage(check_finite(pixels, label), missing=missing)

    def valid(self, window: Window, *, samples: int | None = None) -> NDArray[np.bool_] | None:
        """Return which pixels of a window have data; None if all have.

        Args:
            window: The window.
            samples: Rows and columns of the result, of evenly spaced pixels; None for every pixel.
        """
        if not self.is_partial:
            return None
        with open_tiff(self.path) as file, read_errors(self.path):
            return self._valid(file, window, samples)

    def _valid(self, file: Any, window: Window, samples: int | None = None) -> NDArray[np.bool_]:
        shape = (
            None if samples is None else (min(samples, window.height), min(samples, window.width))
        )
        mask = file.dataset_mask(window=_as_rasterio(window), out_shape=shape)
        return np.asarray(mask > 0)

    def thumbnail(self, side: int) -> NDArray[np.uint8]:
        """Return a small 8-bit RGB version (H, W, 3) whose longer side is at most `side`."""
        height, width = (max(1, round(s * min(1, side / max(self.size)))) for s in self.size)
        with open_tiff(self.path) as file, read_errors(self.path):
            bands = [1, 2, 3] if self.bands >= 3 else [1]
            stored = file.read(bands, out_shape=(len(bands), height, width))
        if self.palette is not None:
            return _colors(self.palette, stored[0])
        if stored.dtype != np.uint8:
            values = np.nan_to_num(stored.astype(np.float32), posinf=0, neginf=0)
            low, high = np.percentile(values, (2, 98))
            stored = (255 * (values - low) / max(high - low, 1e-9)).clip(0, 255).astype(np.uint8)
        return np.ascontiguousarray(np.moveaxis(np.broadcast_to(stored, (3, height, width)), 0, 2))

    def to_pixels(self, points: NDArray[np.float64], crs: str | None) -> NDArray[np.float64]:
        """Convert (N, 2) points x, y of a reference system to (column, row); inf if impossible."""
        assert self.transform is not None
        if crs is not None and self.crs is not None and crs != self.crs:
            points = reproject(points, crs, self.crs)
        a, b, c, d, e, f = self.transform
        x, y = points[:, 0] - c, points[:, 1] - f
        scale = a * e - b * d
        with np.errstate(invalid="ignore"):
            pixels = np.stack([(e * x - b * y) / scale, (a * y - d * x) / scale], axis=1)
        pixels[~np.isfinite(pixels).all(axis=1)] = np.inf
        return pixels

    def to_ground(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert (N, 2) points (column, row) to x, y of the reference system."""
        assert self.transform is not None
        a, b, c, d, e, f = self.transform
        columns, rows = pixels[:, 0], pixels[:, 1]
        return np.stack([a * columns + b * rows + c, d * columns + e * rows + f], axis=1)

    def outline(self, steps: int = 32) -> NDArray[np.float64]:
        """(4 * steps, 2) points (column, row) along the border."""
        height, width = self.size
        corners = Window(0, 0, height, width).corners()
        along = np.linspace(0, 1, steps, endpoint=False)[:, None]
        following = np.roll(corners, -1, axis=0)
        return np.concatenate(
            [start + along * (end - start) for start, end in zip(corners, following, strict=True)]
        )


@contextmanager
def open_tiff(path: Path) -> Iterator[Any]:
    """Open a TIFF file with rasterio."""
    rasterio = require("rasterio")
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path}: {what}: correct the path in data.toml")
    # GDAL's own threads do not survive the fork of a loading process, which would wait for them.
    with present(path), warnings_silenced, rasterio.Env(GDAL_NUM_THREADS="1"):
        try:
            file = rasterio.open(path, driver="GTiff")
        except rasterio.errors.RasterioError as error:
            raise InputError(
                f"{path}: is not a GeoTIFF, or is damaged ({_one_line(error)}): convert it with "
                f"`gdal_translate -co TILED=YES {path.name} OUT.tif`, or restore it"
            ) from error
        with file:
            yield file


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn errors of rasterio while it reads into one line."""
    try:
        yield
    except _gdal_errors() as error:
        raise InputError(
            f"{path}: cannot be read, or not in the reference system that is needed "
            f"({_one_line(error)}): restore the file"
        ) from error


def _gdal_errors() -> tuple[type[Exception], ...]:
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import CRSError, RasterioError

    return CPLE_BaseError, CRSError, RasterioError


def require(name: str) -> Any:
    """Import a package of the extra `geo`. Raises MissingPackageError if it is not installed."""
    package = name.partition(".")[0]
    with needs_package(
        f"rasters need {package}, which is not installed: pip install 'pixelwise[geo]'"
    ):
        return import_module(name)


def parse_crs(text: str, origin: Path) -> Any:
    """Parse a reference system. Raises InputError, with the file `origin`, if it is unknown."""
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        return CRS.from_user_input(text)
    except CRSError as error:
        raise InputError(
            f"{origin}: the reference system {text!r} is not known: write a code such as "
            '"EPSG:25832"'
        ) from error


def choose_crs(path: Path, own: str | None, stated: str | None) -> str | None:
    """Return the reference system of a file as WKT: its own, or what data.toml states.

    Raises:
        InputError: If the two differ, or one is unknown.
    """
    if stated is None:
        return None if own is None else str(parse_crs(own, path).to_wkt())
    chosen = parse_crs(stated, path)
    if own is not None and parse_crs(own, path) != chosen:
        raise InputError(
            f"{path}: has the reference system {crs_name(own)}, but {stated} is stated for it: "
            "remove `crs`"
        )
    return str(chosen.to_wkt())


class Located(Protocol):
    """A raster or a file of polygons."""

    @property
    def path(self) -> Path: ...

    @property
    def crs(self) -> str | None: ...


def check_both_have_crs(first: Located, second: Located) -> None:
    """Raise InputError if only one of two files has a reference system."""
    if (first.crs is None) != (second.crs is None):
        without, other = (first, second) if first.crs is None else (second, first)
        raise InputError(
            f"{without.path}: has no reference system, but {other.path.name} has "
            f'{crs_name(other.crs)}: state it in data.toml, such as crs = "EPSG:25832"'
        )


def crs_name(crs: str | None) -> str:
    """A short name of a reference system for messages."""
    if crs is None:
        return "none"
    parsed = parse_crs(crs, Path())
    code = parsed.to_epsg()
    return f"EPSG:{code}" if code else crs.split('"')[1] if '"' in crs else crs


def reproject(points: NDArray[np.float64], source: str, target: str) -> NDArray[np.float64]:
    """Convert (N, 2) points x, y between reference systems; inf where that is impossible."""
    from rasterio.warp import transform

    if not len(points):
        return points
    try:
        x, y = transform(source, target, points[:, 0], points[:, 1])
    except _gdal_errors():  # a local system, for example, has no place on the earth
        return np.full_like(points, np.inf)
    return np.stack([np.asarray(x), np.asarray(y)], axis=1)


def _as_rasterio(window: Window) -> Any:
    from rasterio.windows import Window as RasterioWindow

    return RasterioWindow(window.left, window.top, window.width, window.height)


def _check_blocks(path: Path, file: Any) -> None:
    """Refuse what cannot be read in windows, or is no image."""
    if file.count > MAX_CHANNELS:
        raise InputError(f"{path}: has {file.count} bands: up to {MAX_CHANNELS} are supported")
    if len(set(file.dtypes)) > 1 or file.dtypes[0].startswith("complex"):
        raise InputError(
            f"{path}: has bands of the types {', '.join(dict.fromkeys(file.dtypes))}: save all "
            "bands as one real type, for example with `gdal_translate -ot Float32`"
        )
    rows, columns = file.block_shapes[0]
    per_pixel = np.dtype(file.dtypes[0]).itemsize
    per_pixel *= file.count if file.interleaving and file.interleaving.name == "pixel" else 1
    if rows * columns * per_pixel > BLOCK_BYTES:
        raise InputError(
            f"{path}: is stored in blocks of {columns}x{rows} pixels, which must be decoded at "
            f"once: rewrite it with `gdal_translate -co TILED=YES -co BIGTIFF=YES {path.name} "
            "OUT.tif`"
        )


def _holds_opacity(file: Any) -> bool:
    """Whether the last band, which is labeled alpha, is opaque or transparent nearly everywhere.

    Programs declare a fourth channel as alpha, whatever it contains.
    """
    shape = (min(_SAMPLES, file.height), min(_SAMPLES, file.width))
    alpha = file.read(file.count, out_shape=shape)
    top = np.iinfo(alpha.dtype).max if alpha.dtype.kind == "u" else alpha.max()
    return bool(np.mean((alpha == 0) | (alpha == top)) >= OPAQUE)


def _palette(file: Any) -> tuple[tuple[int, int, int], ...] | None:
    if file.colorinterp[0].name != "palette":
        return None
    table = file.colormap(1)
    return tuple(table.get(value, (0, 0, 0))[:3] for value in range(max(table) + 1))


def _colors(palette: tuple[tuple[int, int, int], ...], values: NDArray[Any]) -> NDArray[np.uint8]:
    table = np.zeros((max(len(palette), int(values.max(initial=0)) + 1), 3), dtype=np.uint8)
    table[: len(palette)] = palette
    return np.asarray(table[values])


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
