"""An export held against the bundle it came from: the same logits, the same labels, of images and
of tiles of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.pixel_format import RGB, PixelFormat, Pixels
from pixelwise.data.scenes import generate_scene
from pixelwise.inference.runtimes import Runtime, TilingRuntime, View

SIZES = ((224, 320), (97, 131), (333, 241))  # rows and columns, odd ones among them
LIMIT = 1e-4  # of the logits' range: rounding in another order stays far below


@dataclass(frozen=True)
class Parity:
    """How far an export is from eager PyTorch on one image.

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
    """Both on a generated scene at each of SIZES, its colors repeated for further channels."""
    found = []
    for seed, (height, width) in enumerate(SIZES):
        image = _scene(seed, height, width, pixels)
        one, other = runtime.logits(image), reference.logits(image)
        equal = float((runtime.classify(image) == reference.classify(image)).mean())
        found.append(Parity((height, width), _difference(one, other), equal))
    return found


def compare_tiles(
    runtime: TilingRuntime, reference: TilingRuntime, pixels: PixelFormat = RGB
) -> Parity:
    """Both on a tile of such a scene, as a part of a larger one, with the sums that both find for
    the image poolings. size: of the tile."""
    step = reference.requirements.step
    height, width = SIZES[0]
    tile = _scene(0, height, width, pixels)
    size = (height + 2 * step, width + 3 * step)
    own = (slice(0, height // step * step), slice(0, width // step * step))
    worst = 0.0
    means: list[NDArray[np.float32]] = []
    for _ in range(reference.requirements.poolings):
        view = View(size, step, 2 * step, tuple(means))
        sums, positions = reference.tile_sums(tile, view, own)
        found, counted = runtime.tile_sums(tile, view, own)
        worst = max(worst, _difference(found / counted, sums / positions))
        means.append((sums / positions).astype(np.float32))
    view = View(size, step, 2 * step, tuple(means))
    one, other = runtime.tile_logits(tile, view), reference.tile_logits(tile, view)
    equal = float((one.argmax(axis=0) == other.argmax(axis=0)).mean())
    return Parity((height, width), max(worst, _difference(one, other)), equal)


def _scene(seed: int, height: int, width: int, pixels: PixelFormat) -> Pixels:
    return pixels.like(generate_scene(seed, height=height, width=width)[0])


def _difference(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The largest, over the range of the other; infinite where one is not finite."""
    if not np.isfinite(one).all():
        return float("inf")
    spread = float(other.max() - other.min()) or 1.0
    return float(np.abs(one - other).max()) / spread
