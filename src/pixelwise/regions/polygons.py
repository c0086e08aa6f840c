"""Polygons of the components of a mask, as GeoJSON or GeoPackage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import Classes
from pixelwise.data.image_decoding import warnings_silenced
from pixelwise.errors import InputError, needs_package
from pixelwise.regions.components import Labels, find_components
from pixelwise.regions.georeference import Georeference
from pixelwise.regions.outlines import missing, require_packages, trace_outlines

if TYPE_CHECKING:
    from shapely import Polygon

BACKGROUND = "background"
DRIVERS = {".geojson": "GeoJSON", ".gpkg": "GPKG"}


@dataclass(frozen=True)
class ClassPolygon:
    """The outline of one connected component.

    Attributes:
        name: Name of the class.
        outline: The outline with holes: (x, y) in pixels from the upper left corner of the image,
            or in the reference system of a georeferenced image.
        pixels: Number of pixels of the component.
        confidence: Mean probability (0..1) of the class over the component, or None.
    """

    name: str
    outline: Polygon
    pixels: int
    confidence: float | None = None


def background_index(classes: Classes, name: str) -> int:
    """Return the index of the background class; raise InputError if there is no such class."""
    for index, other in enumerate(classes.names):
        if other == name or other.casefold() == name == BACKGROUND:
            return index
    raise InputError(
        f"background {name!r}: is no class of the network: name one of "
        f"{', '.join(classes.names)} as the background"
    )


def find_polygons(
    labels: Labels,
    classes: Classes,
    *,
    confidence: NDArray[np.float32] | None = None,
    tolerance: float = 1.0,
    georeference: Georeference | None = None,
    names: Sequence[str] | None = None,
) -> list[ClassPolygon]:
    """Trace the outline of each connected component.

    Args:
        labels: (H, W) class indices and IGNORE.
        classes: The classes of the indices.
        confidence: (H, W) probability of the label of each pixel.
        tolerance: Largest distance in pixels between the outline and the border of the component;
            0 follows the edges of the pixels exactly.
        georeference: Where the image lies; None for coordinates in pixels.
        names: The classes to trace; None for all except `background`.

    Returns:
        The polygons, by class.

    Raises:
        InputError: If the tolerance is negative or a class does not exist.
        MissingPackageError: If rasterio or shapely is not installed.
    """
    if not 0 <= tolerance < float("inf"):
        raise InputError(f"tolerance {tolerance}: must be 0 or a number of pixels above 0")
    _, shapely = require_packages()
    components = find_components(labels)
    traced = np.isin(components.labels, _indices(classes, names))
    sums = None
    if confidence is not None:
        sums = np.bincount(components.ids.reshape(-1), weights=confidence.reshape(-1))
    polygons: list[ClassPolygon] = []
    outlines = trace_outlines(components.ids, traced, components.sizes, tolerance)
    for number, outline in sorted(outlines.items()):
        if georeference is not None:
            outline = shapely.transform(outline, georeference.to_ground)
        outline = shapely.orient_polygons(outline)  # as RFC 7946 requires: holes clockwise
        size = int(components.sizes[number])
        mean = None if sums is None else float(sums[number] / size)
        name = classes.names[components.labels[number]]
        polygons.append(ClassPolygon(name, outline, size, mean))
    return polygons


def write_polygons(
    path: Path,
    polygons: Sequence[ClassPolygon],
    georeference: Georeference | None = None,
    *,
    description: str = "",
    members: Mapping[str, Any] | None = None,
) -> None:
    """Write polygons with the fields `class`, `pixels` and `confidence`.

    Args:
        path: A .geojson or .gpkg file, which is replaced.
        polygons: The polygons.
        georeference: The reference system of the coordinates; None for pixels, x to the right and
            y downward.
        description: Text that the file keeps as the description of the polygons.
        members: Further members of a GeoJSON file.

    Raises:
        InputError: If the suffix is not supported.
        MissingPackageError: If pyogrio is not installed.
    """
    driver = DRIVERS.get(path.suffix.lower())
    if driver is None:
        raise InputError(f"{path}: the suffix must be {' or '.join(DRIVERS)}")
    with needs_package(missing("pyogrio")):
        from pyogrio.raw import write
    import shapely

    confidence = [np.nan if p.confidence is None else p.confidence for p in polygons]
    with warnings_silenced:  # one says that there is no reference system
        write(
            path,
            shapely.to_wkb(np.array([p.outline for p in polygons], dtype=object)),
            [
                np.array([p.name for p in polygons], dtype=object),
                np.array([p.pixels for p in polygons], dtype=np.int64),
                np.array(confidence, dtype=np.float64),
            ],
            ["class", "pixels", "confidence"],
            layer="polygons",
            driver=driver,
            geometry_type="Polygon",
            crs=None if georeference is None else georeference.crs,
            layer_options={"DESCRIPTION": description} if description else None,
        )
    if members and driver == "GeoJSON":
        content = path.read_bytes().rstrip().removesuffix(b"}").rstrip()
        added = json.dumps(dict(members), indent=0)[1:-1].encode()
        path.write_bytes(content + b"," + added + b"}\n")


def _indices(classes: Classes, names: Sequence[str] | None) -> list[int]:
    if names is None:
        return [i for i, name in enumerate(classes.names) if name.casefold() != BACKGROUND]
    unknown = [name for name in names if name not in classes.names]
    if unknown:
        raise InputError(
            f"class {unknown[0]!r}: is not a class of the network: choose from "
            f"{', '.join(classes.names)}"
        )
    return [classes.names.index(name) for name in names]


def check_packages() -> None:
    """Raise MissingPackageError if polygons cannot be found or written."""
    require_packages()
    with needs_package(missing("pyogrio")):
        import pyogrio  # noqa: F401
