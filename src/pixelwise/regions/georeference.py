"""Where the pixels of an image lie on the ground."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.image_decoding import warnings_silenced
from pixelwise.errors import InputError

_EQUAL_AREA = "EPSG:6933"  # areas in it are those on the WGS 84 ellipsoid
_MOST_DISTORTION = 0.02
"""A projection whose areas differ more than this from those on the ground, such as Web Mercator, is
not used to measure areas. UTM differs by less than 0.2 % within its zone."""


@dataclass(frozen=True)
class Georeference:
    """The reference system of an image and the position of its pixels.

    Attributes:
        crs: The reference system, as `EPSG:CODE` or WKT.
        transform: (a, b, c, d, e, f): x = a * column + b * row + c, y = d * column + e * row + f,
            from the upper left corner of the image.
        pixel_area: Area of a pixel in square meters; None if it is not known.
    """

    crs: str
    transform: tuple[float, float, float, float, float, float]
    pixel_area: float | None

    def to_ground(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert (N, 2) points (column, row) to coordinates in the reference system."""
        a, b, c, d, e, f = self.transform
        x, y = points[:, 0], points[:, 1]
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)


def read_georeference(path: Path) -> Georeference | None:
    """Read the georeference of an image file; None if it has none, or rasterio is not installed.

    Raises:
        InputError: If the file cannot be opened.
    """
    try:
        import rasterio
        from rasterio.errors import RasterioIOError
    except ImportError:
        return None
    with warnings_silenced:
        try:
            with rasterio.open(path) as image:
                if image.crs is None or image.transform.is_identity:
                    return None
                transform = tuple(image.transform)[:6]
                code = image.crs.to_epsg()
                crs = image.crs.to_wkt() if code is None else f"EPSG:{code}"
                area = _pixel_area(image.crs, transform, image.height, image.width)
        except RasterioIOError as error:
            raise InputError(f"{path}: cannot be read ({error}): check the file") from error
    return Georeference(crs, transform, area)


def _pixel_area(crs: Any, transform: tuple[float, ...], height: int, width: int) -> float | None:
    """The mean area of a pixel in square meters."""
    a, b, _, d, e, _ = transform
    true = _true_area(crs, transform, height, width)
    if not crs.is_projected:
        return true
    flat = float(abs(a * e - b * d) * crs.linear_units_factor[1] ** 2)
    return flat if true is None or abs(flat / true - 1) <= _MOST_DISTORTION else true


def _true_area(crs: Any, transform: tuple[float, ...], height: int, width: int) -> float | None:
    """The mean area of a pixel on the WGS 84 ellipsoid; None outside the range of `crs`."""
    from rasterio.errors import CRSError
    from rasterio.warp import transform as warp

    steps = np.linspace(0, 1, 33)
    ones = np.ones_like(steps)
    columns = np.concatenate([steps, ones, steps[::-1], 0 * ones]) * width
    rows = np.concatenate([0 * ones, steps, ones, steps[::-1]]) * height
    a, b, c, d, e, f = transform
    try:
        x, y = map(
            np.asarray,
            warp(crs, _EQUAL_AREA, a * columns + b * rows + c, d * columns + e * rows + f),
        )
    except CRSError:  # an engineering system, for example, has no place on the earth
        return None
    x, y = x - x.mean(), y - y.mean()
    area = abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2 / (height * width)
    return area if np.isfinite(area) and area > 0 else None
