"""Select how training steps are computed: the memory format, and PyTorch's or compiled kernels.

Which combination is fastest depends on the network and the machine, so a few steps are timed.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pixelwise.errors import InputError
from pixelwise.layers import use_compiled
from pixelwise.ops.numba_support import has_numba
from pixelwise.recipes.schema import Kernels, MemoryFormat
from pixelwise.training.losses import cross_entropy

MEMORY_FORMATS: dict[str, torch.memory_format] = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}
TIMED_IMAGES = 2  # the minimum for batch normalization; larger batches have the same time ratio
# Combinations within CLOSE times the fastest are timed again ROUNDS times.
CLOSE, ROUNDS = 1.25, 3
TIMED = (
    "; timings vary, so an equal run may choose others and round differently: the recipe.toml of "
    "this run repeats the choice"
)


@dataclass(frozen=True)
class KernelConfig:
    """How training steps are computed.

    Attributes:
        memory_format: Memory format of images and feature maps.
        kernels: "plain" for PyTorch's kernels, "compiled" for the kernels of `pixelwise.ops` where
            there are any; these need a CPU and channels_last.
    """

    memory_format: MemoryFormat
    kernels: Kernels = "plain"

    def apply(self, model: nn.Module) -> None:
        """Configure a model. Raises InputError if numba is needed and not installed."""
        model.to(memory_format=MEMORY_FORMATS[self.memory_format])  # type: ignore[call-overload]
        use_compiled(model, self.kernels == "compiled")

    def to_memory_format(self, images: Tensor) -> Tensor:
        """Return images (B, C, H, W) in the configured memory format."""
        return images.contiguous(memory_format=MEMORY_FORMATS[self.memory_format])

    def __str__(self) -> str:
        return f"{self.memory_format}, {self.kernels} kernels"


KERNEL_CONFIGS = (
    KernelConfig("contiguous"),
    KernelConfig("channels_last"),
    KernelConfig("channels_last", "compiled"),
)


@dataclass(frozen=True)
class KernelChoice:
    """The selected configuration.

    Attributes:
        kernel_config: The configuration.
        reason: Why it was selected.
        seconds: Time of a training step per image, or None if it was not measured.
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
    measure: bool = False,
) -> KernelChoice:
    """Return the configuration that is asked for, or the fastest of those that fit.

    Training steps of a copy of the model are timed. The model and the random state do not change.

    Args:
        model: The network.
        crop: (height, width) of the training images.
        num_classes: Number of classes.
        device: Device to train on.
        channels: Number of image channels.
        memory_format: The memory format, or "auto" to measure.
        kernels: The kernels, or "auto" to measure.
        precision: A precision of Fabric.
        measure: Whether to measure even if there is no choice.

    Raises:
        InputError: If the kernels cannot be used here.
    """
    supports_compiled = device.type == "cpu" and precision == "32-true"
    if kernels == "compiled" and not supports_compiled:
        raise InputError(
            f"kernels = 'compiled': need a CPU and precision 32-true, not {device.type} and "
            f"{precision}: set kernels = 'auto'"
        )
    use_numba = kernels == "compiled" or (supports_compiled and has_numba())
    candidates = [
        config
        for config in KERNEL_CONFIGS
        if memory_format in ("auto", config.memory_format)
        and kernels in ("auto", config.kernels)
        and (config.kernels == "plain" or use_numba)
    ]
    if len(candidates) == 1 and not measure:
        return KernelChoice(candidates[0], "set by you")
    time_step = _step_timer(model, (TIMED_IMAGES, channels, *crop), num_classes, device)
    seconds = {config: min(time_step(config) for _ in range(2)) for config in candidates}
    close = [config for config in candidates if seconds[config] < CLOSE * min(seconds.values())]
    if len(close) > 1:
        for config in ROUNDS * close:  # in turn, because the speed of a machine drifts
            seconds[config] = min(seconds[config], time_step(config))
    best, *others = sorted(candidates, key=lambda config: seconds[config])
    figures = ", ".join(f"{1000 * seconds[config]:.0f} with {config}" for config in others)
    hint = "; numba may be faster: pip install numba"
    return KernelChoice(
        best,
        f"{1000 * seconds[best]:.0f} ms per image, measured; {figures}{TIMED}"
        + ("" if has_numba() or not supports_compiled else hint),
        seconds[best],
    )


def _step_timer(
    model: nn.Module, shape: tuple[int, ...], num_classes: int, device: torch.device
) -> Callable[[KernelConfig], float]:
    """Return a function that measures the seconds per image of a training step.

    It runs a copy of the model. The first step of a configuration compiles. The caller's random
    state does not change.
    """
    model = copy.deepcopy(model).to(device=device).train()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(shape, generator=generator).to(device)
    size = (shape[0], *shape[2:])
    labels = torch.randint(num_classes, size, generator=generator).to(device)
    devices = [device] if device.type == "cuda" else []

    def time_step(config: KernelConfig) -> float:
        model.zero_grad(set_to_none=True)
        config.apply(model)
        batch = config.to_memory_format(images)
        with torch.random.fork_rng(devices=devices):
            started = time.perf_counter()
            cross_entropy(model(batch), labels).backward()  # type: ignore[no-untyped-call]
            if devices:
                torch.cuda.synchronize(device)
            return (time.perf_counter() - started) / len(batch)

    return time_step
