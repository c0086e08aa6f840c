"""The images by themselves: blank ones, and those made in another way than the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pixelwise.doctor.dataset_scan import DatasetScan
from pixelwise.doctor.diagnosis import Finding, Kind, Severity
from pixelwise.doctor.pair_inspection import ImageReport

BLANK = Kind("blank-image", Severity.WARNING, "Blank images")
GRAY_AMONG_COLOR = Kind("gray-among-color", Severity.WARNING, "Gray images among colored ones")
COLOR_AMONG_GRAY = Kind("color-among-gray", Severity.WARNING, "Colored images among gray ones")
ALPHA = Kind("alpha", Severity.NOTE, "Images with an alpha channel")
CMYK = Kind("cmyk", Severity.NOTE, "Images in CMYK")

FLAT = 3.0
"""Standard std in gray levels (0..255) below which nothing is on an image."""
DARK, BRIGHT = 8.0, 247.0
"""Means of nearly black and nearly white images."""
ODD_SHARE = 0.2
"""Images of another mode are odd while they are at most this share of all."""


def blank_images(scan: DatasetScan) -> Iterator[Finding]:
    for pair_report in scan.pair_reports:
        look = pair_report.image
        if look.fault is not None:
            continue
        what = _blank(look)
        if what is None:
            continue
        mean, std = look.gray
        yield BLANK.found(
            [look.path],
            f"{what} (mean {mean:.0f}, std {std:.1f} of 255)",
            remedy="remove it and its mask, or export it again",
        )


def _blank(look: ImageReport) -> str | None:
    """How nothing is to be seen on an image; None where something is."""
    mean, std = look.gray
    if mean < DARK and std < 2 * DARK:
        return "is nearly black"
    if mean > BRIGHT and std < 2 * DARK:
        return "is nearly white"
    return "has one tone all over" if std < FLAT else None


def mixed_modes(scan: DatasetScan) -> Iterator[Finding]:
    looks = [s.image for s in scan.pair_reports if s.image.fault is None]
    looks = [look for look in looks if _blank(look) is None]
    if not looks:
        return
    modes = Counter(_mode(look) for look in looks)
    gray, color = modes["gray"], len(looks) - modes["gray"]
    for look in looks:
        mode = _mode(look)
        if mode == "gray" and gray <= ODD_SHARE * color:
            yield GRAY_AMONG_COLOR.found(
                [look.path],
                f"is gray; {color} of {len(looks)} images are in color",
                remedy="check that it is of the same camera and not a mask; replace it, or keep it "
                "if new images will be gray too",
            )
        elif mode != "gray" and color <= ODD_SHARE * gray:
            yield COLOR_AMONG_GRAY.found(
                [look.path],
                f"is in color; {gray} of {len(looks)} images are gray",
                remedy="check that it belongs here; make it gray like the others",
            )
    alpha = [look for look in looks if look.mode in {"RGBA", "LA", "PA", "RGBa", "La"}]
    if alpha and scan.pixels.channels == 3:  # otherwise it is a channel
        yield ALPHA.found(
            [look.path for look in alpha],
            f"and {len(alpha) - 1} more have an alpha channel: it is left out",
            remedy="nothing, unless transparent parts hold odd colors: then flatten the images",
        )
    cmyk = [look for look in looks if look.mode == "CMYK"]
    if cmyk:
        yield CMYK.found(
            [look.path for look in cmyk],
            f"and {len(cmyk) - 1} more are CMYK: turned to RGB without a color profile, which "
            "changes their tones",
            remedy="save them as RGB with the program that made them",
        )


def _mode(look: ImageReport) -> str:
    return "gray" if look.colorless else "color"
