"""Polygons of a mask that is larger than memory, traced from its file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import Classes
from pixelwise.data.image_decoding import warnings_silenced
from pixelwise.regions.georeference import Georeference
from pixelwise.regions.polygons import ClassPolygon


def trace_mask_file(
    path: Path,
    classes: Classes,
    *,
    tolerance: float,
    georeference: Georeference | None,
    is_background: Callable[[str], bool],
) -> list[ClassPolygon]:
    """Trace the outline of each connected component of a written mask.

    GDAL reads the mask line by line, so that memory grows with the polygons, not with the mask.

    Args:
        path: A TIFF file with the values of written masks.
        classes: The classes of these values.
        tolerance: Largest distance in pixels between an outline and the border of its component.
        georeference: Where the image lies; None for coordinates in pixels.
        is_background: Whether a class has no outlines.

    Returns:
        The polygons by class, without confidence; the same as `find_polygons` for a mask in memory.
    """
    import rasterio
    import rasterio.features
    import shapely
    import shapely.geometry

    names = dict(zip(classes.written_values, classes.names, strict=True))
    polygons: list[ClassPolygon] = []
    with warnings_silenced, rasterio.open(path, driver="GTiff") as file:
        a, b, c, d, e, f = tuple(~file.transform)[:6]

        def corners(points: NDArray[np.float64]) -> NDArray[np.float64]:
            """Points on the ground as the corners of pixels that they are."""
            x, y = points[:, 0], points[:, 1]
            pixels: NDArray[np.float64] = np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)
            return pixels.round()

        # The points of a band are on the ground, whatever transform is given.
        band = rasterio.band(file, 1)
        for geometry, value in rasterio.features.shapes(
            band, connectivity=4, transform=file.transform
        ):
            name = names.get(int(value))
            if name is None or is_background(name):
                continue
            outline = shapely.transform(shapely.geometry.shape(geometry), corners)
            pixels = round(outline.area)
            if tolerance:
                outline = outline.simplify(tolerance, preserve_topology=True)
            if georeference is not None:
                outline = shapely.transform(outline, georeference.to_ground)
            polygons.append(ClassPolygon(name, shapely.orient_polygons(outline), pixels))
    order = {name: number for number, name in enumerate(classes.names)}
    return sorted(polygons, key=lambda polygon: order[polygon.name])
