"""Compare runs: recipes, scores, time, and whether differences exceed chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pixelwise.errors import InputError
from pixelwise.evaluation.bootstrap import LEVEL, score_intervals
from pixelwise.evaluation.confusion import ratios, to_plain
from pixelwise.evaluation.image_counts import ImageCounts, load_image_counts
from pixelwise.evaluation.paired_comparison import MIN_IMAGES, Difference, paired_difference
from pixelwise.recipes.load_recipe import load_resolved_recipe
from pixelwise.training.run_folder import VAL_IMAGES, read_metrics


@dataclass(frozen=True)
class ComparedRun:
    """A run, or a file of `pixelwise evaluate --image-scores`.

    Attributes:
        name: The path that was given.
        image_counts: Pixel counts of each image.
        classes: Names of the classes.
        split: The split that was scored.
        recipe: Recipe values by dotted key. Empty for a file.
        epochs, best_epoch: Number of epochs, and the one with the best validation mIoU.
        seconds: Training and validation time.
    """

    name: str
    image_counts: ImageCounts
    classes: tuple[str, ...]
    split: str
    recipe: Mapping[str, Any]
    epochs: int | None = None
    best_epoch: int | None = None
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        total = ratios(self.image_counts.counts.sum(axis=0))
        intervals = score_intervals(self.image_counts.counts).to_json(self.classes)
        return {
            "name": self.name,
            "mean_iou": to_plain(float(total["mean_iou"])),
            "interval": intervals["mean_iou"],
            "pixel_accuracy": to_plain(float(total["pixel_accuracy"])),
            "classes": {
                name: to_plain(iou) for name, iou in zip(self.classes, total["iou"], strict=True)
            },
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Comparison:
    """All other runs compared with the first."""

    runs: Sequence[ComparedRun]
    differences: Sequence[Difference]

    @property
    def recipe_differences(self) -> dict[str, list[Any]]:
        """Recipe keys whose values differ, with the value of each run (None without a recipe)."""
        recipes = [run.recipe for run in self.runs]
        known = [recipe for recipe in recipes if recipe]
        keys = dict.fromkeys(key for recipe in known for key in recipe)
        return {
            key: [recipe.get(key) for recipe in recipes]
            for key in keys
            if any(recipe.get(key) != known[0].get(key) for recipe in known)
        }

    @property
    def verdicts(self) -> list[str]:
        """One sentence for each difference."""
        first, *others = self.runs
        pairs = zip(others, self.differences, strict=True)
        return [_verdict(first.name, other.name, difference) for other, difference in pairs]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        first, *others = self.runs
        return {
            "split": first.split,
            "images": len(first.image_counts.names),
            "runs": [run.to_json() for run in self.runs],
            "recipe_differences": self.recipe_differences,
            "differences": [
                {"first": first.name, "second": other.name, **difference.to_json(first.classes)}
                for other, difference in zip(others, self.differences, strict=True)
            ],
            "verdicts": self.verdicts,
        }


def compare(paths: Sequence[Path]) -> Comparison:
    """Compare run folders, or files of `pixelwise evaluate --image-scores`, with the first of them.

    Args:
        paths: Two or more folders or files.

    Returns:
        The scores of each, and the differences with their bootstrap intervals.

    Raises:
        InputError: If a path is neither, or the images or classes differ.
    """
    runs = [_read(path) for path in paths]
    first, *others = runs
    differences = []
    for other in others:
        try:
            if other.classes != first.classes:
                raise ValueError(f"its classes differ ({', '.join(other.classes)})")
            differences.append(paired_difference(first.image_counts, other.image_counts))
        except ValueError as error:
            raise InputError(
                f"{other.name}: cannot be compared with {first.name} because {error}: score both "
                "on the same data with `pixelwise evaluate --image-scores`, and compare those files"
            ) from error
    return Comparison(runs, differences)


def _read(path: Path) -> ComparedRun:
    images = path if path.is_file() else path / VAL_IMAGES
    if not images.is_file():
        raise InputError(
            f"{path}: has no {VAL_IMAGES}: give the folder of a run that has finished an epoch, or "
            "a file of `pixelwise evaluate --image-scores`"
        )
    saved = load_image_counts(images)
    run = ComparedRun(str(path), saved.image_counts, saved.classes, saved.split, {})
    if path.is_file():
        return run
    recipe = load_resolved_recipe(path / "recipe.toml")
    rows = [line for line in read_metrics(path) if line["event"] == "epoch"]
    best = max(rows, key=lambda row: row["val_mean_iou"] or 0, default=None)
    return replace(
        run,
        recipe=recipe.flat(),
        epochs=recipe.epochs,
        best_epoch=None if best is None else best["epoch"],
        seconds=sum(row["seconds"] + row["val_seconds"] for row in rows) if rows else None,
    )


def _verdict(first: str, second: str, difference: Difference) -> str:
    low, high = (100 * bound for bound in difference.mean_interval)
    points = 100 * difference.mean
    if difference.images < MIN_IMAGES:
        return (
            f"{second} differs from {first} by {points:+z.1f} points of mean IoU, which may be "
            f"chance: score at least {MIN_IMAGES} images, not {difference.images}"
        )
    if not difference.is_significant:
        return (
            f"{first} and {second} do not differ significantly on {difference.images} images: "
            f"{points:+z.1f} points of mean IoU ({100 * LEVEL:.0f} % interval: {low:+z.1f} to "
            f"{high:+z.1f})"
        )
    if points < 0:
        points, low, high = -points, -high, -low
    word = "better" if difference.mean > 0 else "worse"
    return (
        f"{second} is {word} than {first} by {points:.1f} points of mean IoU "
        f"({100 * LEVEL:.0f} % interval: {low:.1f} to {high:.1f})"
    )
