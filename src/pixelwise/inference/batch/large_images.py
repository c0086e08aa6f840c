"""Many images larger than memory to masks, going on where it was interrupted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

from pixelwise.errors import InputError
from pixelwise.inference.batch.large_image import check_large, check_other, write_mask
from pixelwise.inference.batch.predict_folder import (
    FolderResult,
    PredictionError,
    begin_journal,
    cannot_be_written,
    file_stamp,
    outcome,
    same_command,
)
from pixelwise.inference.batch.tiff_source import TiffSource
from pixelwise.inference.batch.tile_progress_file import TileProgressFile
from pixelwise.inference.output_names import output_names
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.tiling.tiled_model import Progress
from pixelwise.interrupts import Interrupts, StoppedError

Watch = Callable[[Path, tuple[int, int]], AbstractContextManager[Progress]]


def predict_large_files(
    predictor: Predictor,
    paths: Sequence[Path],
    out: Path,
    *,
    settings: Mapping[str, Any],
    watch: Watch,
    overwrite: bool = False,
) -> FolderResult:
    """Write the mask of each TIFF file into `out` as NAME.tif: see `predict_large`.

    settings: what else decides the results, as plain JSON (the options).
    watch: entered with an image and its size (height, width) while that is worked on; what it
    gives is told (done, total) of the tiles. overwrite: predict again what an interrupted run has
    finished.

    Raises InputError where no image could be predicted, names collide or `out` cannot be used;
    PredictionError where the disk is full; StoppedError by Ctrl-C or SIGTERM. After both, and
    after a kill, the same call goes on after the images that are finished, and in the one that is
    not after the last row of tiles: nothing has a final name that is not whole.
    """
    check_large(predictor)
    names = dict(zip(paths, output_names(paths, out), strict=True))
    journal = begin_journal(predictor, out, settings)
    failed: list[InputError] = []
    written = 0
    interrupts = Interrupts()
    again = same_command(overwrite=overwrite)

    def stop(where: str) -> NoReturn:
        assert interrupts.requested is not None
        raise StoppedError(
            f"{where}: {again} goes on from there", signal_number=interrupts.requested
        )

    def predict(path: Path) -> None:
        stamp = file_stamp(path)
        with TiffSource.open(path, predictor.pixels) as image:
            name = f"{names[path]}.tif"
            check_other(out / name, path)
            about = [journal.header, str(path.resolve()), stamp.size, stamp.modified]
            side = journal.reserve()
            with (
                watch(path, image.size) as progress,
                TileProgressFile(journal.tile_progress, json.dumps(about)) as tile_progress,
            ):

                def told(done: int, total: int) -> None:
                    progress(done, total)
                    if interrupts.requested is not None and done < total:
                        stop(f"{path}: stopped with {done} of {total} tiles done")

                try:
                    write_mask(predictor, image, side, tile_progress=tile_progress, progress=told)
                except InputError:
                    side.unlink(missing_ok=True)  # others may need its room
                    raise
                with side.open("rb+") as stream:
                    os.fsync(stream.fileno())
                journal.add(path, stamp, {name: side})
                journal.commit()

    try:
        with journal, interrupts:
            files = {path: [f"{name}.tif"] for path, name in names.items()}
            kept = journal.begin(files, overwrite=overwrite)
            for path in paths:
                if path in kept:
                    continue
                if interrupts.requested is not None:
                    done = len(kept) + written
                    stop(f"{out}: stopped with {done} of {len(paths)} images finished")
                try:
                    predict(path)
                except InputError as fault:
                    failed.append(fault)
                else:
                    written += 1
            journal.finish()
    except OSError as error:
        raise PredictionError(f"{cannot_be_written(out, error, again)} where it was") from error
    return outcome(journal, written=written, kept=len(kept), failed=failed)
