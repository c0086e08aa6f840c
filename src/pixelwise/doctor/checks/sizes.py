"""Image sizes: of a mask compared to its image, and of an image compared to the others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pixelwise.doctor.diagnosis import Finding, Kind, Severity, stopping
from pixelwise.doctor.pair_inspection import Scan

SIZE_MISMATCH = stopping("size-mismatch", "Image and mask of different size")
EXIF_MISMATCH = stopping("exif-mismatch", "Images rotated by EXIF, masks not")
UNUSUAL_SIZE = Kind("unusual-size", Severity.WARNING, "Images of an unusual size")

MAX_AREA_RATIO = 4.0
"""Area relative to the median, beyond which objects have twice or half the usual scale."""


def size_mismatches(scan: Scan) -> Iterator[Finding]:
    """If EXIF swaps width and height, the mask was drawn on the image without the rotation."""
    for pair in scan.pairs:
        image, mask = pair.image, pair.mask
        if not image.readable or not mask.readable or image.size == mask.size:
            continue
        (height, width), (mask_height, mask_width) = image.size, mask.size
        kind = SIZE_MISMATCH
        message = f"is {mask_width}x{mask_height}, but its image {image.path.name} is "
        message += f"{width}x{height}"
        remedy = (
            "export the mask at the size of its image; if it must be resized, use nearest neighbor"
        )
        if mask.size == (width, height):
            message += ": width and height are swapped"
            remedy = "rotate one of the two by 90 degrees; check which is upright"
            if image.header.transpose is not None:
                kind = EXIF_MISMATCH
                message += " by its EXIF orientation"
                remedy = (
                    "rotate the mask the same way, or save the image upright without EXIF and draw "
                    "the mask on it"
                )
        files = [mask.path, image.path]
        yield kind.found(files, message, remedy=remedy, stops=pair.split != "test")


def unusual_sizes(scan: Scan) -> Iterator[Finding]:
    images = [pair.image for pair in scan.pairs if pair.image.readable]
    if len(images) < 5:
        return
    areas = np.array([image.size[0] * image.size[1] for image in images])
    median = float(np.median(areas))
    for image, area in zip(images, areas, strict=True):
        ratio = float(area) / median
        if 1 / MAX_AREA_RATIO < ratio < MAX_AREA_RATIO:
            continue
        height, width = image.size
        relation = f"{ratio:.0f} times" if ratio > 1 else f"1/{1 / ratio:.0f} of"
        yield UNUSUAL_SIZE.found(
            [image.path],
            f"is {width}x{height}, {relation} the pixels of the median image: its objects may "
            "have another scale than elsewhere",
            remedy="check that it belongs here; resize it and its mask (nearest neighbor) to the "
            "usual scale",
        )
