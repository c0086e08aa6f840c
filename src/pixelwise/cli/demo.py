"""`pixelwise demo`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from typer import Option

from pixelwise.cli.console import command, console
from pixelwise.progress import duration

DEMO_SCENES = {"train": 360, "val": 40, "test": 8}
DEMO_SIZE = {"height": 192, "width": 256}


@command
def demo(
    out: Annotated[Path, Option(help="Folder for scenes, run and predictions.")] = Path(
        "runs/demo"
    ),
    epochs: Annotated[int | None, Option(help="Number of epochs, instead of the recipe's.")] = None,
) -> None:
    """Generate street scenes, train on them, score, predict, and write a report."""
    from pixelwise.data.scenes import write_scenes
    from pixelwise.errors import InputError
    from pixelwise.folder_lock import FolderLock
    from pixelwise.recipes.load_recipe import load_recipe

    started = time.monotonic()
    scenes = out / "scenes"
    with FolderLock(out, "demo") as lock, console.status("generating scenes"):
        lock.take()
        write_scenes(scenes, **DEMO_SCENES, **DEMO_SIZE)
    count = sum(DEMO_SCENES.values())
    seconds = duration(time.monotonic() - started)
    console.print(f"{count} scenes generated in {scenes} ({seconds})")
    recipe = load_recipe("demo", {} if epochs is None else {"epochs": epochs})

    from pixelwise.cli.training_display import run_with_display
    from pixelwise.training import train
    from pixelwise.training.run_folder import read_root

    try:  # an earlier demo may be replaced, another run may not
        is_demo = read_root(out) == scenes.resolve()
    except InputError:
        is_demo = False
    run = run_with_display(
        lambda callback: train(scenes, out, recipe, overwrite=is_demo, callback=callback)
    )

    from pixelwise.cli.predict import predict_files
    from pixelwise.data.image_files import list_images

    predict_files(run.best, list_images(scenes / "images" / "test"), out / "predictions")
    console.print(f"the demo took {duration(time.monotonic() - started)}")
