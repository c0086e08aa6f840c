"""The facts of a survey: sizes, classes, mean and deviation."""

from __future__ import annotations

from collections import Counter

from pixelwise.data.channels import measure
from pixelwise.doctor.checks import classes as by_class
from pixelwise.doctor.checks.objects import SPECK, area_up_to, areas_by_class
from pixelwise.doctor.diagnosis import ClassFacts, Facts
from pixelwise.doctor.survey import Survey


def facts_of(survey: Survey) -> Facts:
    looks = [s.image for s in survey.sightings if s.image.fault is None]
    sizes = Counter(look.size for look in looks)
    mean = deviation = None
    if looks:
        measured = measure((look.facts for look in looks if look.facts), survey.pixels)
        mean, deviation = _rounded(measured.mean), _rounded(measured.std)
    return Facts(
        layout=survey.source.layout,
        pictures=str(survey.pixels),
        pairs={split: len(sightings) for split, sightings in survey.splits.items()},
        sizes=sorted(sizes.items(), key=lambda item: (-item[1], item[0])),
        mean=mean,
        deviation=deviation,
        classes=_class_facts(survey),
        ignored=_ignored(survey),
        notes=list(survey.source.notes),
    )


def _rounded(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(value, 2) for value in values)


def _class_facts(survey: Survey) -> list[ClassFacts]:
    classes = survey.classes
    if classes is None:
        return []
    pixels = {split: by_class.pixels(survey, split)[:-1] for split in survey.splits}
    images = {split: by_class.images(survey, split) for split in survey.splits}
    rows = []
    for place, areas in enumerate(areas_by_class(survey)):
        objects = areas[areas > SPECK]
        rows.append(
            ClassFacts(
                name=classes.names[place],
                colour=classes.colours[place],
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


def _ignored(survey: Survey) -> dict[str, float]:
    if survey.classes is None:
        return {}
    totals = {split: by_class.pixels(survey, split) for split in survey.splits}
    return {
        split: round(int(counts[-1]) / max(1, int(counts.sum())), 6)
        for split, counts in totals.items()
    }
