"""Options of prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pixelwise.crf import CRFParameters


@dataclass(frozen=True)
class InferenceOptions:
    """How images are predicted. See `pixelwise.load`."""

    runtime: str = "auto"
    device: str | None = None
    crf: CRFParameters | str | Path | None = None
    tile: int | str = "auto"
    scales: Sequence[float] = (1.0,)
    flip: bool = False
