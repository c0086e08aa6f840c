"""Eager PyTorch: the reference for all other runtimes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from pixelwise.backbones.timm_backbone import TimmBackbone
from pixelwise.data.pixel_format import Pixels
from pixelwise.errors import InputError
from pixelwise.inference.runtimes.forking import ProcessLock, stop_openmp_before_forks
from pixelwise.inference.runtimes.runtime import TileView
from pixelwise.inference.runtimes.tile_geometry import MapSizes, Size, TileGeometry, size_of
from pixelwise.inference.runtimes.torch.simplify import simplify
from pixelwise.inference.tiling.tiling_requirements import TilingRequirements
from pixelwise.layers.forward_context import PoolingReached, TileContext, use_context
from pixelwise.models import measure_receptive_radius, peak_bytes, tile_alignment, trace_sizes
from pixelwise.weights.normalization import Normalization

PROBE_SIZE = 512  # height and width at which memory is estimated; it grows with the area
LAYER_OVERHEAD = 1.15  # workspace of layers relative to their feature maps, see `peak_bytes`
MAX_RADIUS_STRIP = 8192  # pixels, at which the receptive field of a network of timm is unlimited
IMAGE_OVERHEAD = 100  # bytes per pixel outside the network: the image as floats, copied logits


stop_openmp_before_forks(lambda: torch.set_num_threads(1))


class TorchRuntime:
    """Run a network with eager PyTorch.

    The network is simplified and converted to channels_last, which changes logits by rounding only.
    It uses all cores for one image, so threads take turns.

    Args:
        model: The network.
        normalization: Normalization of the network's input.
        device: Any PyTorch device; None selects a GPU if there is one.

    Raises:
        InputError: If the device cannot be used.
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
        self._one_at_a_time = ProcessLock()
        self._step = tile_alignment(model)
        self._geometry = TileGeometry(self._trace)
        simplified = simplify(model, in_channels=normalization.channels)
        # The data type matters where the program has set another default.
        self.model = simplified.to(  # type: ignore[call-overload]
            device=self.device, dtype=torch.float32, memory_format=torch.channels_last
        )

    def logits(self, image: Pixels) -> NDArray[np.float32]:
        """Return the logits (C, H, W) of an image (H, W, N)."""
        logits: NDArray[np.float32] = self._run(image).cpu().numpy()
        return logits

    def predict_labels(self, image: Pixels) -> NDArray[np.uint8]:
        """Return the class indices (H, W) of an image (H, W, N)."""
        index: NDArray[np.uint8] = self._run(image).argmax(dim=0).to(torch.uint8).cpu().numpy()
        return index

    @cached_property
    def requirements(self) -> TilingRequirements:
        """What the network requires of tiles."""
        step, channels = self._step, self.normalization.channels
        side = -(-PROBE_SIZE // step) * step
        with self._turn():
            radii = measure_receptive_radius(self.model, step=step, in_channels=channels)
            assert radii is not None
            receptive_radius, pooled_receptive_radius = radii
            poolings = len(self._geometry.sizes((side, side)).pooled)
            peak = peak_bytes(self.model, height=side, width=side, in_channels=channels)
        memory = LAYER_OVERHEAD * peak / side**2 + IMAGE_OVERHEAD
        return TilingRequirements(
            step, receptive_radius, pooled_receptive_radius, poolings, memory, memory
        )

    @cached_property
    def tiles_match(self) -> bool:
        """Whether tiles can match one pass: not if every pixel can influence every other.

        Our own networks compute what depends on the whole image by `image_mean`, which tiles
        support; those of timm have such layers of their own.
        """
        if not isinstance(getattr(self.model, "backbone", None), TimmBackbone):
            return True
        with self._turn():
            radii = measure_receptive_radius(
                self.model,
                step=self._step,
                in_channels=self.normalization.channels,
                most=MAX_RADIUS_STRIP,
            )
        return radii is not None

    def tile_logits(self, tile: Pixels, view: TileView) -> NDArray[np.float32]:
        """Return the logits (C, h, w) of a tile, see `TilingRuntime`."""
        with use_context(self._context(tile, view)):
            logits: NDArray[np.float32] = self._run(tile).cpu().numpy()
        return logits

    def tile_sums(
        self, tile: Pixels, view: TileView, own: tuple[slice, slice]
    ) -> tuple[NDArray[np.float64], int]:
        """Sum a tile's own positions of the next pooled map, see `TilingRuntime`."""
        rows, columns = self._geometry.own_positions(size_of(tile), view, own)
        context = self._context(tile, view, own=(rows, columns))
        with use_context(context), contextlib.suppress(PoolingReached):
            self._run(tile)
        assert context.sums is not None
        positions = (rows.stop - rows.start) * (columns.stop - columns.start)
        return context.sums.cpu().numpy(), positions

    def _context(
        self, tile: Pixels, view: TileView, *, own: tuple[slice, slice] | None = None
    ) -> TileContext:
        size = size_of(tile)
        transforms = self._geometry.resize_transforms(size, view)
        usual_transforms = self._geometry.resize_transforms(size, TileView(size, 0, 0))
        return TileContext(
            [
                None if np.allclose(own, usual, rtol=0, atol=1e-9) else torch.from_numpy(own)
                for own, usual in zip(transforms, usual_transforms, strict=True)
            ],
            [torch.from_numpy(mean) for mean in view.pooled],
            own=own,
        )

    def _trace(self, size: Size) -> MapSizes:
        height, width = size
        with self._turn():
            sizes = trace_sizes(
                self.model, height=height, width=width, in_channels=self.normalization.channels
            )
        return MapSizes(tuple(sizes.resized), tuple(sizes.pooled))

    def _run(self, image: Pixels) -> torch.Tensor:
        with self._turn():
            # An (H, W, C) array viewed as (C, H, W) is already channels_last: nothing is reordered.
            batch = torch.from_numpy(np.array(image)).to(self.device).permute(2, 0, 1)[None]
            out: torch.Tensor = self.model(self.normalization(batch))[0].float()
        return out

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Let no other thread use the network, and ignore the settings of the calling program.

        Networks compute constants when a size first occurs, and the shapes of their maps with
        parameters replaced by empty ones.
        """
        autocast = torch.autocast(self.device.type, enabled=False)
        with self._one_at_a_time, torch.inference_mode(), autocast:
            yield


def find_device(name: str | torch.device | None) -> torch.device:
    """Return the device of that name; for None a GPU if there is one.

    Raises:
        InputError: If the device cannot be used.
    """
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
