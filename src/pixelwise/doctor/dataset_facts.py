"""The facts of a survey: sizes, classes, mean and std."""

from __future__ import annotations

from collections import Counter

from pixelwise.data.channel_statistics import measure
from pixelwise.doctor.checks import classes as by_class
from pixelwise.doctor.checks.objects import SPECK, area_up_to, areas_by_class
from pixelwise.doctor.dataset_scan import DatasetScan
from pixelwise.doctor.diagnosis import ClassFacts, Facts


def facts_of(scan: DatasetScan) -> Facts:
    looks = [s.image for s in scan.pair_reports if s.image.fault is None]
    sizes = Counter(look.size for look in looks)
    mean = std = None
    if looks:
        measured = measure((look.facts for look in looks if look.facts), scan.pixels)
        mean, std = _rounded(measured.mean), _rounded(measured.std)
    return Facts(
        layout=scan.source.layout,
        pictures=str(scan.pixels),
        pairs={split: len(pair_reports) for split, pair_reports in scan.splits.items()},
        sizes=sorted(sizes.items(), key=lambda item: (-item[1], item[0])),
        mean=mean,
        std=std,
        classes=_class_facts(scan),
        ignored=_ignored(scan),
        notes=list(scan.source.notes),
    )


def _rounded(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(value, 2) for value in values)


def _class_facts(scan: DatasetScan) -> list[ClassFacts]:
    classes = scan.classes
    if classes is None:
        return []
    pixels = {split: by_class.pixels(scan, split)[:-1] for split in scan.splits}
    images = {split: by_class.images(scan, split) for split in scan.splits}
    rows = []
    for place, areas in enumerate(areas_by_class(scan)):
        objects = areas[areas > SPECK]
        rows.append(
            ClassFacts(
                name=classes.names[place],
                color=classes.colors[place],
                pixels={split: int(counts[place]) for split, counts in pixels.items()},
                share={
                    split: round(int(counts[place]) / max(1, int(counts.sum())), 6)
                    for split, counts in pixels.items()
                },
                images={split: int(counts[place]) for split, counts in images.items()},
                objects=len(objects),
                smallest=int(objects[0]) if len(objects) else None,
                small=area_up_to(objects, 0.05),
                typical=area_up_to(objects, 0.5),
            )
        )
    return rows


def _ignored(scan: DatasetScan) -> dict[str, float]:
    if scan.classes is None:
        return {}
    totals = {split: by_class.pixels(scan, split) for split in scan.splits}
    return {
        split: round(int(counts[-1]) / max(1, int(counts.sum())), 6)
        for split, counts in totals.items()
    }
