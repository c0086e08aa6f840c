"""Recipe settings of many tests: small networks that are trained on the CPU."""

from __future__ import annotations

from typing import Any

TINY: dict[str, Any] = {
    "model.weights": "none",
    "model.options.backbone": "tiny",
    "memory_format": "contiguous",
    "device": "cpu",
}
DROPOUT: dict[str, Any] = {
    "model.name": "fcn32s",
    "model.options.width": 1 / 32,
    "model.weights": "none",
    "memory_format": "channels_last",
    "kernels": "plain",
    "device": "cpu",
    "batch_size": 2,
}
"""A network with dropout."""
