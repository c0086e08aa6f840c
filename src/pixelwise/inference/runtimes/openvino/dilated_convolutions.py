"""Faster forms of dilated convolutions (arXiv:1606.00915, section 3.1) for OpenVINO.

Each position of a dilated kernel reads the map shifted by a multiple of the rate. A position whose
shift is larger than the map reads padding only (arXiv:1706.05587, section 3.3) and adds nothing.
OpenVINO skips such positions in float32 but not in int8, so quantized kernels are cropped here.

In bfloat16 OpenVINO computes the large rates on many channels of an ASPP on a ResNet at a tenth of
the processor's speed; in float32 and on fewer channels it does not. These convolutions become sums
of 1x1 convolutions, one per kernel position.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

import openvino as ov
from openvino import opset13
from pixelwise.inference.runtimes.openvino.replace_node import replace_node

MIN_RATE, MIN_CHANNELS = 4, 2048  # at and above these, splitting is faster; measured


def split_dilated_convolutions(model: ov.Model) -> None:
    """Split slow dilated convolutions into sums of 1x1 convolutions, in place.

    All sizes of the graph must be known. The result is exact up to the order of summation.
    Quantized convolutions are left unchanged.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Convolution" and _is_slow(node) and _keeps_size(node):
            replace_node(node, _sum_over_positions(node))


def has_slow_convolutions(model: ov.Model) -> bool:
    """Return whether `split_dilated_convolutions` would change a graph once sizes are known."""
    return any(node.get_type_name() == "Convolution" and _is_slow(node) for node in model.get_ops())


def crop_dilated_kernels(model: ov.Model) -> None:
    """Remove kernel positions that read padding only from quantized kernels, in place.

    All sizes of the graph must be known. The result is exact.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Convolution" and _is_quantized(node) and _keeps_size(node):
            kernel, inside = node.input_value(1).get_shape()[2:], _positions_inside(node)
            if tuple(len(positions) for positions in inside) != tuple(kernel):
                replace_node(node, _crop_kernel(node, inside))


def _is_quantized(convolution: Any) -> bool:
    """Return whether the weights are 8-bit integers times scales."""
    weights = convolution.input_value(1).get_node()
    if weights.get_type_name() != "Multiply":
        return False
    converted = weights.input_value(0).get_node()
    if converted.get_type_name() != "Convert":
        return False
    return bool(converted.input_value(0).get_element_type() == ov.Type.i8)


def _keeps_size(convolution: Any) -> bool:
    before, after = convolution.input(0).get_shape(), convolution.output(0).get_shape()
    return set(convolution.get_attributes()["strides"]) == {1} and before[2:] == after[2:]


def _shifts(convolution: Any) -> list[list[int]]:
    """Return how far each kernel position reads down, and to the right."""
    attributes, kernel = convolution.get_attributes(), convolution.input_value(1).get_shape()[2:]
    axes = zip(kernel, attributes["dilations"], attributes["pads_begin"], strict=True)
    return [[position * rate - pad for position in range(length)] for length, rate, pad in axes]


def _positions_inside(convolution: Any) -> list[range]:
    """Return the kernel positions along each axis that read at least one position of the map."""
    inside, size = [], convolution.input(0).get_shape()[2:]
    for shifts, length in zip(_shifts(convolution), size, strict=True):
        positions = [position for position, shift in enumerate(shifts) if abs(shift) < length]
        inside.append(range(positions[0], positions[-1] + 1))
    return inside


def _crop_kernel(convolution: Any, inside: list[range]) -> Any:
    scaled = convolution.input_value(1).get_node()
    rows, columns = (slice(positions.start, positions.stop) for positions in inside)
    integers = scaled.input_value(0).get_node().input_value(0).get_node().get_data()
    cropped = opset13.constant(np.ascontiguousarray(integers[:, :, rows, columns]))
    weights = opset13.multiply(opset13.convert(cropped, "f32"), scaled.input_value(1))
    axes = list(zip(_shifts(convolution), inside, strict=True))
    pads_begin = [-shifts[positions.start] for shifts, positions in axes]
    pads_end = [shifts[positions.stop - 1] for shifts, positions in axes]
    maps, dilations = convolution.input_value(0), convolution.get_attributes()["dilations"]
    return opset13.convolution(maps, weights, [1, 1], pads_begin, pads_end, dilations)


def _is_slow(convolution: Any) -> bool:
    weights = convolution.input_value(1)
    return bool(
        min(convolution.get_attributes()["dilations"]) >= MIN_RATE
        and weights.get_shape()[1] >= MIN_CHANNELS
        and weights.get_node().get_type_name() == "Constant"
    )


def _sum_over_positions(convolution: Any) -> Any:
    maps, axes = convolution.input_value(0), _shifts(convolution)
    weights = convolution.input_value(1).get_node().get_data()
    size = list(convolution.output(0).get_shape()[2:])
    total: Any = None
    for row, column in product(*_positions_inside(convolution)):
        shifts = [axes[0][row], axes[1][column]]
        begin = [max(shift, 0) for shift in shifts]
        pad = [max(-shift, 0) for shift in shifts]
        end = [length - padding for length, padding in zip(size, pad, strict=True)]
        shifted = maps
        if any(shifts):
            shifted = opset13.slice(maps, begin, end, [1, 1], [2, 3])
        kernel = opset13.constant(np.ascontiguousarray(weights[:, :, row, column, None, None]))
        term = opset13.convolution(shifted, kernel, [1, 1], [0, 0], [0, 0], [1, 1])
        if any(shifts):
            term = opset13.pad(term, [0, 0, *pad], [0, 0, *begin], "constant")
        total = term if total is None else opset13.add(total, term)
    return total
