"""`pixelwise evaluate`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Context, Option

from pixelwise.cli import flags
from pixelwise.cli.console import (
    Bar,
    JsonOutput,
    command,
    console,
    make_table,
    percent,
    percents,
    print_line,
    show_scores,
)

if TYPE_CHECKING:
    from pixelwise.evaluation import Evaluation
    from pixelwise.inference import Predictor


@command
def evaluate(
    ctx: Context,
    bundles: flags.Bundles,
    data: flags.Data,
    split: flags.Split = "val",
    json_file: flags.JsonFile = None,
    image_scores: Annotated[
        Path | None, Option(metavar="FILE", help="Save the scores of each image for compare.")
    ] = None,
    images: flags.Images = None,
    masks: flags.Masks = None,
    runtime: flags.ScoringRuntime = None,
    device: flags.Device = None,
    crf: flags.Crf = False,
    crf_set: flags.CrfSet = None,
    tile: flags.Tile = "auto",
    scales: flags.Scales = "1",
    flip: flags.Flip = False,
    overwrite: flags.Overwrite = False,
) -> None:
    """Score a bundle on a split: IoU, accuracy, Dice, boundary scores and calibration.

    Several bundles are scored as an ensemble, and each on its own.
    """
    from pixelwise.evaluation.image_counts import KEY
    from pixelwise.inference.export_manifest import scoring_runtime
    from pixelwise.overwriting import check_output

    output = JsonOutput(json_file, "evaluate", overwrite=overwrite)
    if images is not None and masks is None and images.endswith(".safetensors"):
        image_scores, images = Path(images), None  # the former name of --image-scores
    if image_scores is not None:
        check_output(image_scores, mark=KEY, overwrite=overwrite)
    options = flags.parse_options(ctx, runtime or scoring_runtime(bundles))
    predictor = flags.load_predictor(bundles, options)
    from pixelwise.evaluation import evaluate as score
    from pixelwise.evaluation import evaluate_ensemble

    dataset = flags.open_split(predictor, data, split, flags.dataset_spec(images, masks))
    with Bar(f"scoring {split}") as bar:
        if len(bundles) == 1:
            result = score(predictor, dataset, split, details=True, progress=bar)
        else:
            members = {str(path): partial(flags.load_predictor, path, options) for path in bundles}
            result = evaluate_ensemble(
                predictor, members, dataset, split, details=True, progress=bar
            )
    scores = {
        "bundle": " and ".join(map(str, bundles)),
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
        name = bundles[0] if len(bundles) == 1 else f"ensemble of {len(bundles)}"
        show_scores(scores, title=f"{name} on {data}, {split}{_refinements(predictor)}")
        _show_members(result)
    if image_scores is not None:
        check_output(image_scores, mark=KEY, overwrite=overwrite)  # it may have appeared meanwhile
        result.image_counts.save(image_scores, classes=predictor.classes.names, split=split)
    output.write(scores)


def _show_members(ensemble: Evaluation) -> None:
    """Print the mean IoU of the networks of an ensemble, and what it gains over the best one."""
    if ensemble.gain is None:
        return
    table = make_table("networks, in %", ["network"], ["mean IoU", "95 % interval"])
    for name, result in (*ensemble.members.items(), ("ensemble", ensemble)):
        interval = result.intervals.values["mean_iou"].tolist()
        table.add_row(name, percent(result.scores.mean_iou), percents(interval))
    console.print(table)
    gain = ensemble.gain
    print_line(
        f"gain over {ensemble.best_member}: {100 * gain.mean:+.1f} points of mean IoU (95 % "
        f"interval {percents(gain.mean_interval.tolist())})"
        f"{'' if gain.is_significant else ': no more than chance explains'}"
    )


def _refinements(predictor: Predictor) -> str:
    """Name the CRF and TTA for a title."""
    crf = "" if predictor.crf is None else ", with CRF"
    return crf if predictor.tta.single else f"{crf}, {predictor.tta}"
