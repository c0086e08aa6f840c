"""Runs side by side: recipes, scores, time, and whether a difference is larger than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelwise.errors import InputError
from pixelwise.evaluation.bootstrap import LEVEL, score_intervals
from pixelwise.evaluation.confusion import plain, ratios
from pixelwise.evaluation.image_counts import Tallies, load_tallies
from pixelwise.evaluation.paired_comparison import FEWEST, Difference, paired_difference
from pixelwise.recipes.load_recipe import load_resolved_recipe
from pixelwise.training.run_folder import VAL_IMAGES, read_metrics


@dataclass(frozen=True)
class Contender:
    """A run, or the file of an evaluation.

    recipe: values by dotted key, empty for a file. seconds: of training, None where unknown.
    """

    name: str
    tallies: Tallies
    classes: tuple[str, ...]
    split: str
    recipe: Mapping[str, Any]
    epochs: int | None = None
    best_epoch: int | None = None
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        total = ratios(self.tallies.counts.sum(axis=0))
        intervals = score_intervals(self.tallies.counts).to_json(self.classes)
        return {
            "name": self.name,
            "mean_iou": plain(float(total["mean_iou"])),
            "interval": intervals["mean_iou"],
            "pixel_accuracy": plain(float(total["pixel_accuracy"])),
            "classes": {
                name: plain(iou) for name, iou in zip(self.classes, total["iou"], strict=True)
            },
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Comparison:
    """All others against the first."""

    contenders: Sequence[Contender]
    differences: Sequence[Difference]

    @property
    def recipe_differences(self) -> dict[str, list[Any]]:
        """The dotted keys in which runs differ, with the value of each contender; None: none."""
        recipes = [contender.recipe for contender in self.contenders]
        runs = [recipe for recipe in recipes if recipe]
        keys = dict.fromkeys(key for recipe in runs for key in recipe)
        return {
            key: [recipe.get(key) for recipe in recipes]
            for key in keys
            if any(recipe.get(key) != runs[0].get(key) for recipe in runs)
        }

    @property
    def verdicts(self) -> list[str]:
        """A sentence for each difference."""
        first = self.contenders[0].name
        return [
            _verdict(first, contender.name, difference)
            for contender, difference in zip(self.contenders[1:], self.differences, strict=True)
        ]

    def to_json(self) -> dict[str, Any]:
        names = self.contenders[0].classes
        return {
            "split": self.contenders[0].split,
            "images": len(self.contenders[0].tallies.names),
            "runs": [contender.to_json() for contender in self.contenders],
            "recipe_differences": self.recipe_differences,
            "differences": [
                {"first": self.contenders[0].name, "second": second.name, **each.to_json(names)}
                for second, each in zip(self.contenders[1:], self.differences, strict=True)
            ],
            "verdicts": self.verdicts,
        }


def compare(paths: Sequence[Path]) -> Comparison:
    """Hold run folders, or files of `pixelwise evaluate --images`, against the first of them.

    Raises InputError where one is neither, or they are not of the same images and classes.
    """
    contenders = [_read(path) for path in paths]
    first, *others = contenders
    differences = []
    for other in others:
        try:
            if other.classes != first.classes:
                raise ValueError(f"of other classes, {', '.join(other.classes)}")
            differences.append(paired_difference(first.tallies, other.tallies))
        except ValueError as error:
            raise InputError(
                f"{other.name}: its scores are {error}, unlike those of {first.name}: score both "
                "on the same data with pixelwise evaluate --images, and compare these files"
            ) from error
    return Comparison(contenders, differences)


def _read(path: Path) -> Contender:
    if path.is_file():
        saved = load_tallies(path)
        return Contender(str(path), saved.tallies, saved.classes, saved.split, {})
    images = path / VAL_IMAGES
    if not images.is_file():
        raise InputError(
            f"{path}: holds no {VAL_IMAGES}: give a run that has finished an epoch, or a file of "
            "pixelwise evaluate --images"
        )
    saved = load_tallies(images)
    recipe = load_resolved_recipe(path / "recipe.toml")
    rows = [line for line in read_metrics(path) if line["event"] == "epoch"]
    best = max(rows, key=lambda row: row["val_mean_iou"] or 0, default=None)
    return Contender(
        str(path),
        saved.tallies,
        saved.classes,
        saved.split,
        recipe.flat(),
        epochs=recipe.epochs,
        best_epoch=None if best is None else best["epoch"],
        seconds=sum(row["seconds"] + row["val_seconds"] for row in rows) if rows else None,
    )


def _verdict(first: str, second: str, difference: Difference) -> str:
    low, high = (100 * bound for bound in difference.mean_interval)
    points = 100 * difference.mean
    if difference.images < FEWEST:
        return (
            f"{second} differs from {first} by {points:+.1f} points of mean IoU, and "
            f"{difference.images} images are too few to say whether by chance: score {FEWEST}"
        )
    if not difference.is_shown:
        return (
            f"no difference between {first} and {second} that these {difference.images} images can "
            f"show: {points:+.1f} points of mean IoU ({LEVEL:.0%}: {low:+.1f} to {high:+.1f})"
        )
    if points < 0:
        points, low, high = -points, -high, -low
    word = "better" if difference.mean > 0 else "worse"
    return (
        f"{second} is {word} than {first} by {points:.1f} points of mean IoU "
        f"({LEVEL:.0%}: {low:.1f} to {high:.1f})"
    )
