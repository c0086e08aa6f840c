"""Find the batch size that fits into the memory of a device, by trying training steps."""

from __future__ import annotations

import gc

import torch
from torch import nn

from pixelwise.training.losses import cross_entropy

RESERVE = 0.05
"""Fraction of the GPU's memory to leave free, for fragmentation and other programs."""


def find_batch_size(
    model: nn.Module,
    *,
    batch: int,
    crop: tuple[int, int],
    num_classes: int,
    device: torch.device,
    channels: int = 3,
    precision: str = "32-true",
    copies: int = 2,
) -> int:
    """Return the largest of `batch`, half of it, a quarter, ... that fits; 0 if none does.

    The model is moved to the device and loses its gradients; its statistics of batch normalization
    change. The random state does not.

    Args:
        model: The network, with `training_logits`.
        batch: The largest batch to try.
        crop: (height, width) of the images.
        num_classes: Number of classes.
        device: The device to train on.
        channels: Number of image channels.
        precision: A precision of Fabric.
        copies: How many tensors of the size of each parameter the optimizer and the moving average
            of a real run keep, which are allocated here, too.
    """
    devices = [device] if device.type == "cuda" else []
    held: list[torch.Tensor] = []
    with torch.random.fork_rng(devices=devices):
        model = model.to(device).train()
        try:
            if devices:
                total = torch.cuda.get_device_properties(device).total_memory
                held.append(torch.empty(int(RESERVE * total), dtype=torch.uint8, device=device))
            held += [torch.empty_like(p) for p in model.parameters() for _ in range(copies)]
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return 0
        while batch and not _fits(model, (batch, channels, *crop), num_classes, device, precision):
            batch //= 2
    held.clear()
    release_memory(model)
    return batch


def _fits(
    model: nn.Module, shape: tuple[int, ...], num_classes: int, device: torch.device, precision: str
) -> bool:
    """Try a training step."""
    try:
        _train_step(model, shape, num_classes, device, precision)
        fits = True
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        fits = False
    # After the exception, whose traceback holds the feature maps, is gone.
    release_memory(model)
    return fits


def _train_step(
    model: nn.Module, shape: tuple[int, ...], num_classes: int, device: torch.device, precision: str
) -> None:
    images = torch.zeros(shape, device=device)
    labels = torch.zeros((shape[0], *shape[2:]), dtype=torch.long, device=device)
    kind = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    with torch.autocast(device.type, dtype=kind, enabled=kind is not None):
        logits = model.training_logits(images)  # type: ignore[operator]
        loss = torch.stack([cross_entropy(each, labels) for each in logits]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch raised this error because memory ran out, on any device."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or (
        "out of memory" in text or "can't allocate memory" in text
    )


def release_memory(model: nn.Module) -> None:
    """Free the gradients of a model and what PyTorch keeps for later tensors."""
    model.zero_grad(set_to_none=True)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def explain_out_of_memory(
    *, device: torch.device, batch: int, fitting: int, crop: tuple[int, int], where: str
) -> str:
    """Return the line for a run whose batch does not fit.

    Args:
        device: The device.
        batch: The batch size of the run.
        fitting: A batch size that fits, over all processes; 0 if there is none.
        crop: (height, width) of the images.
        where: The epoch and the step.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    size = f"{crop[0]}x{crop[1]}"
    line = f"{name} ran out of memory in {where}, with batch_size = {batch} and crops of {size}"
    if not fitting:
        return f"{line}: not even one such image fits: use a smaller --crop, or a smaller network"
    accumulate = -(-batch // fitting)
    return (
        f"{line}: batch_size = {fitting} fits: train again with --batch-size {fitting}, and with "
        f"--set optimizer.accumulate={accumulate} for gradients of {fitting * accumulate} images"
    )
