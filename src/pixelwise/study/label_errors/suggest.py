"""Write the images of findings with corrected masks, as a dataset to review."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pixelwise.data.classes import write_classes_toml
from pixelwise.data.convert_dataset import unique_names
from pixelwise.data.dataset import SegmentationData
from pixelwise.data.image_files import write_mask
from pixelwise.data.source import Source
from pixelwise.errors import InputError
from pixelwise.file_io import atomic_folder, make_folder
from pixelwise.study.label_errors.predictions import Examined, predict_again
from pixelwise.study.label_errors.regions import Kind, Region, corrected


def check_suggestions(root: Path, folder: Path) -> None:
    """Raise InputError if suggestions cannot be written to a folder, or would mix with others."""
    inner, outer = folder.resolve(), root.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise InputError(f"{folder}: is inside {root}, or contains it: give a folder beside it")
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder}: exists and is not empty: give a new folder with --suggest")


def check_files(data: SegmentationData | Source) -> None:
    """Raise InputError if the images of a dataset are no files, which can be copied."""
    if any(sample.part is not None for samples in data.splits.values() for sample in samples):
        raise InputError(
            f"{data.root}: its images are windows of rasters, which are not copied: omit --suggest"
        )


def write_suggestions(
    folder: Path, data: SegmentationData, images: Examined, findings: Sequence[Region]
) -> None:
    """Write images/, masks/ and classes.toml, which `train` reads, for the images of findings.

    Masks have the values 0..C-1 in the order of the classes, and 255 for ignored pixels. In the
    regions of the findings they hold the prediction; a mask that seems to be that of another image
    is replaced by the prediction.
    """
    by_image: dict[str, list[Region]] = defaultdict(list)
    for finding in findings:
        by_image[finding.image].append(finding)
    samples = [images[name][0] for name in by_image]
    names = dict(zip(by_image, unique_names(samples), strict=True))
    classes = data.classes.indexed()
    make_folder(folder.parent)
    check_suggestions(data.root, folder)  # it may have appeared meanwhile
    with atomic_folder(folder, flush=False) as temporary:
        for kind in ("images", "masks"):
            make_folder(temporary / kind)
        for predicted in predict_again(images, data, by_image):
            sample = predicted.sample
            labels = predicted.labels
            for finding in by_image[sample.name]:
                if finding.kind is Kind.MISPAIRED:
                    labels = predicted.predicted
                else:
                    labels = corrected(labels, predicted.predicted, finding)
            name = names[sample.name]
            shutil.copyfile(sample.image, temporary / "images" / f"{name}{sample.image.suffix}")
            write_mask(temporary / "masks" / f"{name}.png", labels, palette=classes.palette())
        write_classes_toml(temporary / "classes.toml", classes)
