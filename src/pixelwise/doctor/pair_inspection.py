"""One pair, looked at: what its two files are, what can be measured on them, what a reader says.

Whether a file is usable is what training's own readers say, `read_raw` and `MaskSource.read`; the
looks here only find out why. So the doctor and the training cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.channel_statistics import RawFacts, choose_format, facts_of
from pixelwise.data.classes import pack_rgb
from pixelwise.data.image_decoding import IMAGE_FORMATS, exif_turn, has_16_bits, quiet
from pixelwise.data.image_files import read_raw
from pixelwise.data.pixel_format import RawImage, as_shown
from pixelwise.data.source import Sample
from pixelwise.doctor.measures.alignment import Agreement, agreement
from pixelwise.doctor.measures.fingerprint import Fingerprint, digest, fingerprint
from pixelwise.doctor.measures.objects import objects
from pixelwise.errors import InputError
from pixelwise.file_io import check_regular

MAX_LEVELS = 256
"""More different values or colors than this in one mask are no classes."""

MAX_OBJECT_PIXELS = 1 << 24
"""Larger masks are thinned by a whole step before their objects are counted."""

_SIGNATURES: tuple[tuple[bytes, int, str], ...] = (
    (b"\xff\xd8\xff", 0, "JPEG"),
    (b"\x89PNG\r\n\x1a\n", 0, "PNG"),
    (b"GIF8", 0, "GIF"),
    (b"BM", 0, "BMP"),
    (b"WEBP", 8, "WEBP"),
    (b"II*\0", 0, "TIFF"),
    (b"MM\0*", 0, "TIFF"),
    (b"ftypheic", 4, "HEIC"),
    (b"ftypmif1", 4, "HEIC"),
    (b"ftypavif", 4, "AVIF"),
    (b"\0\0\0\x0cjP  ", 0, "JPEG 2000"),
    (b"8BPS", 0, "PSD"),
    (b"%PDF", 0, "PDF"),
    (b"PK\x03\x04", 0, "ZIP"),
    (b"\x93NUMPY", 0, "NPY"),
    (b"<!doctype", 0, "HTML"),
    (b"<html", 0, "HTML"),
    (b"<svg", 0, "SVG"),
    (b"version https://git-lfs", 0, "Git LFS pointer"),
)


@dataclass
class FileReport:
    """What one file is, by its first bytes and its header.

    fault: what the reader says, without the file's name; None where it can be read.
    content: the format that its bytes tell, None where they tell none. mode: Pillow's, None where
    the header cannot be read. turn: how EXIF turns it.
    """

    path: Path
    fault: str | None = None
    empty: bool = False
    denied: bool = False
    content: str | None = None
    mode: str | None = None
    turn: Image.Transpose | None = None
    size: tuple[int, int] = (0, 0)


@dataclass
class ImageReport(FileReport):
    """facts: of the numbers as stored. odd: "channels" or "depth" where these are not
    as most have them. gray: mean and std of the gray version. colorless:
    all three channels are one, though the file may have three. What is measured on pixels is
    measured as a person sees them: eight bits, the first three channels."""

    facts: RawFacts | None = None
    odd: str = ""
    gray: tuple[float, float] = (0.0, 0.0)
    colorless: bool = False
    mark: Fingerprint | None = None


@dataclass
class MaskReport(FileReport):
    """keys: the stored values (K,) or colors (K, 3) that occur, rising; counts: (K,) pixels.

    soft: the share of its borders that are ramps, 0..1. objects: (N,) place in keys and area.
    """

    keys: NDArray[Any] = field(default_factory=lambda: np.empty(0, dtype=np.uint8))
    counts: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    too_many: bool = False
    soft: float = 0.0
    mark: bytes = b""
    object_keys: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    object_areas: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))


@dataclass
class PairReport:
    """A pair of one split.

    agreement: of image and mask as they lie. turned: with the mask turned as EXIF turns the image.
    """

    sample: Sample
    split: str
    image: ImageReport
    mask: MaskReport
    agreement: Agreement | None = None
    turned: Agreement | None = None

    @property
    def usable(self) -> bool:
        """Both can be read and have one size."""
        return (
            self.image.fault is None
            and self.mask.fault is None
            and self.image.size == self.mask.size
        )


def inspect_pair(sample: Sample, split: str) -> PairReport:
    """Read both files once. Raises nothing for what a file may hold."""
    image, mask = ImageReport(sample.image), MaskReport(sample.mask.path)
    raw = pixels = stored = None
    _look(image)
    try:
        raw = read_raw(sample.image)
        image.facts = facts_of(raw)
        pixels = shown(raw, image.facts)
    except InputError as error:
        image.fault = fault_of(error, image.path)
    _look(mask)
    try:
        stored = sample.mask.read(image.size if raw is None else raw.size)
    except InputError as error:
        mask.fault = fault_of(error, mask.path)
    pair_report = PairReport(sample, split, image, mask)
    gray = levels = None
    if pixels is not None:
        gray = _measure_image(image, pixels)
    if stored is not None:
        levels = _measure_mask(mask, stored)
    if gray is not None and levels is not None and image.size == mask.size:
        pair_report.agreement = agreement(gray, levels)
        if image.turn is not None:
            turned = np.asarray(Image.fromarray(levels).transpose(image.turn))
            if turned.shape == gray.shape:
                pair_report.turned = agreement(gray, turned)
    return pair_report


def shown(raw: RawImage, facts: RawFacts | None = None) -> NDArray[np.uint8]:
    """A decoded image as a person sees it (H, W, 3), of a range of its own where it is deep."""
    own, _ = choose_format([facts or facts_of(raw)])
    return as_shown(own.scale(own.select(raw, "image")))


def _look(look: FileReport) -> None:
    try:
        check_regular(look.path)
        with look.path.open("rb") as stream:
            head = stream.read(64)
    except PermissionError:
        look.denied = True
        return
    except OSError:  # whatever it is, the reader says it better
        return
    look.empty = not head
    lower = head.lower()
    for signature, place, name in _SIGNATURES:
        start = lower if signature[:1] == b"<" else head
        if start[place : place + len(signature)] == signature:
            look.content = name
            break
    if look.content not in IMAGE_FORMATS:
        return
    try:
        with quiet, Image.open(look.path, formats=IMAGE_FORMATS) as picture:
            look.mode, look.turn = picture.mode, exif_turn(picture)
            look.size = picture.height, picture.width
            if has_16_bits(picture):
                look.mode += ";16"
    except Exception:  # as above: Pillow raises whatever the bytes provoke
        return


def fault_of(error: InputError, path: Path) -> str:
    return "; ".join(line.removeprefix(f"{path}: ") for line in error.problems)


def _measure_image(look: ImageReport, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Fill in the figures of an image (H, W, 3); returns its gray version (H, W)."""
    look.size = pixels.shape[0], pixels.shape[1]
    picture = Image.fromarray(pixels)
    histogram = np.array(picture.histogram(), dtype=np.float64).reshape(3, 256)
    values = np.arange(256, dtype=np.float64)
    # Equal histograms are a cheap hint; only then are the channels compared.
    look.colorless = bool(
        (histogram[0] == histogram[1]).all()
        and (histogram[0] == histogram[2]).all()
        and (pixels[..., 0] == pixels[..., 1]).all()
        and (pixels[..., 0] == pixels[..., 2]).all()
    )
    gray_image = picture.convert("L")
    gray = np.asarray(gray_image)
    counts = np.array(gray_image.histogram(), dtype=np.float64)
    mean = float(counts @ values / counts.sum())
    look.gray = mean, float(np.sqrt(max(0.0, counts @ values**2 / counts.sum() - mean**2)))
    look.mark = fingerprint(pixels, gray)
    return gray


def _measure_mask(look: MaskReport, stored: NDArray[Any]) -> NDArray[np.uint8] | None:
    """Fill in the figures of a mask; returns it as places in `look.keys`, None for too many."""
    look.size = stored.shape[0], stored.shape[1]
    if stored.size == 0:  # outlines, drawn for an image that cannot be read
        return None
    look.mark = digest(stored)
    found = _levels(stored)
    if found is None:
        look.too_many = True
        return None
    levels, look.keys, look.counts = found
    if stored.ndim == 2 and len(look.keys) > 2:
        look.soft = ramps(stored)
    step = int(np.ceil(np.sqrt(levels.size / MAX_OBJECT_PIXELS)))
    values, areas = objects(np.ascontiguousarray(levels[::step, ::step]))
    look.object_keys, look.object_areas = values.astype(np.intp), areas * step**2
    return levels


def _levels(
    stored: NDArray[Any],
) -> tuple[NDArray[np.uint8], NDArray[Any], NDArray[np.int64]] | None:
    """A mask as places in the sorted list of what occurs in it, that list, and its counts."""
    if stored.ndim == 2 and stored.dtype == np.uint8:
        counts = np.bincount(stored.reshape(-1), minlength=256)
        keys = np.flatnonzero(counts).astype(np.uint8)
        table = np.zeros(256, dtype=np.uint8)
        table[keys] = np.arange(len(keys))
        return table[stored], keys, counts[keys]
    packed = stored
    if stored.ndim == 3:
        packed = pack_rgb(stored)
    keys, counts = np.unique(packed, return_counts=True)
    if len(keys) > MAX_LEVELS:
        return None
    levels = np.searchsorted(keys, packed).astype(np.uint8)
    if stored.ndim == 3:
        keys = np.stack([keys >> 16, keys >> 8 & 255, keys & 255], axis=-1).astype(np.uint8)
    return levels, keys, counts


def levels_of(stored: NDArray[Any]) -> NDArray[np.uint8] | None:
    """A mask with its values or colors numbered from 0 (H, W); None for over MAX_LEVELS."""
    found = _levels(stored)
    return None if found is None else found[0]


def ramps(mask: NDArray[Any]) -> float:
    """The share of the borders of a mask (H, W), along its rows, that are interpolated, 0..1.

    A pixel whose value lies strictly between those to its left and right was blended from them. In
    a mask of whole classes that takes a strip one pixel wide with just such a value.
    """
    wide = mask.astype(np.int32)
    steps = np.diff(wide, axis=1)
    borders = int(np.count_nonzero(steps))
    between = int(np.count_nonzero(steps[:, 1:] * steps[:, :-1] > 0))
    return between / borders if borders else 0.0
