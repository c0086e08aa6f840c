"""PyTorch, eager: the reference that every other runtime is held against."""

from __future__ import annotations

import contextlib
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from pixelwise.data.pixel_format import Pixels
from pixelwise.errors import InputError
from pixelwise.inference.runtimes.runtime import View
from pixelwise.inference.runtimes.tile_geometry import Geometry, MapSizes, Size
from pixelwise.inference.runtimes.torch.simplify import simplify
from pixelwise.inference.tiling.tiling_requirements import TilingRequirements
from pixelwise.layers.forward_context import PoolingReached, TileContext, use_context
from pixelwise.models import measure_receptive_radius, peak_bytes, tile_alignment, trace_sizes
from pixelwise.weights.normalization import Normalization

MEASURED = 512  # pixels a side at which memory is measured; it grows with the area
LAYERS_OWN = 1.15  # what layers take beyond their maps: see `peak_bytes`
AROUND = 100  # bytes a pixel around the network: the image as numbers, copies of the logits


class TorchRuntime:
    """A network in channels_last order and simplified, which changes logits by rounding only.

    device: any PyTorch device. Raises InputError where it cannot be used.
    """

    name = "torch"

    def __init__(
        self,
        model: torch.nn.Module,
        normalization: Normalization,
        *,
        device: str | torch.device | None = "cpu",
    ) -> None:
        self.device = find_device(device)
        self.normalization = normalization
        self._step = tile_alignment(model)
        self._geometry = Geometry(self._trace)
        simplified = simplify(model, in_channels=normalization.channels)
        self.model = simplified.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def logits(self, image: Pixels) -> NDArray[np.float32]:
        """(H, W, C) in units of 0..255 to (C, H, W) float32."""
        logits: NDArray[np.float32] = self._run(image).cpu().numpy()
        return logits

    def classify(self, image: Pixels) -> NDArray[np.uint8]:
        """(H, W, C) in units of 0..255 to (H, W) class indices."""
        index: NDArray[np.uint8] = self._run(image).argmax(dim=0).to(torch.uint8).cpu().numpy()
        return index

    @cached_property
    def requirements(self) -> TilingRequirements:
        """What tiles of its images need."""
        step, channels = self._step, self.normalization.channels
        receptive_radius, pooled_receptive_radius = measure_receptive_radius(
            self.model, step=step, in_channels=channels
        )
        side = -(-MEASURED // step) * step
        poolings = len(self._geometry.sizes((side, side)).pooled)
        size = peak_bytes(self.model, height=side, width=side, in_channels=channels) / side**2
        memory = LAYERS_OWN * size + AROUND
        return TilingRequirements(
            step, receptive_radius, pooled_receptive_radius, poolings, memory, memory
        )

    def tile_logits(self, tile: Pixels, view: View) -> NDArray[np.float32]:
        """(h, w, C) to (classes, h, w), as `TilingRuntime` has it."""
        with use_context(self._part(tile, view)):
            logits: NDArray[np.float32] = self._run(tile).cpu().numpy()
        return logits

    def tile_sums(
        self, tile: Pixels, view: View, own: tuple[slice, slice]
    ) -> tuple[NDArray[np.float64], int]:
        """The sums of the tile's share of a pooled map, as `TilingRuntime` has it."""
        share = self._geometry.share(_size(tile), view, own)
        part = self._part(tile, view, own=share)
        with use_context(part), contextlib.suppress(PoolingReached):
            self._run(tile)
        assert part.sums is not None
        positions = [side.stop - side.start for side in share]
        return part.sums.cpu().numpy(), positions[0] * positions[1]

    def _part(
        self, tile: Pixels, view: View, *, own: tuple[slice, slice] | None = None
    ) -> TileContext:
        size = _size(tile)
        lines = self._geometry.lines(size, view)
        usual = self._geometry.lines(size, View(size, 0, 0))
        return TileContext(
            [
                None if np.allclose(one, other, rtol=0, atol=1e-9) else torch.from_numpy(one)
                for one, other in zip(lines, usual, strict=True)
            ],
            [torch.from_numpy(mean) for mean in view.pooled],
            own=own,
        )

    def _trace(self, size: Size) -> MapSizes:
        height, width = size
        sizes = trace_sizes(
            self.model, height=height, width=width, in_channels=self.normalization.channels
        )
        return MapSizes(tuple(sizes.resized), tuple(sizes.pooled))

    @torch.inference_mode()
    def _run(self, image: Pixels) -> torch.Tensor:
        # A view of H x W x C as C x H x W is channels_last already: nothing is copied or reordered.
        batch = torch.from_numpy(np.array(image)).to(self.device).permute(2, 0, 1)[None]
        out: torch.Tensor = self.model(self.normalization(batch))[0].float()
        return out


def _size(image: Pixels) -> Size:
    return image.shape[0], image.shape[1]


def find_device(name: str | torch.device | None) -> torch.device:
    """The device of that name, a GPU where there is one for None. Raises InputError if unusable."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device {str(name)!r}: cannot be used here ({reason}): try cpu"
        ) from error
    return device
