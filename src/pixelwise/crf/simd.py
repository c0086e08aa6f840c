"""SIMD vectors of eight floats as a numba type, so that rows of class values are vectorized.

LLVM's automatic vectorization needs long loops over arrays that provably do not overlap, and a row
of a few classes is neither. Measured against plain loops, these vectors decide whether the CRF is
fast. On a processor with narrower registers LLVM splits them.

numba recompiles a cached kernel only if its own file changes: after a change here, touch
kernels.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, models, register_model
from numba.np.arrayobj import make_array

LANES = 8

_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FLOATS, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)
_ROOT_OF_HALF = 0x3F3504F3  # the bits of float32's sqrt(1/2)
_FLOAT_ALIGNMENT = 4  # rows may begin at any float32 of an array


class Float8(types.Type):
    """Eight float32 values in a register. Values of this type never reach Python."""

    def __init__(self) -> None:
        super().__init__(name="pixelwise.Float8")


float8 = Float8()


@register_model(Float8)
class _Float8Model(models.PrimitiveModel):
    def __init__(self, manager: Any, frontend: Any) -> None:
        super().__init__(manager, frontend, _FLOATS)


@intrinsic
def at(_: Any, array: Any, index: Any) -> Any:
    """Return array[index] of a contiguous array for index >= 0.

    This omits the check for negative indices, a fifth of the instructions of the innermost loops.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.gep(array.data, [arguments[1]])
        return builder.load(pointer)

    return array.dtype(array, types.intp), generate


@intrinsic
def zero8(_: Any) -> Any:
    """Return eight zeros."""
    return float8(), lambda context, builder, signature, arguments: _constant(0.0)


@intrinsic
def broadcast8(_: Any, value: Any) -> Any:
    """Return a float in all eight lanes."""
    return float8(types.float32), lambda context, builder, signature, arguments: _broadcast(
        builder, *arguments
    )


@intrinsic
def load8(_: Any, array: Any, start: Any) -> Any:
    """Return array[start : start + 8] of a contiguous float32 array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature, arguments)
        return builder.load(pointer, align=_FLOAT_ALIGNMENT, typ=_FLOATS)

    return float8(array, types.intp), generate


@intrinsic
def store8(_: Any, array: Any, start: Any, vector: Any) -> Any:
    """Store array[start : start + 8] = vector."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature, arguments)
        builder.store(arguments[2], pointer, align=_FLOAT_ALIGNMENT)
        return context.get_dummy_value()

    return types.void(array, types.intp, float8), generate


@intrinsic
def fused8(_: Any, scale: Any, vector: Any, addend: Any) -> Any:
    """Return scale * vector + addend for a float `scale`, fused if the processor can."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        scale, vector, addend = arguments
        return _multiply_add(builder, _broadcast(builder, scale), vector, addend)

    return float8(types.float32, float8, float8), generate


@intrinsic
def add8(_: Any, one: Any, other: Any) -> Any:
    return float8(float8, float8), lambda context, builder, signature, arguments: builder.fadd(
        *arguments
    )


@intrinsic
def max8(_: Any, one: Any, other: Any) -> Any:
    return float8(float8, float8), lambda context, builder, signature, arguments: _greater(
        builder, *arguments
    )


@intrinsic
def min8(_: Any, one: Any, other: Any) -> Any:
    return float8(float8, float8), lambda context, builder, signature, arguments: _smaller(
        builder, *arguments
    )


@intrinsic
def reduce_max8(_: Any, vector: Any) -> Any:
    """Return the largest of the eight values."""
    return types.float32(float8), lambda context, builder, signature, arguments: _fold(
        builder, arguments[0], lambda one, other: _greater(builder, one, other)
    )


@intrinsic
def reduce_sum8(_: Any, vector: Any) -> Any:
    """Return the sum of the eight values."""
    return types.float32(float8), lambda context, builder, signature, arguments: _fold(
        builder, arguments[0], builder.fadd
    )


@intrinsic
def exp8(_: Any, vector: Any, shift: Any) -> Any:
    """Return exp(vector - shift) for vector <= shift, to a few units in the last place.

    Below -60 the result is exactly 0: 1e-26 is negligible as a probability, and smaller values
    become denormal in the sums, which are a hundred times slower.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        shifted = builder.fsub(arguments[0], _broadcast(builder, arguments[1]))
        x = _greater(builder, shifted, _constant(-60.0))
        # x = n ln 2 + r with |r| <= ln(2) / 2. ln 2 is split into two terms, so that n times the
        # first is exact. The Taylor series to r^7 has an error of 5e-9.
        n = _call(
            builder, "floor", _multiply_add(builder, x, _constant(1 / math.log(2)), _constant(0.5))
        )
        r = _multiply_add(builder, n, _constant(-0.693359375), x)
        r = _multiply_add(builder, n, _constant(0.693359375 - math.log(2)), r)
        power = _constant(1 / math.factorial(7))
        for k in range(6, -1, -1):
            power = _multiply_add(builder, power, r, _constant(1 / math.factorial(k)))
        exponent = builder.add(builder.fptosi(n, _INTS), ir.Constant(_INTS, [127] * LANES))
        scale = builder.bitcast(builder.shl(exponent, ir.Constant(_INTS, [23] * LANES)), _FLOATS)
        outside = builder.fcmp_ordered("<", shifted, _constant(-60.0))
        return builder.select(outside, _constant(0.0), builder.fmul(power, scale))

    return float8(float8, types.float32), generate


@intrinsic
def log8(_: Any, vector: Any) -> Any:
    """Return log(vector) for normal positive numbers, to a few units in the last place."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # x = 2^n m with m in sqrt(1/2)..sqrt(2): subtracting the bits of sqrt(1/2) moves the
        # border between exponents there. log m = 2 atanh((m - 1) / (m + 1)), whose series to s^9
        # has an error of 4e-10.
        bits = builder.bitcast(arguments[0], _INTS)
        above = builder.sub(bits, ir.Constant(_INTS, [_ROOT_OF_HALF] * LANES))
        n = builder.ashr(above, ir.Constant(_INTS, [23] * LANES))
        m_bits = builder.sub(bits, builder.shl(n, ir.Constant(_INTS, [23] * LANES)))
        m = builder.bitcast(m_bits, _FLOATS)
        s = builder.fdiv(builder.fsub(m, _constant(1.0)), builder.fadd(m, _constant(1.0)))
        square = builder.fmul(s, s)
        series = _constant(2 / 9)
        for k in (7, 5, 3, 1):
            series = _multiply_add(builder, series, square, _constant(2 / k))
        exponent = builder.sitofp(n, _FLOATS)
        return _multiply_add(builder, exponent, _constant(math.log(2)), builder.fmul(s, series))

    return float8(float8), generate


def _constant(value: float) -> Any:
    return ir.Constant(_FLOATS, [value] * LANES)


def _pointer(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Return a pointer to eight floats of the array arguments[0], from index arguments[1] on."""
    array = make_array(signature.args[0])(context, builder, arguments[0])
    first = builder.gep(array.data, [arguments[1]], source_etype=_FLOAT)
    return builder.bitcast(first, _FLOATS.as_pointer())


def _broadcast(builder: Any, scalar: Any) -> Any:
    empty = ir.Constant(_FLOATS, ir.Undefined)
    first = builder.insert_element(empty, scalar, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, empty, ir.Constant(_INTS, [0] * LANES))


def _greater(builder: Any, one: Any, other: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", one, other), one, other)


def _smaller(builder: Any, one: Any, other: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", one, other), one, other)


def _multiply_add(builder: Any, one: Any, other: Any, addend: Any) -> Any:
    return _call(builder, "fmuladd", one, other, addend)


def _call(builder: Any, name: str, *vectors: Any) -> Any:
    signature = ir.FunctionType(_FLOATS, [_FLOATS] * len(vectors))
    function = builder.module.declare_intrinsic(f"llvm.{name}.v{LANES}f32", (), signature)
    return builder.call(function, vectors)


def _fold(builder: Any, vector: Any, combine: Callable[[Any, Any], Any]) -> Any:
    """Combine the lanes: eight to four to two to one."""
    width = LANES
    while width > 1:
        width //= 2
        indices = ir.VectorType(_INT, width)
        low, high = (
            builder.shuffle_vector(vector, vector, ir.Constant(indices, list(half)))
            for half in (range(width), range(width, 2 * width))
        )
        vector = combine(low, high)
    return builder.extract_element(vector, ir.Constant(_INT, 0))
