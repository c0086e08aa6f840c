"""Which memory order of the maps is faster on this machine, found by measuring a few steps."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass

import torch
from torch import nn

from pixelwise.training.losses import cross_entropy

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
MEASURED_IMAGES = 2  # as few as batch normalisation allows: the ratio is that of a full batch


@dataclass(frozen=True)
class LayoutChoice:
    """The chosen order and why, in words.

    seconds: of a training step an image, None where it was not measured.
    """

    name: str
    reason: str
    seconds: float | None = None


def choose_layout(
    model: nn.Module,
    *,
    crop: tuple[int, int],
    channels: int = 3,
    num_classes: int,
    device: torch.device,
) -> LayoutChoice:
    """Time training steps of a copy of `model` in both orders; the model and the random state of
    the caller stay as they are."""
    seconds = {}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for name, memory_format in LAYOUTS.items():
            trial = copy.deepcopy(model).to(device=device, memory_format=memory_format).train()  # type: ignore[call-overload]
            images = torch.randn(MEASURED_IMAGES, channels, *crop, device=device)
            images = images.contiguous(memory_format=memory_format)
            labels = torch.randint(num_classes, (MEASURED_IMAGES, *crop), device=device)
            seconds[name] = min(
                _step(trial, images, labels, device) for _ in range(2)
            )  # the first compiles
    best = min(seconds, key=lambda name: seconds[name])
    other = max(seconds, key=lambda name: seconds[name])
    per_image = [1000 * seconds[name] / MEASURED_IMAGES for name in (best, other)]
    return LayoutChoice(
        best,
        f"{per_image[0]:.0f} ms an image against {per_image[1]:.0f} in {other}, measured",
        seconds[best] / MEASURED_IMAGES,
    )


def _step(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, device: torch.device
) -> float:
    started = time.perf_counter()
    model.zero_grad(set_to_none=True)
    cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
