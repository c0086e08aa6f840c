"""How a step is computed: the memory order of the maps, and whose code computes the layers.

Which is faster depends on the network and the machine, so a few steps are measured.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pixelwise.errors import InputError
from pixelwise.layers import use_compiled
from pixelwise.ops.numba_support import has_numba
from pixelwise.training.losses import cross_entropy

MemoryFormat = Literal["contiguous", "channels_last"]
Kernels = Literal["plain", "compiled"]

MEMORY_FORMATS: dict[str, torch.memory_format] = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}
MEASURED_IMAGES = 2  # as few as batch normalization allows: the ratio is that of a full batch
CLOSE, ROUNDS = 1.25, 3  # those within this factor of the fastest are timed again, so often


@dataclass(frozen=True)
class KernelConfig:
    """memory_format: of the maps in memory. kernels: plain, PyTorch's own, or compiled, where
    `pixelwise.ops` has some, for a CPU and channels_last alone."""

    memory_format: MemoryFormat
    kernels: Kernels = "plain"

    def apply(self, model: nn.Module) -> None:
        """Have `model` be trained so. Raises InputError where numba is wanted and missing."""
        model.to(memory_format=MEMORY_FORMATS[self.memory_format])  # type: ignore[call-overload]
        use_compiled(model, self.kernels == "compiled")

    def order(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in the selected memory format."""
        return images.contiguous(memory_format=MEMORY_FORMATS[self.memory_format])

    def __str__(self) -> str:
        return f"{self.memory_format}, {self.kernels} kernels"


KERNEL_CONFIGS = (
    KernelConfig("contiguous"),
    KernelConfig("channels_last"),
    KernelConfig("channels_last", "compiled"),
)


@dataclass(frozen=True)
class Choice:
    """The chosen arrangement and why, in words.

    seconds: of a training step an image, None where it was not measured.
    """

    kernel_config: KernelConfig
    reason: str
    seconds: float | None = None


def select_kernels(
    model: nn.Module,
    *,
    crop: tuple[int, int],
    num_classes: int,
    device: torch.device,
    channels: int = 3,
    memory_format: MemoryFormat | Literal["auto"] = "auto",
    kernels: Kernels | Literal["auto"] = "auto",
    precision: str = "32-true",
) -> Choice:
    """The one that is asked for, or the fastest of those that are left open.

    Steps of a copy of `model` are timed; the model and the random state of the caller stay as they
    are. Raises InputError for kernels that cannot be used here.
    """
    usable = device.type == "cpu" and precision == "32-true"
    if kernels == "compiled" and not usable:
        raise InputError(
            f"kernels = 'compiled': are for a CPU and precision 32-true, not for {device.type} and "
            f"{precision}: set kernels = 'auto'"
        )
    candidates = [
        each
        for each in KERNEL_CONFIGS
        if memory_format in ("auto", each.memory_format)
        and kernels in ("auto", each.kernels)
        and (each.kernels == "plain" or kernels == "compiled" or (usable and has_numba()))
    ]
    if len(candidates) == 1:
        return Choice(candidates[0], "as the recipe says")
    trial = _Trial(model, (MEASURED_IMAGES, channels, *crop), num_classes, device)
    seconds = {each: min(trial.step(each) for _ in range(2)) for each in candidates}
    close = [each for each in candidates if seconds[each] < CLOSE * min(seconds.values())]
    if len(close) > 1:
        for each in ROUNDS * close:  # in turn, for the machine's speed drifts
            seconds[each] = min(seconds[each], trial.step(each))
    best, *others = sorted(candidates, key=lambda each: seconds[each])
    figures = ", ".join(f"{1000 * seconds[each]:.0f} with {each}" for each in others)
    hint = "" if has_numba() or not usable else "; numba may be faster: pip install numba"
    return Choice(
        best,
        f"{1000 * seconds[best]:.0f} ms an image, measured; {figures}{hint}",
        seconds[best],
    )


class _Trial:
    """Steps of a copy of the model. The first one of an arrangement compiles."""

    def __init__(
        self, model: nn.Module, shape: tuple[int, ...], num_classes: int, device: torch.device
    ) -> None:
        self.device = device
        self.model = copy.deepcopy(model).to(device=device).train()
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(shape, generator=generator).to(device)
        size = (shape[0], *shape[2:])
        self.labels = torch.randint(num_classes, size, generator=generator).to(device)

    def step(self, kernel_config: KernelConfig) -> float:
        """Seconds an image. The random state of the caller stays as it is."""
        self.model.zero_grad(set_to_none=True)
        kernel_config.apply(self.model)
        images = kernel_config.order(self.images)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            started = time.perf_counter()
            cross_entropy(self.model(images), self.labels).backward()  # type: ignore[no-untyped-call]
            if devices:
                torch.cuda.synchronize(self.device)
            return (time.perf_counter() - started) / len(images)
