"""`pixelwise train`, `pixelwise demo` and `pixelwise recipe`."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from pixelwise.cli.console import (
    Bar,
    Clock,
    command,
    console,
    duration,
    facts_table,
    percent,
    show_scores,
    stop,
)

if TYPE_CHECKING:
    from pixelwise.training import Callback, Run

DEMO_SCENES = {"train": 360, "val": 40, "test": 8}
DEMO_SIZE = {"height": 192, "width": 256}


@command
def train(
    data: Annotated[
        Path | None, typer.Argument(help="Folder of images and masks.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the run.", show_default="runs/DATA")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with this run, where it was stopped. Takes --devices, --nodes."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A .toml file, or the name of a shipped recipe.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A name from `pixelwise models`, in place of the recipe's.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="imagenet, none, a file of weights, or a bundle.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Times through the training images.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of the backbone; the head has a multiple of it.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything that is drawn.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="GPUs, or processes on a CPU, of this machine.")
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(min=1, help="Machines; the command is given on each.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any recipe key; see `pixelwise recipe`."),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option(help="Also write OUT/tensorboard (needs TensorBoard).")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace the run that OUT holds.")] = False,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Print the plan, check everything, and stop.")
    ] = False,
) -> None:
    """Train a network on a folder of images and masks.

    Crop, batch, epochs and class weights that nothing states are planned: from the data, and from
    this machine. With several devices each has its part of every batch.
    """
    from pixelwise.errors import InputError

    others = (data, out, recipe, model, weights, epochs, batch_size, learning_rate, seed, device)
    if resume is not None:
        stated = settings or overwrite or tensorboard or plan_only
        if stated or any(given is not None for given in others):
            raise InputError(
                f"--resume {resume}: goes on with the run's own settings: give no others"
            )
    elif data is None:
        raise InputError("Missing argument 'data', or --resume RUN: see `pixelwise train --help`")
    else:
        out = out or Path("runs") / data.resolve().name
    run = resume or out
    if not plan_only:
        _launch(
            devices,
            nodes,
            remedy=f"`pixelwise train --resume {run}` goes on from the last checkpoint",
        )
    if resume is not None:
        _resume(resume)
        return
    assert data is not None
    assert out is not None
    from pixelwise.distributed.process_rank import report_once
    from pixelwise.recipes.schema import load_recipe, parse_override

    overrides = dict(parse_override(text) for text in settings or [])
    flags = {
        "model.name": model,
        "model.weights": weights,
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer.learning_rate": learning_rate,
        "seed": seed,
        "device": device,
        "tensorboard": tensorboard or None,
    }
    overrides |= {key: value for key, value in flags.items() if value is not None}
    with report_once():
        chosen = load_recipe(recipe, overrides)
    if plan_only:
        _plan(data, out, chosen, overwrite=overwrite, count=(devices or 1) * (nodes or 1))
    else:
        _run(data, out, chosen, overwrite=overwrite)


@command
def demo(
    out: Annotated[Path, typer.Option(help="Folder for scenes, run and masks.")] = Path(
        "runs/demo"
    ),
    epochs: Annotated[int | None, typer.Option(help="In place of the recipe's number.")] = None,
) -> None:
    """Generate street scenes, train on them, score, predict, and write a page about it."""
    from pixelwise.data.scenes import write_scenes
    from pixelwise.file_io import make_folder
    from pixelwise.recipes.schema import load_recipe

    started = time.monotonic()
    make_folder(out)
    scenes = out / "scenes"
    again = scenes.is_dir()  # an earlier demo may be replaced, another run not
    with console.status("drawing scenes"):
        write_scenes(scenes, **DEMO_SCENES, **DEMO_SIZE)
    count = sum(DEMO_SCENES.values())
    console.print(f"{count} scenes drawn into {scenes} ({duration(time.monotonic() - started)})")
    overrides = {} if epochs is None else {"epochs": epochs}
    run = _run(scenes, out, load_recipe("demo", overrides), overwrite=again)

    from pixelwise.cli.predict import predict_files
    from pixelwise.data.image_files import list_images

    predict_files(run.best, list_images(scenes / "images" / "test"), out / "masks")
    console.print(f"all of it took {duration(time.monotonic() - started)}")


@command
def recipe(
    name: Annotated[str | None, typer.Argument(help="A shipped recipe, or a .toml file.")] = None,
) -> None:
    """Print a recipe with every key, ready to be saved, changed and given to train --recipe."""
    from pixelwise.recipes.schema import load_recipe, shipped_recipes

    text = load_recipe(name).to_toml()
    print(f"# shipped: {', '.join(shipped_recipes())}", file=sys.stderr)
    print(text, end="")


def _run(data: Path, out: Path, resolved: Any, *, overwrite: bool) -> Run:
    def work(callback: Callback) -> Run:
        from pixelwise.training import train as run_training

        return run_training(data, out, resolved, overwrite=overwrite, callback=callback)

    return _show(work)


def _launch(devices: int | None, nodes: int | None, *, remedy: str) -> None:
    """Where this is one process of several, see that it fits them; where it is to become several,
    start them and end with them."""
    from pixelwise.distributed.process_rank import (
        check_process_rank,
        find_process_rank,
        follow_launcher,
    )
    from pixelwise.training.launcher import launch

    place = find_process_rank()
    if place is not None:
        check_process_rank(place, devices=devices, nodes=nodes)
        if place.launched:
            follow_launcher()
    elif (devices or 1) * (nodes or 1) > 1:
        raise SystemExit(launch(devices=devices or 1, nodes=nodes or 1, remedy=remedy))


def _plan(data: Path, out: Path, chosen: Any, *, overwrite: bool, count: int) -> None:
    from pixelwise.process_settings import tune_allocator
    from pixelwise.training import Callback, plan_training

    tune_allocator()  # as in the run, so that what is measured is that
    with Bar("checking the data") as checking:

        class Checking(Callback):
            def checking(self, done: int, total: int) -> None:
                checking(done, total)

        run = plan_training(
            data, out, chosen, overwrite=overwrite, callback=Checking(), count=count
        )
    console.print(facts_table(run.facts))


def _resume(folder: Path) -> Run:
    def work(callback: Callback) -> Run:
        from pixelwise.training import resume as resume_training

        return resume_training(folder, callback=callback)

    return _show(work)


def _show(work: Callable[[Callback], Run]) -> Run:
    """Train, and print what comes of it."""
    from pixelwise.process_settings import tune_allocator

    kept = tune_allocator()
    from pixelwise.distributed.process_rank import find_process_rank

    place = find_process_rank()
    if place is not None and place.rank:
        from pixelwise.training import Callback

        return work(Callback())  # process 0 tells of it

    from pixelwise.report import write_run_report

    with _Display(kept) as display:
        run = work(display.callback)
    assert run.evaluation is not None
    scores = run.evaluation.to_json(run.data.classes.names)
    show_scores(scores, title=f"val, epoch {run.best_epoch} of {display.epochs}")
    with Bar("scoring for the report") as bar:
        report = write_run_report(run, command=_command_line(), progress=bar)
    console.print(f"best bundle  {run.best}", soft_wrap=True)
    console.print(f"report       {report}", soft_wrap=True)
    console.print(f"use it       pixelwise predict {run.best} PHOTOS --out masks", soft_wrap=True)
    return run


def _command_line() -> str:
    return shlex.join(["pixelwise", *sys.argv[1:]])


class _Display:
    """Draws a run: a bar while files are checked, one for the steps, a line an epoch."""

    def __init__(self, kept: str | None) -> None:
        from pixelwise.training import Callback

        display = self

        class Events(Callback):
            def checking(self, done: int, total: int) -> None:
                display.checked(done, total)

            def planned(self, facts: Mapping[str, str], *, epochs: int) -> None:
                display.planned(facts, epochs)

            def step(self, *, epoch: int, step: int, steps: int, loss: float, images: int) -> None:
                display.step(epoch, step, steps, loss, images)

            def validating(self, done: int, total: int) -> None:
                display.describe(f"val {done}/{total}")

            def epoch_ended(self, row: Mapping[str, Any]) -> None:
                display.epoch_ended(row)

        self.callback: Callback = Events()
        self.epochs = 0
        self.kept = kept
        self.check = Bar("checking the data")
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("{task.fields[rate]} images/s"),
            TextColumn("{task.fields[left]} left"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task: TaskID | None = None
        self.clock = Clock()
        self.best = -1.0
        self.rate = self.loss = 0.0
        self.fresh = True
        self.last = time.monotonic()

    def __enter__(self) -> _Display:
        self.check.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.check.__exit__()
        stop(self.bar)

    def checked(self, done: int, total: int) -> None:
        self.check(done, total)

    def planned(self, facts: Mapping[str, str], epochs: int) -> None:
        self.epochs = epochs
        self.check.__exit__()
        console.print(facts_table({**facts, "memory": self.kept or ""}))
        self.task = self.bar.add_task("", total=None, loss="-", rate="-", left="?")
        self.bar.start()
        self.clock = Clock()
        self.last = time.monotonic()

    def describe(self, text: str) -> None:
        if self.task is not None:
            self.bar.update(self.task, description=text)

    def step(self, epoch: int, step: int, steps: int, loss: float, images: int) -> None:
        assert self.task is not None
        now = time.monotonic()
        rate = images / max(1e-9, now - self.last)
        self.last = now
        # Smoothed, so that the eye can follow; the file holds the raw values.
        fresh, self.fresh = self.fresh, False
        self.rate = rate if fresh or step == 1 else 0.8 * self.rate + 0.2 * rate
        self.loss = loss if fresh else 0.9 * self.loss + 0.1 * loss
        done, total = (epoch - 1) * steps + step, self.epochs * steps
        if fresh:  # a resumed run has done some of it long ago
            self.clock.before = done - 1
        self.bar.update(
            self.task,
            total=total,
            completed=done,
            description=f"epoch {epoch}/{self.epochs}",
            loss=f"{self.loss:.3f}",
            rate=f"{self.rate:.1f}",
            left=duration(self.clock.left(done, total)),
        )

    def epoch_ended(self, row: Mapping[str, Any]) -> None:
        score = row["val_mean_iou"]
        mark = ""
        if score is not None and score > self.best:
            self.best, mark = score, "  best so far"
        console.print(
            f"epoch {row['epoch']:>3}/{self.epochs}  loss {row['loss']:.3f}  "
            f"val mIoU {percent(score)} %  {row['seconds']:.0f} s, "
            f"{row['images_per_second']:.1f} images/s{mark}"
        )
        self.last = time.monotonic()
