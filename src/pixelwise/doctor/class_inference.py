"""The classes of a surveyed folder, by the same rules as training's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixelwise.data.class_inference import (
    infer_classes_from_colors,
    infer_classes_from_values,
    is_gray,
)
from pixelwise.data.classes import Classes, pack_rgb
from pixelwise.data.source import Source
from pixelwise.doctor.pair_inspection import MaskReport, PairReport

MIN_RAMPS = 0.25
"""The share of interpolated borders from which a mask counts as smoothed. Whole classes have almost
none; smoothed masks a third and more, as each border brings a pixel between."""


def soft(mask: MaskReport) -> bool:
    """Whether a mask has values that were blended from those beside them."""
    return mask.too_many or mask.soft >= MIN_RAMPS


def settle(source: Source, pair_reports: Sequence[PairReport]) -> Classes | None:
    """The folder's own classes, else those that the masks tell; None where they tell none.

    Like training it takes RGB masks that are gray everywhere for the numbers they hold, and learns
    classes from colors where all masks have them; `source` is told. Masks with soft edges have no
    say unless there are no others.

    Raises InputError, as training does, where the values cannot be classes.
    """
    masks = [s.mask for s in pair_reports if s.mask.fault is None and not s.mask.too_many]
    colored = [mask for mask in masks if mask.keys.ndim == 2]
    classes = source.classes
    if colored and len(colored) == len(masks) and classes is None:
        clear = [mask for mask in masks if not soft(mask)] or masks
        colors = np.unique(np.concatenate([pack_rgb(mask.keys[None])[0] for mask in clear]))
        if not is_gray(colors):
            source.rgb_allowed = True
            return infer_classes_from_colors(source, colors)
        source.notes.append("the RGB masks are gray everywhere: read by their numbers")
        for mask in masks:
            mask.keys = mask.keys[:, 0]
    if classes is not None:
        return classes
    known = [s for s in pair_reports if s.mask.fault is None and s.mask.keys.ndim == 1]
    known = [s for s in known if not soft(s.mask)] or [s for s in known if not s.mask.too_many]
    values = sorted({int(value) for pair_report in known for value in pair_report.mask.keys})
    return infer_classes_from_values(source, values, known[0].sample.mask) if values else None
