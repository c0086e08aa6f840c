"""What cutting pictures into windows asks of a network; runtimes know it and exports say it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Traits:
    """What cutting a picture into windows asks of a network.

    step: windows begin at its multiples, and have the picture's sides less a multiple of it.
    reach: pixels over which a pixel can have a say in the logits; poolings aside.
    pooled_reach: the same, in the map that is pooled.
    poolings: how many image poolings there are.
    bytes_per_pixel: of memory at the peak of a pass, the network's weights aside.
    label_bytes_per_pixel: the same of a pass for labels alone, which keeps no logits.
    rounded: whether maps are rounded to 8 bits between layers. What comes from far away then moves
    values by a whole step or not at all, and does not fade with the distance.
    """

    step: int
    reach: int
    pooled_reach: int
    poolings: int
    bytes_per_pixel: float
    label_bytes_per_pixel: float
    rounded: bool = field(default=False, kw_only=True)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Traits:
        """The inverse of `to_json`. Raises KeyError, TypeError or ValueError where it is not such a
        dict."""
        counts = (int(data[name]) for name in ("step", "reach", "pooled_reach", "poolings"))
        memory = (float(data[name]) for name in ("bytes_per_pixel", "label_bytes_per_pixel"))
        traits = cls(*counts, *memory, rounded=bool(data.get("rounded", False)))
        if not (traits.bytes_per_pixel > 0 and traits.label_bytes_per_pixel > 0):
            raise ValueError("memory is above zero")
        if traits.step < 1 or min(traits.reach, traits.pooled_reach, traits.poolings) < 0:
            raise ValueError("step is above zero, and nothing below")
        return traits
