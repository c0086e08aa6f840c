"""Compare an export with its bundle: the logits and labels of images and of tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.pixel_format import RGB, PixelFormat, Pixels
from pixelwise.data.scenes import generate_scene
from pixelwise.inference.runtimes import Runtime, TileView, TilingRuntime

SIZES = ((224, 320), (97, 131), (333, 241))  # height, width; some of them odd
MAX_DIFFERENCE = 1e-4  # relative to the range of the logits; rounding stays far below


@dataclass(frozen=True)
class Parity:
    """The difference between an export and eager PyTorch on one image.

    Attributes:
        size: Height and width of the image.
        difference: Largest difference of the logits, relative to their range.
        equal: Fraction of pixels with the same label, in 0..1.
    """

    size: tuple[int, int]
    difference: float
    equal: float

    @property
    def holds(self) -> bool:
        return self.difference <= MAX_DIFFERENCE

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    runtime: Runtime,
    reference: Runtime,
    pixels: PixelFormat = RGB,
    sizes: Sequence[tuple[int, int]] = SIZES,
) -> list[Parity]:
    """Compare two runtimes on a generated scene at each of the sizes.

    If images have more than three channels, the scene's colors are repeated.
    """
    results = []
    for seed, (height, width) in enumerate(sizes):
        image = _scene(seed, height, width, pixels)
        difference = _relative_difference(runtime.logits(image), reference.logits(image))
        equal = float((runtime.predict_labels(image) == reference.predict_labels(image)).mean())
        results.append(Parity((height, width), difference, equal))
    return results


def compare_tiles(
    runtime: TilingRuntime, reference: TilingRuntime, pixels: PixelFormat = RGB
) -> Parity:
    """Compare two runtimes on a generated scene as a tile of a larger image.

    The sums for image poolings are compared too. The size of the result is that of the tile.
    """
    step = reference.requirements.step
    height, width = SIZES[0]
    tile = _scene(0, height, width, pixels)
    size = (height + 2 * step, width + 3 * step)
    own = (slice(0, height // step * step), slice(0, width // step * step))
    difference = 0.0
    means: list[NDArray[np.float32]] = []
    for _ in range(reference.requirements.poolings):
        view = TileView(size, step, 2 * step, tuple(means))
        expected, expected_positions = reference.tile_sums(tile, view, own)
        sums, positions = runtime.tile_sums(tile, view, own)
        mean = expected / expected_positions
        difference = max(difference, _relative_difference(sums / positions, mean))
        means.append(mean.astype(np.float32))
    view = TileView(size, step, 2 * step, tuple(means))
    logits, reference_logits = runtime.tile_logits(tile, view), reference.tile_logits(tile, view)
    equal = float((logits.argmax(axis=0) == reference_logits.argmax(axis=0)).mean())
    difference = max(difference, _relative_difference(logits, reference_logits))
    return Parity((height, width), difference, equal)


def _scene(seed: int, height: int, width: int, pixels: PixelFormat) -> Pixels:
    return pixels.like(generate_scene(seed, height=height, width=width)[0])


def _relative_difference(values: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the largest difference over the expected range; infinity for non-finite values."""
    if not np.isfinite(values).all():
        return float("inf")
    spread = float(expected.max() - expected.min()) or 1.0
    return float(np.abs(values - expected).max()) / spread
