"""Open the dataset of a run as its recipe says. Without PyTorch, so that faults are found early."""

from __future__ import annotations

from pathlib import Path

from pixelwise.data.dataset import SegmentationData, open_dataset
from pixelwise.data.dataset_scan import ProgressCallback
from pixelwise.data.dataset_spec import DatasetSpec
from pixelwise.data.groups import note_divided_groups
from pixelwise.recipes.schema import Recipe

SPLITS = ("train", "val")


def open_training_data(
    root: str | Path, recipe: Recipe, progress: ProgressCallback | None = None
) -> SegmentationData:
    """Open and check the splits that training needs.

    Args:
        root: The folder of images and masks.
        recipe: The recipe of the run.
        progress: Called with (done, total) after each pair.

    Raises:
        InputError: As `open_dataset`, or if `data.group_by` cannot be used.
    """
    settings = recipe.data
    data = open_dataset(
        root,
        splits=SPLITS,
        val_fraction=settings.val_fraction,
        seed=recipe.seed,
        cache_bytes=settings.cache_mib << 20,
        mirror_bytes=settings.disk_cache_mib << 20,
        progress=progress,
        channels=None if settings.channels == "auto" else settings.channels,
        value_range=None if settings.value_range == "auto" else settings.value_range,
        spec=DatasetSpec(settings.images, settings.masks),
        group_by=settings.group_by,
        fold=settings.fold,
    )
    data.notes += note_divided_groups(data.root, data.splits, settings.group_by)
    return data
