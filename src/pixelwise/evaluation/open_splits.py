"""Open the data that a network is evaluated or calibrated on."""

from __future__ import annotations

import json
from collections.abc import Sequence
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

    Images that the network was trained on are added to the notes.

    Raises:
        InputError: With one line for each fault of the folder.
    """
    recipe = load_bundle_recipe(network.recipe)
    opened = open_dataset(
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
    for split in splits:
        if split != "train" and network.path and (seen := seen_images(network.path, opened, split)):
            opened.notes.append(f"{describe_seen(seen, split)}: the scores are too high")
    return opened


def seen_images(bundle: str | Path, data: SegmentationData, split: str) -> list[str]:
    """Return the names of the images of a split that a network was trained on.

    They are known if the bundle is still in the folder of its run. A drawn val is another one once
    images were added or removed.
    """
    try:
        run = json.loads((Path(bundle).parent / "data.json").read_text(encoding="utf-8"))
        trained = {(sample["name"], sample["checksum"]) for sample in run["splits"]["train"]}
    except (OSError, ValueError, KeyError, TypeError):
        return []
    names = (sample.name for sample in data.splits[split])
    return [name for name in names if (name, data.checksums[name]) in trained]


def describe_seen(names: Sequence[str], split: str) -> str:
    """Say that a network was trained on some images of a split."""
    return (
        f"the network was trained on {len(names)} of the images of {split}, such as {names[0]}, "
        "because the dataset was divided in another way then"
    )
