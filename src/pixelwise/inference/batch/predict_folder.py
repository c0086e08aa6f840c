"""Predicting many images: overlapped, bounded in memory, and resumed after an interruption."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pixelwise
from pixelwise.data.pixel_format import Pixels
from pixelwise.errors import InputError, PixelwiseError
from pixelwise.inference.batch.folder_journal import FileStamp, Journal
from pixelwise.inference.batch.pipeline import overlapped
from pixelwise.inference.output_names import find_images, output_names, result_names
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.results import Segmentation
from pixelwise.interrupts import Interrupts, StoppedError

Images = str | Path | Sequence[str | Path]


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
    """

    written: int
    kept: int
    faults: tuple[str, ...]
    outdated: bool = field(repr=False)
    replaced: int = 0


def predict_folder(
    predictor: Predictor,
    images: Images,
    out: str | Path = "predictions",
    *,
    overlay: bool = True,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> FolderResult:
    """Write NAME.png, a palette mask, and NAME_overlay.png for each image.

    A call that was interrupted, killed or ran out of disk space is resumed by the same call: it
    predicts only the remaining images. Files under their final names are always complete.

    Args:
        predictor: Predicts the masks.
        images: A folder, a file, or several of these.
        out: The folder for the results.
        overlay: Whether overlays are written.
        overwrite: Predict all images again instead of resuming, and replace files that prediction
            did not write.
        progress: Called with the number of finished images and the number of all images.

    Raises:
        InputError: If no image can be predicted, two results have the same name, a result would
            replace a file that prediction did not write, or `out` cannot be used.
        PredictionError: If the disk is full.
        StoppedError: After Ctrl-C or SIGTERM.
    """
    paths, out = find_images(images), Path(out)
    names = zip(paths, output_names(paths, out, overlay=overlay), strict=True)
    files = {path: result_names(name, overlay=overlay) for path, name in names}
    journal = make_journal(predictor, out, overwrite=overwrite)
    stamps: dict[Path, FileStamp] = {}
    failed: list[InputError] = []
    written = 0

    def decode(path: Path) -> Pixels:
        stamps[path] = file_stamp(path)  # before reading, so that a change meanwhile is noticed
        return predictor.prepare(path)

    def encode(path: Path, result: Segmentation) -> dict[str, Path]:
        encoded = zip(files[path], result.encode(overlay=overlay), strict=True)
        return {name: journal.stage(data) for name, data in encoded}

    try:
        with journal, Interrupts() as interrupts:
            kept = journal.begin(files)
            remaining = [path for path in paths if path not in kept]
            replaced = sum((out / files[path][0]).exists() for path in remaining)
            # With fewer images than threads, each image gets all cores.
            concurrent = 1 < predictor.concurrency <= len(remaining)
            steps = overlapped(
                remaining,
                prepare=decode,
                work=predictor.segment_concurrently if concurrent else predictor.segment_prepared,
                finish=encode,
                size=lambda pixels: pixels.nbytes,
                stop=lambda: interrupts.requested is not None,
                concurrency=predictor.concurrency if concurrent else 1,
            )
            with closing(steps):
                for done in steps:
                    if done.fault is not None:
                        failed.append(done.fault)
                    elif done.result is not None:
                        journal.add(done.item, stamps.pop(done.item), done.result)
                        written += 1
                    if progress is not None:
                        progress(len(kept) + written + len(failed), len(paths))
            complete = len(kept) + written + len(failed) == len(paths)
            if complete:
                journal.finish()
    except OSError as error:
        raise disk_error(out, error, overwrite=overwrite) from error
    if not complete and interrupts.requested is not None:
        state = f"{out}: stopped with {len(kept) + written} of {len(paths)} images finished"
        raise stopped(state, interrupts, overwrite=overwrite)
    result = summarize(journal, written=written, kept=len(kept), failed=failed)
    return replace(result, replaced=replaced)


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


def file_stamp(path: Path) -> FileStamp:
    """Return the stamp of an image; raise InputError if the file cannot be read."""
    try:
        return FileStamp.of(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}): check the path and its permissions"
        ) from error
