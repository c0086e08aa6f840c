"""`pixelwise sweep`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from pixelwise.cli.console import Bar, check_json, command, console, percent, write_json

if TYPE_CHECKING:
    from pixelwise.training.sweep import Sweep, SweepCallback


@command
def sweep(
    data: Annotated[Path, typer.Argument(help="Folder of images and masks.")],
    out: Annotated[Path, typer.Option(help="Folder for the trials; given again, it goes on.")],
    trials: Annotated[int, typer.Option(min=1, help="Settings to try, all in all.")] = 20,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="After these no epoch is begun.")
    ] = None,
    backbones: Annotated[
        list[str] | None,
        typer.Option("--backbone", help="One to try; give several. None: the recipe's."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A .toml file, or the name of a shipped recipe.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any recipe key, the same in all trials."),
    ] = None,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Also as JSON; - prints only that.")
    ] = None,
) -> None:
    """Search rate, crop and backbone for this data on a budget (needs Optuna)."""
    from pixelwise.process_settings import tune_allocator

    check_json(json_file)
    tune_allocator()
    from pixelwise.data.dataset import open_dataset
    from pixelwise.inference.runtimes.torch.torch_runtime import find_device
    from pixelwise.recipes.schema import load_recipe, parse_override
    from pixelwise.training.apply_plan import plan_run
    from pixelwise.training.sweep import make_space, require_optuna
    from pixelwise.training.sweep import sweep as search

    require_optuna()
    chosen = load_recipe(recipe, dict(parse_override(text) for text in settings or []))
    with Bar("checking the data") as bar:
        checked = open_dataset(
            data,
            splits=("train", "val"),
            val_fraction=chosen.data.val_fraction,
            seed=chosen.seed,
            cache_bytes=0,
            progress=bar,
        )
    device = find_device(None if chosen.device == "auto" else chosen.device)
    chosen, _ = plan_run(chosen, checked, device)
    space = make_space(chosen, checked, backbones=backbones or ())
    quiet = json_file == "-"
    found = search(
        data,
        out,
        chosen,
        space,
        trials=trials,
        minutes=minutes,
        callback=_listener(trials, quiet=quiet),
    )
    if not quiet:
        _show(found, data)
    write_json(json_file, found.to_json())


def _listener(trials: int, *, quiet: bool) -> SweepCallback:
    from pixelwise.training.sweep import SweepCallback, Tried

    class Lines(SweepCallback):
        def trial_begins(self, number: int, settings: Mapping[str, Any]) -> None:
            if not quiet:
                console.print(f"trial {number + 1}/{trials}  {_settings(settings)}")

        def epoch_ended(self, row: Mapping[str, Any]) -> None:
            if not quiet and console.is_terminal:
                console.print(f"  epoch {row['epoch']}  val mIoU {percent(row['val_mean_iou'])} %")

        def trial_ended(self, trial: Tried) -> None:
            if not quiet:
                score = percent(trial.mean_iou)
                console.print(f"  {trial.state} after {trial.epochs} epochs, val mIoU {score} %")

    return Lines()


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {_short(v)}" for key, v in settings.items())


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _show(found: Sweep, data: Path) -> None:
    if not found.trials:
        console.print("no trial was begun: give more --minutes")
        return
    keys = list(dict.fromkeys(key for trial in found.trials for key in trial.settings))
    table = Table(title="trials, best first", title_justify="left")
    table.add_column("trial")
    for key in keys:
        table.add_column(key.rpartition(".")[2], justify="right")
    for name in ("epochs", "val mIoU %", "state"):
        table.add_column(name, justify="right")
    for trial in found.trials:
        values = [_short(trial.settings[key]) if key in trial.settings else "-" for key in keys]
        score = percent(trial.mean_iou)
        table.add_row(trial.folder, *values, str(trial.epochs), score, trial.state)
    console.print(table)
    best = found.best
    if best is None:
        console.print("no trial is complete: give the same command with more --trials or --minutes")
        return
    console.print(f"best         {_settings(best.settings)}: {percent(best.mean_iou)} % val mIoU")
    console.print(f"its bundle   {found.out / best.folder / 'best.safetensors'}", soft_wrap=True)
    console.print(f"use it       pixelwise train {data} --recipe {found.recipe}", soft_wrap=True)
