"""Open the data that a network is evaluated or calibrated on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pixelwise.cli.console import Bar

if TYPE_CHECKING:
    from pixelwise.data.dataset import SegmentationData
    from pixelwise.inference import Predictor
    from pixelwise.weights.bundle import Bundle


def open_splits(network: Predictor | Bundle, data: Path, *splits: str) -> SegmentationData:
    """Open and check splits of a dataset, split by the recipe that the network was trained with.

    Args:
        network: What is evaluated; it has classes, a pixel format and a recipe.
        data: The folder of the dataset.
        splits: The names of the splits.
    """
    from pixelwise.data.dataset import open_dataset
    from pixelwise.recipes.load_recipe import load_bundle_recipe

    recipe = load_bundle_recipe(network.recipe)
    with Bar("checking the data") as bar:
        return open_dataset(
            data,
            splits=splits,
            classes=network.classes,
            pixels=network.pixels,
            val_fraction=recipe.data.val_fraction,
            seed=recipe.seed,
            progress=bar,
        )
