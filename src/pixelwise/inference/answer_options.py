"""What prediction answers besides masks and overlays, and how masks are cleaned before."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil, isfinite
from pathlib import Path
from typing import Any

from pixelwise.data.classes import Classes
from pixelwise.data.layouts.annotation_writing import POLYGONS
from pixelwise.errors import InputError, needs_package
from pixelwise.inference.tables import check_table
from pixelwise.regions.annotations import WRITERS, shape_kind
from pixelwise.regions.components import require_ndimage
from pixelwise.regions.outlines import require_packages
from pixelwise.regions.polygons import BACKGROUND, background_index, check_packages

RASTER_TYPES = ("uint8", "float16")
GEOJSON = "geojson"
FORMATS = (*WRITERS, GEOJSON)
"""The formats of annotations."""
_AREA = re.compile(r"(\d+\.?\d*|\.\d+)\s*(m2|m²)?")


@dataclass(frozen=True)
class AnswerOptions:
    """The results of prediction besides masks and overlays, and the cleaning of all results.

    Args:
        table: File for a table of the areas of all classes in all images: .csv, .json or .parquet.
        to: "geojson": write NAME.geojson with the outline of each connected component. "labelme",
            "coco", "cvat", "label-studio" or "yolo": write the annotations of this tool in place
            of masks and overlays, as a dataset with copies of the images.
        geopackage: Write NAME.gpkg in place of NAME.geojson.
        shapes: "polygons" or "masks", in formats that have both; None for the format's own choice.
        tolerance: Largest distance in pixels between an outline and the border of its component.
        probabilities: Write NAME_probabilities.tif, with one band for each class.
        confidence: Write NAME_confidence.tif: the probability of the label of each pixel.
        raster_type: "uint8" (0..255 for 0..1) or "float16".
        min_area: Merge smaller components into their surroundings: a number of pixels, or of square
            meters as text such as "2.5m2".
        fill_holes: Fill components of the background that a single class encloses.
        background: Name of the class that is the background.
        pixel_size: Side of a pixel in meters; by default from the georeference of the image.

    Raises:
        InputError: If a value is not allowed, or options exclude each other.
        MissingPackageError: If a package that an option needs is not installed.
    """

    table: Path | None = None
    to: str | None = None
    tolerance: float = 1.0
    probabilities: bool = False
    confidence: bool = False
    raster_type: str = "uint8"
    min_area: float | str = 0
    fill_holes: bool = False
    background: str = BACKGROUND
    pixel_size: float | None = None
    geopackage: bool = False
    shapes: str | None = None

    def __post_init__(self) -> None:
        match = _AREA.fullmatch(str(self.min_area).strip())
        if match is None or not isfinite(float(match[1])):
            raise InputError(
                f"min area {self.min_area}: give a number of pixels, or of square meters such as "
                "2.5m2"
            )
        object.__setattr__(self, "min_area", match[1] + ("m2" if match[2] else ""))
        if self.to not in {None, *FORMATS}:
            raise InputError(f"to {self.to!r}: allowed are {', '.join(FORMATS)}")
        if not 0 <= self.tolerance < float("inf"):
            raise InputError(f"tolerance {self.tolerance}: give 0 or a number of pixels above 0")
        if self.raster_type not in RASTER_TYPES:
            allowed = " and ".join(RASTER_TYPES)
            raise InputError(f"raster type {self.raster_type!r}: allowed are {allowed}")
        if self.pixel_size is not None and not 0 < self.pixel_size < float("inf"):
            raise InputError(f"pixel size {self.pixel_size}: give a length in meters above 0")
        if self.table is not None:
            object.__setattr__(self, "table", Path(self.table))
            check_table(self.table)
        self._check_use()
        self._check_packages()

    def _check_use(self) -> None:
        """Raise InputError for an option without the one that it modifies."""
        rasters = self.probabilities or self.confidence
        if self.annotates and rasters:
            raise InputError(
                f"to {self.to}: the folder is a dataset, in which probabilities would be images: "
                "predict them into another folder"
            )
        outlines = self.to == GEOJSON or (self.annotates and self.shape_kind == POLYGONS)
        for given, text, used, by in (
            (self.geopackage, "geopackage", self.to == GEOJSON, f"to {GEOJSON}"),
            (self.shapes is not None, f"shapes {self.shapes}", self.annotates, "a labeling tool"),
            (self.tolerance != 1, f"tolerance {self.tolerance}", outlines, "polygons"),
            (self.raster_type != "uint8", f"raster type {self.raster_type}", rasters, "rasters"),
            (
                self.background != BACKGROUND,
                f"background {self.background!r}",
                self.to == GEOJSON or self.fill_holes,
                f"to {GEOJSON} or fill holes",
            ),
            (
                self.pixel_size is not None,
                f"pixel size {self.pixel_size}",
                self.table or self.in_square_meters,
                "a table or a min area in m2",
            ),
        ):
            if given and not used:
                raise InputError(f"{text}: has no effect without {by}: add it, or omit this")

    def _check_packages(self) -> None:
        if self.table is not None or self.cleans or self.to is not None:
            require_ndimage()
        if self.to == GEOJSON:
            check_packages()
        elif self.annotates and self.shape_kind == POLYGONS:
            require_packages()
        if self.probabilities or self.confidence:
            with needs_package(
                "rasters of probabilities need tifffile, which is not installed: "
                "pip install 'pixelwise[tiff]'"
            ):
                import tifffile  # noqa: F401

    @property
    def annotates(self) -> bool:
        """Whether the result is a dataset for a labeling tool, in place of masks."""
        return self.to in WRITERS

    @property
    def shape_kind(self) -> str:
        """The shapes of such a dataset; raises InputError if the format does not have them."""
        return shape_kind(str(self.to), self.shapes)

    @property
    def outlines(self) -> str | None:
        """The suffix of the files with outlines beside the masks; None for no such files."""
        if self.to != GEOJSON:
            return None
        return ".gpkg" if self.geopackage else ".geojson"

    @property
    def cleans(self) -> bool:
        """Whether the labels of the network are changed."""
        return self.fill_holes or self._area > 0

    @property
    def needs_probabilities(self) -> bool:
        """Whether the labels alone are not enough."""
        return bool(self.table or self.outlines or self.probabilities or self.confidence)

    @property
    def needs_place(self) -> bool:
        """Whether the georeference of images matters."""
        return bool(self.table or self.outlines or self.in_square_meters)

    @property
    def in_square_meters(self) -> bool:
        return self._area > 0 and str(self.min_area).endswith("m2")

    @property
    def _area(self) -> float:
        return float(str(self.min_area).removesuffix("m2"))

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What follows the base name in the names of the additional files of an image."""
        rasters = {"_probabilities.tif": self.probabilities, "_confidence.tif": self.confidence}
        chosen = [suffix for suffix, wanted in rasters.items() if wanted]
        return (*chosen, self.outlines) if self.outlines is not None else tuple(chosen)

    @property
    def description(self) -> str:
        """What was changed in the labels, as text for the files; "" for nothing."""
        holes = [f"fill_holes of {self.background}"] if self.fill_holes else []
        unit = "" if self.in_square_meters else " pixels"
        small = [f"min_area {self.min_area}{unit}"] if self._area > 0 else []
        return ", ".join([*holes, *small])

    def is_background(self, name: str) -> bool:
        """Whether a class is the background, which has no outlines."""
        return name == self.background or name.casefold() == self.background == BACKGROUND

    def check_classes(self, classes: Classes) -> None:
        """Raise InputError if holes are to be filled and the background is no class."""
        if self.fill_holes or self.background != BACKGROUND:
            background_index(classes, self.background)

    def min_pixels(self, pixel_area: float | None) -> int:
        """Return the smallest number of pixels of a component that stays.

        Args:
            pixel_area: Area of a pixel in square meters, if it is known.

        Raises:
            InputError: If it is needed and not known.
        """
        if not self.in_square_meters:
            return ceil(self._area)
        if pixel_area is None:
            raise InputError(
                f"min area {self.min_area}: the image has no georeference that tells the size of "
                "its pixels (reading it needs rasterio: pip install 'pixelwise[geo]'): give the "
                "area in pixels, or the pixel size"
            )
        return ceil(self._area / pixel_area)

    def to_json(self) -> dict[str, Any]:
        """Return everything that decides the results, as plain JSON; {} without any option."""
        values = vars(self) | {"table": self.table is not None}
        defaults = vars(AnswerOptions()) | {"table": False}
        return {name: value for name, value in values.items() if value != defaults[name]}
