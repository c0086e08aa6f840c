"""`pixelwise train`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Context, Option

from pixelwise.cli import flags
from pixelwise.cli.console import Bar, command
from pixelwise.errors import InputError, check_training_packages

if TYPE_CHECKING:
    from pixelwise.data.dataset import SegmentationData
    from pixelwise.recipes.schema import Recipe


@command
def train(
    ctx: Context,
    data: Annotated[Path | None, Argument(help=flags.DATA_OR_ADDRESS, show_default=False)] = None,
    out: Annotated[
        Path | None, Option(help="Folder for the run.", show_default="runs/DATA")
    ] = None,
    resume: Annotated[
        Path | None,
        Option(
            help="Resume this run. Only --devices, --nodes, and DATA if it has moved can be added."
        ),
    ] = None,
    recipe: flags.Recipe = None,
    model: Annotated[
        str | None, Option(help="Name of the network; see `pixelwise models`.")
    ] = None,
    backbone: Annotated[
        str | None, Option(help="Backbone of the network, such as resnet50.")
    ] = None,
    output_stride: Annotated[
        int | None, Option(help="Ratio of image size to feature map size; 8 is finer and slower.")
    ] = None,
    weights: Annotated[
        str | None,
        Option(
            help="Initial weights: imagenet, none, a name of `pixelwise weights list`, a weights "
            "file, or a bundle."
        ),
    ] = None,
    crop: Annotated[
        str | None,
        Option(
            metavar="HEIGHTxWIDTH",
            help="Size of training crops, or one number for a square; image: no cropping.",
        ),
    ] = None,
    augment: Annotated[
        str | None,
        Option(help="Augmentation for a kind of images: street, aerial, microscopy, documents."),
    ] = None,
    epochs: Annotated[int | None, Option(help="Number of passes over the training images.")] = None,
    minutes: Annotated[
        float | None,
        Option(
            min=0.1, help="Time for the run; chooses epochs, and crop and backbone if you do not."
        ),
    ] = None,
    patience: Annotated[
        int | None,
        Option(
            metavar="N",
            help="End the run if none of the last N validations improved significantly.",
        ),
    ] = None,
    batch_size: Annotated[int | None, Option(help="Images per step, over all devices.")] = None,
    learning_rate: Annotated[
        float | None,
        Option(
            help="Learning rate of the backbone. The head uses optimizer.head_multiplier times "
            "this."
        ),
    ] = None,
    seed: Annotated[int | None, Option(help="Random seed.")] = None,
    device: Annotated[str | None, Option(help="auto, cpu, cuda or mps.")] = None,
    images: flags.Images = None,
    masks: flags.Masks = None,
    cache: Annotated[
        str | None,
        Option(
            metavar="SIZE",
            help="For DATA in an object store: disk space for its files, such as 20GiB.",
        ),
    ] = None,
    group_by: flags.GroupBy = None,
    devices: Annotated[
        int | None, Option(min=1, help="Number of GPUs, or of CPU processes, per machine.")
    ] = None,
    nodes: Annotated[
        int | None, Option(min=1, help="Number of machines; run the command on each.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        Option("--set", metavar="KEY=VALUE", help="Any recipe key; see `pixelwise recipe`."),
    ] = None,
    tensorboard: Annotated[
        bool, Option(help="Also write OUT/tensorboard (needs TensorBoard).")
    ] = False,
    overwrite: Annotated[bool, Option(help="Replace the run in OUT.")] = False,
    plan_only: Annotated[
        bool, Option("--plan-only", help="Check everything, print the plan and stop.")
    ] = False,
    preview: Annotated[
        bool, Option("--preview", help="Write a page with twelve augmented samples, and stop.")
    ] = False,
) -> None:
    """Train a network on a folder of images and masks.

    Settings you leave out are chosen from your data and your machine: crop, batch size, epochs and
    class weights. With several devices, each gets a part of every batch.
    """
    if resume is not None:
        _check_resume(ctx)
        _start_processes(devices, nodes, run=resume)
        from pixelwise.cli.training_display import run_with_display
        from pixelwise.training import resume as resume_run

        run_with_display(lambda callback: resume_run(resume, data=data, callback=callback))
        return
    if data is None:
        raise InputError("Missing argument 'data', or --resume RUN: see `pixelwise train --help`")
    folder = out or Path("runs") / data.resolve().name
    if plan_only and preview:
        raise InputError("--plan-only with --preview: give only one of them")
    if not (plan_only or preview):
        _start_processes(devices, nodes, run=folder)
    from pixelwise.distributed.environment import report_once
    from pixelwise.recipes.load_recipe import load_recipe

    with report_once():
        loaded = load_recipe(recipe, _merge_overrides(ctx, settings or []))
    source = _open_early(data, folder, loaded)
    if plan_only or preview:
        processes = (devices or 1) * (nodes or 1)
        page = folder.with_name(f"{folder.name}_preview.html") if preview else None
        _plan(source, folder, loaded, overwrite=overwrite, processes=processes, preview=page)
        return
    from pixelwise.cli.training_display import run_with_display
    from pixelwise.training import train as train_run

    run_with_display(
        lambda callback: train_run(source, folder, loaded, overwrite=overwrite, callback=callback)
    )


def _check_resume(ctx: Context) -> None:
    """Raise InputError if other settings are given with --resume."""
    allowed = ("resume", "data", "devices", "nodes")
    refused = [flag for name, flag in flags.stated(ctx).items() if name not in allowed]
    if refused:
        raise InputError(
            f"--resume {ctx.params['resume']}: a run resumes with its own settings: omit "
            f"{', '.join(refused)}"
        )


def _merge_overrides(ctx: Context, settings: list[str]) -> dict[str, Any]:
    """Return the values of --set and of the other options by recipe key.

    Raises:
        InputError: If an option contradicts --set.
    """
    from pixelwise.recipes.load_recipe import parse_override

    overrides = dict(parse_override(text) for text in settings)
    for name, flag in flags.stated(ctx).items():
        if name not in flags.RECIPE_KEYS:
            continue
        key, value = flags.RECIPE_KEYS[name], ctx.params[name]
        if name == "crop" and value not in ("image", "auto"):
            value = list(
                flags.parse_size(
                    "--crop", value, others=", image, auto, or one number for a square"
                )
            )
        if name == "cache":
            value = _parse_cache(value, ctx.params["data"])
        if overrides.setdefault(key, value) != value:
            raise InputError(
                f"{flag} contradicts --set {key}={overrides[key]}: give only one of them"
            )
    return overrides


def _parse_cache(text: str, data: Path) -> int:
    """Return --cache in MiB."""
    from pixelwise.storage.addresses import as_address

    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MGT])i?B?", text.strip(), re.IGNORECASE)
    if match is None:
        raise InputError(f"--cache {text}: give a size in MiB, GiB or TiB, such as 20GiB")
    if as_address(data) is None:
        raise InputError(
            f"--cache {text}: has no effect on {data}, which is on this machine: omit it"
        )
    return round(float(match[1]) * 1024.0 ** "MGT".index(match[2].upper()))


def _open_early(data: Path, folder: Path, recipe: Recipe) -> Path | SegmentationData:
    """Open the dataset before PyTorch is imported, which takes seconds, to report its faults.

    Not if the output folder exists, since training first checks what it holds, and not in one of
    several processes, which report a fault together.
    """
    from pixelwise.distributed.environment import read_distributed_env
    from pixelwise.planning.training_data import open_training_data
    from pixelwise.process_settings import tune_allocator

    check_training_packages()
    if folder.exists() or read_distributed_env() is not None:
        return data
    tune_allocator()  # as in the run that follows
    with Bar("checking the data") as bar:
        return open_training_data(data, recipe, bar)


def _plan(
    data: Path | SegmentationData,
    out: Path,
    recipe: Recipe,
    *,
    overwrite: bool,
    processes: int,
    preview: Path | None,
) -> None:
    """Check everything and print the plan, and write the page `preview` if given."""
    from pixelwise.cli.console import print_line
    from pixelwise.cli.training_display import PrintedDisplay
    from pixelwise.overwriting import check_output, html_mark
    from pixelwise.process_settings import tune_allocator
    from pixelwise.report import write_preview
    from pixelwise.training import plan_training

    tune_allocator()  # as in a run, so that measurements agree
    with PrintedDisplay() as display:
        run = plan_training(
            data, out, recipe, overwrite=overwrite, callback=display, processes=processes
        )
    if preview is not None:
        check_output(preview, mark=html_mark("report"), overwrite=overwrite)
        write_preview(run, preview)
        print_line(f"preview      {preview}")


def _start_processes(devices: int | None, nodes: int | None, *, run: Path) -> None:
    """Start one process per device and exit with them.

    In a process of a distributed run, check that the flags agree with the environment instead.
    """
    from pixelwise.distributed.environment import (
        check_distributed_env,
        follow_launcher,
        read_distributed_env,
    )

    distributed_env = read_distributed_env()
    if distributed_env is not None:
        check_distributed_env(distributed_env, devices=devices, nodes=nodes)
        if distributed_env.launched:
            follow_launcher()
    elif (devices or 1) * (nodes or 1) > 1:
        from pixelwise.training.launcher import launch  # imports PyTorch

        remedy = f"`pixelwise train --resume {run}` resumes from the last checkpoint"
        raise SystemExit(launch(devices=devices or 1, nodes=nodes or 1, remedy=remedy))
