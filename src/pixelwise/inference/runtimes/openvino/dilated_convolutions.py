"""Convolutions with holes (arXiv:1606.00915, section 3.1) where OpenVINO computes them slowly.

A tap sees the map shifted by the rate. Where it lies wholly beyond the map (arXiv:1706.05587,
section 3.3) it adds nothing: OpenVINO passes over it in float32, but not in 8 bits.

In bfloat16 it computes those of an ASPP on a ResNet, of large rates on many channels, at a tenth of
the processor's speed; in float32, and on fewer channels, it does not. They become sums of 1x1
convolutions, one a tap.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13

RATE, CHANNELS = 4, 2048  # the least with which it gains; measured


def split_dilated(model: ov.Model) -> None:
    """Write them so in a graph whose sizes are all known, in place.

    Exact but for the order of the sums. Quantized ones stay as they are.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Convolution" and _is_slow(node) and _keeps_size(node):
            split = _sum_of_taps(node)
            for user in node.output(0).get_target_inputs():
                user.replace_source_output(split)


def is_split(model: ov.Model) -> bool:
    """Whether a graph, of sizes known or open, has any such."""
    return any(node.get_type_name() == "Convolution" and _is_slow(node) for node in model.get_ops())


def crop_dilated(model: ov.Model) -> None:
    """Leave out the taps that lie wholly beyond the map, of quantized kernels, in a graph whose
    sizes are all known, in place. Exact."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Convolution" and _is_quantized(node) and _keeps_size(node):
            kernel, near = node.input_value(1).get_shape()[2:], _near(node)
            if tuple(len(taps) for taps in near) != tuple(kernel):
                cropped = _cropped(node, near)
                for user in node.output(0).get_target_inputs():
                    user.replace_source_output(cropped)


def _is_quantized(convolution: Any) -> bool:
    """Whether the weights are whole numbers of 8 bits times scales."""
    weights = convolution.input_value(1).get_node()
    if weights.get_type_name() != "Multiply":
        return False
    wide = weights.input_value(0).get_node()
    if wide.get_type_name() != "Convert":
        return False
    return bool(wide.input_value(0).get_element_type() == ov.Type.i8)


def _keeps_size(convolution: Any) -> bool:
    before, after = convolution.input(0).get_shape(), convolution.output(0).get_shape()
    return set(convolution.get_attributes()["strides"]) == {1} and before[2:] == after[2:]


def _shifts(convolution: Any) -> list[list[int]]:
    """How far each tap looks down, and to the right."""
    form, kernel = convolution.get_attributes(), convolution.input_value(1).get_shape()[2:]
    sides = zip(kernel, form["dilations"], form["pads_begin"], strict=True)
    return [[tap * rate - pad for tap in range(taps)] for taps, rate, pad in sides]


def _near(convolution: Any) -> list[range]:
    """Along each axis the taps that reach the map."""
    found, sides = [], convolution.input(0).get_shape()[2:]
    for shifts, side in zip(_shifts(convolution), sides, strict=True):
        reaching = [tap for tap, shift in enumerate(shifts) if abs(shift) < side]
        found.append(range(reaching[0], reaching[-1] + 1))
    return found


def _cropped(convolution: Any, near: list[range]) -> Any:
    form, scaled = convolution.get_attributes(), convolution.input_value(1).get_node()
    rows, columns = (slice(taps.start, taps.stop) for taps in near)
    whole = scaled.input_value(0).get_node().input_value(0).get_node().get_data()
    kept = opset13.constant(np.ascontiguousarray(whole[:, :, rows, columns]))
    weights = opset13.multiply(opset13.convert(kept, "f32"), scaled.input_value(1))
    along = list(zip(_shifts(convolution), near, strict=True))
    above = [-shifts[taps.start] for shifts, taps in along]
    below = [shifts[taps.stop - 1] for shifts, taps in along]
    maps, dilations = convolution.input_value(0), form["dilations"]
    return opset13.convolution(maps, weights, [1, 1], above, below, dilations).output(0)


def _is_slow(convolution: Any) -> bool:
    weights = convolution.input_value(1)
    return bool(
        min(convolution.get_attributes()["dilations"]) >= RATE
        and weights.get_shape()[1] >= CHANNELS
        and weights.get_node().get_type_name() == "Constant"
    )


def _sum_of_taps(convolution: Any) -> Any:
    maps, along = convolution.input_value(0), _shifts(convolution)
    weights = convolution.input_value(1).get_node().get_data()
    sides = list(convolution.output(0).get_shape()[2:])
    total: Any = None
    for place in product(*_near(convolution)):
        shifts = [own[tap] for own, tap in zip(along, place, strict=True)]
        before = [max(shift, 0) for shift in shifts]
        after = [max(-shift, 0) for shift in shifts]
        ends = [side - below for side, below in zip(sides, after, strict=True)]
        seen = maps
        if any(shifts):
            seen = opset13.slice(maps, before, ends, [1, 1], [2, 3])
        tap = np.ascontiguousarray(weights[:, :, place[0], place[1]][:, :, None, None])
        found = opset13.convolution(seen, opset13.constant(tap), [1, 1], [0, 0], [0, 0], [1, 1])
        if any(shifts):
            found = opset13.pad(found, [0, 0, *after], [0, 0, *before], "constant")
        total = found if total is None else opset13.add(total, found)
    return total.output(0)
