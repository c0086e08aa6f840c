"""`pixelwise tune-crf`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from typer import Option

from pixelwise.cli import flags
from pixelwise.cli.console import Bar, JsonOutput, command, console, make_table, print_line

if TYPE_CHECKING:
    from pixelwise.evaluation import CRFSearch

ROWS = 10  # parameters that are printed


@command
def tune_crf(
    bundle: flags.Bundle,
    data: flags.Data,
    split: flags.Split = "val",
    limit: Annotated[
        int,
        Option(
            min=1, metavar="N", help="Number of images to search on; the others validate the gain."
        ),
    ] = 20,
    json_file: Annotated[
        str | None,
        Option(
            "--json",
            metavar="FILE",
            help="Write the best parameters as JSON for predict --crf-set; - prints nothing else.",
        ),
    ] = None,
    device: flags.Device = None,
    images: flags.Images = None,
    masks: flags.Masks = None,
    overwrite: flags.Overwrite = False,
) -> None:
    """Search the best dense CRF parameters for a bundle, and report whether the CRF helps."""
    from pixelwise.inference import InferenceOptions
    from pixelwise.ops.numba_support import require_numba

    output = JsonOutput(json_file, "tune-crf", overwrite=overwrite)
    require_numba("the dense CRF")
    predictor = flags.load_predictor(bundle, InferenceOptions(device=device))
    from pixelwise.evaluation import search_crf

    dataset = flags.open_split(predictor, data, split, flags.dataset_spec(images, masks))
    flags.compile_crf()
    with Bar("searching", unit="steps") as bar:
        search = search_crf(predictor, dataset, split, limit=limit, progress=bar)
    content = {"bundle": str(bundle), "data": str(data), "split": split, **search.to_json()}
    if not output.alone:
        for note in dataset.notes:
            print_line(note)
        _print_search(search, split)
    output.write(content, use=", for predict --crf-set")


def _print_search(search: CRFSearch, split: str) -> None:
    columns = [*search.best.to_json(), "mean IoU %"]
    table = make_table(f"best of {len(search.trials)} parameters", [], columns)
    for trial in search.trials[:ROWS]:
        numbers = [f"{value:g}" for value in trial.parameters.to_json().values()]
        table.add_row(*numbers, f"{100 * trial.mean_iou:.2f}")
    console.print(table)
    comparisons = [(f"the {search.searched.images} images searched on", search.searched)]
    if search.rest is not None:
        comparisons.append((f"the other {search.rest.images} images", search.rest))
    for images, scores in comparisons:
        print_line(
            f"mean IoU on {split}, {images}: {100 * scores.before:.2f} % without the CRF, "
            f"{100 * scores.after:.2f} % with it"
        )
    if not search.helps:
        console.print("The CRF does not help this model on these images: leave it out.")
    elif search.rest is None:
        console.print(
            "No images were left to validate on: expect a smaller gain on others (see --limit)."
        )
