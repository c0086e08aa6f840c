"""GeoJSON: one NAME.geojson with the outlines of an image, as `predict --to geojson` writes them.

Coordinates are in the reference system of a georeferenced image, or in pixels from the upper left
corner. The member `image` names the image relative to the file. GIS software may drop it with
`classes`, the names of all classes: then the image is the one with the name of the file, and the
classes are those in use.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data import json_yaml
from pixelwise.data.classes import normalize_name
from pixelwise.data.file_resolver import Claims, FileResolver
from pixelwise.data.folder_listing import list_files, walk_files
from pixelwise.data.image_decoding import warnings_silenced
from pixelwise.data.image_files import IMAGE_SUFFIXES
from pixelwise.data.layouts.error_handling import collect_errors, error_context
from pixelwise.data.layouts.folder_names import folders_in
from pixelwise.data.layouts.folder_pairs import IMAGE_FOLDERS
from pixelwise.data.layouts.layout_classes import classes_above_background
from pixelwise.data.layouts.pairing import sample_name
from pixelwise.data.polygons import EvenOdd, Region, RegionMask, as_ring
from pixelwise.data.source import Sample, Source
from pixelwise.errors import InputError, raise_problems
from pixelwise.overwriting import RESULT_NOTE

DESCRIPTION = "GeoJSON: NAME.geojson with polygons that have a `class`, and the images"

_SUFFIX = frozenset({".geojson"})
_TAIL = 300
"""Bytes at the end of a file in which prediction marks its results."""
_WGS84 = "EPSG:4326"
"""The reference system of files that name none (RFC 7946)."""

_ToPixels = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def detect(root: Path) -> bool:
    return any("features" in json_yaml.top_keys(path) for path in list_files(root, _SUFFIX)[:6])


def read(root: Path) -> Source:
    contents = {path: json_yaml.read_json(path) for path in list_files(root, _SUFFIX)}
    problems: list[str] = []
    features: dict[Path, list[tuple[str, Any]]] = {}
    for path, content in contents.items():
        with collect_errors(problems):
            features[path] = _features(path, content)
    raise_problems(problems)
    used = {name for each in features.values() for name, _ in each}
    names = list(dict.fromkeys(name for c in contents.values() for name in _stated_classes(c)))
    names += sorted(used - {*names})
    classes, value_of = classes_above_background(next(iter(contents)), names)
    images = FileResolver(root, (p for p in walk_files(root, IMAGE_SUFFIXES) if not _is_result(p)))
    claims = Claims()
    samples = []
    for path, each in features.items():
        with collect_errors(problems), error_context(path):
            image = _find_image(images, path, contents[path].get("image"))
            claims.add(image, str(path))
            to_pixels = _to_pixels(image, contents[path].get("crs"))
            regions = [region for n, f in each for region in _regions(f, value_of[n], to_pixels)]
            mask = RegionMask(path, image.name, tuple(regions))
            named = image if image.is_relative_to(root) else path
            samples.append(Sample(sample_name(root, named), image, mask))
    raise_problems(problems)
    notes = [f"GeoJSON: {len(classes)} classes; later polygons are on top of earlier ones"]
    empty = sum(not each for each in features.values())
    if empty:
        notes.append(f"files without polygons (all background): {empty}")
    return Source(root, "geojson", {"all": samples}, classes, False, notes)


def _features(path: Path, content: Any) -> list[tuple[str, Any]]:
    """The name of the class and the geometry of each feature."""
    found = []
    for number, feature in enumerate(json_yaml.field(path, content, "features", list, "the file")):
        what = f"feature {number}"
        properties = json_yaml.field(path, feature, "properties", dict, what)
        name = normalize_name(json_yaml.field(path, properties, "class", str, what))
        if not name:
            raise InputError(f"{path}: {what} has an empty class: give it the name of a class")
        found.append((name, json_yaml.field(path, feature, "geometry", dict, what)))
    return found


def _stated_classes(content: Any) -> list[str]:
    stated = content.get("classes")
    texts = [name for name in stated if isinstance(name, str)] if isinstance(stated, list) else []
    return [name for name in map(normalize_name, texts) if name]


def _find_image(images: FileResolver, path: Path, reference: Any) -> Path:
    folders = folders_in(images.root)
    near = [path.parent], [folders[name] for name in IMAGE_FOLDERS if name in folders]
    found = images.candidates(reference, *near) if isinstance(reference, str) else []
    if len(found) == 1:
        images.check_namesake(path, found[0])
    name = reference if found else path.stem
    found = found or images.candidates(name, *near[::-1])
    if len(found) > 1:
        raise InputError(images.ambiguous(str(name), found))
    if not found:
        raise InputError(f"its image {reference or path.stem!r} does not exist: put it beside it")
    return found[0]


def _is_result(path: Path) -> bool:
    """Whether prediction wrote a file: its masks lie beside the outlines, with the same names."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - _TAIL))
        return RESULT_NOTE in stream.read()


def _to_pixels(image: Path, crs: Any) -> _ToPixels:
    """Return what turns the coordinates of a file into pixels of its image."""
    properties = crs.get("properties") if isinstance(crs, dict) else None
    name = properties.get("name") if isinstance(properties, dict) else None
    name = _WGS84 if name is None or str(name).endswith(":CRS84") else str(name)
    try:
        import rasterio
        from rasterio.errors import CRSError, RasterioError
    except ImportError:
        if name == _WGS84:
            return lambda points: points
        raise InputError(
            "reading coordinates on the ground needs rasterio, which is not installed: "
            "pip install 'pixelwise[geo]'"
        ) from None
    try:
        with warnings_silenced, rasterio.open(image) as file:
            own, transform = file.crs, file.transform
        given = rasterio.crs.CRS.from_user_input(name)
    except (RasterioError, CRSError):
        own, given = None, None
    if own is None or transform.is_identity:
        if name != _WGS84:
            raise InputError(f"is in {name}, but {image} has no georeference: use the original")
        return lambda points: points
    if given is None or (given != own and given.to_epsg() != own.to_epsg()):
        raise InputError(f"is in {name}, but {image} in {own}: save it in that reference system")
    a, b, c, d, e, f = tuple(~transform)[:6]
    return lambda points: points @ [[a, d], [b, e]] + (c, f)


def _regions(geometry: Any, value: int, to_pixels: _ToPixels) -> list[Region]:
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind not in ("Polygon", "MultiPolygon"):
        raise InputError(f"a feature is a {kind!r}: draw polygons, or remove it")
    polygons = [coordinates] if kind == "Polygon" else coordinates
    try:
        flat = [[[x for point in ring for x in point[:2]] for ring in each] for each in polygons]
        rings = [[as_ring(numbers) for numbers in each] for each in flat]
    except (TypeError, ValueError, LookupError) as error:
        raise InputError("a polygon has no valid coordinates: draw it again") from error
    return [EvenOdd(value, tuple(map(to_pixels, polygon))) for polygon in rings]
