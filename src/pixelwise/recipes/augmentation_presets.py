"""Augmentation for kinds of images, as values of the recipe section `augmentation`."""

from __future__ import annotations

from typing import Any

_ANY_DIRECTION = {"vertical_flip": 0.5, "quarter_turns": 0.75}  # 0.75: all directions equally often

PRESETS: dict[str, dict[str, Any]] = {
    "street": {
        "brightness": 0.3,
        "contrast": 0.3,
        "saturation": 0.3,
        "hue": 0.02,
        "gamma": 0.2,
        "blur": 0.7,
        "noise": 4.0,
        "jpeg": 50,
    },
    "aerial": {**_ANY_DIRECTION, "hue": 0.02, "gamma": 0.2, "blur": 0.7},
    "microscopy": {
        **_ANY_DIRECTION,
        "rotation": 10.0,
        "hue": 0.04,
        "gamma": 0.3,
        "blur": 1.0,
        "noise": 6.0,
    },
    "documents": {
        "scale": (0.7, 1.4),
        "flip": 0.0,  # mirrored writing does not occur
        "rotation": 3.0,
        "brightness": 0.3,
        "contrast": 0.3,
        "gamma": 0.3,
        "blur": 1.0,
        "noise": 8.0,
        "jpeg": 30,
    },
}
