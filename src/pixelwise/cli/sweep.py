"""`pixelwise sweep`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Context, Option

from pixelwise.cli import flags, study
from pixelwise.cli.console import Bar, JsonOutput, command, console, make_table, percent, print_line

if TYPE_CHECKING:
    from pixelwise.training.sweep import Sweep, SweepCallback


@command
def sweep(
    ctx: Context,
    data: flags.Data,
    out: Annotated[Path, Option(help="Folder for the trials; an existing sweep continues.")],
    trials: Annotated[int, Option(min=1, help="Total number of trials.")] = 20,
    minutes: Annotated[
        float | None, Option(min=0, help="Time budget: no epoch begins after it.")
    ] = None,
    backbones: Annotated[
        list[str] | None, Option("--backbone", help="Backbone to try; repeat for several.")
    ] = None,
    recipe: flags.Recipe = None,
    settings: Annotated[
        list[str] | None,
        Option("--set", metavar="KEY=VALUE", help="Any recipe key, for all trials."),
    ] = None,
    images: flags.Images = None,
    masks: flags.Masks = None,
    json_file: flags.JsonFile = None,
    overwrite: Annotated[
        bool, Option("--overwrite", help="Replace any file at --json; trials are never replaced.")
    ] = False,
) -> None:
    """Search for the best learning rate, crop and backbone on a budget (needs Optuna)."""
    from pixelwise.process_settings import tune_allocator

    output = JsonOutput(json_file, "sweep", overwrite=overwrite)
    tune_allocator()
    from pixelwise.inference.runtimes.torch.torch_runtime import find_device
    from pixelwise.planning.training_data import open_training_data
    from pixelwise.training.apply_plan import plan_run
    from pixelwise.training.sweep import make_search_space, require_optuna
    from pixelwise.training.sweep import sweep as run_sweep

    require_optuna()
    loaded = study.load_study_recipe(ctx)
    with Bar("checking the data") as bar:
        dataset = open_training_data(data, loaded.replace({"data.cache_mib": 0}), bar)
    device = find_device(None if loaded.device == "auto" else loaded.device)
    planned, _ = plan_run(loaded, dataset, device)
    space = make_search_space(planned, dataset, backbones=backbones or ())
    quiet = output.alone
    result = run_sweep(
        data,
        out,
        planned,
        space,
        trials=trials,
        minutes=minutes,
        callback=_make_callback(trials, quiet=quiet),
    )
    if not quiet:
        _show(result, data)
    output.write(result.to_json())


def _make_callback(trials: int, *, quiet: bool) -> SweepCallback:
    from pixelwise.training.sweep import SweepCallback, TrialResult

    class PrintingCallback(SweepCallback):
        def on_trial_begin(self, number: int, settings: Mapping[str, Any]) -> None:
            if not quiet:
                console.print(f"trial {number + 1}/{trials}  {_describe(settings)}")

        def on_epoch_end(self, row: Mapping[str, Any]) -> None:
            if not quiet and console.is_terminal:
                console.print(f"  epoch {row['epoch']}  val mIoU {percent(row['val_mean_iou'])} %")

        def on_trial_end(self, trial: TrialResult) -> None:
            if not quiet:
                score = percent(trial.mean_iou)
                console.print(f"  {trial.state} after {trial.epochs} epochs, val mIoU {score} %")

    return PrintingCallback()


def _describe(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {_format(v)}" for key, v in settings.items())


def _format(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _show(result: Sweep, data: Path) -> None:
    if not result.trials:
        console.print("no trial was started: increase --minutes")
        return
    keys = list(dict.fromkeys(key for trial in result.trials for key in trial.settings))
    columns = [*(key.rpartition(".")[2] for key in keys), "epochs", "val mIoU %", "state"]
    table = make_table("trials, best first", ["trial"], columns)
    for trial in result.trials:
        values = [_format(trial.settings[key]) if key in trial.settings else "-" for key in keys]
        score = percent(trial.mean_iou)
        table.add_row(trial.folder, *values, str(trial.epochs), score, trial.state)
    console.print(table)
    best = result.best
    if best is None:
        console.print("no trial is complete: run the command again with more --trials or --minutes")
        return
    console.print(f"best         {_describe(best.settings)}: {percent(best.mean_iou)} % val mIoU")
    print_line(f"its bundle   {result.out / best.folder / 'best.safetensors'}")
    print_line(f"use it       pixelwise train {data} --recipe {result.recipe}")
