"""Many images to files: overlapped, bounded in memory, and going on where it was interrupted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pixelwise
from pixelwise.data.pixel_format import Pixels
from pixelwise.errors import InputError, PixelwiseError
from pixelwise.inference.batch.folder_journal import FileStamp, Journal
from pixelwise.inference.batch.pipeline import overlapped
from pixelwise.inference.output_names import output_names
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.results import Segmentation, result_names
from pixelwise.inference.runtimes import supports_tiling
from pixelwise.interrupts import Interrupts, StoppedError


class PredictionError(PixelwiseError):
    """Results that cannot be written, though what was given was usable."""


@dataclass(frozen=True)
class FolderResult:
    """How a run over many images ended.

    written: images predicted; kept: finished by an earlier run, and left as they were. faults: a
    line for each image that could not be. outdated: what an earlier run had finished was of
    another bundle or other settings, and was not kept.
    """

    written: int
    kept: int
    faults: tuple[str, ...]
    outdated: bool


def predict_folder(
    predictor: Predictor,
    paths: Sequence[Path],
    out: Path,
    *,
    settings: Mapping[str, Any],
    overlay: bool = True,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> FolderResult:
    """Write the mask of each image, and its overlay, into `out`, named as by `output_names`.

    settings: what else decides the results, as plain JSON (the options).
    overwrite: predict again what an interrupted run has finished. progress: told (done, total).

    Raises InputError where no image could be predicted, names collide or `out` cannot be used;
    PredictionError where the disk is full; StoppedError by Ctrl-C or SIGTERM. After both, and
    after a kill, the same call goes on: nothing has a final name that is not whole.
    """
    names = output_names(paths, out, overlay=overlay)
    files = {
        path: result_names(name, overlay=overlay) for path, name in zip(paths, names, strict=True)
    }
    journal = begin_journal(predictor, out, settings)
    again = same_command(overwrite=overwrite)
    stamps: dict[Path, FileStamp] = {}
    failed: list[InputError] = []
    written = 0

    def decode(path: Path) -> Pixels:
        stamps[path] = file_stamp(path)  # before: what changes meanwhile is another image next time
        return predictor.prepare(path)

    def encode(path: Path, result: Segmentation) -> dict[str, Path]:
        encoded = zip(files[path], result.encoded(overlay=overlay), strict=True)
        return {name: journal.stage(data) for name, data in encoded}

    try:
        with journal, Interrupts() as interrupts:
            kept = journal.begin(files, overwrite=overwrite)
            left = [path for path in paths if path not in kept]
            # Of fewer images than cores each is to have them all.
            several = 1 < predictor.concurrency <= len(left)
            steps = overlapped(
                left,
                prepare=decode,
                work=predictor.segment_concurrently if several else predictor.segment_prepared,
                finish=encode,
                size=lambda pixels: pixels.nbytes,
                stop=lambda: interrupts.requested is not None,
                concurrency=predictor.concurrency if several else 1,
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
            ended = len(kept) + written + len(failed) == len(paths)
            if ended:
                journal.finish()
    except OSError as error:
        raise PredictionError(
            f"{cannot_be_written(out, error, again)} after the images that are finished"
        ) from error
    if not ended and interrupts.requested is not None:
        raise StoppedError(
            f"{out}: stopped with {len(kept) + written} of {len(paths)} images finished: "
            f"{again} goes on from there",
            signal_number=interrupts.requested,
        )
    return outcome(journal, written=written, kept=len(kept), failed=failed)


def begin_journal(predictor: Predictor, out: Path, settings: Mapping[str, Any]) -> Journal:
    """The journal of a run of this version and this runtime. settings: what else decides."""
    about = {
        "pixelwise": pixelwise.__version__,
        "runtime": predictor.runtime.name,
        "network": predictor.network_id,
        "parts": supports_tiling(predictor.runtime),
        "crf": None if predictor.crf is None else predictor.crf.to_json(),
        "tile": predictor.network.tile,
        **predictor.tta.to_json(),
    }
    return Journal(out, {**about, **settings})


def outcome(
    journal: Journal, *, written: int, kept: int, failed: Sequence[InputError]
) -> FolderResult:
    """How a run has ended that was not stopped. Raises InputError where all images failed."""
    faults = tuple(line for fault in failed for line in fault.problems)
    if failed and not written and not kept:
        raise InputError(*faults)
    return FolderResult(written, kept, faults, journal.outdated)


def cannot_be_written(out: Path, error: OSError, again: str) -> str:
    """Without where it goes on. again: as `same_command` has it."""
    reason = error.strerror or error
    return f"{out}: cannot be written ({reason}): make room, and give {again}: it goes on"


def same_command(*, overwrite: bool) -> str:
    """What to give to go on."""
    return "the same command without --overwrite" if overwrite else "the same command"


def file_stamp(path: Path) -> FileStamp:
    """Raises InputError where the image is gone."""
    try:
        return FileStamp.of(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}): check the path and its permissions"
        ) from error
