"""Vectors of eight floats as a numba type, so that rows of class values are always SIMD.

LLVM's own vectoriser wants long loops over arrays that provably do not overlap, and a row of a few
classes is neither: measured against plain loops, these vectors decide whether the CRF is fast.
On a processor with narrower registers LLVM splits them.

A kernel that numba has cached is compiled again only when its own file changes: after a change
here, touch kernels.py.
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
_FLOAT_ALIGNMENT = 4  # rows begin anywhere in an array of float32


class Float8(types.Type):
    """Eight float32; lives in registers, never in Python."""

    def __init__(self) -> None:
        super().__init__(name="pixelwise.Float8")


float8 = Float8()


@register_model(Float8)
class _Float8Model(models.PrimitiveModel):
    def __init__(self, manager: Any, frontend: Any) -> None:
        super().__init__(manager, frontend, _FLOATS)


@intrinsic
def at(_: Any, array: Any, index: Any) -> Any:
    """array[index] of a contiguous array, index >= 0: without the test for Python's negative ones,
    which in the innermost loops is a fifth of the instructions.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.gep(array.data, [arguments[1]])
        return builder.load(place)

    return array.dtype(array, types.intp), generate


@intrinsic
def zero8(_: Any) -> Any:
    """Eight zeros."""
    return float8(), lambda context, builder, signature, arguments: _all(0.0)


@intrinsic
def spread8(_: Any, value: Any) -> Any:
    """One float eight times."""
    return float8(types.float32), lambda context, builder, signature, arguments: _spread(
        builder, *arguments
    )


@intrinsic
def load8(_: Any, array: Any, start: Any) -> Any:
    """array[start : start + 8] of a contiguous float32 array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, signature, arguments)
        return builder.load(place, align=_FLOAT_ALIGNMENT, typ=_FLOATS)

    return float8(array, types.intp), generate


@intrinsic
def store8(_: Any, array: Any, start: Any, vector: Any) -> Any:
    """array[start : start + 8] = vector."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, signature, arguments)
        builder.store(arguments[2], place, align=_FLOAT_ALIGNMENT)
        return context.get_dummy_value()

    return types.void(array, types.intp, float8), generate


@intrinsic
def fused8(_: Any, scale: Any, vector: Any, addend: Any) -> Any:
    """scale * vector + addend, scale being one float; fused where the processor can."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        scale, vector, addend = arguments
        return _multiply_add(builder, _spread(builder, scale), vector, addend)

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
def highest8(_: Any, vector: Any) -> Any:
    """The largest of the eight."""
    return types.float32(float8), lambda context, builder, signature, arguments: _fold(
        builder, arguments[0], lambda one, other: _greater(builder, one, other)
    )


@intrinsic
def sum8(_: Any, vector: Any) -> Any:
    """The sum of the eight."""
    return types.float32(float8), lambda context, builder, signature, arguments: _fold(
        builder, arguments[0], builder.fadd
    )


@intrinsic
def exp8(_: Any, vector: Any, shift: Any) -> Any:
    """exp(vector - shift) for vector <= shift, to a few units of the last place.

    Below -60 it is exactly 0: 1e-26 is nothing as a probability, and what lies further down
    becomes denormal in the sums, which costs a hundred times the time.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        shifted = builder.fsub(arguments[0], _spread(builder, arguments[1]))
        x = _greater(builder, shifted, _all(-60.0))
        # x = n ln 2 + r with |r| <= ln(2) / 2; ln 2 in two parts, the first of which n times is
        # exact. Taylor's series to r^7 leaves 5e-9.
        n = _call(builder, "floor", _multiply_add(builder, x, _all(1 / math.log(2)), _all(0.5)))
        r = _multiply_add(builder, n, _all(-0.693359375), x)
        r = _multiply_add(builder, n, _all(0.693359375 - math.log(2)), r)
        power = _all(1 / math.factorial(7))
        for k in range(6, -1, -1):
            power = _multiply_add(builder, power, r, _all(1 / math.factorial(k)))
        exponent = builder.add(builder.fptosi(n, _INTS), ir.Constant(_INTS, [127] * LANES))
        scale = builder.bitcast(builder.shl(exponent, ir.Constant(_INTS, [23] * LANES)), _FLOATS)
        outside = builder.fcmp_ordered("<", shifted, _all(-60.0))
        return builder.select(outside, _all(0.0), builder.fmul(power, scale))

    return float8(float8, types.float32), generate


@intrinsic
def log8(_: Any, vector: Any) -> Any:
    """log(vector) for normal positive numbers, to a few units of the last place."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # x = 2^n m with m in sqrt(1/2)..sqrt(2), by which float's exponent begins to count at
        # sqrt(1/2); log m = 2 atanh((m - 1) / (m + 1)), whose series to s^9 leaves 4e-10.
        bits = builder.bitcast(arguments[0], _INTS)
        above = builder.sub(bits, ir.Constant(_INTS, [_ROOT_OF_HALF] * LANES))
        n = builder.ashr(above, ir.Constant(_INTS, [23] * LANES))
        m_bits = builder.sub(bits, builder.shl(n, ir.Constant(_INTS, [23] * LANES)))
        m = builder.bitcast(m_bits, _FLOATS)
        s = builder.fdiv(builder.fsub(m, _all(1.0)), builder.fadd(m, _all(1.0)))
        square = builder.fmul(s, s)
        series = _all(2 / 9)
        for k in (7, 5, 3, 1):
            series = _multiply_add(builder, series, square, _all(2 / k))
        exponent = builder.sitofp(n, _FLOATS)
        return _multiply_add(builder, exponent, _all(math.log(2)), builder.fmul(s, series))

    return float8(float8), generate


def _all(value: float) -> Any:
    return ir.Constant(_FLOATS, [value] * LANES)


def _place(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """A pointer to eight floats from arguments[1] on in the array arguments[0]."""
    array = make_array(signature.args[0])(context, builder, arguments[0])
    first = builder.gep(array.data, [arguments[1]], source_etype=_FLOAT)
    return builder.bitcast(first, _FLOATS.as_pointer())


def _spread(builder: Any, scalar: Any) -> Any:
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
    """The eight to four to two to one."""
    width = LANES
    while width > 1:
        width //= 2
        indices = ir.VectorType(_INT, width)
        low, high = (
            builder.shuffle_vector(vector, vector, ir.Constant(indices, list(part)))
            for part in (range(width), range(width, 2 * width))
        )
        vector = combine(low, high)
    return builder.extract_element(vector, ir.Constant(_INT, 0))
