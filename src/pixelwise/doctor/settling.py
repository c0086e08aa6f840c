"""The classes of a surveyed folder, by the same rules as training's."""

from __future__ import annotations

from collections.abc import Sequence

from pixelwise.data.classes import Classes
from pixelwise.data.dataset import guess_classes
from pixelwise.data.source import Source
from pixelwise.doctor.sighting import MaskLook

MIN_RAMPS = 0.25
"""The share of interpolated borders from which a mask counts as smoothed. Whole classes have almost
none; smoothed masks a third and more, as each border brings a pixel between."""


def soft(mask: MaskLook) -> bool:
    """Whether a mask has values that were blended from those beside them."""
    return mask.too_many or mask.soft >= MIN_RAMPS


def settle(source: Source, masks: Sequence[MaskLook]) -> Classes | None:
    """The folder's own classes, else those that `masks` tell; None where they tell none.

    Raises InputError, as training does, where the values cannot be classes.
    """
    if source.classes is not None:
        return source.classes
    values = sorted({int(v) for mask in masks if mask.keys.ndim == 1 for v in mask.keys})
    if not values:
        return None
    return guess_classes(source, values, masks[0].path)
