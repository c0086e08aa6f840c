"""`pixelwise calibrate`."""

from __future__ import annotations

from typer import Context

from pixelwise.cli import flags
from pixelwise.cli.console import Bar, JsonOutput, command, console, make_table, percent, print_line


@command
def calibrate(
    ctx: Context,
    bundle: flags.BundleOrExport,
    data: flags.Data,
    split: flags.Split = "val",
    json_file: flags.JsonFile = None,
    images: flags.Images = None,
    masks: flags.Masks = None,
    runtime: flags.ScoringRuntime = None,
    device: flags.Device = None,
    tile: flags.Tile = "auto",
    overwrite: flags.Overwrite = False,
) -> None:
    """Make the probabilities of a bundle agree with how often it is right.

    A temperature and the limit for images unlike the data are fitted to a split that was not
    trained on, and stored with the bundle and its exports. Labels and masks stay the same.
    """
    from pixelwise.inference.export_manifest import scoring_runtime

    output = JsonOutput(json_file, "calibrate", overwrite=overwrite)
    options = flags.parse_options(ctx, runtime or scoring_runtime([bundle]))
    predictor = flags.load_predictor(bundle, options)
    from pixelwise.evaluation import calibrate as fit
    from pixelwise.evaluation import store_calibration
    from pixelwise.evaluation.calibrate import FALSE_ALARMS

    dataset = flags.open_split(predictor, data, split, flags.dataset_spec(images, masks))
    with Bar(f"predicting {split}") as bar:
        report = fit(predictor, dataset, split, progress=bar)
    written = store_calibration(bundle, report.stored)
    stored = report.stored
    if not output.alone:
        for note in dataset.notes:
            print_line(note)
        title = f"{split}: {report.pixels} pixels of {stored.images} images"
        table = make_table(title, ["each half with the other's temperature"], ["before", "after"])
        before, after = report.before, report.after
        table.add_row(
            "negative log-likelihood",
            f"{before.negative_log_likelihood:.4f}",
            f"{after.negative_log_likelihood:.4f}",
        )
        table.add_row(
            "calibration error, %",
            percent(before.expected_calibration_error),
            percent(after.expected_calibration_error),
        )
        console.print(table)
        print_line(
            f"temperature {stored.temperature:.3f}, from all images"
            if stored.temperature != 1
            else "temperature 1: none lowers the negative log-likelihood of the other half"
        )
        print_line(
            f"images with a familiarity below {stored.lowest_familiarity:.3f} are flagged: "
            f"{percent(stored.false_alarms)} % of the ordinary ones, measured like this (aim: "
            f"{percent(FALSE_ALARMS)} %)"
        )
        print_line(f"stored in {', '.join(map(str, written))}")
    output.write(
        {
            "bundle": str(bundle),
            "data": str(data),
            "split": split,
            **report.to_json(),
            "written": [str(path) for path in written],
        }
    )
