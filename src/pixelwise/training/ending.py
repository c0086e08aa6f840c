"""What ends a run before its last epoch: no more improvement, or a request.

`pixelwise finish RUN` leaves the request in the file RUN/finish.json, which the process that trains
reads at the end of each epoch. So it reaches a run in several processes or on another machine, and
outlives a run that is killed meanwhile.
"""

from __future__ import annotations

from pathlib import Path

from pixelwise.data.dataset import SegmentationData
from pixelwise.errors import InputError
from pixelwise.evaluation.image_counts import ImageCounts
from pixelwise.evaluation.paired_comparison import MIN_IMAGES, paired_difference
from pixelwise.file_io import write_text
from pixelwise.folder_lock import FolderLock
from pixelwise.overwriting import check_output, has_mark, json_mark
from pixelwise.recipes.schema import Recipe
from pixelwise.training.run_folder import BEST, FINISH, read_metrics


def check_patience(recipe: Recipe, data: SegmentationData) -> None:
    """Raise InputError if val has too few images for any improvement to be significant."""
    images = len(data.splits["val"])
    if recipe.patience and images < MIN_IMAGES:
        raise InputError(
            f"patience = {recipe.patience}: no improvement on {images} val images can exceed the "
            f"paired interval: use at least {MIN_IMAGES}, or patience = 0"
        )


def improves(reference: ImageCounts | None, other: ImageCounts) -> bool:
    """Return whether a validation is better than an earlier one by more than the paired interval.

    Args:
        reference: The earlier validation; None if there is none.
        other: The validation.
    """
    if reference is None:
        return True
    difference = paired_difference(reference, other)
    return difference.is_significant and difference.mean > 0


def write_request(folder: Path) -> None:
    """Ask the run in a folder to end after its current epoch.

    Raises:
        InputError: If the file cannot be written, or somebody else's file has its name.
    """
    path, mark = folder / FINISH, json_mark("finish")
    check_output(path, mark=mark)
    write_text(path, f"{{{mark}}}\n")


def finish(folder: Path) -> str:
    """Ask the run that trains in a folder to end after its current epoch.

    The run then scores the network, writes its bundles, and ends as after its last epoch.

    Args:
        folder: The folder of the run.

    Returns:
        A line that says when the run ends.

    Raises:
        InputError: If the folder holds no run, or no process trains there.
    """
    lines = read_metrics(folder)
    begun = [line for line in lines if line["event"] == "start"]
    if not begun:
        raise InputError(f"{folder}: holds no run that has begun: give the folder of a run")
    if lines[-1]["event"] == "end":
        raise InputError(f"{folder}: has ended already: use {folder / BEST}")
    if FolderLock(folder, "finish").owner() != "train":
        raise InputError(
            f"{folder}: no process trains there, so there is nothing to end: "
            f"`pixelwise train --resume {folder}` continues the run"
        )
    write_request(folder)
    epoch = 1 + max((line["epoch"] for line in lines if line["event"] == "epoch"), default=0)
    return f"{folder}: ends after epoch {epoch}"


def is_requested(folder: Path) -> bool:
    """Return whether a run was asked to end."""
    return has_mark(folder / FINISH, json_mark("finish"))


def remove_request(folder: Path) -> None:
    """Remove the request to end a run, if there is one."""
    if is_requested(folder):
        (folder / FINISH).unlink(missing_ok=True)
