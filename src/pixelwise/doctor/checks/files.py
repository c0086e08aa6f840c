"""Files that cannot be read, and files that are not what their names say."""

from __future__ import annotations

from collections.abc import Iterator

from pixelwise.data.array_files import ARRAY_SUFFIXES
from pixelwise.data.image_decoding import FORMAT_OF_SUFFIX
from pixelwise.doctor.checks.folder import split_line
from pixelwise.doctor.dataset_scan import DatasetScan
from pixelwise.doctor.diagnosis import Finding, Kind, Severity, stopping
from pixelwise.doctor.pair_inspection import FileReport, ImageReport

EMPTY = stopping("empty-file", "Empty files")
DENIED = stopping("unreadable-file", "Files without permission to read")
CORRUPT_IMAGE = stopping("corrupt-image", "Damaged images")
CORRUPT_MASK = stopping("corrupt-mask", "Damaged masks")
WRONG_EXTENSION = stopping("wrong-extension", "Names that promise another format")
UNSUPPORTED_IMAGE = stopping("unsupported-image", "Images of a sort that is not read")
UNSUPPORTED_MASK = stopping("unsupported-mask", "Masks of a sort that is not read")
IMAGE_16_BIT = stopping("image-16-bit", "Images of 16 bits a channel among others")
DEPTH = stopping("depth", "Images of another depth than the rest")
CHANNELS = stopping("channels", "Images of another number of channels than the rest")
MASK_16_BIT = stopping("mask-16-bit", "Masks of 16 bits")
JPEG_MASK = stopping("jpeg-mask", "Masks saved as JPEG")
TRANSPARENT_MASK = stopping("transparent-mask", "Masks with transparent pixels")

_RESTORE = "restore the file from its source, or remove it and its partner"


def unreadable_files(scan: DatasetScan) -> Iterator[Finding]:
    """What training's readers refuse, each with the kind of its fault."""
    for pair_report in scan.pair_reports:
        stops = pair_report.split != "test"  # training does not open that one
        for look, is_mask in ((pair_report.image, False), (pair_report.mask, True)):
            if look.fault is None:
                continue
            kind, remedy = _kind(look, is_mask=is_mask)
            sentence, said = split_line(look.fault)
            yield kind.found([look.path], sentence, remedy=remedy or said, stops=stops)


def _kind(look: FileReport, *, is_mask: bool) -> tuple[Kind, str | None]:
    """The kind of a refusal, and the remedy where it is better than the reader's own."""
    mode = look.mode or ""
    if look.empty:
        return EMPTY, _RESTORE
    if look.denied:
        return DENIED, "allow reading it: chmod u+r"
    if isinstance(look, ImageReport) and look.odd:
        if look.odd == "channels":
            return CHANNELS, "make it like the others, or remove it and its mask"
        deep = "16" in mode or mode in {"I", "F"}
        return (IMAGE_16_BIT, None) if deep else (DEPTH, "save all images with the same depth")
    if is_mask and look.content == "JPEG":
        return JPEG_MASK, "export the masks again as PNG: JPEG cannot be mended by converting it"
    if look.content is not None and look.content != _promised(look):
        return WRONG_EXTENSION, f"it holds {look.content}: convert it to {_promised(look)}"
    if "16" in mode or mode in {"I", "F"}:
        return (MASK_16_BIT if is_mask else IMAGE_16_BIT), None
    if is_mask and mode in {"RGBA", "LA", "PA"}:
        return TRANSPARENT_MASK, "save the masks without an alpha channel, every pixel a class"
    if mode and "damaged" not in (look.fault or ""):
        return (UNSUPPORTED_MASK if is_mask else UNSUPPORTED_IMAGE), None
    return (CORRUPT_MASK if is_mask else CORRUPT_IMAGE), _RESTORE


def _promised(look: FileReport) -> str | None:
    suffix = look.path.suffix.lower()
    return "NPY" if suffix in ARRAY_SUFFIXES else FORMAT_OF_SUFFIX.get(suffix)


def wrong_extensions(scan: DatasetScan) -> Iterator[Finding]:
    """Files that are read all the same, but that other programs will stumble over."""
    for pair_report in scan.pair_reports:
        for look in (pair_report.image, pair_report.mask):
            promised = _promised(look)
            if look.fault is None and look.content not in {None, promised} and promised:
                yield WRONG_EXTENSION.found(
                    [look.path],
                    f"is called {look.path.suffix} and holds {look.content}",
                    remedy=f"rename it to .{str(look.content).lower()}, or save it as {promised}",
                    severity=Severity.WARNING,
                    stops=False,
                )
