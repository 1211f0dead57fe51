"""Numbers of one dtype as those of another: rounded once or, integers, modulo 2**bits."""

from typing import Any, NamedTuple

import numpy as np
from numba import cuda
from numba.cuda import types

from .arrays import Operand, stream_of
from .elementwise import launch
from .intrinsics import bits_of, single_of
from .kernel import WIDE, kernel, word_of
from .reference import offset, unravel

DType = np.dtype[Any]

INFINITY = 0x7F800000  # as bits of float32


class Conversion(NamedTuple):
    """The dtypes of what is read and of what is written."""

    source: DType
    target: DType


@cuda.jit(device=True, inline="always")
def _same(x):
    return x


@cuda.jit(device=True, inline="always")
def _widened(bits):
    """bfloat16 is the upper half of float32."""
    return single_of(types.uint32(types.uint32(bits) << types.uint32(16)))


@cuda.jit(device=True, inline="always")
def _upper_half(x):
    """The bits of the nearest bfloat16; ties go to the even one."""
    single = types.uint32(bits_of(types.float32(x)))
    upper = types.uint32(single >> types.uint32(16))
    if types.uint32(single & types.uint32(0x7FFFFFFF)) > types.uint32(INFINITY):  # NaN: quiet
        return types.uint16(upper | types.uint32(0x40))
    tie = types.uint32(upper & types.uint32(1))
    return types.uint16((single + types.uint32(0x7FFF) + tie) >> types.uint32(16))


@cuda.jit(device=True, inline="always")
def _to_odd(x):
    """float64 to a neighbour in float32: where not exact, to the one whose last bit is 1.

    So that a half comes out as it would from float64: see ``cpu/halves.py``.
    """
    single = types.float32(x)
    bits = types.uint32(bits_of(single))
    if abs(types.float64(single)) > abs(x):
        bits = types.uint32(bits - types.uint32(1))  # towards zero
    if types.float64(single) != x and x == x:
        bits = types.uint32(bits | types.uint32(1))
    return single_of(bits)


@kernel("sp666")
def convert_elements(conversion, _wide):
    """``target[i] = source[i]`` for all indices of an array of this shape."""
    source_name, target_name = conversion.source.name, conversion.target.name
    read = _widened if source_name == "bfloat16" else _same
    to_half = target_name in ("float16", "bfloat16")
    shorter = _to_odd if source_name == "float64" and to_half else _same
    rounded = _upper_half if target_name == "bfloat16" else WIDE[word_of(conversion.target).name]

    def convert(source, target, ss, ts, shape):
        elements = shape[0] * shape[1] * shape[2] * shape[3] * shape[4] * shape[5]
        for i in range(cuda.grid(1), elements, cuda.gridsize(1)):
            i0, i1, i2, i3, i4, i5 = unravel(i, shape)
            number = read(source[offset(ss, i0, i1, i2, i3, i4, i5)])
            target[offset(ts, i0, i1, i2, i3, i4, i5)] = rounded(shorter(number))

    return convert


# Pointers to filters and wide filters; strides of both; shape of the filters; sign.
@kernel("sp666i")
def spread_filters(_conversion, wide):
    """``parts[2k+i, 2c+j] = [[Re w, -sign Im w], [sign Im w, Re w]][i, j]``"""

    def spread(weight, parts, ws, ps, shape, sign):
        elements = shape[0] * shape[1] * shape[2] * shape[3] * shape[4] * shape[5]
        for e in range(cuda.grid(1), elements, cuda.gridsize(1)):
            n, k, c, t, r, s = unravel(e, shape)
            at = offset(ws, n, k, c, t, r, s)
            real, imaginary = wide(weight[at]), wide(weight[at + 1]) * wide(sign)
            corner = offset(ps, n, 2 * k, 2 * c, t, r, s)
            parts[corner] = real
            parts[corner + ps[2]] = -imaginary
            parts[corner + ps[1]] = imaginary
            parts[corner + ps[1] + ps[2]] = real

    return spread


# Pointers to wide filters and filters; strides of both; shape of the filters; sign.
@kernel("sp666i")
def gather_filters(_conversion, _wide):
    """``Re w = parts[2k, 2c] + parts[2k+1, 2c+1]``, ``sign Im w`` the difference of the others."""

    def gather(parts, weight, ps, ws, shape, sign):
        elements = shape[0] * shape[1] * shape[2] * shape[3] * shape[4] * shape[5]
        for e in range(cuda.grid(1), elements, cuda.gridsize(1)):
            n, k, c, t, r, s = unravel(e, shape)
            at = offset(ws, n, k, c, t, r, s)
            corner = offset(ps, n, 2 * k, 2 * c, t, r, s)
            first, second = parts[corner + ps[1]], parts[corner + ps[2]]
            weight[at] = parts[corner] + parts[corner + ps[1] + ps[2]]
            weight[at + 1] = first - second if sign > 0 else second - first

    return gather


def convert(source: Operand, target: Operand, conversion: Conversion, like: Any) -> None:
    """``target[i] = source[i]``, on the stream of ``like``; real numbers, or parts of complex."""
    dtype = word_of(conversion.target)
    launch(convert_elements.of(conversion), (source, target), dtype, stream_of(like))
