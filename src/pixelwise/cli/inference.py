"""`pixelwise predict`, `pixelwise evaluate` and `pixelwise tune-crf`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pixelwise.cli.console import (
    Bar,
    check_json,
    command,
    complain,
    console,
    scores_table,
    write_json,
)

if TYPE_CHECKING:
    from pixelwise.crf import CRFParameters
    from pixelwise.data.dataset import SegmentationData
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
    images: Annotated[list[Path], typer.Argument(help="Pictures, or folders of them.")],
    out: Annotated[Path, typer.Option(help="Folder for masks and overlays.")] = Path("masks"),
    runtime: Runtime = "auto",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, ...; a GPU if there is one.")
    ] = None,
    crf: Crf = False,
    crf_set: CrfSet = None,
) -> None:
    """Write NAME.png, a palette mask, and NAME_overlay.png, with a legend, for each image."""
    parameters = _crf_parameters(crf, crf_set)
    written = predict_files(bundle, images, out, runtime=runtime, device=device, crf=parameters)
    console.print(f"{written} masks and overlays written to {out}", soft_wrap=True)


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
) -> int:
    """Predict files into `out`; returns how many. A bad file is reported and the rest goes on.

    Raises InputError where nothing could be predicted; exits with 1 where some could not.
    """
    from pixelwise.inference.outputs import find_images, output_names
    from pixelwise.process import own_process

    paths = find_images(images)
    names = output_names(paths, out)
    own_process()
    from pixelwise.errors import InputError
    from pixelwise.files import make_folder
    from pixelwise.inference import Predictor

    predictor = Predictor.load(bundle, runtime=runtime, device=device, crf=crf)
    if crf is not None:
        _compile_crf()
    failed: list[str] = []
    written = 0
    with Bar("predicting") as bar:
        for done, (path, name) in enumerate(zip(paths, names, strict=True), start=1):
            try:
                result = predictor(path)
            except InputError as error:
                failed += error.problems
            else:
                if not written:  # a folder is made only for something to lie in it
                    make_folder(out)
                result.save(out, name)
                written += 1
            bar(done, len(paths))
    if failed:
        faults = InputError(*failed)
        if not written:
            raise faults
        complain(faults)
        console.print(f"{written} of {len(paths)} images predicted into {out}", soft_wrap=True)
        raise SystemExit(1)
    return written


@command
def evaluate(
    bundle: Annotated[Path, typer.Argument(help="A .safetensors file of train, or an export.")],
    data: Annotated[Path, typer.Argument(help="Folder of images and masks.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Also as JSON; - prints only that.")
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
) -> None:
    """Score a bundle on a split: the four metrics of the FCN paper, and each class."""
    from pixelwise.process import own_process

    check_json(json_file)
    parameters = _crf_parameters(crf, crf_set)
    own_process()
    from pixelwise.evaluation import evaluate as score
    from pixelwise.inference import Predictor
    from pixelwise.inference.exported import is_export

    # The figure of a bundle is PyTorch's; that of an export is its own.
    chosen = runtime or ("auto" if is_export(bundle) else "torch")
    predictor = Predictor.load(bundle, runtime=chosen, device=device, crf=parameters)
    if parameters is not None:
        _compile_crf()
    found = _open_split(predictor, data, split)
    with Bar(f"scoring {split}") as bar:
        result = score(predictor, found, split, progress=bar)
    scores = {
        "bundle": str(bundle),
        "data": str(data),
        "split": split,
        "images": len(found.splits[split]),
        "runtime": predictor.runtime.name,
        **({} if parameters is None else {"crf": parameters.to_json()}),
        **result.scores.to_json(predictor.classes.names),
    }
    if json_file != "-":
        for note in found.notes:
            console.print(note, soft_wrap=True)
        title = f"{bundle} on {data}, {split}" + ("" if parameters is None else ", with CRF")
        console.print(scores_table(scores, title=title))
    write_json(json_file, scores)


def _open_split(predictor: Predictor, data: Path, split: str) -> SegmentationData:
    """Check `split`, divided off by the recipe that the bundle was trained with."""
    from pixelwise.data.dataset import open_dataset
    from pixelwise.training.recipe import load_recipe_of

    trained = load_recipe_of(predictor.recipe)
    with Bar("checking the data") as bar:
        return open_dataset(
            data,
            splits=(split,),
            classes=predictor.classes,
            pixels=predictor.pixels,
            val_fraction=trained.data.val_fraction,
            seed=trained.seed,
            progress=bar,
        )


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
    from pixelwise.crf import require_numba
    from pixelwise.process import own_process

    check_json(json_file)
    require_numba()
    own_process()
    from pixelwise.evaluation import search_crf
    from pixelwise.inference import Predictor

    predictor = Predictor.load(bundle, device=device)
    found = _open_split(predictor, data, split)
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
