"""Misaligned masks: transposed, shifted, or of another image. See measures/alignment.py."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.doctor.diagnosis import Finding, Kind, Severity
from pixelwise.doctor.measures.alignment import Agreement, agreement
from pixelwise.doctor.pair_inspection import InspectedPair, Scan, to_display, to_levels
from pixelwise.errors import InputError

EXIF_UNTURNED = Kind(
    "exif-unturned-mask", Severity.ERROR, "Masks drawn on the image without its EXIF rotation"
)
SHIFTED_SET = Kind("shifted-masks", Severity.WARNING, "All masks are shifted")
SHIFTED = Kind("shifted-mask", Severity.WARNING, "Shifted masks")
TURNED = Kind("turned-mask", Severity.WARNING, "Rotated or mirrored masks")
OTHER_IMAGE = Kind("mismatched-pair", Severity.WARNING, "Masks that do not fit their image")

AGREES = 8.0
"""Minimum peak height of an image and mask that agree: other images' masks reach 5.4 on CamVid."""
DISAGREES = 6.0
"""Peak height below which they disagree, if most other pairs of the dataset agree."""
USUAL = 0.4
"""Minimum peak height of a shift to be reported, as a fraction of the dataset's median peak: chance
peaks grow with the contrast of the images."""
USUAL_AT_MOST = 0.15
"""DISAGREES is raised to this fraction of the dataset's median peak if that is higher."""
MARGIN = 4.0
"""Minimum gain in peak height for another shift or transpose to be reported."""
MIN_BORDERS = 0.5
"""Minimum border length of a suspect mask, as a fraction of the median: few borders can miss the
edges by chance. In 3000 crops from CamVid all eight correct masks below DISAGREES had two or three
borders right across."""
MIN_SET = 5
MIN_STEPS = 3
"""A shift in reduced pixels that is more than a matter of where a border is drawn."""
MAX_SUSPECTS = 200
"""Masks that are read again to find out why they disagree."""
MAX_EXCHANGED = 20
"""Masks without an image that are compared with each other's images."""

_TRANSPOSES = {
    Image.Transpose.ROTATE_180: "rotated by 180 degrees",
    Image.Transpose.FLIP_LEFT_RIGHT: "mirrored left to right",
    Image.Transpose.FLIP_TOP_BOTTOM: "mirrored top to bottom",
    Image.Transpose.ROTATE_90: "rotated by 90 degrees to the left",
    Image.Transpose.ROTATE_270: "rotated by 90 degrees to the right",
    Image.Transpose.TRANSPOSE: "mirrored at the main diagonal",
    Image.Transpose.TRANSVERSE: "mirrored at the other diagonal",
}


def exif_mismatches(scan: Scan) -> Iterator[Finding]:
    """Find masks without the EXIF transpose where the size does not show it."""
    for pair in scan.pairs:
        stored, transposed = pair.agreement, pair.exif_agreement
        if stored is None or transposed is None:
            continue
        if transposed.at_zero >= AGREES and transposed.at_zero > stored.at_zero + MARGIN:
            yield EXIF_UNTURNED.found(
                [pair.mask.path, pair.image.path],
                f"fits its image {pair.image.path.name} as it is stored, but the EXIF orientation "
                "rotates the image",
                remedy="rotate the mask the same way, or save the image upright without EXIF and "
                "draw the mask on it",
            )


def systematic_shift(scan: Scan) -> Iterator[Finding]:
    found = _find_common_shift(scan)
    if found is None:
        return
    shift, members = found
    yield SHIFTED_SET.found(
        [pair.mask.path for pair in members],
        f"and {len(members) - 1} more fit their images best if moved by {_in_words(shift)}: the "
        "masks are shifted",
        remedy="look for padding, cropping or an offset in the export of the masks",
    )


def _find_common_shift(scan: Scan) -> tuple[tuple[int, int], list[InspectedPair]] | None:
    """Return a shift (dy, dx) in pixels that most of the clear cases have, and those cases."""
    clear = [(p, p.agreement) for p in scan.pairs if p.agreement and p.agreement.best >= AGREES]
    if len(clear) < MIN_SET:
        return None
    shifts = np.array([[offset / a.step for offset in a.shift] for _, a in clear])
    median = np.median(shifts, axis=0)
    if np.abs(median).max() < MIN_STEPS - 0.5:
        return None
    same = np.abs(shifts - median).max(axis=1) <= 1
    if same.mean() < 0.6:
        return None
    members = [case for case, is_member in zip(clear, same, strict=True) if is_member]
    down, across = np.median([a.shift for _, a in members], axis=0)
    return (round(down), round(across)), [pair for pair, _ in members]


def misaligned_masks(scan: Scan) -> Iterator[Finding]:
    """Find outliers, if the edges of image and mask agree in most pairs of the dataset."""
    known = [p for p in scan.pairs if p.agreement is not None and not p.mask.smoothed]
    if len(known) < MIN_SET:
        return
    peak = float(np.median([_peak(pair) for pair in known]))
    if peak < AGREES:
        return
    common = _find_common_shift(scan)
    shifted_alike = {id(pair) for pair in common[1]} if common else set()
    borders = float(np.median([p.agreement.borders for p in known if p.agreement]))
    suspects = []
    for pair in known:
        here = pair.agreement
        assert here is not None
        if id(pair) in shifted_alike:
            continue
        if _is_shifted(here) and here.best >= USUAL * peak:
            yield SHIFTED.found(
                [pair.mask.path, pair.image.path],
                f"fits its image best if moved by {_in_words(here.shift)}",
                remedy="move it back, or export it again",
            )
        elif (
            here.at_zero < max(DISAGREES, USUAL_AT_MOST * peak)
            and here.borders >= MIN_BORDERS * borders
            and not _exif_explains(pair)
        ):
            suspects.append(pair)
    suspects.sort(key=lambda pair: (_peak(pair), pair.sample.name))
    yield from _explain(suspects[:MAX_SUSPECTS])


def _explain(suspects: list[InspectedPair]) -> Iterator[Finding]:
    """Find out whether masks that do not fit are transposed or belong to another image."""
    unexplained = []
    for pair in suspects:
        transpose = _better_transpose(pair)
        if transpose is None:
            unexplained.append(pair)
            continue
        yield TURNED.found(
            [pair.mask.path, pair.image.path],
            f"fits its image if {transpose}",
            remedy="rotate or mirror it this way, or export it again",
        )
    owners = _find_owners(unexplained[:MAX_EXCHANGED])
    for pair in unexplained:
        owner = owners.get(pair.sample.name)
        guess = f"it fits {owner.image.path.name}" if owner else "it may belong to another image"
        yield OTHER_IMAGE.found(
            [pair.mask.path, pair.image.path],
            f"has no borders where {pair.image.path.name} has edges, unlike the others: {guess}",
            remedy="compare the two; export the right mask",
        )


def _in_words(shift: tuple[int, int]) -> str:
    """Format (dy, dx) as `3 pixels up and 5 to the left`, without a zero component."""
    down, across = shift
    words = [f"{abs(down)} pixels {'down' if down > 0 else 'up'}"] if down else []
    if across:
        unit = "" if words else " pixels"
        words.append(f"{abs(across)}{unit} to the {'right' if across > 0 else 'left'}")
    return " and ".join(words)


def _peak(pair: InspectedPair) -> float:
    return pair.agreement.best if pair.agreement else 0.0


def _is_shifted(here: Agreement) -> bool:
    far = max(abs(offset) for offset in here.shift) >= MIN_STEPS * here.step
    return far and here.best >= AGREES and here.best > here.at_zero + 2 * MARGIN


def _exif_explains(pair: InspectedPair) -> bool:
    return pair.exif_agreement is not None and pair.exif_agreement.at_zero >= AGREES


def _read_again(pair: InspectedPair) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """Read the gray version (H, W) of an image and the levels (H, W) of its mask once more."""
    try:
        image = to_display(pair.sample.read_raw())
        levels = to_levels(pair.sample.mask.read(pair.image.size), pair.mask)
    except InputError:  # the file has changed since the scan
        return None
    return None if levels is None else (np.asarray(Image.fromarray(image).convert("L")), levels)


def _better_transpose(pair: InspectedPair) -> str | None:
    """Return the transpose after which the mask agrees with its image, in words."""
    decoded, here = _read_again(pair), pair.agreement
    if decoded is None or here is None:
        return None
    gray, levels = decoded
    best: tuple[float, str] = (max(AGREES, here.at_zero + MARGIN), "")
    for transpose, words in _TRANSPOSES.items():
        transposed = np.asarray(Image.fromarray(levels).transpose(transpose))
        found = agreement(gray, transposed) if transposed.shape == gray.shape else None
        if found is not None and found.at_zero > best[0]:
            best = found.at_zero, words
    return best[1] or None


def _find_owners(unexplained: list[InspectedPair]) -> dict[str, InspectedPair]:
    """Find the image that each mask fits, for example if two masks were exchanged."""
    decoded = {p.sample.name: (p, d) for p in unexplained if (d := _read_again(p)) is not None}
    owners = {}
    for name, (_, (_, levels)) in decoded.items():
        for other, (gray, _) in decoded.values():
            if other.sample.name == name or gray.shape != levels.shape:
                continue
            found = agreement(gray, levels)
            if found is not None and found.at_zero >= AGREES:
                owners[name] = other
    return owners
