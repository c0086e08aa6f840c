"""What the OpenVINO runtime changes in a loaded graph gives the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from openvino import opset13

from pixelwise.inference.runtimes.compiled_cache import MAX_SMALL_STATIC, COMPILE_AFTER, CompiledCache
from pixelwise.inference.runtimes.openvino import dilated_convolutions, winograd
from pixelwise.inference.runtimes.openvino.dilated_convolutions import crop_dilated_kernels, split_dilated_convolutions
from pixelwise.inference.runtimes.openvino.winograd import apply_winograd


def made(output: str, size: tuple[int, int] | None) -> str:
    return f"{output} of {size}"


def test_the_first_size_and_those_that_come_often_are_compiled_for_themselves() -> None:
    kept = CompiledCache[str]()
    assert kept.get((2, 3), "labels", made) == "labels of (2, 3)"
    for _ in range(COMPILE_AFTER - 1):
        assert kept.get((4, 5), "labels", made) == "labels of None"
    assert kept.get((4, 5), "labels", made) == "labels of (4, 5)"
    for _ in range(COMPILE_AFTER):
        kept.get((6, 7), "labels", made)
    assert kept.sizes == [(4, 5), (6, 7)]


def test_every_size_is_compiled_where_there_is_no_graph_for_any() -> None:
    calls: list[tuple[int, int] | None] = []

    def make(output: str, size: tuple[int, int] | None) -> str:
        calls.append(size)
        return made(output, size)

    kept = CompiledCache[str](any_size=False)
    small = [(500, side) for side in range(100, 100 + MAX_SMALL_STATIC)]
    for size in small * 2:
        assert kept.get(size, "labels", make) == f"labels of {size}"
    assert calls == small  # all are kept
    kept.get((5, 5), "labels", make)  # another copy of the weights, however small
    assert len(kept.sizes) == MAX_SMALL_STATIC
    for size in ((3000, 3000), (3001, 3000), (3002, 3000)):
        kept.get(size, "labels", make)
    assert kept.sizes == [(3001, 3000), (3002, 3000)]


def kinds(model: ov.Model) -> list[str]:
    return [one.get_type_name() for one in model.get_ordered_ops()]


def computed(model: ov.Model, maps: Any) -> Any:
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    (found,) = ov.Core().compile_model(model, "CPU", options)(maps).values()
    return found


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
    monkeypatch.setattr(dilated_convolutions, "MIN_CHANNELS", 8)
    model, weights = dilated(size, kernel=kernel, rate=rate)
    split_dilated_convolutions(model)
    assert kinds(model).count("Convolution") == (taps or 1)
    assert ("Slice" in kinds(model)) == (taps is not None and taps > 1)
    maps = np.random.default_rng(1).normal(size=(1, 8, *size)).astype(np.float32)
    found = computed(model, maps)
    pads = tuple(rate * (side - 1) // 2 for side in kernel)
    wanted = F.conv2d(
        torch.from_numpy(maps), torch.from_numpy(weights), padding=pads, dilation=rate
    )
    assert np.allclose(found, wanted.relu().numpy(), atol=1e-5)


def quantized(size: tuple[int, int], *, kernel: tuple[int, int], rate: int) -> ov.Model:
    """Maps (1, 8, *size) to (1, 5, *size) as NNCF leaves such a convolution."""
    rng = np.random.default_rng(0)
    whole = opset13.constant(rng.integers(-127, 128, (5, 8, *kernel), dtype=np.int8))
    scale = opset13.constant(rng.uniform(0.001, 0.01, (5, 1, 1, 1)).astype(np.float32))
    weights = opset13.multiply(opset13.convert(whole, "f32"), scale)
    maps = opset13.parameter([1, 8, *size], np.float32)
    low, high = np.float32(-1), np.float32(1.5)  # zero is no end of the range
    rounded = opset13.fake_quantize(maps, low, high, low, high, 256)
    pads = [rate * (side - 1) // 2 for side in kernel]
    found = opset13.convolution(rounded, weights, [1, 1], pads, pads, [rate, rate])
    return ov.Model([opset13.relu(found)], [maps], "quantized")


@settings(max_examples=30, deadline=None)
@given(
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    kernel=st.sampled_from([(3, 3), (1, 3), (5, 5), (1, 1)]),
    rate=st.integers(1, 26),
)
def test_taps_beyond_the_map_are_left_out_of_quantized_kernels(
    size: tuple[int, int], kernel: tuple[int, int], rate: int
) -> None:
    model = quantized(size, kernel=kernel, rate=rate)
    cropped = model.clone()
    crop_dilated_kernels(cropped)
    (convolution,) = (
        one for one in cropped.get_ordered_ops() if one.get_type_name() == "Convolution"
    )
    assert list(convolution.input_value(1).get_shape()[2:]) == [
        sum(abs(tap - side // 2) * rate < length for tap in range(side))
        for side, length in zip(kernel, size, strict=True)
    ]
    maps = np.random.default_rng(1).normal(size=(1, 8, *size)).astype(np.float32)
    found, wanted = computed(cropped, maps), computed(model, maps)
    assert np.allclose(found, wanted, rtol=0, atol=1e-5)
    assert wanted.any()


def convolution(size: tuple[int, int], *, pads: tuple[int, ...]) -> tuple[ov.Model, Any]:
    """A 3x3 one of maps (1, 8, *size) to 5 channels, and the weights. pads: top, left, ..."""
    weights = np.random.default_rng(0).normal(size=(5, 8, 3, 3)).astype(np.float32)
    maps = opset13.parameter([1, 8, *size], np.float32)
    made = opset13.convolution(maps, opset13.constant(weights), [1, 1], pads[:2], pads[2:], [1, 1])
    return ov.Model([opset13.relu(made)], [maps], "convolution"), weights


@given(
    height=st.integers(2, 40),
    width=st.integers(3, 40),
    pads=st.tuples(*[st.integers(1, 3)] * 4) | st.just((0, 0, 1, 1)),
)
@settings(max_examples=25)
def test_half_the_multiplications_give_the_same_convolution(
    height: int, width: int, pads: tuple[int, int, int, int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "MIN_CHANNELS", 5)
        model, weights = convolution((height, width), pads=pads)
        of_any_size, _ = convolution((-1, -1), pads=pads)
        apply_winograd(model)
        apply_winograd(of_any_size)
    assert kinds(model).count("Convolution") == 6
    maps = np.random.default_rng(1).normal(size=(1, 8, height, width)).astype(np.float32)
    top, left, bottom, right = pads
    padded = F.pad(torch.from_numpy(maps).double(), (left, right, top, bottom))
    wanted = F.conv2d(padded, torch.from_numpy(weights).double()).relu().numpy()
    found = computed(model, maps)
    assert found.shape == wanted.shape
    assert (computed(of_any_size, maps) == found).all()
    assert np.abs(found - wanted).max() < 1e-5 * np.ptp(wanted)


@pytest.mark.parametrize(
    ("channels", "strides", "rate", "halved"),
    [
        ((256, 256), 1, 1, True),
        ((255, 256), 1, 1, False),
        ((256, 255), 1, 1, False),
        ((256, 256), 2, 1, False),
        ((256, 256), 1, 2, False),
    ],
)
def test_only_large_plain_convolutions_are_halved(
    channels: tuple[int, int], strides: int, rate: int, halved: bool
) -> None:
    before, after = channels
    maps = opset13.parameter([1, before, 20, 20], np.float32)
    weights = opset13.constant(np.zeros((after, before, 3, 3), np.float32))
    found = opset13.convolution(maps, weights, [strides] * 2, [rate] * 2, [rate] * 2, [rate] * 2)
    model = ov.Model([opset13.relu(found)], [maps], "convolution")
    apply_winograd(model)
    assert kinds(model).count("Convolution") == (6 if halved else 1)
