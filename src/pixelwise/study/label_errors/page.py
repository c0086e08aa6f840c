"""Write the findings as one HTML file: image, label, prediction and region of each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise import pages
from pixelwise.data.dataset import SegmentationData
from pixelwise.data.dataset_scan import ProgressCallback
from pixelwise.data.pixel_format import as_shown
from pixelwise.data.source import Sample
from pixelwise.study.label_errors.predictions import Examined, Predicted, predict_again
from pixelwise.study.label_errors.ranking import Estimate
from pixelwise.study.label_errors.regions import Kind, Region

WIDTH = 320
"""The width of a panel on the page, in pixels."""
CONTEXT = 1.0
"""What is shown around a region on each side, relative to the size of its box."""
LEAST_SHOWN = 0.25
"""The smallest part of the image that is shown, relative to its sides."""
MOST_ODDS = 1000
"""Odds above this are shown as this."""
OUTLINE = (255, 0, 170)

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Page:
    """What the page shows.

    Attributes:
        data: The dataset.
        images: The images that were examined, with their networks.
        findings: The findings to show.
        estimate: How many regions are wrong.
        total: The number of all findings.
    """

    data: SegmentationData
    images: Examined
    findings: Sequence[Region]
    estimate: Estimate
    total: int


def write_findings_page(
    path: Path, page: Page, *, progress: ProgressCallback | None = None
) -> None:
    """Write the page, atomically. Raises InputError if that fails."""
    by_image: dict[str, list[int]] = defaultdict(list)
    for number, finding in enumerate(page.findings):
        by_image[finding.image].append(number)
    panels: dict[int, list[dict[str, Any]]] = {}
    for done, predicted in enumerate(predict_again(page.images, page.data, by_image), 1):
        for number in by_image[predicted.sample.name]:
            panels[number] = _panels(page, page.findings[number], predicted)
        if progress is not None:
            progress(done, len(by_image))
    names = page.data.classes.names
    pages.write_page(
        path,
        package="pixelwise.study.label_errors",
        title=page.data.root.resolve().name,
        images=len(page.images),
        total=page.total,
        estimate=page.estimate,
        kinds=Counter(finding.kind.value for finding in page.findings),
        findings=[
            {
                "number": number + 1,
                "kind": finding.kind.value,
                "image": finding.image,
                "text": _describe(finding, page, names),
                "panels": panels[number],
            }
            for number, finding in enumerate(page.findings)
        ],
        legend=[
            (name, pages.css_color(color))
            for name, color in zip(names, page.data.classes.colors, strict=True)
        ],
    )


def _describe(finding: Region, page: Page, names: Sequence[str]) -> str:
    if finding.kind is Kind.MISPAIRED:
        if finding.other:
            return f"fits {page.images[finding.other][0].image.name} better than this image"
        return "agrees with almost nothing in this image"
    top, left, bottom, right = finding.box
    odds = float(np.exp(finding.strength))
    about = f"about {odds:.0f}" if odds < MOST_ODDS else f"over {MOST_ODDS}"
    return (
        f"labeled {names[finding.labeled]}, predicted {names[finding.predicted]} at odds of "
        f"{about} to 1; {finding.pixels} pixels in columns {left} to {right - 1}, rows {top} to "
        f"{bottom - 1}"
    )


def _panels(page: Page, finding: Region, predicted: Predicted) -> list[dict[str, Any]]:
    height, width = predicted.labels.shape
    whole = (0, 0, height, width)
    shown = as_shown(predicted.image)
    palette = page.data.classes.color_table()
    region = np.zeros((height, width), bool)
    box = whole
    if finding.kind is not Kind.MISPAIRED:
        region[finding.window] = finding.mask()
        box = _surroundings(finding.box, height, width)
    maps = [
        ("Image", shown),
        ("Label", _over(shown, palette[predicted.labels])),
        ("Prediction", _over(shown, palette[predicted.predicted])),
    ]
    found = [_panel(caption, pixels, region, box) for caption, pixels in maps]
    if finding.kind is not Kind.MISPAIRED:
        frame = np.zeros((height, width), bool)
        top, left, bottom, right = box
        frame[top:bottom, left:right] = True
        found.append(_panel("Whole image", shown, frame, whole))
    elif finding.other:
        other: Sample = page.images[finding.other][0]
        pixels = as_shown(page.data.read(other)[0])
        nothing = np.zeros(pixels.shape[:2], bool)
        caption = f"Image that the label fits: {other.image.name}"
        found.append(_panel(caption, pixels, nothing, (0, 0, *pixels.shape[:2])))
    for panel in found:
        panel["alt"] = f"{finding.image}: {panel['caption'].lower()}"
    return found


def _surroundings(box: Box, height: int, width: int) -> Box:
    """Return the box with its context, within the image."""
    top, left, bottom, right = box
    rows, columns = (
        int(max((1 + 2 * CONTEXT) * side, LEAST_SHOWN * whole))
        for side, whole in ((bottom - top, height), (right - left, width))
    )
    rows, columns = (
        min(height, max(rows, columns * 3 // 4)),
        min(width, max(columns, rows * 4 // 3)),
    )
    first = min(max(0, (top + bottom - rows) // 2), height - rows)
    start = min(max(0, (left + right - columns) // 2), width - columns)
    return first, start, first + rows, start + columns


def _over(image: NDArray[np.uint8], colors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Blend the colors of a mask over its image, both (H, W, 3)."""
    blend = (image.astype(np.uint16) * 8 + colors.astype(np.uint16) * 12) // 20
    return blend.astype(np.uint8)


def _panel(
    caption: str, pixels: NDArray[np.uint8], region: NDArray[np.bool_], box: Box
) -> dict[str, Any]:
    """Return a part of an image with the outline of a region, as the template shows it."""
    top, left, bottom, right = box
    crop = Image.fromarray(np.ascontiguousarray(pixels[top:bottom, left:right]))
    size = WIDTH, max(1, round(WIDTH * crop.height / crop.width))
    scaled = np.array(crop.resize(size, Image.Resampling.BICUBIC))
    inside = Image.fromarray(np.ascontiguousarray(region[top:bottom, left:right]))
    marked = np.asarray(inside.resize(size, Image.Resampling.NEAREST))
    scaled[_outline(marked)] = OUTLINE
    source = pages.data_url(Image.fromarray(scaled), kind="JPEG", quality=82)
    return {"caption": caption, "source": source, "width": size[0], "height": size[1]}


def _outline(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the two rows of pixels along the inner border of a region."""
    inner = np.pad(region, 2)
    height, width = region.shape
    shifts = [(2 + dy, 2 + dx) for dy, dx in ((-2, 0), (2, 0), (0, -2), (0, 2))]
    kept = np.logical_and.reduce([inner[y : y + height, x : x + width] for y, x in shifts])
    return np.asarray(region & ~kept)
