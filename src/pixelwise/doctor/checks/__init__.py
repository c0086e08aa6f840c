"""The checks, a family a file. A new one is a function that yields findings, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pixelwise.doctor.checks import (
    alignment,
    classes,
    duplicates,
    files,
    folder,
    masks,
    objects,
    photographs,
    sizes,
    splits,
    values,
)
from pixelwise.doctor.diagnosis import Finding
from pixelwise.doctor.survey import Survey

Check = Callable[[Survey], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    folder.faults_of_the_layout,
    folder.names_that_collide,
    files.unreadable_files,
    files.wrong_extensions,
    sizes.pairs_of_two_sizes,
    sizes.unusual_sizes,
    masks.smoothed_masks,
    masks.colour_masks_without_a_table,
    masks.all_void,
    masks.one_class,
    values.unknown_values,
    values.unclear_values,
    values.assumptions,
    classes.shared_colours,
    classes.absent_classes,
    classes.rare_classes,
    splits.few_images,
    splits.splits_that_differ,
    duplicates.across_splits,
    duplicates.within_a_split,
    photographs.blank_images,
    photographs.mixed_modes,
    alignment.turned_by_exif,
    alignment.shifted_as_a_whole,
    alignment.single_masks,
    objects.tiny_objects,
    objects.specks,
)
