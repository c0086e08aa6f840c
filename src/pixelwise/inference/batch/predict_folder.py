"""Predicting many images: overlapped, bounded in memory, and resumed after an interruption."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pixelwise
from pixelwise.data.classes import IGNORE
from pixelwise.data.image_files import read_mask
from pixelwise.errors import InputError, PixelwiseError
from pixelwise.folder_lock import FolderLock
from pixelwise.inference.answer_options import AnswerOptions
from pixelwise.inference.batch.folder_journal import Journal, has_journal
from pixelwise.inference.batch.image_work import ImageWork, predict_pixels, work_size
from pixelwise.inference.batch.pipeline import overlapped
from pixelwise.inference.output_names import find_images, output_names, result_names
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.tables import check_replaced, write_table
from pixelwise.interrupts import Interrupts, StoppedError
from pixelwise.regions.annotations import AnnotationFolder

Images = str | Path | Sequence[str | Path]
MASKS = ".pixelwise-annotations.masks"
"""The folder of the masks from which annotations are made."""


class PredictionError(PixelwiseError):
    """The input was usable, but the results cannot be written."""


@dataclass(frozen=True)
class FolderResult:
    """The outcome of a run over many images.

    Args:
        written: The number of images that were predicted.
        kept: The number of images that an earlier run had finished.
        faults: One line for each image that could not be predicted.
        outdated: Whether the results of an earlier, unfinished run were discarded because it used
            another bundle or other options.
        replaced: The number of predicted images of which there were masks already, written by an
            earlier run, whose options are not known any more. 0 for TIFF files read in tiles.
        rows: The rows of the table of areas, if there is one.
        flagged: The images that are unlike the data that the network was calibrated on. None are
            found unless probabilities are computed.
    """

    written: int
    kept: int
    faults: tuple[str, ...]
    outdated: bool = field(repr=False)
    replaced: int = 0
    rows: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    flagged: tuple[str, ...] = ()


def predict_folder(
    predictor: Predictor,
    images: Images,
    out: str | Path = "predictions",
    *,
    overlay: bool = True,
    answers: AnswerOptions | None = None,
    overwrite: bool = False,
    names: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FolderResult:
    """Write NAME.png, a palette mask, and NAME_overlay.png for each image.

    A call that was interrupted, killed or ran out of disk space is resumed by the same call: it
    predicts only the remaining images. Files under their final names are always complete.

    For the other arguments and errors see `pixelwise.predict_folder`.

    Args:
        predictor: Predicts the masks.
        answers: What is written besides, and how masks are cleaned. A table, and the annotations of
            a labeling tool, are written once all images are finished.
        names: The base name of the results of each image, if `images` are files; by default their
            stems.
        progress: Called with the number of finished images and the number of all images.

    Raises:
        PredictionError: If the disk is full.
    """
    options = answers or AnswerOptions()
    options.check_classes(predictor.classes)
    paths, out = find_images(images), Path(out)
    if options.annotates:
        return _annotate(predictor, paths, out, options, overwrite=overwrite, progress=progress)
    names = names or output_names(paths, out, overlay=overlay, suffixes=options.suffixes)
    named = dict(zip(paths, names, strict=True))
    return _predict(
        predictor, named, out, options, overlay=overlay, overwrite=overwrite, progress=progress
    )


def _annotate(
    predictor: Predictor,
    paths: Sequence[Path],
    out: Path,
    options: AnswerOptions,
    *,
    overwrite: bool,
    progress: Callable[[int, int], None] | None,
) -> FolderResult:
    """Write annotations: predict the masks into a hidden folder, from which they are made."""
    folder = AnnotationFolder(
        out,
        str(options.to),
        paths,
        predictor.classes,
        shapes=options.shapes,
        tolerance=options.tolerance,
        overwrite=overwrite,
    )
    masks = out / MASKS
    index_of = np.full(256, IGNORE, np.uint8)
    index_of[list(predictor.classes.written_values)] = np.arange(len(predictor.classes))

    def read(path: Path) -> NDArray[np.uint8]:
        values = read_mask(masks / result_names(folder.base_names[path])[0])
        return np.asarray(index_of[values])

    def count(done: int, total: int, *, before: int = 0) -> None:
        if progress is not None:
            progress(before + done, 2 * total)

    def write(finished: Sequence[Path]) -> None:
        folder.write(read, images=finished, progress=partial(count, before=len(finished)))

    masks_only = replace(options, to=None, shapes=None, tolerance=1.0)
    with FolderLock(out, "predict") as lock:
        lock.take()
        try:
            return _predict(
                predictor,
                folder.base_names,
                masks,
                masks_only,
                overlay=False,
                overwrite=overwrite,
                progress=count,
                complete=write,
            )
        finally:
            if not has_journal(masks):  # otherwise the next call resumes
                shutil.rmtree(masks, ignore_errors=True)


def _predict(
    predictor: Predictor,
    names: Mapping[Path, str],
    out: Path,
    options: AnswerOptions,
    *,
    overlay: bool,
    overwrite: bool,
    progress: Callable[[int, int], None] | None,
    complete: Callable[[Sequence[Path]], None] | None = None,
) -> FolderResult:
    """Predict images by their base names; call `complete` with all finished ones at the end."""
    paths, suffixes = [*names], options.suffixes
    files = {p: result_names(name, overlay=overlay, suffixes=suffixes) for p, name in names.items()}
    settings = answer_settings(predictor, options)
    journal = make_journal(predictor, out, overwrite=overwrite, **settings)
    work = ImageWork(predictor, options, journal, files, overlay=overlay)
    failed: list[InputError] = []
    written = 0
    rows: tuple[dict[str, Any], ...] = ()
    if options.table is not None:
        check_replaced(options.table, overwrite=overwrite)
    try:
        with journal, Interrupts() as interrupts:
            kept = journal.begin(files)
            remaining = [path for path in paths if path not in kept]
            replaced = sum((out / files[path][0]).exists() for path in remaining)
            # With fewer images than threads, each image gets all cores.
            concurrent = 1 < work.concurrency <= len(remaining)
            steps = overlapped(
                remaining,
                prepare=work.read,
                work=partial(predict_pixels, predictor, options, concurrently=concurrent),
                finish=work.finish,
                size=partial(work_size, predictor, options),
                stop=lambda: interrupts.requested is not None,
                concurrency=work.concurrency if concurrent else 1,
            )
            with closing(steps):
                for done in steps:
                    if done.fault is not None:
                        failed.append(done.fault)
                    elif done.result is not None:
                        stamp = work.stamps.pop(done.item)
                        journal.add(done.item, stamp, done.result.files, done.result.answer)
                        written += 1
                    if progress is not None:
                        progress(len(kept) + written + len(failed), len(paths))
            all_done = len(kept) + written + len(failed) == len(paths)
            if all_done:
                journal.commit()
                finished = [path for path in paths if journal.answer(path) is not None]
                if complete is not None and finished:
                    complete(finished)
                rows = finish_table(journal, paths, options, settings, overwrite=overwrite)
                journal.finish()
    except OSError as error:
        raise disk_error(out, error, overwrite=overwrite) from error
    if not all_done and interrupts.requested is not None:
        state = f"{out}: stopped with {len(kept) + written} of {len(paths)} images finished"
        raise stopped(state, interrupts, overwrite=overwrite)
    result = summarize(journal, written=written, kept=len(kept), failed=failed)
    return replace(result, replaced=replaced, rows=rows, flagged=find_flagged(journal, paths))


def answer_settings(predictor: Predictor, options: AnswerOptions) -> dict[str, Any]:
    """Return what decides the answers, for the journal; {} without any option."""
    values = options.to_json()
    if values and options.needs_probabilities and predictor.calibration is not None:
        values["calibration"] = predictor.calibration.to_json()
    return {"answers": values} if values else {}


def finish_table(
    journal: Journal,
    paths: Sequence[Path],
    options: AnswerOptions,
    settings: dict[str, Any],
    *,
    overwrite: bool,
) -> tuple[dict[str, Any], ...]:
    """Write the table of all finished images, if there is to be one, and return its rows."""
    if options.table is None:
        return ()
    journal.commit()
    answers = [(path, journal.answer(path)) for path in paths]
    rows = tuple(
        {"image": str(path), **row} for path, answer in answers if answer for row in answer["rows"]
    )
    if rows:  # otherwise no image could be predicted
        about = settings["answers"]
        write_table(options.table, rows, options=about, overwrite=overwrite)
    return rows


def find_flagged(journal: Journal, paths: Sequence[Path]) -> tuple[str, ...]:
    """Return the images whose answer says that they are unlike the data of the network."""
    return tuple(str(path) for path in paths if (journal.answer(path) or {}).get("flagged"))


def make_journal(predictor: Predictor, out: Path, *, overwrite: bool, **settings: Any) -> Journal:
    """Make the journal of a run with everything that decides its results."""
    settings = {"pixelwise": pixelwise.__version__, **predictor.to_json(), **settings}
    return Journal(out, settings, overwrite=overwrite)


def summarize(
    journal: Journal, *, written: int, kept: int, failed: Sequence[InputError]
) -> FolderResult:
    """Return the outcome of a complete run; raise InputError if all images failed."""
    faults = tuple(line for fault in failed for line in fault.problems)
    if failed and not written and not kept:
        raise InputError(*faults)
    return FolderResult(written, kept, faults, journal.outdated)


def stopped(state: str, interrupts: Interrupts, *, overwrite: bool) -> StoppedError:
    assert interrupts.requested is not None
    text = f"{state}: {how_to_resume(overwrite=overwrite)}"
    return StoppedError(text, signal_number=interrupts.requested)


def disk_error(out: Path, error: OSError, *, overwrite: bool) -> PredictionError:
    return PredictionError(
        f"{out}: cannot be written ({error.strerror or error}): free some disk space; "
        f"{how_to_resume(overwrite=overwrite)}"
    )


def how_to_resume(*, overwrite: bool) -> str:
    same = "the same command without --overwrite" if overwrite else "the same command"
    return f"{same} resumes from there"
