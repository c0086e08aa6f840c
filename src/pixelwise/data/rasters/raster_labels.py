"""Labels that are a raster of class numbers, brought to the grid of the image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.rasters.raster_file import (
    Raster,
    Window,
    check_both_have_crs,
    open_tiff,
    read_errors,
)
from pixelwise.data.source import NO_DATA
from pixelwise.errors import InputError

SAMPLES = 64
"""Rows and columns of a window that show whether it has labels."""
_ANY_PROJECTED = "EPSG:3857"
"""Stands for the common reference system of two files that have none."""


@dataclass(frozen=True)
class RasterLabels:
    """A label raster; implements `Labels`. Pixels are sampled by nearest neighbor.

    Attributes:
        labels: The label raster.
        image: The raster whose grid is used.
    """

    labels: Raster
    image: Raster

    def check(self) -> None:
        """Raise InputError if the two rasters cannot be aligned."""
        labels, image = self.labels, self.image
        if labels.bands != 1:
            raise InputError(
                f"{labels.path}: has {labels.bands} bands: labels are one band with the number of "
                "the class: choose it with `gdal_translate -b BAND`, or convert colors with "
                "`rgb2pct.py`"
            )
        if self._same_grid:
            return
        if None in (labels.transform, image.transform):
            (height, width), (rows, columns) = image.size, labels.size
            without = labels if labels.transform is None else image
            raise InputError(
                f"{without.path}: its pixels have no position, and the labels {labels.path.name} "
                f"({columns}x{rows}) and the image {image.path.name} ({width}x{height}) differ in "
                "size: use files with a georeference"
            )
        check_both_have_crs(image, labels)

    @property
    def _same_grid(self) -> bool:
        """Whether pixels correspond by row and column."""
        labels, image = self.labels, self.image
        if labels.size != image.size:
            return False
        if labels.transform is None or image.transform is None:
            return True
        same = labels.crs == image.crs or None in (labels.crs, image.crs)
        return same and np.allclose(labels.transform, image.transform, rtol=1e-9, atol=1e-9)

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Return the values (H, W), and which pixels are labeled; None for all."""
        values, valid = self._read(window, None)
        path = self.labels.path
        if valid is not None:
            values = np.where(valid, values, 0)
        if values.dtype.kind == "f" and (values != np.rint(values)).any():
            raise InputError(f"{path}: holds fractions: labels are the numbers of the classes")
        low, high = values.min(initial=0), values.max(initial=0)
        if low < 0 or high >= NO_DATA:
            raise InputError(
                f"{path}: holds the value {low if low < 0 else high:g}: labels are 0 to "
                f"{NO_DATA - 1}: if it marks pixels without label, declare it with `gdal_edit.py "
                "-a_nodata`"
            )
        return values.astype(np.uint8 if high <= 255 else np.uint16), valid

    def covers(self, window: Window) -> bool:
        """Whether a window may have labeled pixels, judged by evenly spaced ones."""
        if self._same_grid and not self.labels.is_partial:
            return True
        valid = self._read(window, SAMPLES)[1]
        return valid is None or bool(valid.any())

    def _read(
        self, window: Window, samples: int | None
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        from rasterio.windows import Window as RasterioWindow

        area = RasterioWindow(window.left, window.top, window.width, window.height)
        shape = None
        if samples is not None:
            shape = (min(samples, window.height), min(samples, window.width))
        with open_tiff(self.labels.path) as file, read_errors(self.labels.path):
            if self._same_grid:
                values = file.read(1, window=area, out_shape=shape)
                valid = None
                if self.labels.is_partial:
                    valid = file.dataset_mask(window=area, out_shape=shape) > 0
            else:
                with self._warped(file) as warped:
                    values = warped.read(1, window=area, out_shape=shape)
                    valid = warped.read(warped.count, window=area, out_shape=shape) > 0
        return values, None if valid is None or valid.all() else valid

    @contextmanager
    def _warped(self, file: Any) -> Iterator[Any]:
        """The labels on the image's grid, with a last band that is 0 where there are none."""
        from affine import Affine
        from rasterio.enums import Resampling
        from rasterio.vrt import WarpedVRT

        assert self.image.transform is not None
        height, width = self.image.size
        with WarpedVRT(
            file,
            src_crs=self.labels.crs or _ANY_PROJECTED,
            crs=self.image.crs or _ANY_PROJECTED,
            transform=Affine(*self.image.transform),
            width=width,
            height=height,
            resampling=Resampling.nearest,
            add_alpha=True,
        ) as warped:
            yield warped
