"""Masks that lie wrong: turned, shifted, or of another image. See measures/alignment.py."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.image_files import read_raw
from pixelwise.doctor.class_inference import soft
from pixelwise.doctor.dataset_scan import DatasetScan
from pixelwise.doctor.diagnosis import Finding, Kind, Severity
from pixelwise.doctor.measures.alignment import Agreement, agreement
from pixelwise.doctor.pair_inspection import PairReport, levels_of, shown
from pixelwise.errors import InputError

EXIF_UNTURNED = Kind("exif-unturned-mask", Severity.WARNING, "Masks drawn on the unturned photo")
SHIFTED_SET = Kind("shifted-masks", Severity.WARNING, "All masks are shifted")
SHIFTED = Kind("shifted-mask", Severity.WARNING, "Shifted masks")
TURNED = Kind("turned-mask", Severity.WARNING, "Turned or mirrored masks")
OTHER_IMAGE = Kind("mismatched-pair", Severity.WARNING, "Masks that do not fit their image")

AGREES = 8.0
"""From this height image and mask agree: foreign masks reach 5.4 on CamVid."""
DISAGREES = 6.0
"""Below this they do not, if most others of the folder agree."""
USUAL = 0.4
"""A shift must reach this part of what pairs of the folder usually reach: chance peaks grow with
the contrast of the images. The limit of disagreement likewise, with ..."""
USUAL_AT_MOST = 0.15
"""... this part of it, where that is more."""
MARGIN = 4.0
"""By which another place or turn must be better than the one the mask lies in."""
MIN_BORDERS = 0.5
"""Of what masks of the folder usually have: few borders can miss the edges by chance. In 3000 cuts
from CamVid all eight of own masks below DISAGREES had two or three borders right across."""
MIN_SET = 5
MIN_STEPS = 3
"""A shift in working pixels that is no matter of where a border is drawn."""
MAX_LOOKED_AT_AGAIN = 200
MAX_EXCHANGED = 20
"""Masks without an image that are tried on each other's."""

_TURNS = {
    Image.Transpose.ROTATE_180: "turned by 180 degrees",
    Image.Transpose.FLIP_LEFT_RIGHT: "mirrored left to right",
    Image.Transpose.FLIP_TOP_BOTTOM: "mirrored top to bottom",
    Image.Transpose.ROTATE_90: "turned by 90 degrees to the left",
    Image.Transpose.ROTATE_270: "turned by 90 degrees to the right",
    Image.Transpose.TRANSPOSE: "mirrored at the diagonal",
    Image.Transpose.TRANSVERSE: "mirrored at the other diagonal",
}


def turned_by_exif(scan: DatasetScan) -> Iterator[Finding]:
    """Size cannot tell where EXIF mirrors, turns by 180 degrees, or the photo is square."""
    for pair_report in scan.pair_reports:
        here, turned = pair_report.agreement, pair_report.turned
        if here is None or turned is None:
            continue
        if turned.at_zero >= AGREES and turned.at_zero > here.at_zero + MARGIN:
            yield EXIF_UNTURNED.found(
                [pair_report.mask.path, pair_report.image.path],
                "fits its photo as it is stored, but the photo is turned by its EXIF orientation",
                remedy="turn the mask the same way, or save the photo upright without EXIF and "
                "draw the mask on it",
            )


def shifted_as_a_whole(scan: DatasetScan) -> Iterator[Finding]:
    found = _systematic(scan)
    if found is None:
        return
    shift, members = found
    yield SHIFTED_SET.found(
        [pair_report.mask.path for pair_report in members],
        f"and {len(members) - 1} more fit their images best when moved by {_words(shift)}: the "
        "masks are shifted",
        remedy="look for padding, cropping or an offset in the export of the masks",
    )


def _systematic(scan: DatasetScan) -> tuple[tuple[int, int], list[PairReport]] | None:
    """A shift (dy, dx) in pixels that most of the clear cases share, and those cases."""
    clear = [
        (s, s.agreement) for s in scan.pair_reports if s.agreement and s.agreement.best >= AGREES
    ]
    if len(clear) < MIN_SET:
        return None
    shifts = np.array([[part / a.step for part in a.shift] for _, a in clear])
    middle = np.median(shifts, axis=0)
    if np.abs(middle).max() < MIN_STEPS - 0.5:
        return None
    same = np.abs(shifts - middle).max(axis=1) <= 1
    if same.mean() < 0.6:
        return None
    members = [pair for pair, is_one in zip(clear, same, strict=True) if is_one]
    down, across = np.median([a.shift for _, a in members], axis=0)
    return (round(down), round(across)), [pair_report for pair_report, _ in members]


def single_masks(scan: DatasetScan) -> Iterator[Finding]:
    """Outliers; nothing is said where the folder as a whole shows no agreement of edges."""
    known = [s for s in scan.pair_reports if s.agreement is not None and not soft(s.mask)]
    whole = _systematic(scan)
    common = {id(pair_report) for pair_report in whole[1]} if whole else set()
    heights = [_height(s) for s in known]
    height = float(np.median(heights)) if heights else 0.0
    if len(known) < MIN_SET or height < AGREES:
        return
    usual = float(np.median([s.agreement.borders for s in known if s.agreement]))
    suspects = []
    for pair_report in known:
        here = pair_report.agreement
        assert here is not None
        if id(pair_report) in common:
            continue
        if _moved(here) and here.best >= USUAL * height:
            yield SHIFTED.found(
                [pair_report.mask.path, pair_report.image.path],
                f"fits its image best when moved by {_words(here.shift)}",
                remedy="move it back, or export it again",
            )
        elif (
            here.at_zero < max(DISAGREES, USUAL_AT_MOST * height)
            and here.borders >= MIN_BORDERS * usual
            and not _exif_explains(pair_report)
        ):
            suspects.append(pair_report)
    suspects.sort(key=lambda s: (_height(s), s.sample.name))
    suspects = suspects[:MAX_LOOKED_AT_AGAIN]
    lost = []
    for pair_report in suspects:
        turn = _better_turn(pair_report)
        if turn is None:
            lost.append(pair_report)
            continue
        yield TURNED.found(
            [pair_report.mask.path, pair_report.image.path],
            f"fits its image when it is {turn}",
            remedy="turn or mirror it so, or export it again",
        )
    owners = _owners(lost[:MAX_EXCHANGED])
    for pair_report in lost:
        sentence = (
            f"has no borders where {pair_report.image.path.name} has edges, unlike the others: "
        )
        owner = owners.get(pair_report.sample.name)
        if owner is None:
            sentence += "it may be of another image"
        else:
            sentence += f"it fits {owner.image.path.name}"
        yield OTHER_IMAGE.found(
            [pair_report.mask.path, pair_report.image.path],
            sentence,
            remedy="look at the two together; export the right mask",
        )


def _words(shift: tuple[int, int]) -> str:
    """(dy, dx) as `3 pixels up and 5 to the left`; a part that is 0 is left out."""
    down, across = shift
    parts = [f"{abs(down)} pixels {'down' if down > 0 else 'up'}"] if down else []
    if across:
        unit = "" if parts else " pixels"
        parts.append(f"{abs(across)}{unit} to the {'right' if across > 0 else 'left'}")
    return " and ".join(parts)


def _height(pair_report: PairReport) -> float:
    return pair_report.agreement.best if pair_report.agreement else 0.0


def _moved(here: Agreement) -> bool:
    far = max(abs(part) for part in here.shift) >= MIN_STEPS * here.step
    return far and here.best >= AGREES and here.best > here.at_zero + 2 * MARGIN


def _exif_explains(pair_report: PairReport) -> bool:
    return pair_report.turned is not None and pair_report.turned.at_zero >= AGREES


def _again(pair_report: PairReport) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """The gray version (H, W) of an image and its mask (H, W), read once more."""
    try:
        image = shown(read_raw(pair_report.sample.image))
        mask = levels_of(pair_report.sample.mask.read(pair_report.image.size))
    except InputError:  # it could be read a moment ago
        return None
    return None if mask is None else (np.asarray(Image.fromarray(image).convert("L")), mask)


def _better_turn(pair_report: PairReport) -> str | None:
    """The turn after which the mask agrees with its image, in words."""
    pair, here = _again(pair_report), pair_report.agreement
    if pair is None or here is None:
        return None
    gray, mask = pair
    best: tuple[float, str] = (max(AGREES, here.at_zero + MARGIN), "")
    for turn, words in _TURNS.items():
        turned = np.asarray(Image.fromarray(mask).transpose(turn))
        found = agreement(gray, turned) if turned.shape == gray.shape else None
        if found is not None and found.at_zero > best[0]:
            best = found.at_zero, words
    return best[1] or None


def _owners(lost: list[PairReport]) -> dict[str, PairReport]:
    """For masks that do not fit: whose image among them they fit, as when two were exchanged."""
    pairs = {s.sample.name: (s, pair) for s in lost if (pair := _again(s)) is not None}
    owners = {}
    for name, (_, (_, mask)) in pairs.items():
        for other, (gray, _) in pairs.values():
            if other.sample.name == name or gray.shape != mask.shape:
                continue
            found = agreement(gray, mask)
            if found is not None and found.at_zero >= AGREES:
                owners[name] = other
    return owners
