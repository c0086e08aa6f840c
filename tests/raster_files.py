"""Small georeferenced rasters and polygons, for test_rasters.py and test_docs.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray

from pixelwise.data.image_decoding import warnings_silenced

UTM33 = "EPSG:32633"
ORIGIN = (400_000.0, 5_700_000.0)
PIXEL = 0.5
HEIGHT, WIDTH = 300, 400


def write_raster(
    path: Path,
    pixels: NDArray[Any],
    *,
    crs: str | None = UTM33,
    origin: tuple[float, float] = ORIGIN,
    pixel: float = PIXEL,
    mask: NDArray[np.bool_] | None = None,
    **options: Any,
) -> None:
    """Write (H, W) or (H, W, C) as a tiled GeoTIFF."""
    bands = np.atleast_3d(pixels)
    height, width, count = bands.shape
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"} | options
    if crs is not None or origin != (0, 0):
        options["transform"] = Affine(pixel, 0, origin[0], 0, -pixel, origin[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        warnings_silenced,
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=height,
            width=width,
            count=count,
            dtype=bands.dtype,
            crs=crs,
            **options,
        ) as file,
    ):
        file.write(np.moveaxis(bands, 2, 0))
        if mask is not None:
            file.write_mask(mask)


def noise(height: int = HEIGHT, width: int = WIDTH, dtype: Any = np.uint8) -> NDArray[Any]:
    top = np.iinfo(dtype).max // 2
    return np.random.default_rng(0).integers(1, top, (height, width, 3), dtype=dtype)


def square(row: float, column: float, side: float = 40) -> Any:
    """A square in pixels of the raster at ORIGIN, in UTM 33."""
    x, y = ORIGIN[0] + PIXEL * column, ORIGIN[1] - PIXEL * row
    return shapely.box(x, y - PIXEL * side, x + PIXEL * side, y)


def write_geojson(
    path: Path, features: list[tuple[Any, dict[str, Any]]], *, crs: str | None = UTM33
) -> None:
    code = (crs or "").partition(":")[2]
    content: dict[str, Any] = {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "properties": properties,
                "geometry": None if shape is None else shapely.geometry.mapping(shape),
            }
            for shape, properties in features
        ],
    }
    if crs is not None:
        content["crs"] = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{code}"}}
    path.write_text(json.dumps(content))


def write_flight(folder: Path) -> None:
    """Write the dataset of docs/rasters.md: two rasters with fields that can be seen."""
    rng = np.random.default_rng(0)
    features: list[tuple[Any, dict[str, Any]]] = []
    for index, name in enumerate(("north", "south")):
        pixels = noise(320, 320) // 4
        for number in range(30):
            row, column = (int(place) for place in rng.integers(0, 280, 2))
            pixels[row : row + 40, column : column + 40, number % 3] = 220
            shape = square(row + 320 * index, column, 40)
            features.append((shape, {"crop": ("barley", "maize", "wheat")[number % 3]}))
        origin = (ORIGIN[0], ORIGIN[1] - 320 * PIXEL * index)
        write_raster(folder / f"{name}.tif", pixels, origin=origin)
    write_geojson(folder / "fields.geojson", features)
    info, _, shapes, fields = pyogrio.raw.read(folder / "fields.geojson")
    pyogrio.raw.write(
        folder / "fields.gpkg", shapes, fields, info["fields"], crs=UTM33, geometry_type="Polygon"
    )
