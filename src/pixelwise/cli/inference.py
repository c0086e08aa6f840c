"""`pixelwise predict`, `pixelwise evaluate` and `pixelwise tune-crf`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from pixelwise.cli.console import (
    Bar,
    check_json,
    command,
    complain,
    console,
    show_scores,
    write_json,
)
from pixelwise.cli.inference_options import Flip, Scales, Tile, looks
from pixelwise.cli.large import predict_large
from pixelwise.cli.outcome import report_outcome
from pixelwise.cli.splits import open_splits

if TYPE_CHECKING:
    from pixelwise.crf import CRFParameters
    from pixelwise.evaluation import CRFSearch
    from pixelwise.inference import Predictor

Crf = Annotated[bool, typer.Option("--crf", help="Refine with a dense CRF (needs numba).")]
CrfSet = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="Its parameters: v1-largefov, v2-vgg16, v2-resnet101 or camvid, or a .json file of "
        "tune-crf; implies --crf, which alone means v2-resnet101.",
        show_default=False,
    ),
]
Runtime = Annotated[
    str,
    typer.Option(
        help="auto (the fastest there is), torch, or one that the bundle was exported for: "
        "openvino, openvino-bf16, openvino-int8, onnx, onnx-int8."
    ),
]
BEST_SHOWN = 10


@command
def predict(
    bundle: Annotated[Path, typer.Argument(help="A .safetensors file of train, or an export.")],
    images: Annotated[list[Path], typer.Argument(help="Images, folders of them, or videos.")],
    out: Annotated[Path, typer.Option(help="Folder for masks and overlays.")] = Path("masks"),
    runtime: Runtime = "auto",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, ...; a GPU if there is one.")
    ] = None,
    crf: Crf = False,
    crf_set: CrfSet = None,
    overlay: Annotated[
        bool, typer.Option("--overlay/--no-overlay", help="Also NAME_overlay.png, for the eye.")
    ] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Again what an interrupted run has finished, too.")
    ] = False,
    frame_masks: Annotated[
        bool, typer.Option("--frame-masks", help="Of a video also NAME_masks/, a mask a frame.")
    ] = False,
    tile: Tile = "auto",
    scales: Scales = "1",
    flip: Flip = False,
    large: Annotated[
        bool,
        typer.Option("--large", help="TIFF files of any size to NAME.tif, a tile in memory."),
    ] = False,
) -> None:
    """Write NAME.png, a palette mask, and NAME_overlay.png, with a legend, for each image.

    Given again after an interruption, it goes on where it was. Of a video NAME_overlay.mp4 is made.
    """
    how: dict[str, Any] = {
        "runtime": runtime,
        "device": device,
        "crf": _crf_parameters(crf, crf_set),
    }
    seen = looks(tile, scales, flip)
    if large:
        predict_large(bundle, images, out, how=how, seen=seen, overwrite=overwrite)
        return
    predict_files(
        bundle,
        images,
        out,
        **how,
        seen=seen,
        overlay=overlay,
        overwrite=overwrite,
        frame_masks=frame_masks,
    )


def _crf_parameters(wanted: bool, name: str | None) -> CRFParameters | None:
    """What --crf and --crf-set ask for. Raises InputError for an unknown set."""
    if name is None and not wanted:
        return None
    from pixelwise.crf import DEFAULT_PARAMETERS, find_parameters

    return find_parameters(name or DEFAULT_PARAMETERS)


def _compile_crf() -> None:
    """What takes seconds at the first use of all, with a word about it on a terminal."""
    from pixelwise.crf import compile_dense_crf

    with console.status("preparing the dense CRF (compiled once, some seconds)"):
        compile_dense_crf()


def predict_files(
    bundle: Path,
    images: Sequence[Path],
    out: Path,
    *,
    runtime: str = "auto",
    device: str | None = None,
    crf: CRFParameters | None = None,
    seen: Mapping[str, Any] | None = None,
    overlay: bool = True,
    overwrite: bool = False,
    frame_masks: bool = False,
) -> None:
    """Predict files into `out` and say how it went; exits with 1 where some could not be.

    seen: what `looks` gives.
    """
    seen = seen or {}
    from pixelwise.inference.batch.video import is_video, require_av
    from pixelwise.inference.output_names import find_images, output_names
    from pixelwise.process_settings import tune_allocator

    videos = [path for path in images if is_video(path) and path.is_file()]
    paths = find_images([path for path in images if path not in videos])
    output_names(paths, out, overlay=overlay)  # faults are told before anything is loaded
    if videos:
        require_av(videos[0])
    tune_allocator()
    from pixelwise.inference import Predictor

    predictor = Predictor.load(bundle, runtime=runtime, device=device, crf=crf, **seen)
    if crf is not None:
        _compile_crf()
    settings = {
        "crf": None if crf is None else crf.to_json(),
        **seen,
    }
    whole = True
    if paths:
        whole = _predict_images(
            predictor, paths, out, settings=settings, overlay=overlay, overwrite=overwrite
        )
    if videos:
        whole = _predict_videos(predictor, videos, out, masks=frame_masks) and whole
    if not whole:
        raise SystemExit(1)


def _predict_images(
    predictor: Predictor,
    paths: Sequence[Path],
    out: Path,
    *,
    settings: Mapping[str, Any],
    overlay: bool,
    overwrite: bool,
) -> bool:
    """Whether all could be predicted."""
    from pixelwise.inference import predict_folder

    with Bar("predicting") as bar:
        result = predict_folder(
            predictor,
            paths,
            out,
            settings=settings,
            overlay=overlay,
            overwrite=overwrite,
            progress=bar,
        )
    what = "masks and overlays" if overlay else "masks"
    return report_outcome(result, out, total=len(paths), what=what)


def _predict_videos(predictor: Predictor, paths: Sequence[Path], out: Path, *, masks: bool) -> bool:
    """Whether all could be predicted to their ends."""
    from pixelwise.errors import InputError
    from pixelwise.inference.batch.video import predict_video, video_names

    faults: list[str] = []
    for path, name in zip(paths, video_names(paths), strict=True):
        try:
            with Bar(path.name, unit="frames") as bar:
                result = predict_video(predictor, path, out, name=name, masks=masks, progress=bar)
        except InputError as error:
            if len(paths) == 1:
                raise
            faults += error.problems
            continue
        for note in result.notes:
            console.print(note, soft_wrap=True)
        faults += result.faults
        written = " and ".join(str(path) for path in (result.overlay, result.masks) if path)
        console.print(f"{result.frames} frames written to {written}", soft_wrap=True)
    if faults:
        complain(InputError(*faults))
    return not faults


@command
def evaluate(
    bundle: Annotated[Path, typer.Argument(help="A .safetensors file of train, or an export.")],
    data: Annotated[Path, typer.Argument(help="Folder of images and masks.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Also as JSON; - prints only that.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep the scores by image here, for compare."),
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(help="As for predict; torch if not given.", show_default=False),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, ...; a GPU if there is one.")
    ] = None,
    crf: Crf = False,
    crf_set: CrfSet = None,
    tile: Tile = "auto",
    scales: Scales = "1",
    flip: Flip = False,
) -> None:
    """Score a bundle on a split: IoU and its kin with intervals, borders, calibration."""
    from pixelwise.file_io import check_writable
    from pixelwise.process_settings import tune_allocator

    check_json(json_file)
    if images is not None:
        check_writable(images)
    parameters = _crf_parameters(crf, crf_set)
    how = looks(tile, scales, flip)
    tune_allocator()
    from pixelwise.evaluation import evaluate as score
    from pixelwise.inference import Predictor
    from pixelwise.inference.export_manifest import is_export

    # The figure of a bundle is PyTorch's; that of an export is its own.
    chosen = runtime or ("auto" if is_export(bundle) else "torch")
    predictor = Predictor.load(bundle, runtime=chosen, device=device, crf=parameters, **how)
    if parameters is not None:
        _compile_crf()
    found = open_splits(predictor, data, split)
    with Bar(f"scoring {split}") as bar:
        result = score(predictor, found, split, details=True, progress=bar)
    scores = {
        "bundle": str(bundle),
        "data": str(data),
        "split": split,
        "images": len(found.splits[split]),
        "runtime": predictor.runtime.name,
        **({} if parameters is None else {"crf": parameters.to_json()}),
        **({} if predictor.tta.single else predictor.tta.to_json()),
        **result.to_json(predictor.classes.names),
    }
    if json_file != "-":
        for note in found.notes:
            console.print(note, soft_wrap=True)
        title = f"{bundle} on {data}, {split}" + ("" if parameters is None else ", with CRF")
        if not predictor.tta.single:
            title += f", {predictor.tta}"
        show_scores(scores, title=title)
    if images is not None:
        result.image_counts.save(images, classes=predictor.classes.names, split=split)
    write_json(json_file, scores)


@command
def tune_crf(
    bundle: Annotated[Path, typer.Argument(help="A .safetensors file that train wrote.")],
    data: Annotated[Path, typer.Argument(help="Folder of images and masks.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    limit: Annotated[
        int, typer.Option(min=1, metavar="N", help="Images to search on; the rest compares.")
    ] = 20,
    json_file: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="For predict --crf-set; - prints only that."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, ...; a GPU if there is one.")
    ] = None,
) -> None:
    """Search the dense CRF's parameters for a bundle, and say whether it helps at all."""
    from pixelwise.ops.numba_support import require_numba
    from pixelwise.process_settings import tune_allocator

    check_json(json_file)
    require_numba("the dense CRF")
    tune_allocator()
    from pixelwise.evaluation import search_crf
    from pixelwise.inference import Predictor

    predictor = Predictor.load(bundle, device=device)
    found = open_splits(predictor, data, split)
    _compile_crf()
    with Bar("searching", unit="steps") as bar:
        search = search_crf(predictor, found, split, limit=limit, progress=bar)
    content = {"bundle": str(bundle), "data": str(data), "split": split, **search.to_json()}
    if json_file != "-":
        for note in found.notes:
            console.print(note, soft_wrap=True)
        _print_search(search, split)
    write_json(json_file, content, use=", for predict --crf-set")


def _print_search(search: CRFSearch, split: str) -> None:
    names = list(search.best.to_json())
    table = Table(title=f"best of {len(search.trials)} parameters", title_justify="left")
    for name in (*names, "mean IoU %"):
        table.add_column(name, justify="right")
    for trial in search.trials[:BEST_SHOWN]:
        numbers = [f"{value:g}" for value in trial.parameters.to_json().values()]
        table.add_row(*numbers, f"{100 * trial.mean_iou:.2f}")
    console.print(table)
    what = [(f"the {search.searched.images} images searched on", search.searched)]
    if search.rest is not None:
        what.append((f"the other {search.rest.images}, which had no say", search.rest))
    for words, scores in what:
        console.print(
            f"mean IoU on {split}, {words}: {100 * scores.before:.2f} % without the CRF, "
            f"{100 * scores.after:.2f} % with it",
            soft_wrap=True,
        )
    if not search.helps:
        console.print("The CRF does not help this model on these images: leave it out.")
    elif search.rest is None:
        console.print("No image was left to compare on: expect less on others (see --limit).")
