"""An export held against the bundle it came from: the same logits, the same labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pixelwise.data.pixels import RGB, PixelFormat
from pixelwise.data.scenes import generate_scene
from pixelwise.inference.runtimes import Runtime

SIZES = ((224, 320), (97, 131), (333, 241))  # rows and columns, odd ones among them
LIMIT = 1e-4  # of the logits' range: rounding in another order stays far below


@dataclass(frozen=True)
class Parity:
    """How far an export is from eager PyTorch on one picture.

    difference: the largest of the logits', over their range. equal: the share (0..1) of pixels
    with the same label.
    """

    size: tuple[int, int]
    difference: float
    equal: float

    @property
    def holds(self) -> bool:
        return self.difference <= LIMIT

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(runtime: Runtime, reference: Runtime, pixels: PixelFormat = RGB) -> list[Parity]:
    """Both on a generated scene at each of SIZES, its colours repeated for further channels."""
    found = []
    for seed, (height, width) in enumerate(SIZES):
        image = pixels.like(generate_scene(seed, height=height, width=width)[0])
        one, other = runtime.logits(image), reference.logits(image)
        spread = float(other.max() - other.min()) or 1.0
        difference = float(np.abs(one - other).max()) / spread
        equal = float((runtime.classify(image) == reference.classify(image)).mean())
        if not np.isfinite(one).all():
            difference = float("inf")
        found.append(Parity((height, width), difference, equal))
    return found
