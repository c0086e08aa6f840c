"""The options of prediction, in one place for Python, the command line and the journals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pixelwise.crf import CRFParameters, find_parameters
from pixelwise.data.pixel_format import PixelFormat
from pixelwise.errors import InputError
from pixelwise.inference.runtimes import EXPORTED, TORCH
from pixelwise.inference.tiling.tiled_model import check_tile
from pixelwise.inference.tta import TTA
from pixelwise.ops.numba_support import require_numba

AUTO = "auto"
RUNTIME_NAMES = (AUTO, TORCH, *EXPORTED)


@dataclass(frozen=True)
class InferenceOptions:
    """How a network is run and how its scores become masks.

    Args:
        runtime: "torch", a runtime that the bundle was exported for (such as "openvino"), or
            "auto" for the fastest of these, measured once for each bundle and machine.
        device: PyTorch device, such as "cpu" or "cuda:1"; it implies the runtime "torch". With
            None PyTorch uses a GPU if there is one.
        crf: Refine with a dense CRF: its parameters, the name of a published set
            (`pixelwise.crf.PARAMETER_SETS`) or a file that `pixelwise tune-crf` wrote.
        tile: Largest side in pixels of the tiles that large images are cut into; "auto" cuts
            images that need more than 2 GiB in one pass, "none" never cuts.
        scales: Test-time augmentation (TTA): scales of the image, 0.1 to 10, whose
            probabilities are averaged.
        flip: TTA: also average over the mirrored image.
        value_range: For networks of 8-bit images: the values of 16-bit and floating-point images
            that become 0 and 255. Without it such images are refused.

    Raises:
        InputError: If a value is not allowed, two options exclude each other, or a CRF is
            requested but numba is not installed.
    """

    runtime: str = AUTO
    device: str | None = None
    crf: CRFParameters | str | Path | None = None
    tile: int | str = AUTO
    scales: Sequence[float] = (1.0,)
    flip: bool = False
    value_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.runtime not in RUNTIME_NAMES:
            raise InputError(f"runtime {self.runtime!r}: allowed are {', '.join(RUNTIME_NAMES)}")
        if self.device is not None and self.runtime not in {AUTO, TORCH}:
            raise InputError(
                f"device {self.device!r}: selects a device for PyTorch, but runtime "
                f"{self.runtime} runs on the CPU: leave one of the two out"
            )
        check_tile(self.tile)
        scales = tuple(float(scale) for scale in self.scales) or (1.0,)
        object.__setattr__(self, "scales", scales)
        _ = self.tta  # validates the scales
        if self.value_range is not None:
            low, high = (float(value) for value in self.value_range)
            object.__setattr__(self, "value_range", (low, high))
            _ = PixelFormat(value_range=(low, high))  # validates it
        if self.crf is not None:
            object.__setattr__(self, "crf", find_parameters(self.crf))
            require_numba("the dense CRF")

    @property
    def tta(self) -> TTA:
        return TTA(tuple(self.scales), self.flip)

    def to_json(self) -> dict[str, Any]:
        """Return all options as plain JSON, the CRF as its parameters."""
        return asdict(self)
