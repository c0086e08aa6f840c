"""What is done with each image of a run: read it, predict it, and stage every kind of result."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelwise.data.pixel_format import Pixels
from pixelwise.data.png_encoding import add_text
from pixelwise.errors import InputError
from pixelwise.inference.answer_options import AnswerOptions
from pixelwise.inference.batch.folder_journal import FileStamp, Journal
from pixelwise.inference.batch.rasters import write_raster
from pixelwise.inference.batch.tiff_source import georeference_tags
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.results import Prediction, Segmentation
from pixelwise.regions.areas import ClassArea
from pixelwise.regions.georeference import Georeference, read_georeference
from pixelwise.regions.polygons import write_polygons


@dataclass(frozen=True)
class Place:
    """Where an image lies, as far as that is known and matters."""

    georeference: Georeference | None = None
    pixel_area: float | None = None
    min_pixels: int = 0


@dataclass(frozen=True)
class Finished:
    """The staged results of an image by their final names, and its answer for the journal."""

    files: Mapping[str, Path]
    answer: dict[str, Any] | None


class ImageWork:
    """The steps of one image after another, some of them at the same time.

    Args:
        predictor: Predicts the masks.
        options: What is answered besides masks.
        journal: Where results are staged.
        files: The names of the results of each image: the mask, perhaps the overlay, and one for
            each of `options.suffixes`.
        overlay: Whether there are overlays.
    """

    def __init__(
        self,
        predictor: Predictor,
        options: AnswerOptions,
        journal: Journal,
        files: Mapping[Path, Sequence[str]],
        *,
        overlay: bool,
    ) -> None:
        self.predictor, self.options, self.journal = predictor, options, journal
        self.files, self.overlay = files, overlay
        self.stamps: dict[Path, FileStamp] = {}
        self._places: dict[Path, Place] = {}

    @property
    def concurrency(self) -> int:
        """The number of images that may be predicted at the same time."""
        return 1 if self.options.needs_probabilities else self.predictor.concurrency

    def read(self, path: Path) -> Pixels:
        """Read an image; raise InputError if that is impossible, or its area is not known."""
        self.stamps[path] = file_stamp(path)  # before reading, so that a change is noticed
        if self.options.needs_place:
            self._places[path] = find_place(path, self.options)
        return self.predictor.prepare(path)

    def finish(self, path: Path, result: Segmentation) -> Finished:
        """Clean a result and stage all of its files."""
        place = self._places.pop(path, Place())
        result = clean(result, self.options, place)
        images = encode(result, self.options, overlay=self.overlay)
        staged = [self.journal.stage(data) for data in images]
        staged += [self._stage(s, path, result, place) for s in self.options.suffixes]
        files = dict(zip(self.files[path], staged, strict=True))
        return Finished(files, find_answer(result, self.options, place))

    def _stage(self, suffix: str, path: Path, result: Segmentation, place: Place) -> Path:
        """Write one of `options.suffixes` under a temporary path."""
        assert isinstance(result, Prediction)
        side = self.journal.reserve(suffix)
        options = self.options
        if suffix == options.outlines:
            names = [name for name in result.classes.names if not options.is_background(name)]
            polygons = result.polygons(
                tolerance=options.tolerance, georeference=place.georeference, names=names
            )
            members = {"image": _relative(path, self.journal.out), "classes": names}
            write_polygons(
                side, polygons, place.georeference, description=options.description, members=members
            )
        else:
            is_confidence = suffix == "_confidence.tif"
            write_raster(
                side,
                result.confidence[None] if is_confidence else result.probabilities,
                bands=["confidence"] if is_confidence else result.classes.names,
                raster_type=options.raster_type,
                georeference=georeference_tags(path),
                description=options.description,
            )
        self.journal.seal(side)
        return side


def _relative(path: Path, folder: Path) -> str:
    """Return the path of an image relative to a folder, or else as it is."""
    with suppress(ValueError):  # they may be on two drives
        return Path(os.path.relpath(path, folder)).as_posix()
    return path.resolve().as_posix()


def predict_pixels(
    predictor: Predictor, options: AnswerOptions, pixels: Pixels, *, concurrently: bool
) -> Segmentation:
    """Predict an image, with the probabilities if they are needed."""
    if options.needs_probabilities:
        return predictor.predict_prepared(pixels)
    if concurrently:
        return predictor.segment_concurrently(pixels)
    return predictor.segment_prepared(pixels)


def work_size(predictor: Predictor, options: AnswerOptions, pixels: Pixels) -> int:
    """Return the number of bytes of an image with what is predicted for it."""
    values = 0
    if options.needs_probabilities:  # logits and probabilities
        values = 2 * pixels.shape[0] * pixels.shape[1] * len(predictor.classes)
    return int(pixels.nbytes + 4 * values)


def find_place(path: Path, options: AnswerOptions) -> Place:
    """Find where an image lies; raise InputError if the size of its pixels is needed and unknown.

    An image that only the georeference cannot be read from has none.
    """
    try:
        georeference = read_georeference(path)
    except InputError:
        georeference = None
    area = georeference.pixel_area if georeference is not None else None
    if options.pixel_size is not None:
        area = options.pixel_size**2
    try:
        return Place(georeference, area, options.min_pixels(area))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def clean(result: Segmentation, options: AnswerOptions, place: Place) -> Segmentation:
    """Return a result with the changes that the options ask for."""
    if not options.cleans:
        return result
    least = place.min_pixels or options.min_pixels(place.pixel_area)
    return result.clean(
        min_area=least, fill_holes=options.fill_holes, background=options.background
    )


def encode(result: Segmentation, options: AnswerOptions, *, overlay: bool) -> list[bytes]:
    """Return the mask, which says how it was cleaned, and on request the overlay, as PNG files."""
    mask, *others = result.encode(overlay=overlay)
    if options.description:
        mask = add_text(mask, "Description", options.description)
    return [mask, *others]


def find_answer(
    result: Segmentation, options: AnswerOptions, place: Place
) -> dict[str, Any] | None:
    """Return what the table and the report need to know about an image, as plain JSON."""
    if not isinstance(result, Prediction):
        return None
    areas = result.areas(pixel_area=place.pixel_area) if options.table is not None else []
    return make_answer(areas, options, flagged=result.flagged)


def make_answer(
    areas: Sequence[ClassArea], options: AnswerOptions, *, flagged: bool | None
) -> dict[str, Any]:
    """Return the rows of an image in the table, and whether it is flagged."""
    common: dict[str, Any] = {"flagged": flagged}
    if options.cleans:
        common["cleaned"] = options.description
    return {"rows": [area.to_json() | common for area in areas], "flagged": flagged}


def file_stamp(path: Path) -> FileStamp:
    """Return the stamp of an image; raise InputError if the file cannot be read."""
    try:
        return FileStamp.of(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}): check the path and its permissions"
        ) from error
