"""Collect the facts about a dataset: sizes, mean and std, classes."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.channel_statistics import compute_statistics
from pixelwise.data.classes import IGNORE
from pixelwise.doctor.checks.classes import count_images, count_pixels
from pixelwise.doctor.checks.objects import SPECK, area_up_to, areas_by_class
from pixelwise.doctor.diagnosis import ClassFacts, Facts
from pixelwise.doctor.pair_inspection import Scan


def collect_facts(scan: Scan) -> Facts:
    images = [pair.image for pair in scan.pairs if pair.image.readable]
    sizes = Counter(image.size for image in images)
    pixels = {split: count_pixels(scan, split) for split in scan.splits}
    mean = std = None
    if images:
        summaries = [image.summary for image in images if image.summary is not None]
        statistics = compute_statistics(summaries, scan.pixels)
        mean, std = _rounded(statistics.mean), _rounded(statistics.std)
    return Facts(
        layout=scan.source.layout,
        image_format=str(scan.pixels),
        pairs={split: len(pairs) for split, pairs in scan.splits.items()},
        sizes=sorted(sizes.items(), key=lambda item: (-item[1], item[0])),
        mean=mean,
        std=std,
        classes=_class_facts(scan),
        ignored={} if scan.classes is None else _shares(pixels, IGNORE),
        notes=list(scan.source.notes),
    )


def _rounded(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(value, 2) for value in values)


def _class_facts(scan: Scan) -> list[ClassFacts]:
    classes = scan.classes
    if classes is None:
        return []
    pixels = {split: count_pixels(scan, split)[: len(classes)] for split in scan.splits}
    images = {split: count_images(scan, split) for split in scan.splits}
    rows = []
    for index, areas in enumerate(areas_by_class(scan)):
        objects = areas[areas > SPECK]
        rows.append(
            ClassFacts(
                name=classes.names[index],
                color=classes.colors[index],
                pixels={split: int(counts[index]) for split, counts in pixels.items()},
                share=_shares(pixels, index),
                images={split: int(counts[index]) for split, counts in images.items()},
                objects=len(objects),
                smallest=int(objects[0]) if len(objects) else None,
                small=area_up_to(objects, 0.05),
                typical=area_up_to(objects, 0.5),
            )
        )
    return rows


def _shares(counts: dict[str, NDArray[np.int64]], index: int) -> dict[str, float]:
    """The share of one class among all counted pixels, by split."""
    return {s: round(int(n[index]) / max(1, int(n.sum())), 6) for s, n in counts.items()}
