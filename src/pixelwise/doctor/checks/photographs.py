"""The images by themselves: blank ones, and those made in another way than the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pixelwise.doctor.diagnosis import Finding, Kind, Severity
from pixelwise.doctor.sighting import ImageLook
from pixelwise.doctor.survey import Survey

BLANK = Kind("blank-image", Severity.WARNING, "Blank images")
GREY_AMONG_COLOUR = Kind("grey-among-colour", Severity.WARNING, "Grey images among coloured ones")
COLOUR_AMONG_GREY = Kind("colour-among-grey", Severity.WARNING, "Coloured images among grey ones")
ALPHA = Kind("alpha", Severity.NOTE, "Images with an alpha channel")
CMYK = Kind("cmyk", Severity.NOTE, "Images in CMYK")

FLAT = 3.0
"""Standard deviation in grey levels (0..255) below which nothing is on a picture."""
DARK, BRIGHT = 8.0, 247.0
"""Means of nearly black and nearly white pictures."""
ODD_SHARE = 0.2
"""Images of another mode are odd while they are at most this share of all."""


def blank_images(survey: Survey) -> Iterator[Finding]:
    for sighting in survey.sightings:
        look = sighting.image
        if look.fault is not None:
            continue
        what = _blank(look)
        if what is None:
            continue
        mean, deviation = look.grey
        yield BLANK.found(
            [look.path],
            f"{what} (mean {mean:.0f}, deviation {deviation:.1f} of 255)",
            remedy="remove it and its mask, or export it again",
        )


def _blank(look: ImageLook) -> str | None:
    """How nothing is to be seen on an image; None where something is."""
    mean, deviation = look.grey
    if mean < DARK and deviation < 2 * DARK:
        return "is nearly black"
    if mean > BRIGHT and deviation < 2 * DARK:
        return "is nearly white"
    return "has one tone all over" if deviation < FLAT else None


def mixed_modes(survey: Survey) -> Iterator[Finding]:
    looks = [s.image for s in survey.sightings if s.image.fault is None]
    looks = [look for look in looks if _blank(look) is None]
    if not looks:
        return
    modes = Counter(_mode(look) for look in looks)
    grey, colour = modes["grey"], len(looks) - modes["grey"]
    for look in looks:
        mode = _mode(look)
        if mode == "grey" and grey <= ODD_SHARE * colour:
            yield GREY_AMONG_COLOUR.found(
                [look.path],
                f"is grey; {colour} of {len(looks)} images are in colour",
                remedy="check that it is of the same camera and not a mask; replace it, or keep it "
                "if new pictures will be grey too",
            )
        elif mode != "grey" and colour <= ODD_SHARE * grey:
            yield COLOUR_AMONG_GREY.found(
                [look.path],
                f"is in colour; {grey} of {len(looks)} images are grey",
                remedy="check that it belongs here; make it grey like the others",
            )
    alpha = [look for look in looks if look.mode in {"RGBA", "LA", "PA", "RGBa", "La"}]
    if alpha and survey.pixels.channels == 3:  # otherwise it is a channel
        yield ALPHA.found(
            [look.path for look in alpha],
            f"and {len(alpha) - 1} more have an alpha channel: it is left out",
            remedy="nothing, unless transparent parts hold odd colours: then flatten the images",
        )
    cmyk = [look for look in looks if look.mode == "CMYK"]
    if cmyk:
        yield CMYK.found(
            [look.path for look in cmyk],
            f"and {len(cmyk) - 1} more are CMYK: turned to RGB without a colour profile, which "
            "changes their tones",
            remedy="save them as RGB with the program that made them",
        )


def _mode(look: ImageLook) -> str:
    return "grey" if look.colourless else "colour"
