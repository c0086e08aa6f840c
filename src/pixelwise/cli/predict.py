"""`pixelwise predict`: images, videos, and images larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Context, Option

from pixelwise.cli import answers, flags
from pixelwise.cli.console import Bar, command, complain, console, print_line
from pixelwise.errors import InputError

if TYPE_CHECKING:
    from pixelwise.inference import AnswerOptions, FolderResult, InferenceOptions, Predictor


@command
def predict(
    ctx: Context,
    bundle: flags.BundleOrExport,
    images: Annotated[
        list[Path],
        Argument(
            help="Images, folders of images, or videos. Further bundles before them make an "
            "ensemble, which predicts the mean of the probabilities."
        ),
    ],
    out: Annotated[Path, Option(help="Folder for masks and overlays.")] = Path("predictions"),
    runtime: flags.Runtime = "auto",
    device: flags.Device = None,
    crf: flags.Crf = False,
    crf_set: flags.CrfSet = None,
    overlay: Annotated[
        bool, Option("--overlay/--no-overlay", help="Also write NAME_overlay.png for viewing.")
    ] = True,
    overwrite: Annotated[
        bool,
        Option(
            "--overwrite",
            help="Predict all images again instead of resuming an interrupted run, and replace "
            "files that predict did not write.",
        ),
    ] = False,
    frame_masks: Annotated[
        bool, Option("--frame-masks", help="For videos, also write a mask for each frame.")
    ] = False,
    tile: flags.Tile = "auto",
    scales: flags.Scales = "1",
    flip: flags.Flip = False,
    value_range: flags.ValueRange = None,
    large: Annotated[
        bool,
        Option(
            "--large", help="Read TIFF files of any size in tiles and write the masks as NAME.tif."
        ),
    ] = False,
    table: answers.Table = None,
    to: answers.To = None,
    shapes: answers.Shapes = None,
    geopackage: answers.GeoPackage = False,
    tolerance: answers.Tolerance = 1.0,
    probabilities: answers.Probabilities = False,
    confidence: answers.Confidence = False,
    raster_type: answers.RasterType = "uint8",
    min_area: answers.MinArea = "0",
    fill_holes: answers.FillHoles = False,
    background: answers.Background = "background",
    pixel_size: answers.PixelSize = None,
) -> None:
    """Write a palette mask NAME.png and an overlay NAME_overlay.png for each image.

    Run an interrupted command again to resume it. A video becomes NAME_overlay.mp4.
    """
    options = flags.parse_options(ctx, runtime)
    wanted = answers.parse_answers(ctx)
    bundles, images = flags.split_bundles(bundle, images)
    if large:
        _predict_large(bundles, images, out, options, wanted, overwrite=overwrite)
    else:
        predict_files(
            bundles,
            images,
            out,
            options=options,
            answer_options=wanted,
            overlay=overlay,
            overwrite=overwrite,
            frame_masks=frame_masks,
        )


def predict_files(
    bundles: Path | Sequence[Path],
    images: Sequence[Path],
    out: Path,
    *,
    options: InferenceOptions | None = None,
    answer_options: AnswerOptions | None = None,
    overlay: bool = True,
    overwrite: bool = False,
    frame_masks: bool = False,
) -> None:
    """Predict images and videos into `out` and print a summary; exit with 1 if one failed."""
    from pixelwise.inference import AnswerOptions, InferenceOptions, predict_folder
    from pixelwise.inference.batch.video import (
        check_video_options,
        frame_size,
        is_video,
        require_av,
    )
    from pixelwise.inference.output_names import find_images, output_names, typical_size

    videos = [path for path in images if is_video(path) and path.is_file()]
    paths = find_images([path for path in images if path not in videos])
    wanted = answer_options or AnswerOptions()
    # Faults are reported before anything is loaded.
    if not wanted.annotates:
        output_names(paths, out, overlay=overlay, suffixes=wanted.suffixes)
    size = typical_size(paths)
    if videos:
        require_av(videos[0])
        check_video_options(wanted)
        if paths and wanted.table is not None:
            raise InputError(
                f"{wanted.table}: a table has rows for images or for frames of videos, not for "
                "both: predict them in two calls"
            )
        size = frame_size(videos[0]) or size  # a video has more frames than there are images
    predictor = flags.load_predictor(bundles, options or InferenceOptions(), image_size=size)
    succeeded = True
    if paths:
        with Bar("predicting", unit="steps" if wanted.annotates else "images") as bar:
            result = predict_folder(
                predictor,
                paths,
                out,
                overlay=overlay,
                answers=wanted,
                overwrite=overwrite,
                progress=bar,
            )
        what = "masks and overlays" if overlay else "masks"
        if wanted.annotates:
            what = f"images and their annotations ({wanted.to}, {wanted.shape_kind})"
        succeeded = _report(result, out, wanted, total=len(paths), what=what, predictor=predictor)
    if videos:
        complete = _predict_videos(
            predictor, videos, out, wanted, masks=frame_masks, overwrite=overwrite
        )
        succeeded = complete and succeeded
    if not succeeded:
        raise SystemExit(1)


def _predict_videos(
    predictor: Predictor,
    paths: Sequence[Path],
    out: Path,
    wanted: AnswerOptions,
    *,
    masks: bool,
    overwrite: bool,
) -> bool:
    """Return whether all videos were predicted completely."""
    from pixelwise.inference.batch.video import predict_video
    from pixelwise.inference.output_names import base_names
    from pixelwise.inference.tables import write_table

    faults: list[str] = []
    rows: list[dict[str, Any]] = []
    for path, name in zip(paths, base_names(paths), strict=True):
        try:
            with Bar(path.name, unit="frames") as bar:
                result = predict_video(
                    predictor,
                    path,
                    out,
                    name=name,
                    masks=masks,
                    answers=wanted,
                    overwrite=overwrite,
                    progress=bar,
                )
        except InputError as error:
            if len(paths) == 1:
                raise
            faults += error.problems
            continue
        for note in result.notes:
            print_line(note)
        faults += result.faults
        rows += result.rows
        if result.flagged:
            print_line(
                f"{path}: {result.flagged} of {result.frames} frames are unlike the data that the "
                "network was calibrated on, so their masks may be wrong"
            )
        written = " and ".join(str(path) for path in (result.overlay, result.masks) if path)
        print_line(f"{result.frames} frames written to {written}")
    if wanted.table is not None and rows:
        write_table(wanted.table, rows, options=wanted.to_json(), overwrite=overwrite)
        answers.show_areas(rows, wanted.table)
    if faults:
        complain(InputError(*faults))
    return not faults


def _predict_large(
    bundles: Sequence[Path],
    images: Sequence[Path],
    out: Path,
    options: InferenceOptions,
    wanted: AnswerOptions,
    *,
    overwrite: bool,
) -> None:
    """Predict TIFF files in tiles and print a summary; exit with 1 if one failed."""
    from pixelwise.inference import Predictor
    from pixelwise.inference.batch.large_images import predict_large_images
    from pixelwise.inference.output_names import find_images, typical_size
    from pixelwise.inference.runtimes import supports_tiling

    paths = find_images(images)
    # Without `tune_allocator`: a heap that keeps freed memory grows from tile to tile.
    with console.status(flags.LOADING):
        predictor = Predictor.from_options(
            bundles, options, prefer_tiling=True, image_size=typical_size(paths)
        )
    if not supports_tiling(predictor.runtime):
        print_line(
            f"runtime {predictor.runtime.name} evaluates each tile as a separate image, so labels "
            "can differ from those of a single pass. They match with --runtime torch, and with an "
            "export made by this version (for ONNX with the package onnx installed)."
        )

    @contextmanager
    def watch(path: Path, size: tuple[int, int]) -> Iterator[Callable[[int, int], None]]:
        height, width = size
        with Bar(f"{path.name}, {width}x{height}", unit="tiles") as bar:
            yield bar
        print_line(f"{path}: predicted {width}x{height} pixels")

    result = predict_large_images(
        predictor, paths, out, answers=wanted, watch=watch, overwrite=overwrite
    )
    if not _report(result, out, wanted, total=len(paths), what="masks", predictor=predictor):
        raise SystemExit(1)


def _report(
    result: FolderResult,
    out: Path,
    wanted: AnswerOptions,
    *,
    total: int,
    what: str,
    predictor: Predictor,
) -> bool:
    """Print the outcome of a run that wrote `what`; return whether all images were predicted."""
    if result.outdated:
        print_line(
            f"{out}: discarded an unfinished run of another bundle, other options or an older "
            "version: started over"
        )
    if result.kept:
        print_line(f"{result.kept} of {total} images were finished by an earlier run and are kept")
    if result.replaced:
        print_line(f"{out}: replaced the masks of {result.replaced} images of an earlier run")
    if wanted.table is not None and result.rows:
        answers.show_areas(result.rows, wanted.table)
    answers.show_flagged(result.flagged, result.written + result.kept)
    if result.faults:
        complain(InputError(*result.faults))
        done = result.written + result.kept
        print_line(f"{done} of {total} images predicted into {out}")
        return False
    # Annotations are those of all images; an earlier run has written the other results it kept.
    written = result.written + (result.kept if wanted.annotates else 0)
    print_line(f"{written} {what} written to {out} (runtime {predictor.runtime.name})")
    return True
