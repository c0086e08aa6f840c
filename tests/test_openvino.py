"""What the OpenVINO runtime changes in a loaded graph gives the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
import pytest
import torch
import torch.nn.functional as F
from openvino import opset13

from pixelwise.inference.runtimes import openvino_dilation
from pixelwise.inference.runtimes.openvino_dilation import split_dilated


def dilated(size: tuple[int, int], *, kernel: tuple[int, int], rate: int) -> tuple[ov.Model, Any]:
    """Maps (1, 8, *size) to (1, 5, *size), and the weights."""
    weights = np.random.default_rng(0).normal(size=(5, 8, *kernel)).astype(np.float32)
    pads = [rate * (side - 1) // 2 for side in kernel]
    maps = opset13.parameter([1, 8, *size], np.float32)
    found = opset13.convolution(maps, opset13.constant(weights), [1, 1], pads, pads, [rate, rate])
    return ov.Model([opset13.relu(found)], [maps], "dilated"), weights


@pytest.mark.parametrize(
    ("size", "kernel", "rate", "taps"),
    [
        ((20, 30), (3, 3), 4, 9),
        ((12, 30), (3, 3), 12, 3),  # the upper and lower taps lie beyond the map
        ((13, 12), (3, 3), 12, 3),
        ((5, 7), (3, 3), 36, 1),  # only the middle one is left
        ((20, 30), (1, 3), 6, 3),
        ((20, 30), (3, 3), 3, None),  # of small rates none is split
    ],
)
def test_a_dilated_convolution_is_the_sum_of_its_taps(
    size: tuple[int, int],
    kernel: tuple[int, int],
    rate: int,
    taps: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(openvino_dilation, "CHANNELS", 8)
    model, weights = dilated(size, kernel=kernel, rate=rate)
    split_dilated(model)
    kinds = [one.get_type_name() for one in model.get_ordered_ops()]
    assert kinds.count("Convolution") == (taps or 1)
    assert ("Slice" in kinds) == (taps is not None and taps > 1)
    maps = np.random.default_rng(1).normal(size=(1, 8, *size)).astype(np.float32)
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    (found,) = ov.Core().compile_model(model, "CPU", options)(maps).values()
    pads = tuple(rate * (side - 1) // 2 for side in kernel)
    wanted = F.conv2d(
        torch.from_numpy(maps), torch.from_numpy(weights), padding=pads, dilation=rate
    )
    assert np.allclose(found, wanted.relu().numpy(), atol=1e-5)
