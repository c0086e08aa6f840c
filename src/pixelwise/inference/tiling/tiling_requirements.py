"""What a network requires of tiles; runtimes report it and exports record it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class TilingRequirements:
    """What a network requires of the tiles of an image.

    Args:
        step: Tiles start at multiples of this, and the sides of the tiles differ from those of
            the image by multiples of it. In pixels.
        receptive_radius: How far a pixel can influence logits, in pixels, apart from image
            pooling.
        pooled_receptive_radius: How far a pixel can influence the map that is pooled.
        poolings: The number of image poolings.
        bytes_per_pixel: Peak memory of a pass per pixel, without the weights.
        label_bytes_per_pixel: The same for a pass that computes labels without keeping logits.
        rounded: Whether maps are rounded to 8 bits between layers. Then the influence of distant
            pixels changes values by a whole quantization step or not at all, instead of fading
            with the distance.
    """

    step: int
    receptive_radius: int
    pooled_receptive_radius: int
    poolings: int
    bytes_per_pixel: float
    label_bytes_per_pixel: float
    rounded: bool = field(default=False, kw_only=True)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TilingRequirements:
        """Invert `to_json`.

        Raises:
            KeyError, TypeError, ValueError: If `data` is not such a dict or has invalid values.
        """
        names = ("step", "receptive_radius", "pooled_receptive_radius", "poolings")
        step, radius, pooled_radius, poolings = (int(data[name]) for name in names)
        memory = [float(data[name]) for name in ("bytes_per_pixel", "label_bytes_per_pixel")]
        if step < 1 or min(memory) <= 0 or min(radius, pooled_radius, poolings) < 0:
            raise ValueError(f"step and memory must be positive, the rest not negative: {data}")
        rounded = bool(data.get("rounded", False))
        return cls(step, radius, pooled_radius, poolings, *memory, rounded=rounded)
