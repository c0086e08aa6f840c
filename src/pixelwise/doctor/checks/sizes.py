"""Sizes: of a mask against its image, of an image against the others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pixelwise.doctor.dataset_scan import DatasetScan
from pixelwise.doctor.diagnosis import Finding, Kind, Severity, stopping

SIZE_MISMATCH = stopping("size-mismatch", "Image and mask of different size")
EXIF_MISMATCH = stopping("exif-mismatch", "Photos turned by EXIF, masks not")
UNUSUAL_SIZE = Kind("unusual-size", Severity.WARNING, "Images of an unusual size")

MAX_AREA_RATIO = 4.0
"""Of an image to the median one: beyond it things have twice or half the usual scale."""


def pairs_of_two_sizes(scan: DatasetScan) -> Iterator[Finding]:
    """Where the sizes are swapped and EXIF swaps them, the mask was drawn on the unturned photo."""
    for pair_report in scan.pair_reports:
        image, mask = pair_report.image, pair_report.mask
        if image.fault or mask.fault or image.size == mask.size:
            continue
        (height, width), (mask_height, mask_width) = image.size, mask.size
        sizes = f"is {mask_width}x{mask_height}, its image {image.path.name} is {width}x{height}"
        stops = pair_report.split != "test"
        if mask.size == (width, height) and image.turn is not None:
            yield EXIF_MISMATCH.found(
                [mask.path, image.path],
                f"{sizes} once turned as its EXIF orientation says",
                remedy="turn the mask the same way, or save the photo upright without EXIF and "
                "draw the mask on it",
                stops=stops,
            )
        elif mask.size == (width, height):
            yield SIZE_MISMATCH.found(
                [mask.path, image.path],
                f"{sizes}: width and height are swapped",
                remedy="turn one of the two by 90 degrees; check which lies right",
                stops=stops,
            )
        else:
            yield SIZE_MISMATCH.found(
                [mask.path, image.path],
                sizes,
                remedy="export the mask at the size of its image; if it has to be resized, then "
                "with nearest neighbor",
                stops=stops,
            )


def unusual_sizes(scan: DatasetScan) -> Iterator[Finding]:
    looks = [s.image for s in scan.pair_reports if s.image.fault is None]
    if len(looks) < 5:
        return
    areas = np.array([height * width for height, width in (look.size for look in looks)])
    median = float(np.median(areas))
    for look, area in zip(looks, areas, strict=True):
        ratio = float(area) / median
        if 1 / MAX_AREA_RATIO < ratio < MAX_AREA_RATIO:
            continue
        height, width = look.size
        share = f"{ratio:.0f} times" if ratio > 1 else f"1/{1 / ratio:.0f} of"
        yield UNUSUAL_SIZE.found(
            [look.path],
            f"is {width}x{height}, {share} the pixels of the usual image: what is on it may have "
            "another scale than elsewhere",
            remedy="check that it belongs here; bring it and its mask (nearest neighbor) to the "
            "usual scale",
        )
