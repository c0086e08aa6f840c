"""What the commands that train several networks of one dataset have in common."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any

from typer import Context, Option

from pixelwise.cli import flags
from pixelwise.cli.console import Bar, console, percent

if TYPE_CHECKING:
    from pixelwise.recipes.schema import Recipe
    from pixelwise.study.folds import FoldsCallback

Settings = Annotated[
    list[str] | None,
    Option("--set", metavar="KEY=VALUE", help="Any recipe key, for all trainings."),
]
Epochs = Annotated[
    int | None, Option(help="Number of passes over the training images of each fold.")
]
Seed = Annotated[int | None, Option(help="Random seed of the folds and the trainings.")]
Device = Annotated[str | None, Option(help="auto, cpu, cuda or mps.")]


_OPTIONS = ("images", "masks", "group_by", "epochs", "seed", "device")
"""Options that set a value of the recipe, in some of these commands."""


def load_study_recipe(ctx: Context) -> Recipe:
    """Load the recipe of all trainings, with the values of --set and of the other options."""
    from pixelwise.recipes.load_recipe import load_recipe, parse_override

    given = ctx.params
    overrides = dict(parse_override(text) for text in given["settings"] or [])
    values = {flags.RECIPE_KEYS[name]: given.get(name) for name in _OPTIONS}
    overrides |= {key: value for key, value in values.items() if value is not None}
    return load_recipe(given["recipe"], overrides)


def make_display(*, quiet: bool) -> AbstractContextManager[FoldsCallback]:
    """Return a callback that prints a line for each fold and epoch, and shows a progress bar."""
    from pixelwise.study.folds import FoldsCallback
    from pixelwise.training.display import TrainingDisplay

    class Display(FoldsCallback, TrainingDisplay):
        def __init__(self) -> None:
            TrainingDisplay.__init__(self, console, quiet=quiet)
            self.predicting = Bar("predicting", quiet=quiet)

        def on_fold_begin(self, number: int, folds: int) -> None:
            if not quiet:
                console.print(f"fold {number}/{folds}")

        def on_fold_predicting(self, number: int, folds: int) -> None:
            self.bar.__exit__()
            self.dataset_bar.__exit__()
            self.predicting.describe(f"predicting fold {number}/{folds}", unit="images")
            self.epochs = 0

        def on_validation_progress(self, done: int, total: int) -> None:
            if self.epochs:
                super().on_validation_progress(done, total)
            else:
                self.dataset_bar.__exit__()
                self.predicting(done, total)

        def on_epoch_end(self, row: Mapping[str, Any]) -> None:
            super().on_epoch_end(row)
            if not quiet:
                score = percent(row["val_mean_iou"])
                console.print(f"  epoch {row['epoch']}/{self.epochs}  val mIoU {score} %")

        def __exit__(self, *error: object) -> None:
            super().__exit__(*error)
            self.predicting.__exit__()

    return Display()
