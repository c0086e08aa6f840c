"""What cutting images into tiles asks of a network; runtimes know it and exports say it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class TilingRequirements:
    """What cutting an image into tiles asks of a network.

    step: tiles begin at its multiples, and have the image's sides less a multiple of it.
    reach: pixels over which a pixel can have a say in the logits; poolings aside.
    pooled_receptive_radius: the same, in the map that is pooled.
    poolings: how many image poolings there are.
    bytes_per_pixel: of memory at the peak of a pass, the network's weights aside.
    label_bytes_per_pixel: the same of a pass for labels alone, which keeps no logits.
    rounded: whether maps are rounded to 8 bits between layers. What comes from far away then moves
    values by a whole step or not at all, and does not fade with the distance.
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
        """The inverse of `to_json`. Raises KeyError, TypeError or ValueError where it is not such a
        dict."""
        counts = (
            int(data[name])
            for name in ("step", "receptive_radius", "pooled_receptive_radius", "poolings")
        )
        memory = (float(data[name]) for name in ("bytes_per_pixel", "label_bytes_per_pixel"))
        requirements = cls(*counts, *memory, rounded=bool(data.get("rounded", False)))
        if not (requirements.bytes_per_pixel > 0 and requirements.label_bytes_per_pixel > 0):
            raise ValueError("memory is above zero")
        if (
            requirements.step < 1
            or min(
                requirements.receptive_radius,
                requirements.pooled_receptive_radius,
                requirements.poolings,
            )
            < 0
        ):
            raise ValueError("step is above zero, and nothing below")
        return requirements
