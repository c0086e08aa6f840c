"""`pixelwise tune-bias`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from typer import Context, Option

from pixelwise.cli import flags
from pixelwise.cli.console import (
    Bar,
    JsonOutput,
    command,
    console,
    make_table,
    percents,
    print_line,
)


@command
def tune_bias(
    ctx: Context,
    bundle: flags.Bundle,
    data: flags.Data,
    out: Annotated[Path, Option(help="The bundle to write.", metavar="BUNDLE")],
    split: flags.Split = "val",
    json_file: flags.JsonFile = None,
    images: flags.Images = None,
    masks: flags.Masks = None,
    device: flags.Device = None,
    tile: flags.Tile = "auto",
    overwrite: flags.Overwrite = False,
) -> None:
    """Raise the mean IoU by predicting some classes more readily than others.

    A number per class is fitted to a split that was not trained on, and added to the logits by the
    bias of the last layer. Prediction takes no longer.
    """
    from pixelwise.errors import InputError
    from pixelwise.overwriting import check_output

    output = JsonOutput(json_file, "tune-bias", overwrite=overwrite)
    if out.exists() and bundle.exists() and out.samefile(bundle):
        raise InputError(f"{out}: is the bundle to tune: choose another --out")
    check_output(out, overwrite=overwrite)
    predictor = flags.load_predictor(bundle, flags.parse_options(ctx, "torch"))
    from pixelwise.evaluation import tune_bias as tune
    from pixelwise.evaluation import write_tuned

    dataset = flags.open_split(predictor, data, split, flags.dataset_spec(images, masks))
    with Bar(f"predicting {split}") as bar:
        tuning = tune(predictor, dataset, split, progress=bar)
    content = tuning.to_json()
    if tuning.helps:
        write_tuned(bundle, tuning, out, split=split, overwrite=overwrite)
    if not output.alone:
        for note in dataset.notes:
            print_line(note)
        _print_tuning(content, split)
        print_line(
            f"written to {out}"
            if tuning.helps
            else "not written: no offsets raise the mean IoU of images that they were not fitted to"
        )
    written = str(out) if tuning.helps else None
    output.write(
        {"bundle": str(bundle), "data": str(data), "split": split, **content, "written": written}
    )


def _print_tuning(content: Mapping[str, Any], split: str) -> None:
    title = f"{split}: {content['images']} images, each half with the other's offsets"
    table = make_table(title, ["class"], ["offset", "IoU %", "precision %", "recall %"])
    before, after = content["before"], content["after"]
    for name, offset in content["offsets"].items():
        old, new = before["classes"][name], after["classes"][name]
        metrics = (percents((old[key], new[key])) for key in ("iou", "precision", "accuracy"))
        table.add_row(name, f"{offset:+.1f}", *metrics)
    table.add_row("mean", "", percents((before["mean_iou"], after["mean_iou"])), "", "")
    console.print(table)
