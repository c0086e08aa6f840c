"""Predicting images larger than memory: from TIFF to TIFF, one tile in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE, Classes
from pixelwise.data.dataset_scan import ProgressCallback
from pixelwise.errors import InputError
from pixelwise.file_io import atomic
from pixelwise.inference.answer_options import GEOJSON, AnswerOptions
from pixelwise.inference.batch.folder_journal import Journal
from pixelwise.inference.batch.image_work import file_stamp, find_place, make_answer
from pixelwise.inference.batch.mask_tiff import write_mask_tiff
from pixelwise.inference.batch.predict_folder import (
    FolderResult,
    Images,
    answer_settings,
    disk_error,
    finish_table,
    make_journal,
    stopped,
    summarize,
)
from pixelwise.inference.batch.tiff_source import TiffSource
from pixelwise.inference.batch.tile_progress_file import TileProgressFile
from pixelwise.inference.output_names import find_images, output_names
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.results import label_map
from pixelwise.inference.tables import check_replaced
from pixelwise.inference.tiling.tile_grid import Block
from pixelwise.inference.tiling.tiled_model import NONE, TiledModel
from pixelwise.interrupts import Interrupts
from pixelwise.regions.file_polygons import trace_mask_file
from pixelwise.regions.polygons import write_polygons
from pixelwise.regions.streamed_areas import StreamedAreas

MEMORY = 9 << 27
"""Bytes that one pass may take, 1.1 GiB: with PyTorch, the tiles of the image, the logits of two
tiles and the rows of the mask, the process stays below 2 GiB."""

Watch = Callable[[Path, tuple[int, int]], AbstractContextManager[ProgressCallback]]


def _no_watch(path: Path, size: tuple[int, int]) -> AbstractContextManager[ProgressCallback]:
    return nullcontext(lambda done, total: None)


def predict_large_images(
    predictor: Predictor,
    images: Images,
    out: str | Path = "predictions",
    *,
    answers: AnswerOptions | None = None,
    overwrite: bool = False,
    watch: Watch = _no_watch,
) -> FolderResult:
    """Write the mask of each TIFF file as NAME.tif: see `predict_large_image`.

    A call that was interrupted, killed or ran out of disk space is resumed by the same call: it
    skips finished images, and continues an unfinished one after the last finished row of tiles.
    Files under their final names are always complete.

    Args:
        predictor: Predicts the masks, without a CRF or TTA.
        images: A folder, a file, or several of these.
        out: The folder for the masks.
        answers: A table of areas and polygons, without confidences; nothing else is possible in
            tiles.
        overwrite: Predict all images again instead of resuming, and replace files that prediction
            did not write.
        watch: Called with an image and its size (height, width), and entered while that image is
            predicted. It yields a function that is called with the number of finished tiles and
            the number of all tiles.

    Raises:
        InputError: If no image can be predicted, two results have the same name, a result would
            replace a file that prediction did not write, `out` cannot be used, or an option needs
            the full image.
        PredictionError: If the disk is full.
        StoppedError: After Ctrl-C or SIGTERM.
    """
    options = answers or AnswerOptions()
    _check_options(predictor)
    _check_answers(options, overwrite=overwrite)
    paths, out = find_images(images), Path(out)
    names = _result_names(paths, out, options)
    settings = answer_settings(predictor, options)
    journal = make_journal(predictor, out, overwrite=overwrite, large=True, **settings)
    failed: list[InputError] = []
    written = 0

    def predict(path: Path) -> None:
        stamp = file_stamp(path)
        with TiffSource.open(path, predictor.pixels, predictor.options.value_range) as image:
            key = json.dumps([journal.header, str(path.resolve()), stamp.size, stamp.modified])
            side = journal.reserve()
            with (
                watch(path, image.size) as progress,
                TileProgressFile(journal.tile_progress, key) as tile_progress,
            ):

                def report(done: int, total: int) -> None:
                    progress(done, total)
                    if interrupts.requested is not None and done < total:
                        state = f"{path}: stopped with {done} of {total} tiles done"
                        raise stopped(state, interrupts, overwrite=overwrite)

                areas = None if options.table is None else StreamedAreas(predictor.classes)
                try:
                    _write_mask(predictor, image, side, report, tile_progress, areas)
                except InputError:
                    side.unlink(missing_ok=True)  # the other images may need the room
                    raise
                journal.seal(side)
                outlines = _outline(predictor, path, side, options, journal)
                staged = dict(zip(names[path], [side, *outlines], strict=True))
                journal.add(path, stamp, staged, _answer(areas, path, options))
                journal.commit()

    try:
        with journal, Interrupts() as interrupts:
            kept = journal.begin(names)
            for path in [path for path in paths if path not in kept]:
                if interrupts.requested is not None:
                    done = len(kept) + written
                    state = f"{out}: stopped with {done} of {len(paths)} images finished"
                    raise stopped(state, interrupts, overwrite=overwrite)
                try:
                    predict(path)
                except InputError as fault:
                    failed.append(fault)
                else:
                    written += 1
            rows = finish_table(journal, paths, options, settings, overwrite=overwrite)
            journal.finish()
    except OSError as error:
        raise disk_error(out, error, overwrite=overwrite) from error
    result = summarize(journal, written=written, kept=len(kept), failed=failed)
    return replace(result, rows=rows)


def predict_large_image(
    predictor: Predictor, path: Path, out: Path, *, progress: ProgressCallback | None = None
) -> None:
    """Write the mask of a TIFF file of any size as a tiled palette TIFF, atomically.

    The mask has the values of the training masks and the image's georeference. Pixels without data,
    according to the image's nodata value or its alpha channel, get the ignore value, which is
    also the nodata value of the mask. Memory is bounded by one tile and some rows of the mask; an
    image stored in strips also needs a tile's rows of the image.

    Args:
        predictor: Predicts the mask, without a CRF or TTA.
        path: The image.
        out: The file of the mask.
        progress: Called with the number of finished tiles and the number of all tiles.

    Raises:
        InputError: If the image cannot be read in tiles, the mask cannot be written, or the
            predictor needs the full image, as a CRF and TTA do.
    """
    _check_options(predictor)
    with TiffSource.open(path, predictor.pixels, predictor.options.value_range) as image:
        _check_not_itself(out, path)
        with atomic(out) as side:
            _write_mask(predictor, image, side, progress)


def _write_mask(
    predictor: Predictor,
    image: TiffSource,
    path: Path,
    progress: ProgressCallback | None,
    tile_progress: TileProgressFile | None = None,
    areas: StreamedAreas | None = None,
) -> None:
    """Write the mask of an open image, resuming at `tile_progress`; an error leaves half of it.

    The rows of the mask are also added to `areas`.

    Raises InputError if the image is damaged, and OSError if a file cannot be written.
    """
    network = TiledModel(predictor.runtime, tile=predictor.options.tile, memory=MEMORY)
    classes = predictor.classes
    ignore = classes.file_ignore
    sparse = image.nodata is not None or image.alpha

    def masks() -> Iterator[tuple[Block, NDArray[np.uint8]]]:
        for block in network.blocks(image, progress=progress, tile_progress=tile_progress):
            mask = classes.to_value(label_map(block.scores))
            missing = image.missing(block.top, block.left, *mask.shape)
            if missing is not None:
                mask[missing] = ignore
            yield block, mask

    strips = _strips(masks(), width=image.size[1])
    if tile_progress is not None:
        strips = tile_progress.record(strips)
    write_mask_tiff(
        path,
        strips if areas is None else _measured(strips, areas, classes),
        size=image.size,
        palette=classes.palette(),
        nodata=ignore if sparse else None,
        georeference=image.georeference,
    )


def _measured(
    strips: Iterator[NDArray[np.uint8]], areas: StreamedAreas, classes: Classes
) -> Iterator[NDArray[np.uint8]]:
    """Yield strips of a mask and add them to `areas`."""
    index_of = np.full(256, IGNORE, np.uint8)
    index_of[list(classes.written_values)] = range(len(classes))
    for strip in strips:
        areas.add(index_of[strip])
        yield strip


def _result_names(
    paths: Sequence[Path], out: Path, options: AnswerOptions
) -> dict[Path, list[str]]:
    """The names of the mask of each image, and of its polygons if they are wanted."""
    names = {}
    for path, stem in zip(paths, output_names(paths, out), strict=True):
        names[path] = [f"{stem}{suffix}" for suffix in (".tif", *options.suffixes)]
        _check_not_itself(out / names[path][0], path)
    return names


def _outline(
    predictor: Predictor, path: Path, mask: Path, options: AnswerOptions, journal: Journal
) -> Iterator[Path]:
    """Write the polygons of a written mask under a temporary path, if they are wanted."""
    for suffix in options.suffixes:
        place = find_place(path, options)
        polygons = trace_mask_file(
            mask,
            predictor.classes,
            tolerance=options.tolerance,
            georeference=place.georeference,
            is_background=options.is_background,
        )
        side = journal.reserve(suffix)
        write_polygons(side, polygons, place.georeference)
        journal.seal(side)
        yield side


def _answer(
    areas: StreamedAreas | None, path: Path, options: AnswerOptions
) -> dict[str, Any] | None:
    if areas is None:
        return None
    found = areas.finish(find_place(path, options).pixel_area)
    return make_answer(found, options, flagged=None)


def _check_answers(options: AnswerOptions, *, overwrite: bool) -> None:
    """Raise InputError if an answer needs the full image, or cannot be written."""
    _refuse(
        (options.cleans, "--min-area or --fill-holes"),
        (options.to not in (None, GEOJSON), f"--to {options.to}"),
        (options.probabilities or options.confidence, "--probabilities or --confidence"),
    )
    if options.table is not None:
        check_replaced(options.table, overwrite=overwrite)


def _check_not_itself(out: Path, path: Path) -> None:
    """Raise InputError if the mask would replace its image."""
    if out.exists() and out.samefile(path):
        raise InputError(f"{out}: is the image itself: choose another --out")


def _check_options(predictor: Predictor) -> None:
    """Raise InputError if the predictor needs the full image."""
    _refuse(
        (predictor.crf is not None, "--crf"),
        (not predictor.tta.single, "--scales or --flip"),
        (predictor.options.tile == NONE, "--tile none"),
    )


def _refuse(*options: tuple[bool, str]) -> None:
    """Raise InputError for the first option that is given."""
    for given, option in options:
        if given:
            raise InputError(
                f"{option}: needs the full image in memory, which --large avoids: leave one of "
                "them out"
            )


def _strips(
    masks: Iterator[tuple[Block, NDArray[np.uint8]]], *, width: int
) -> Iterator[NDArray[np.uint8]]:
    """Join blocks that lie side by side to strips (rows, width)."""
    strip = np.empty((0, width), np.uint8)
    for block, mask in masks:
        if block.left == 0:
            strip = np.empty((len(mask), width), np.uint8)
        strip[:, block.left : block.left + mask.shape[1]] = mask
        if block.left + mask.shape[1] == width:
            yield strip
