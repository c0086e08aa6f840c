"""The data that commands score or calibrate a network on, as the network has known it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pixelwise.cli.console import Bar

if TYPE_CHECKING:
    from pixelwise.data.dataset import SegmentationData
    from pixelwise.inference import Predictor
    from pixelwise.weights.bundle import Bundle


def open_splits(network: Predictor | Bundle, data: Path, *splits: str) -> SegmentationData:
    """Check `splits`, divided off by the recipe that the network was trained with."""
    from pixelwise.data.dataset import open_dataset
    from pixelwise.recipes.load_recipe import load_bundle_recipe

    trained = load_bundle_recipe(network.recipe)
    with Bar("checking the data") as bar:
        return open_dataset(
            data,
            splits=splits,
            classes=network.classes,
            pixels=network.pixels,
            val_fraction=trained.data.val_fraction,
            seed=trained.seed,
            progress=bar,
        )
