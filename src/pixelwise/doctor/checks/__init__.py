"""The checks, one family per file. A check is a function that yields findings, listed in CHECKS."""

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
from pixelwise.doctor.diagnosis import Finding
from pixelwise.doctor.pair_inspection import Scan

Check = Callable[[Scan], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    folder.layout_problems,
    folder.name_collisions,
    files.unreadable_files,
    files.wrong_extensions,
    sizes.size_mismatches,
    sizes.unusual_sizes,
    masks.smoothed_masks,
    masks.rgb_masks_without_table,
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
    splits.split_groups,
    duplicates.across_splits,
    duplicates.within_split,
    image_content.blank_images,
    image_content.mixed_modes,
    alignment.exif_mismatches,
    alignment.systematic_shift,
    alignment.misaligned_masks,
    objects.tiny_objects,
    objects.specks,
)
