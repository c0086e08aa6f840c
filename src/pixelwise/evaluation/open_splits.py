"""Open the data that a network is evaluated or calibrated on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pixelwise.data.dataset import SegmentationData, open_dataset
from pixelwise.data.dataset_scan import ProgressCallback
from pixelwise.data.dataset_spec import DatasetSpec
from pixelwise.inference import Predictor
from pixelwise.recipes.load_recipe import load_bundle_recipe

if TYPE_CHECKING:
    from pixelwise.weights.bundle import Bundle


def open_splits(
    network: Predictor | Bundle,
    data: Path,
    *splits: str,
    progress: ProgressCallback | None = None,
    spec: DatasetSpec | None = None,
) -> SegmentationData:
    """Open and check splits of a dataset, divided as in the training of a network.

    Args:
        network: What is evaluated; it has classes, a pixel format and a recipe.
        data: The folder of the dataset.
        splits: The names of the splits.
        progress: Called with (done, total) after each file.
        spec: What the user states about the images and masks in the folder. None: as in the
            training, if that matches files of this folder.

    Raises:
        InputError: With one line for each fault of the folder.
    """
    recipe = load_bundle_recipe(network.recipe)
    return open_dataset(
        data,
        splits=splits,
        classes=network.classes,
        pixels=network.pixels,
        val_fraction=recipe.data.val_fraction,
        seed=recipe.seed,
        group_by=recipe.data.group_by,
        fold=recipe.data.fold,
        progress=progress,
        spec=spec or DatasetSpec(recipe.data.images, recipe.data.masks, from_run=True),
    )
