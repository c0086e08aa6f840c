"""3x3 convolutions with half the multiplications: Winograd's F(4, 3) (arXiv:1509.09308, 4.1).

The algorithm is applied along the rows only: six linear combinations of input rows, each through a
1x3 convolution, yield four rows of the result. In two dimensions it would need a quarter of the
multiplications but cause more memory traffic than it saves. On few channels the traffic already
outweighs the gain in one dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import openvino as ov
from openvino import opset13
from pixelwise.inference.runtimes.openvino.replace_node import replace_node

MIN_CHANNELS = 256  # minimum input and output channels for it to be faster; measured

# Points 0, 1, -1, 2, -2 and infinity; the matrices of the paper's section 4.3.
INPUT_TRANSFORM = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
KERNEL_TRANSFORM = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
OUTPUT_TRANSFORM = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)
ROWS_READ, ROWS_WRITTEN = len(INPUT_TRANSFORM), len(OUTPUT_TRANSFORM)


def apply_winograd(model: ov.Model) -> None:
    """Rewrite the large 3x3 convolutions of a graph, in place.

    Results differ by rounding: about 1e-6 of their range in float32, so this is not for bfloat16.
    They are the same whether the graph's sizes are known or dynamic. Quantized convolutions are
    left unchanged.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Convolution" and _is_suitable(node):
            replace_node(node, _rewrite(node))


def _is_suitable(convolution: Any) -> bool:
    attributes = convolution.get_attributes()
    weights = convolution.input_value(1)
    out_channels, in_channels, *kernel = weights.get_shape()
    return (
        kernel == [3, 3]
        and set(attributes["strides"]) == set(attributes["dilations"]) == {1}
        and attributes["auto_pad"] == "explicit"
        and weights.get_node().get_type_name() == "Constant"
        and min(out_channels, in_channels) >= MIN_CHANNELS
    )


def _rewrite(convolution: Any) -> Any:
    maps, attributes = convolution.input_value(0), convolution.get_attributes()
    weights = convolution.input_value(1).get_node().get_data()
    (top, left), (bottom, right) = attributes["pads_begin"], attributes["pads_end"]
    size = opset13.shape_of(maps, "i32")
    rows, columns = (
        opset13.add(opset13.gather(size, _ints(axis), np.int32(0)), np.int32(pads - 2))
        for axis, pads in ((2, top + bottom), (3, left + right))
    )
    missing = opset13.floor_mod(opset13.negative(rows), np.int32(ROWS_WRITTEN))
    pads_end = opset13.concat([_ints(0, 0), opset13.add(missing, np.int32(bottom)), _ints(0)], 0)
    maps = opset13.pad(maps, _ints(0, 0, top, 0), pads_end, "constant")
    # Slice k holds row k of every group of rows that is transformed together.
    inputs = [
        opset13.slice(maps, _ints(k), _ints(_slice_end(k)), _ints(ROWS_WRITTEN), _ints(2))
        for k in range(ROWS_READ)
    ]
    products = []
    for factors, kernel in zip(INPUT_TRANSFORM, _transform_kernels(weights), strict=True):
        rows_in, constant = _linear_combination(factors, inputs), opset13.constant(kernel)
        products.append(
            opset13.convolution(rows_in, constant, [1, 1], [0, left], [0, right], [1, 1])
        )
    # Concatenated side by side, the rows of a group are contiguous in memory, so that a reshape
    # puts them one below the other.
    outputs = [_linear_combination(factors, products) for factors in OUTPUT_TRANSFORM]
    wide = opset13.concat(outputs, 3)
    tall = opset13.reshape(wide, opset13.concat([_ints(0, 0, -1), columns], 0), True)
    return opset13.slice(tall, _ints(0), rows, _ints(1), _ints(2))


def _ints(*numbers: int) -> Any:
    return opset13.constant(np.array(numbers, np.int32))


def _slice_end(first: int) -> int:
    """Return the end of the slice of every group's row `first`, relative to the map's end."""
    return first + 1 - ROWS_READ or int(np.iinfo(np.int32).max)


def _transform_kernels(weights: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Transform kernels (K, C, 3, 3) to six kernels (K, C, 1, 3)."""
    rows = np.ascontiguousarray(weights.transpose(2, 0, 1, 3))
    return list(np.tensordot(np.asarray(KERNEL_TRANSFORM, np.float32), rows, 1)[:, :, :, None])


def _linear_combination(factors: Sequence[int], maps: Sequence[Any]) -> Any:
    """Return the sum of the maps times their factors, at least one of which is positive.

    Each product is by a power of two and therefore exact: it makes no difference whether OpenVINO
    rounds it before the addition or fuses the two.
    """
    terms = [
        (factor > 0, power, term)
        for factor, term in zip(factors, maps, strict=True)
        for power in (1, 2, 4, 8)
        if abs(factor) & power
    ]
    terms.sort(key=lambda term: not term[0])  # start with a positive term, which needs no negation
    total: Any = None
    for positive, power, term in terms:
        scaled = term if power == 1 else opset13.multiply(term, np.float32(power))
        if total is None:
            total = scaled
        else:
            total = (opset13.add if positive else opset13.subtract)(total, scaled)
    return total
