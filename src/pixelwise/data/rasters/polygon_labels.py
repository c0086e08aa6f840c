"""Polygons of GeoJSON, GeoPackage and shapefiles as labels of a raster's pixels.

A pixel belongs to a polygon if its center is inside. Where polygons overlap, the later one wins: in
the order of the file, and of the files in data.toml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import listed, normalize_name
from pixelwise.data.image_decoding import warnings_hidden
from pixelwise.data.rasters.raster_file import (
    Raster,
    Window,
    check_both_have_crs,
    choose_crs,
    reproject,
    require,
)
from pixelwise.errors import InputError

VECTOR_SUFFIXES = frozenset({".geojson", ".json", ".gpkg", ".shp"})


@dataclass(frozen=True)
class VectorFile:
    """A layer of polygons and what gives their class.

    Attributes:
        path: The file.
        layer: Name of the layer; None if the file has only one.
        attribute: Name of the attribute with the class name; None if all have the class `name`.
        name: Class of all polygons, if there is no attribute.
        crs: Reference system of the file as WKT; None if it has none.
        bounds: (x0, y0, x1, y1) of all polygons.
        count: Number of polygons.
    """

    path: Path
    layer: str | None
    attribute: str | None
    name: str | None
    crs: str | None
    bounds: tuple[float, ...]
    count: int

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        layer: str | None = None,
        attribute: str | None = None,
        name: str | None = None,
        crs: str | None = None,
    ) -> VectorFile:
        """Read the description of a layer.

        Raises:
            InputError: If the file, layer or attribute does not exist, or the class is not clear.
        """
        layer = _find_layer(path, layer)
        info = _pyogrio(
            path, "read_info", layer=layer, force_total_bounds=True, force_feature_count=True
        )
        if not info["features"]:
            raise InputError(f"{path}: holds no polygons: draw some, or name another file or layer")
        own, fields = info["crs"], [str(name) for name in info["fields"]]
        if attribute is not None and attribute not in fields:
            raise InputError(
                f"{path}: has no attribute {attribute!r}: its attributes are "
                f"{', '.join(fields) or 'none'}"
            )
        if attribute is not None and name is not None:
            raise InputError(
                f"{path}: attribute and class are stated in data.toml, and each gives the class: "
                "keep one of them"
            )
        if attribute is None and name is None:
            known = f" (attributes: {', '.join(fields)})" if fields else ""
            raise InputError(
                f"{path}: it is not stated what gives the class of a polygon{known}: write "
                f'{{ path = "{path.name}", attribute = "NAME" }} in data.toml, or class = "NAME" '
                "if all have one class"
            )
        own = choose_crs(path, own, crs)
        bounds = tuple(float(value) for value in info["total_bounds"] or ())
        return cls(path, layer, attribute, name, own, bounds, int(info["features"]))

    def class_names(self) -> list[str]:
        """The classes of the polygons, sorted; numbers by their value.

        Raises:
            InputError: If a polygon has no class.
        """
        if self.attribute is None:
            return [normalize_name(str(self.name))]
        _, fids, _, values = _pyogrio(
            self.path,
            "read",
            layer=self.layer,
            columns=[self.attribute],
            read_geometry=False,
            return_fids=True,
        )
        names = [_as_name(value) for value in values[0]]
        empty = [int(fid) for fid, name in zip(fids, names, strict=True) if not name]
        if empty:
            raise InputError(
                f"{self.path}: polygons have no value in the attribute {self.attribute!r} "
                f"({len(empty)} of {len(names)}, feature {listed(empty, most=3)}): give each a "
                "class, or remove them"
            )
        numbers = all(name.isdecimal() for name in names)
        return sorted(set(names), key=int if numbers else None)

    def read(
        self, raster: Raster, values: Mapping[str, int]
    ) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.uint16]]:
        """Read the polygons that touch a raster.

        Args:
            raster: The raster.
            values: Value of each class name.

        Returns:
            (N,) polygons in pixels of the raster, valid; (N,) the number of each in the file, and
            its value.

        Raises:
            InputError: If geometries are no polygons, or the file and the raster cannot be aligned.
        """
        import shapely

        self.check_alignment(raster)
        columns = [] if self.attribute is None else [self.attribute]
        bounds = self._bounds_of(raster)
        _, fids, stored, fields = _pyogrio(
            self.path,
            "read",
            layer=self.layer,
            columns=columns,
            return_fids=True,
            force_2d=True,
            bbox=bounds,
        )
        try:
            shapes = shapely.from_wkb(stored)
        except shapely.errors.GEOSException as error:
            raise InputError(
                f"{self.path}: has geometries that cannot be read ({error}): export it again"
            ) from error
        self._check_types(shapes, fids)
        if self.attribute is None:
            burned = np.full(len(shapes), values[normalize_name(str(self.name))], np.uint16)
        else:
            burned = np.array([values[_as_name(value)] for value in fields[0]], np.uint16)
        shapes = _valid(shapes)
        if bounds is not None:  # far corners may have no place in the raster's reference system
            shapes = shapely.clip_by_rect(shapes, *bounds)
        moved = shapely.transform(shapes, lambda points: raster.to_pixels(points, self.crs))
        extent = shapely.bounds(moved)  # nan for empty ones
        (height, width), keep = raster.size, np.isfinite(extent).all(axis=1)
        keep &= (extent[:, 0] < width) & (extent[:, 2] > 0)
        keep &= (extent[:, 1] < height) & (extent[:, 3] > 0)
        return _valid(moved[keep]), fids[keep], burned[keep]

    def check_alignment(self, raster: Raster) -> None:
        """Raise InputError if the polygons cannot be placed on the raster."""
        if raster.transform is None:
            raise InputError(
                f"{raster.path}: its pixels have no position, so that the polygons of "
                f"{self.path.name} cannot be placed: use the original GeoTIFF, or assign one with "
                "`gdal_edit.py -a_ullr X0 Y0 X1 Y1 -a_srs EPSG:CODE`"
            )
        check_both_have_crs(raster, self)

    def _bounds_of(self, raster: Raster) -> tuple[float, ...] | None:
        """The bounds of a raster in the reference system of the file; None if it has none there."""
        ground = raster.to_ground(raster.outline())
        if self.crs is not None and raster.crs is not None and self.crs != raster.crs:
            ground = reproject(ground, raster.crs, self.crs)
        if not np.isfinite(ground).all() or np.ptp(ground[:, 0]) > 180 >= np.abs(ground).max():
            return None  # across the antimeridian, for example
        low, high = ground.min(axis=0), ground.max(axis=0)
        # Polygons are clipped there: straight lines of one system are curved in another.
        margin = 0.1 * float(np.max(high - low))
        return (*(low - margin).tolist(), *(high + margin).tolist())

    def _check_types(self, shapes: NDArray[Any], fids: NDArray[Any]) -> None:
        import shapely

        kinds = shapely.get_type_id(shapes)  # -1 without a geometry
        wrong = ~np.isin(kinds, (-1, 3, 6)) & ~shapely.is_empty(shapes)
        if wrong.any():
            kind = shapes[wrong][0]
            raise InputError(
                f"{self.path}: holds geometries that are no polygons ({int(wrong.sum())}, such as "
                f"{kind.geom_type.lower()} {int(fids[wrong][0])}): draw polygons, for example with "
                "a buffer around them"
            )


@dataclass(frozen=True, eq=False)
class PolygonLabels:
    """Polygons in pixels of a raster, and the value of each; implements `Labels`.

    Attributes:
        polygons: (N,) shapely geometries.
        values: (N,) value of each.
        outside: Value outside of all polygons.
        area: Polygons outside of which nothing is labeled; None if everything is.
    """

    polygons: NDArray[Any]
    values: NDArray[np.uint16]
    outside: int = 0
    area: NDArray[Any] | None = None
    trees: list[Any] = field(init=False)

    def __post_init__(self) -> None:
        import shapely

        layers = [self.polygons] if self.area is None else [self.polygons, self.area]
        object.__setattr__(self, "trees", [shapely.STRtree(layer) for layer in layers])

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Return the values (H, W), and which pixels are labeled; None for all."""
        values = _burn(self.trees[0], self.values, window, self.outside)
        if self.area is None:
            return values, None
        return values, _burn(self.trees[1], np.ones(len(self.area), np.uint16), window, 0) > 0

    def covers(self, window: Window) -> bool:
        """Whether a window may have labeled pixels."""
        return self.area is None or len(_near(self.trees[1], window, -0.5)) > 0


def _valid(shapes: NDArray[Any]) -> NDArray[Any]:
    """Make polygons that cross themselves valid, by the even-odd rule."""
    import shapely

    with warnings_hidden():
        crossing = ~shapely.is_valid(shapes) & ~shapely.is_missing(shapes)
    shapes = shapes.copy()
    shapes[crossing] = shapely.make_valid(shapes[crossing])
    return shapes


def _near(tree: Any, window: Window, margin: float = 0) -> NDArray[np.int64]:
    """The polygons that touch a window with a margin on all sides, in their order."""
    import shapely

    top, left, height, width = window
    bottom, right = top + height, left + width
    box = shapely.box(left - margin, top - margin, right + margin, bottom + margin)
    return np.sort(tree.query(box, predicate="intersects"))


def _burn(
    tree: Any, values: NDArray[np.uint16], window: Window, outside: int
) -> NDArray[np.uint16]:
    """Draw polygons in their order; only their part near the window, which may be a small one."""
    import shapely
    from affine import Affine
    from rasterio import features

    top, left, height, width = window
    mask = np.full((height, width), outside, np.uint16)
    near = _near(tree, window)
    parts = shapely.clip_by_rect(
        tree.geometries[near], left - 2, top - 2, left + width + 2, top + height + 2
    )
    shapes = [
        (polygon, int(value))
        for part, value in zip(parts, values[near], strict=True)
        for polygon in shapely.get_parts(part)
        if polygon.geom_type == "Polygon" and not polygon.is_empty
    ]
    if shapes:
        with warnings_hidden():
            features.rasterize(shapes, out=mask, transform=Affine.translation(left, top))
    return mask


def _as_name(value: Any) -> str:
    """The class name that an attribute's value stands for; empty if it has no value."""
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return normalize_name(str(value))


def _find_layer(path: Path, layer: str | None) -> str | None:
    if not path.is_file():
        raise InputError(f"{path}: does not exist: correct the path in data.toml")
    layers = [str(name) for name in _pyogrio(path, "list_layers")[:, 0]]
    if layer is None and len(layers) > 1:
        raise InputError(
            f"{path}: has the layers {', '.join(layers)}: state the one with the labels in "
            f'data.toml, such as layer = "{layers[0]}"'
        )
    if layer is not None and layer not in layers:
        raise InputError(f"{path}: has no layer {layer!r}: its layers are {', '.join(layers)}")
    return layer


def _pyogrio(path: Path, function: str, **options: Any) -> Any:
    """Call a function of pyogrio; its errors become one line."""
    pyogrio = require("pyogrio.raw" if function == "read" else "pyogrio")
    require("shapely")
    from pyogrio.errors import DataLayerError, DataSourceError, FieldError, GeometryError

    try:
        return getattr(pyogrio, function)(path, **options)
    except (DataLayerError, DataSourceError, FieldError, GeometryError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({' '.join(str(error).split())}): restore the file, or export "
            "it again as GeoPackage"
        ) from error
