"""`pixelwise predict`: images, videos, and images larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Context, Option

from pixelwise.cli import answers, flags, shards
from pixelwise.cli.console import Bar, command, complain, console, print_line
from pixelwise.cli.shards import report
from pixelwise.errors import InputError

if TYPE_CHECKING:
    from pixelwise.inference import AnswerOptions, InferenceOptions, Predictor


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
    cluster: Annotated[
        str | None,
        Option(
            metavar="ADDRESS|local",
            help="Predict on a Ray cluster. IMAGES and --out may then be addresses such as "
            "s3://BUCKET/FOLDER, and IMAGES patterns, list files and tar files of WebDataset.",
            show_default=False,
        ),
    ] = None,
    shard: Annotated[
        str | None,
        Option(
            metavar="NUMBER/COUNT",
            help="Predict this part of the images, such as 3/16, in a job of its own; `pixelwise "
            "merge` combines the parts.",
            show_default=False,
        ),
    ] = None,
    shard_size: Annotated[
        int | None,
        Option(
            min=1,
            help="With --cluster or --shard: images that are predicted and noted together.",
            show_default=False,
        ),
    ] = None,
    tar: Annotated[
        bool, Option("--tar", help="With --cluster or --shard: write tar files of WebDataset.")
    ] = False,
) -> None:
    """Write a palette mask NAME.png and an overlay NAME_overlay.png for each image.

    Run an interrupted command again to resume it. A video becomes NAME_overlay.mp4.
    """
    options = flags.parse_options(ctx, runtime)
    wanted = answers.parse_answers(ctx)
    bundles, images = flags.split_bundles(bundle, images)
    if cluster is not None or shard is not None:
        shards.check_options(ctx, bundles, wanted)
        shards.predict(ctx, bundle, images, out, options=options, answers=wanted)
        return
    shards.refuse_shard_options(ctx)
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
    _check_names(videos)
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
        name = predictor.runtime.name
        succeeded = report(result, str(out), wanted, total=len(paths), what=what, runtime=name)
    if videos:
        complete = _predict_videos(
            predictor, videos, out, wanted, masks=frame_masks, overwrite=overwrite
        )
        succeeded = complete and succeeded
    if not succeeded:
        raise SystemExit(1)


def _check_names(videos: Sequence[Path]) -> None:
    """Raise InputError if the results of two videos would have the same names."""
    from pixelwise.inference.output_names import base_names

    names = base_names(videos)
    for path, name in zip(videos, names, strict=True):
        if (first := videos[names.index(name)]) != path:
            raise InputError(
                f"{path}: its results would have the same names as those of {first}: rename one, "
                "or predict them into different folders"
            )


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
    name = predictor.runtime.name
    if not report(result, str(out), wanted, total=len(paths), what="masks", runtime=name):
        raise SystemExit(1)
