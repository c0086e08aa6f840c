"""Files that cannot be read, and files whose content differs from their extension."""

from __future__ import annotations

from collections.abc import Iterator

from pixelwise.data.array_files import ARRAY_SUFFIXES
from pixelwise.data.file_content import NO_IMAGES
from pixelwise.data.image_decoding import FORMAT_OF_SUFFIX
from pixelwise.doctor.checks.folder import split_line
from pixelwise.doctor.diagnosis import Finding, Kind, Severity, stopping
from pixelwise.doctor.pair_inspection import InspectedImage, InspectedMask, Scan

EMPTY = stopping("empty-file", "Empty files")
DENIED = stopping("unreadable-file", "Files without read permission")
NO_IMAGE = stopping("not-an-image", "Files that hold something else than an image")
CORRUPT_IMAGE = stopping("corrupt-image", "Damaged images")
CORRUPT_MASK = stopping("corrupt-mask", "Damaged masks")
WRONG_EXTENSION = stopping("wrong-extension", "Files whose content differs from their extension")
UNSUPPORTED_IMAGE = stopping("unsupported-image", "Images of an unsupported kind")
UNSUPPORTED_MASK = stopping("unsupported-mask", "Masks of an unsupported kind")
IMAGE_16_BIT = stopping("image-16-bit", "Images with 16 bits per channel among others")
DEPTH = stopping("depth", "Images with another bit depth than the others")
CHANNELS = stopping("channels", "Images with another number of channels than the others")
MASK_16_BIT = stopping("mask-16-bit", "16-bit masks")
JPEG_MASK = stopping("jpeg-mask", "Masks saved as JPEG")
TRANSPARENT_MASK = stopping("transparent-mask", "Masks with transparent pixels")

_RESTORE = "restore the file from its source, or remove it and its partner"


def unreadable_files(scan: Scan) -> Iterator[Finding]:
    """Find the files that training cannot use, and classify the reason."""
    for pair in scan.pairs:
        stops = pair.split != "test"  # training does not open the test split
        for file in (pair.image, pair.mask):
            if file.readable:
                continue
            kind, remedy = _classify(file, scan)
            lines = "; ".join(line.removeprefix(f"{file.path}: ") for line in file.problems)
            message, reader_remedy = split_line(lines)
            yield kind.found([file.path], message, remedy=remedy or reader_remedy, stops=stops)


def _classify(file: InspectedImage | InspectedMask, scan: Scan) -> tuple[Kind, str | None]:
    """Return the kind of problem, and the remedy if it is better than the reader's."""
    header, is_mask = file.header, isinstance(file, InspectedMask)
    mode = header.mode or ""
    deep = "16" in mode or mode in {"I", "F"}
    if header.empty:
        return EMPTY, _RESTORE
    if header.denied:
        return DENIED, "allow reading it: chmod u+r"
    if isinstance(file, InspectedImage) and file.summary is not None:  # decoded, another format
        if file.summary.example.dtype == scan.pixels.dtype:
            return CHANNELS, "convert it to the format of the others, or remove it and its mask"
        return (IMAGE_16_BIT, None) if deep else (DEPTH, "save all images with the same bit depth")
    if is_mask and header.content == "JPEG":
        return JPEG_MASK, "export the masks again as PNG: converting a JPEG does not restore it"
    if header.content in NO_IMAGES:
        return NO_IMAGE, None
    expected = _format_of_suffix(file)
    if header.content is not None and header.content != expected:
        return WRONG_EXTENSION, f"the file is {header.content}: convert it to {expected}"
    if deep:
        return (MASK_16_BIT if is_mask else IMAGE_16_BIT), None
    if is_mask and mode in {"RGBA", "LA", "PA"}:
        return TRANSPARENT_MASK, "save the masks without an alpha channel, every pixel a class"
    damaged = "damaged" in "".join(file.problems)
    if mode and not damaged:
        return (UNSUPPORTED_MASK if is_mask else UNSUPPORTED_IMAGE), None
    return (CORRUPT_MASK if is_mask else CORRUPT_IMAGE), _RESTORE if damaged else None


def _format_of_suffix(file: InspectedImage | InspectedMask) -> str | None:
    suffix = file.path.suffix.lower()
    return "NPY" if suffix in ARRAY_SUFFIXES else FORMAT_OF_SUFFIX.get(suffix)


def wrong_extensions(scan: Scan) -> Iterator[Finding]:
    """Find readable files with a wrong extension, which other programs may refuse."""
    for pair in scan.pairs:
        for file in (pair.image, pair.mask):
            content, expected = file.header.content, _format_of_suffix(file)
            if file.readable and content not in {None, expected} and expected:
                yield WRONG_EXTENSION.found(
                    [file.path],
                    f"has the extension {file.path.suffix} but is {content}",
                    remedy=f"rename it to .{str(content).lower()}, or save it as {expected}",
                    severity=Severity.WARNING,
                    stops=False,
                )
