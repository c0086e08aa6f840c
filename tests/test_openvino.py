"""The OpenVINO runtime's changes to a loaded graph do not change its results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import openvino as ov
import pixelwise
from networks import EXPORTED_CLASSES as CLASSES
from networks import write_bundle
from openvino import opset13
from pixelwise import processor
from pixelwise.exporters import export
from pixelwise.exporters.openvino_format import lower_argmax
from pixelwise.inference.runtimes.compiled_cache import (
    COMPILE_AFTER,
    MAX_SMALL_STATIC,
    CompiledCache,
)
from pixelwise.inference.runtimes.openvino import dilated_convolutions, winograd
from pixelwise.inference.runtimes.openvino.dilated_convolutions import (
    crop_dilated_kernels,
    split_dilated_convolutions,
)
from pixelwise.inference.runtimes.openvino.kernel_choice import (
    is_separable,
    prefers_blocked_kernels,
)
from pixelwise.inference.runtimes.openvino.winograd import apply_winograd


def build(output: str, size: tuple[int, int] | None) -> str:
    return f"{output} of {size}"


def test_the_first_size_and_frequent_sizes_get_a_static_model() -> None:
    cache = CompiledCache[str]()
    assert cache.get((2, 3), "labels", build) == "labels of (2, 3)"
    for _ in range(COMPILE_AFTER - 1):
        assert cache.get((4, 5), "labels", build) == "labels of None"
    assert cache.get((4, 5), "labels", build) == "labels of (4, 5)"
    for _ in range(COMPILE_AFTER):
        cache.get((6, 7), "labels", build)
    assert cache.sizes == [(4, 5), (6, 7)]


def test_every_size_gets_a_static_model_if_a_dynamic_one_is_impossible() -> None:
    calls: list[tuple[int, int] | None] = []

    def record(output: str, size: tuple[int, int] | None) -> str:
        calls.append(size)
        return build(output, size)

    cache = CompiledCache[str](any_size=False)
    small = [(500, side) for side in range(100, 100 + MAX_SMALL_STATIC)]
    for size in small * 2:
        assert cache.get(size, "labels", record) == f"labels of {size}"
    assert calls == small  # all are cached
    cache.get((5, 5), "labels", record)  # one more copy of the weights, however small the size
    assert len(cache.sizes) == MAX_SMALL_STATIC
    for size in ((3000, 3000), (3001, 3000), (3002, 3000)):
        cache.get(size, "labels", record)
    assert cache.sizes == [(3001, 3000), (3002, 3000)]


def node_types(model: ov.Model) -> list[str]:
    return [node.get_type_name() for node in model.get_ordered_ops()]


def compute(model: ov.Model, maps: Any) -> Any:
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    (result,) = ov.Core().compile_model(model, "CPU", options)(maps).values()
    return result


def dilated(size: tuple[int, int], *, kernel: tuple[int, int], rate: int) -> tuple[ov.Model, Any]:
    """Return a model from (1, 8, *size) to (1, 5, *size), and its weights."""
    weights = np.random.default_rng(0).normal(size=(5, 8, *kernel)).astype(np.float32)
    pads = [rate * (side - 1) // 2 for side in kernel]
    maps = opset13.parameter([1, 8, *size], np.float32)
    result = opset13.convolution(maps, opset13.constant(weights), [1, 1], pads, pads, [rate, rate])
    return ov.Model([opset13.relu(result)], [maps], "dilated"), weights


@pytest.mark.parametrize(
    ("size", "kernel", "rate", "convolutions"),
    [
        ((20, 30), (3, 3), 4, 9),
        ((12, 30), (3, 3), 12, 3),  # the upper and lower kernel rows are outside the map
        ((13, 12), (3, 3), 12, 3),
        ((5, 7), (3, 3), 36, 1),  # only the middle position remains
        ((20, 30), (1, 3), 6, 3),
        ((20, 30), (3, 3), 3, None),  # small rates are not split
    ],
)
def test_a_dilated_convolution_is_the_sum_over_its_kernel_positions(
    size: tuple[int, int],
    kernel: tuple[int, int],
    rate: int,
    convolutions: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dilated_convolutions, "MIN_CHANNELS", 8)
    model, weights = dilated(size, kernel=kernel, rate=rate)
    split_dilated_convolutions(model)
    assert node_types(model).count("Convolution") == (convolutions or 1)
    assert ("Slice" in node_types(model)) == (convolutions is not None and convolutions > 1)
    maps = np.random.default_rng(1).normal(size=(1, 8, *size)).astype(np.float32)
    result = compute(model, maps)
    pads = tuple(rate * (side - 1) // 2 for side in kernel)
    expected = F.conv2d(
        torch.from_numpy(maps), torch.from_numpy(weights), padding=pads, dilation=rate
    )
    assert np.allclose(result, expected.relu().numpy(), atol=1e-5)


def quantized(size: tuple[int, int], *, kernel: tuple[int, int], rate: int) -> ov.Model:
    """Return a model from (1, 8, *size) to (1, 5, *size) like those that NNCF writes."""
    rng = np.random.default_rng(0)
    integers = opset13.constant(rng.integers(-127, 128, (5, 8, *kernel), dtype=np.int8))
    scale = opset13.constant(rng.uniform(0.001, 0.01, (5, 1, 1, 1)).astype(np.float32))
    weights = opset13.multiply(opset13.convert(integers, "f32"), scale)
    maps = opset13.parameter([1, 8, *size], np.float32)
    low, high = np.float32(-1), np.float32(1.5)  # zero is not at an end of the range
    rounded = opset13.fake_quantize(maps, low, high, low, high, 256)
    pads = [rate * (side - 1) // 2 for side in kernel]
    result = opset13.convolution(rounded, weights, [1, 1], pads, pads, [rate, rate])
    return ov.Model([opset13.relu(result)], [maps], "quantized")


@settings(max_examples=30, deadline=None)
@given(
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    kernel=st.sampled_from([(3, 3), (1, 3), (5, 5), (1, 1)]),
    rate=st.integers(1, 26),
)
def test_quantized_kernels_are_cropped_to_positions_inside_the_map(
    size: tuple[int, int], kernel: tuple[int, int], rate: int
) -> None:
    model = quantized(size, kernel=kernel, rate=rate)
    cropped = model.clone()
    crop_dilated_kernels(cropped)
    (convolution,) = (
        node for node in cropped.get_ordered_ops() if node.get_type_name() == "Convolution"
    )
    assert list(convolution.input_value(1).get_shape()[2:]) == [
        sum(abs(position - side // 2) * rate < length for position in range(side))
        for side, length in zip(kernel, size, strict=True)
    ]
    maps = np.random.default_rng(1).normal(size=(1, 8, *size)).astype(np.float32)
    result, expected = compute(cropped, maps), compute(model, maps)
    assert np.allclose(result, expected, rtol=0, atol=1e-5)
    assert expected.any()


def convolution(size: tuple[int, int], *, pads: tuple[int, ...]) -> tuple[ov.Model, Any]:
    """Return a 3x3 convolution from (1, 8, *size) to 5 channels, and its weights.

    pads: top, left, bottom, right.
    """
    weights = np.random.default_rng(0).normal(size=(5, 8, 3, 3)).astype(np.float32)
    maps = opset13.parameter([1, 8, *size], np.float32)
    result = opset13.convolution(
        maps, opset13.constant(weights), [1, 1], pads[:2], pads[2:], [1, 1]
    )
    return ov.Model([opset13.relu(result)], [maps], "convolution"), weights


@given(
    height=st.integers(2, 40),
    width=st.integers(3, 40),
    pads=st.tuples(*[st.integers(1, 3)] * 4) | st.just((0, 0, 1, 1)),
)
@settings(max_examples=25)
def test_winograd_convolutions_give_the_same_result(
    height: int, width: int, pads: tuple[int, int, int, int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "MIN_CHANNELS", 5)
        model, weights = convolution((height, width), pads=pads)
        dynamic, _ = convolution((-1, -1), pads=pads)
        apply_winograd(model)
        apply_winograd(dynamic)
    assert node_types(model).count("Convolution") == 6
    maps = np.random.default_rng(1).normal(size=(1, 8, height, width)).astype(np.float32)
    top, left, bottom, right = pads
    padded = F.pad(torch.from_numpy(maps).double(), (left, right, top, bottom))
    expected = F.conv2d(padded, torch.from_numpy(weights).double()).relu().numpy()
    result = compute(model, maps)
    assert result.shape == expected.shape
    assert (compute(dynamic, maps) == result).all()
    assert np.abs(result - expected).max() < 1e-5 * np.ptp(expected)


@pytest.mark.parametrize(
    ("channels", "stride", "rate", "rewritten"),
    [
        ((256, 256), 1, 1, True),
        ((255, 256), 1, 1, False),
        ((256, 255), 1, 1, False),
        ((256, 256), 2, 1, False),
        ((256, 256), 1, 2, False),
    ],
)
def test_only_large_plain_convolutions_are_rewritten(
    channels: tuple[int, int], stride: int, rate: int, rewritten: bool
) -> None:
    before, after = channels
    maps = opset13.parameter([1, before, 20, 20], np.float32)
    weights = opset13.constant(np.zeros((after, before, 3, 3), np.float32))
    result = opset13.convolution(maps, weights, [stride] * 2, [rate] * 2, [rate] * 2, [rate] * 2)
    model = ov.Model([opset13.relu(result)], [maps], "convolution")
    apply_winograd(model)
    assert node_types(model).count("Convolution") == (6 if rewritten else 1)


def argmax_of(shape: list[int]) -> ov.Model:
    """Return a model from logits (1, C, H, W) to labels (1, H, W), as the converter writes it."""
    logits = opset13.parameter(shape, np.float32)
    best = opset13.topk(
        logits, np.array(1), 1, "max", "value", index_element_type="i64", stable=True
    )
    labels = opset13.convert(opset13.squeeze(best.output(1), np.array([1])), "u8")
    return ov.Model([labels], [logits], "argmax")


@given(classes=st.integers(1, 40), height=st.integers(1, 30), width=st.integers(1, 30))
@settings(max_examples=10, deadline=None)
def test_the_lowered_argmax_gives_the_first_of_the_largest_logits(
    classes: int, height: int, width: int
) -> None:
    static, dynamic = argmax_of([1, classes, height, width]), argmax_of([1, classes, -1, -1])
    for model in (static, dynamic):
        lower_argmax(model)
        (best,) = (node for node in model.get_ops() if node.get_type_name() == "TopK")
        assert best.get_attributes()["axis"] == 0  # classes first: whole vectors of pixels
    rng = np.random.default_rng(0)
    logits = rng.integers(-2, 3, (1, classes, height, width)).astype(np.float32)  # many ties
    for model in (static, dynamic):
        assert (compute(model, logits) == logits.argmax(axis=1)).all()


CONVOLUTIONS = """
import json, sys
import numpy as np, pixelwise
predictor = pixelwise.load(sys.argv[1], runtime="openvino")
image = np.load(sys.argv[2])
np.save(sys.argv[3], predictor.logits(image))
runtime = predictor.runtime
nodes = runtime._compile(runtime._model_for("logits", None)).get_runtime_model().get_ops()
facts = [{key: node.rt_info[key].astype(str) for key in ("layerType", "primitiveType")}
         for node in nodes]
print(json.dumps([fact["primitiveType"] for fact in facts if "Convol" in fact["layerType"]]))
"""


@pytest.mark.skipif("avx2" not in processor.processor_flags(), reason="the processor has no AVX2")
def test_without_avx512_float32_uses_the_kernels_for_blocks_of_channels(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "net.safetensors", "deeplab_v3plus", CLASSES, width=0.25)
    export(bundle, to="openvino")
    image = np.random.default_rng(0).integers(0, 256, (65, 91, 3), dtype=np.uint8)
    np.save(tmp_path / "image.npy", image)
    files = [str(tmp_path / name) for name in ("image.npy", "logits.npy")]
    command = [sys.executable, "-c", CONVOLUTIONS, str(bundle), *files]
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    kernels = json.loads(done.stdout.splitlines()[-1])
    assert any(kernel.startswith("jit_avx2_1x1") for kernel in kernels)
    assert not [kernel for kernel in kernels if kernel.startswith("brgconv")]
    expected = pixelwise.load(bundle, runtime="torch").logits(image)
    difference = np.abs(np.load(files[1]) - expected).max()
    assert 0 < difference <= 1e-5 * np.ptp(expected)


@pytest.mark.parametrize(
    ("flags", "limit", "preferred"),
    [
        ({"avx2"}, "", True),
        ({"avx2", "avx512f"}, "", False),
        ({"avx2", "avx512f"}, "AVX2", True),
        ({"avx2", "avx512f"}, "AVX512_CORE", False),
        (set(), "", False),  # another architecture, or a system that does not list them
    ],
)
def test_the_kernels_follow_the_processor(
    flags: set[str], limit: str, preferred: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "pixelwise.inference.runtimes.openvino.kernel_choice.processor_flags"
    monkeypatch.setattr(name, lambda: frozenset(flags))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert prefers_blocked_kernels() is preferred


@pytest.mark.parametrize(
    ("shape", "separable"),
    [
        ((16, 3, 3, 3), True),  # reads the image
        ((16, 8, 1, 1), True),
        ((8, 1, 1, 5, 5), True),
        ((16, 8, 3, 3), False),
        ((4, 2, 2, 3, 3), False),  # grouped, but not depthwise
    ],
)
def test_only_separable_networks_change_their_kernels(
    shape: tuple[int, ...], separable: bool
) -> None:
    channels = shape[0] * shape[2] if len(shape) == 5 else shape[1]
    maps = opset13.parameter([1, channels, 20, 20], np.float32)
    build_layer = opset13.group_convolution if len(shape) == 5 else opset13.convolution
    weights = opset13.constant(np.zeros(shape, np.float32))
    result = build_layer(maps, weights, [1, 1], [0, 0], [0, 0], [1, 1])
    assert is_separable(ov.Model([result], [maps], "layer")) is separable


MANY_SIZES = """
import sys
import numpy as np
import pixelwise

def megabytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6

predictor = pixelwise.load(sys.argv[1], runtime="openvino")
rng = np.random.default_rng(0)
for number in range(400):
    if number == 100:
        before = megabytes()
    predictor.segment(np.zeros((*rng.integers(20, 180, 2), 3), np.uint8))
print(megabytes() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_does_not_grow_with_the_number_of_image_sizes(exported: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", MANY_SIZES, str(exported)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    assert float(done.stdout) < 100
