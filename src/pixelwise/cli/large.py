"""`pixelwise predict --large`: images larger than memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pixelwise.cli.console import Bar, console
from pixelwise.cli.outcome import report_outcome


def predict_large(
    bundle: Path,
    images: Sequence[Path],
    out: Path,
    *,
    how: Mapping[str, Any],
    seen: Mapping[str, Any],
    overwrite: bool,
) -> None:
    """Write NAME.tif into `out` for each TIFF; a bad file is reported and the rest goes on.

    how, seen: further arguments of `Predictor.load`; `seen` is what `looks` gives.
    Raises InputError where nothing could be predicted; exits with 1 where some could not.
    """
    from pixelwise.inference.output_names import find_images

    paths = find_images(images)
    # Not `tune_allocator`: a heap that keeps what was freed grows from tile to tile.
    from pixelwise.inference import Predictor
    from pixelwise.inference.batch.large_images import predict_large_files
    from pixelwise.inference.runtimes import supports_tiling

    predictor = Predictor.load(bundle, **how, **seen, parts=True)
    if not supports_tiling(predictor.runtime):
        console.print(
            f"runtime {predictor.runtime.name} sees each tile as an image of its own: labels "
            "can differ from those of one pass; by --runtime torch, and by an export that this "
            "version makes (of ONNX: with the package onnx), they agree",
            soft_wrap=True,
        )

    @contextmanager
    def watch(path: Path, size: tuple[int, int]) -> Iterator[Bar]:
        height, width = size
        with Bar(f"{path.name}, {width}x{height}", unit="tiles") as bar:
            yield bar
        console.print(f"{width}x{height} pixels of {path} are predicted", soft_wrap=True)

    result = predict_large_files(
        predictor,
        paths,
        out,
        settings={"large": True, **seen},
        watch=watch,
        overwrite=overwrite,
    )
    if not report_outcome(result, out, total=len(paths), what="masks"):
        raise SystemExit(1)
