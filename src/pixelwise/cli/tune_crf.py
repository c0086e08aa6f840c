"""`pixelwise tune-crf`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pixelwise.cli import inference_options as flags
from pixelwise.cli.console import Bar, check_json, command, console, write_json
from pixelwise.cli.splits import open_splits

if TYPE_CHECKING:
    from pixelwise.evaluation import CRFSearch

ROWS = 10  # parameters that are printed


@command
def tune_crf(
    bundle: Annotated[Path, typer.Argument(help="A .safetensors file from train.")],
    data: Annotated[Path, typer.Argument(help="Folder of images and masks.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    limit: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Number of images to search on; the others validate the gain."
        ),
    ] = 20,
    json_file: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="FILE",
            help="Write the best parameters as JSON for predict --crf-set; - prints nothing else.",
        ),
    ] = None,
    device: flags.Device = None,
) -> None:
    """Search the best dense CRF parameters for a bundle, and report whether the CRF helps."""
    from pixelwise.inference import InferenceOptions
    from pixelwise.ops.numba_support import require_numba

    check_json(json_file)
    require_numba("the dense CRF")
    predictor = flags.load_predictor(bundle, InferenceOptions(device=device))
    from pixelwise.evaluation import search_crf

    dataset = open_splits(predictor, data, split)
    flags.compile_crf()
    with Bar("searching", unit="steps") as bar:
        search = search_crf(predictor, dataset, split, limit=limit, progress=bar)
    content = {"bundle": str(bundle), "data": str(data), "split": split, **search.to_json()}
    if json_file != "-":
        for note in dataset.notes:
            console.print(note, soft_wrap=True)
        _print_search(search, split)
    write_json(json_file, content, use=", for predict --crf-set")


def _print_search(search: CRFSearch, split: str) -> None:
    names = list(search.best.to_json())
    table = Table(title=f"best of {len(search.trials)} parameters", title_justify="left")
    for name in (*names, "mean IoU %"):
        table.add_column(name, justify="right")
    for trial in search.trials[:ROWS]:
        numbers = [f"{value:g}" for value in trial.parameters.to_json().values()]
        table.add_row(*numbers, f"{100 * trial.mean_iou:.2f}")
    console.print(table)
    comparisons = [(f"the {search.searched.images} images searched on", search.searched)]
    if search.rest is not None:
        comparisons.append((f"the other {search.rest.images} images", search.rest))
    for images, scores in comparisons:
        console.print(
            f"mean IoU on {split}, {images}: {100 * scores.before:.2f} % without the CRF, "
            f"{100 * scores.after:.2f} % with it",
            soft_wrap=True,
        )
    if not search.helps:
        console.print("The CRF does not help this model on these images: leave it out.")
    elif search.rest is None:
        console.print(
            "No images were left to validate on: expect a smaller gain on others (see --limit)."
        )
