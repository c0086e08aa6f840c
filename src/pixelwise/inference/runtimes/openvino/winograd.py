"""3x3 convolutions with half the multiplications: F(4, 3) of Winograd (arXiv:1509.09308, 4.1).

Along the rows only: six sums of rows, each through a 1x3 convolution, give four rows of the result.
In two dimensions it would be a quarter of the multiplications, and more traffic than it saves. On
few channels the traffic is already more than the gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13

CHANNELS = 256  # the least, before and after, with which it gains; measured

# Points 0, 1, -1, 2, -2 and infinity; the paper's matrices of section 4.3.
OF_MAP = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
OF_KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
OF_RESULT = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)
READ, WRITTEN = len(OF_MAP), len(OF_RESULT)


def halve_multiplications(model: ov.Model) -> None:
    """Write them so, in place.

    The sums' rounding differs: in float32 by some 1e-6 of their range, so not for bfloat16. It is
    the same whether sizes are known or open. Quantized ones stay as they are.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Convolution" and _fits(node):
            rewritten = _rewritten(node)
            for user in node.output(0).get_target_inputs():
                user.replace_source_output(rewritten)


def _fits(convolution: Any) -> bool:
    form = convolution.get_attributes()
    weights = convolution.input_value(1)
    given, made, *kernel = weights.get_shape()
    return (
        kernel == [3, 3]
        and set(form["strides"]) == set(form["dilations"]) == {1}
        and form["auto_pad"] == "explicit"
        and weights.get_node().get_type_name() == "Constant"
        and min(given, made) >= CHANNELS
    )


def _rewritten(convolution: Any) -> Any:
    maps, form = convolution.input_value(0), convolution.get_attributes()
    weights = convolution.input_value(1).get_node().get_data()
    (top, left), (bottom, right) = form["pads_begin"], form["pads_end"]
    size = opset13.shape_of(maps, "i32")
    rows, columns = (
        opset13.add(opset13.gather(size, _line(axis), np.int32(0)), np.int32(pads - 2))
        for axis, pads in ((2, top + bottom), (3, left + right))
    )
    lacking = opset13.floor_mod(opset13.negative(rows), np.int32(WRITTEN))
    below = opset13.concat([_line(0, 0), opset13.add(lacking, np.int32(bottom)), _line(0)], 0)
    maps = opset13.pad(maps, _line(0, 0, top, 0), below, "constant")
    read = [
        opset13.slice(maps, _line(k), _line(_behind(k)), _line(WRITTEN), _line(2))
        for k in range(READ)
    ]
    products = [
        opset13.convolution(
            _sum(of_map, read), opset13.constant(kernel), [1, 1], [0, left], [0, right], [1, 1]
        )
        for of_map, kernel in zip(OF_MAP, _kernels(weights), strict=True)
    ]
    # Side by side, the rows of a tile lie as they do one below the other.
    beside = opset13.concat([_sum(factors, products) for factors in OF_RESULT], 3)
    tall = opset13.reshape(beside, opset13.concat([_line(0, 0, -1), columns], 0), True)
    return opset13.slice(tall, _line(0), rows, _line(1), _line(2)).output(0)


def _line(*numbers: int) -> Any:
    return opset13.constant(np.array(numbers, np.int32))


def _behind(first: int) -> int:
    """Where a tile's row `first`, of all tiles, ends: counted from the last tile's end."""
    return first + 1 - READ or int(np.iinfo(np.int32).max)


def _kernels(weights: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Six of (K, C, 1, 3) of (K, C, 3, 3)."""
    rows = np.ascontiguousarray(weights.transpose(2, 0, 1, 3))
    return list(np.tensordot(np.asarray(OF_KERNEL, np.float32), rows, 1)[:, :, :, None])


def _sum(factors: Sequence[int], maps: Sequence[Any]) -> Any:
    """Of the maps times their factors, of which one is positive.

    Each product is by a power of two, and so exact: whether it is rounded before it is added, which
    OpenVINO chooses, does not show.
    """
    terms = [
        (factor > 0, power, one)
        for factor, one in zip(factors, maps, strict=True)
        for power in (1, 2, 4, 8)
        if abs(factor) & power
    ]
    terms.sort(key=lambda term: not term[0])  # begins with what needs no change of sign
    total: Any = None
    for positive, power, one in terms:
        term = one if power == 1 else opset13.multiply(one, np.float32(power))
        if total is None:
            total = term
        else:
            total = (opset13.add if positive else opset13.subtract)(total, term)
    return total
