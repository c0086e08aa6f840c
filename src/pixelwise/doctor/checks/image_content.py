"""The content of single images: blank images, and images whose colors differ from the others."""

from __future__ import annotations

from collections.abc import Iterator

from pixelwise.doctor.diagnosis import Finding, Kind, Severity
from pixelwise.doctor.pair_inspection import InspectedImage, Scan

BLANK = Kind("blank-image", Severity.WARNING, "Blank images")
GRAY_AMONG_COLOR = Kind("gray-among-color", Severity.WARNING, "Gray images among color images")
COLOR_AMONG_GRAY = Kind("color-among-gray", Severity.WARNING, "Color images among gray images")
ALPHA = Kind("alpha", Severity.NOTE, "Images with an alpha channel")
CMYK = Kind("cmyk", Severity.NOTE, "Images in CMYK")

FLAT = 3.0
"""Std in gray levels (0..255) below which an image is blank."""
DARK, BRIGHT = 8.0, 247.0
"""Means of nearly black and nearly white images."""
MAX_ODD_SHARE = 0.2
"""Gray or color images are reported if there are at most this many per image of the other kind."""


def blank_images(scan: Scan) -> Iterator[Finding]:
    for pair in scan.pairs:
        image = pair.image
        reason = _blank(image) if image.readable else None
        if reason is not None:
            yield BLANK.found(
                [image.path],
                f"{reason} (mean {image.gray_mean:.0f}, std {image.gray_std:.1f} of 255)",
                remedy="remove it and its mask, or export it again",
            )


def _blank(image: InspectedImage) -> str | None:
    """Return in which way an image is blank; None if it is not."""
    if image.gray_mean < DARK and image.gray_std < 2 * DARK:
        return "is nearly black"
    if image.gray_mean > BRIGHT and image.gray_std < 2 * DARK:
        return "is nearly white"
    return "has a single tone" if image.gray_std < FLAT else None


def mixed_modes(scan: Scan) -> Iterator[Finding]:
    images = [pair.image for pair in scan.pairs if pair.image.readable]
    images = [image for image in images if _blank(image) is None]
    gray = sum(image.is_gray for image in images)
    color = len(images) - gray
    for image in images:
        if image.is_gray and gray <= MAX_ODD_SHARE * color:
            yield GRAY_AMONG_COLOR.found(
                [image.path],
                f"is gray, but {color} of {len(images)} images are in color",
                remedy="check that it is from the same camera and not a mask; replace it, or keep "
                "it if new images will be gray too",
            )
        elif not image.is_gray and color <= MAX_ODD_SHARE * gray:
            yield COLOR_AMONG_GRAY.found(
                [image.path],
                f"is in color, but {gray} of {len(images)} images are gray",
                remedy="check that it belongs here; convert it to gray like the others",
            )
    alpha = [i.path for i in images if i.header.mode in {"RGBA", "LA", "PA", "RGBa", "La"}]
    if alpha and scan.pixels.channels == 3:  # otherwise it is used as a channel
        yield ALPHA.found(
            alpha,
            f"and {len(alpha) - 1} more have an alpha channel, which is dropped",
            remedy="none needed, unless transparent areas hold odd colors: then flatten the images",
        )
    cmyk = [image.path for image in images if image.header.mode == "CMYK"]
    if cmyk:
        yield CMYK.found(
            cmyk,
            f"and {len(cmyk) - 1} more are CMYK: they are converted to RGB without a color "
            "profile, which changes their tones",
            remedy="save them as RGB with the program that made them",
        )
