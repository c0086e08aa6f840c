"""`pixelwise evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Context, Option

from pixelwise.cli import flags
from pixelwise.cli.console import Bar, JsonOutput, command, print_line, show_scores

if TYPE_CHECKING:
    from pixelwise.inference import Predictor


@command
def evaluate(
    ctx: Context,
    bundle: flags.BundleOrExport,
    data: flags.Data,
    split: flags.Split = "val",
    json_file: flags.JsonFile = None,
    image_scores: Annotated[
        Path | None, Option(metavar="FILE", help="Save the scores of each image for compare.")
    ] = None,
    images: flags.Images = None,
    masks: flags.Masks = None,
    runtime: Annotated[
        str | None,
        Option(
            help="As for predict. By default torch for a bundle, and an export's own runtime.",
            show_default=False,
        ),
    ] = None,
    device: flags.Device = None,
    crf: flags.Crf = False,
    crf_set: flags.CrfSet = None,
    tile: flags.Tile = "auto",
    scales: flags.Scales = "1",
    flip: flags.Flip = False,
    overwrite: flags.Overwrite = False,
) -> None:
    """Score a bundle on a split: IoU, accuracy, Dice, boundary scores and calibration."""
    from pixelwise.evaluation.image_counts import KEY
    from pixelwise.inference.export_manifest import is_export
    from pixelwise.overwriting import check_output

    output = JsonOutput(json_file, "evaluate", overwrite=overwrite)
    if images is not None and masks is None and images.endswith(".safetensors"):
        image_scores, images = Path(images), None  # the former name of --image-scores
    if image_scores is not None:
        check_output(image_scores, mark=KEY, overwrite=overwrite)
    options = flags.parse_options(ctx, runtime or ("auto" if is_export(bundle) else "torch"))
    predictor = flags.load_predictor(bundle, options)
    from pixelwise.evaluation import evaluate as score

    dataset = flags.open_split(predictor, data, split, flags.dataset_spec(images, masks))
    with Bar(f"scoring {split}") as bar:
        result = score(predictor, dataset, split, details=True, progress=bar)
    scores = {
        "bundle": str(bundle),
        "data": str(data),
        "split": split,
        "images": len(dataset.splits[split]),
        "runtime": predictor.runtime.name,
        **({} if predictor.crf is None else {"crf": predictor.crf.to_json()}),
        **({} if predictor.tta.single else predictor.tta.to_json()),
        **result.to_json(predictor.classes.names),
    }
    if not output.alone:
        for note in dataset.notes:
            print_line(note)
        show_scores(scores, title=f"{bundle} on {data}, {split}{_refinements(predictor)}")
    if image_scores is not None:
        check_output(image_scores, mark=KEY, overwrite=overwrite)  # it may have appeared meanwhile
        result.image_counts.save(image_scores, classes=predictor.classes.names, split=split)
    output.write(scores)


def _refinements(predictor: Predictor) -> str:
    """Name the CRF and TTA for a title."""
    crf = "" if predictor.crf is None else ", with CRF"
    return crf if predictor.tta.single else f"{crf}, {predictor.tta}"
