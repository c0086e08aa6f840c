"""`pixelwise predict --large`: pictures larger than memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelwise.cli.console import Bar, complain, console


def predict_large_files(
    bundle: Path,
    images: Sequence[Path],
    out: Path,
    *,
    how: Mapping[str, Any],
) -> None:
    """Write NAME.tif into `out` for each TIFF; a bad file is reported and the rest goes on.

    how: further arguments of `Predictor.load`.
    Raises InputError where nothing could be predicted; exits with 1 where some could not.
    """
    from pixelwise.errors import InputError
    from pixelwise.files import make_folder
    from pixelwise.inference.outputs import find_images, output_names

    paths = find_images(images)
    names = output_names(paths, out)
    # Not `own_process`: a heap that keeps what was freed grows from window to window.
    from pixelwise.inference import Predictor
    from pixelwise.inference.large import TiffPicture, predict_large
    from pixelwise.inference.runtimes import knows_parts

    predictor = Predictor.load(bundle, **how, parts=True)
    if not knows_parts(predictor.runtime):
        console.print(
            f"runtime {predictor.runtime.name} sees each window as a picture of its own: labels "
            "can differ from those of one pass; by --runtime torch, and by an export that this "
            "version makes, they agree",
            soft_wrap=True,
        )
    failed: list[str] = []
    written = 0
    for path, name in zip(paths, names, strict=True):
        try:
            # Before a folder is made for its mask.
            with TiffPicture.open(path, predictor.pixels) as picture:
                height, width = picture.size
            make_folder(out)
            with Bar(f"{path.name}, {width}x{height}", unit="windows") as bar:
                predict_large(predictor, path, out / f"{name}.tif", progress=bar)
        except InputError as error:
            failed += error.problems
        else:
            written += 1
            console.print(
                f"{width}x{height} pixels of {path} written to {out / name}.tif", soft_wrap=True
            )
    if failed:
        faults = InputError(*failed)
        if not written:
            raise faults
        complain(faults)
        raise SystemExit(1)
