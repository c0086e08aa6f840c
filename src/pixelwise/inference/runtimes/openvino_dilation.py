"""Convolutions with holes (arXiv:1606.00915, section 3.1) as sums of 1x1 convolutions, one a tap.

In bfloat16 OpenVINO computes those of an ASPP on a ResNet, of large rates on many channels, at a
tenth of the processor's speed; in float32, and on fewer channels, it does not. A tap sees the map
shifted by the rate; where it lies wholly beyond the map, it is left out.
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

    Exact but for the order of the sums. Quantised ones stay as they are.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Convolution" and _fits(node):
            split = _sum_of_taps(node)
            for user in node.output(0).get_target_inputs():
                user.replace_source_output(split)


def _fits(convolution: Any) -> bool:
    form = convolution.get_attributes()
    before, after = convolution.input(0).get_shape(), convolution.output(0).get_shape()
    return (
        min(form["dilations"]) >= RATE
        and before[1] >= CHANNELS
        and set(form["strides"]) == {1}
        and convolution.input_value(1).get_node().get_type_name() == "Constant"
        and before[2:] == after[2:]
    )


def _sum_of_taps(convolution: Any) -> Any:
    maps, form = convolution.input_value(0), convolution.get_attributes()
    weights = convolution.input_value(1).get_node().get_data()
    sides = list(convolution.output(0).get_shape()[2:])
    total: Any = None
    for place in product(*(range(side) for side in weights.shape[2:])):
        shifts = [
            tap * rate - pad
            for tap, rate, pad in zip(place, form["dilations"], form["pads_begin"], strict=True)
        ]
        if any(abs(shift) >= side for shift, side in zip(shifts, sides, strict=True)):
            continue
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
