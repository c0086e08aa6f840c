"""The checks, a family a file. A new one is a function that yields findings, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pixelwise.doctor.checks import (
    alignment,
    classes,
    duplicates,
    files,
    folder,
    image_content,
    masks,
    objects,
    sizes,
    splits,
    values,
)
from pixelwise.doctor.dataset_scan import DatasetScan
from pixelwise.doctor.diagnosis import Finding

Check = Callable[[DatasetScan], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    folder.faults_of_the_layout,
    folder.names_that_collide,
    files.unreadable_files,
    files.wrong_extensions,
    sizes.pairs_of_two_sizes,
    sizes.unusual_sizes,
    masks.smoothed_masks,
    masks.color_masks_without_a_table,
    masks.all_void,
    masks.one_class,
    values.unknown_values,
    values.unclear_values,
    values.assumptions,
    classes.shared_colors,
    classes.absent_classes,
    classes.rare_classes,
    splits.few_images,
    splits.splits_that_differ,
    duplicates.across_splits,
    duplicates.within_a_split,
    image_content.blank_images,
    image_content.mixed_modes,
    alignment.turned_by_exif,
    alignment.shifted_as_a_whole,
    alignment.single_masks,
    objects.tiny_objects,
    objects.specks,
)
