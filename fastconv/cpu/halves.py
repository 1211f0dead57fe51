"""float16 and bfloat16: to float32, which has all their numbers, and back to the nearest of them.

Numbers are bits here: a sign, the exponent (5 bits of float16, 8 of bfloat16 and float32) and the
fraction. bfloat16 is the upper half of float32. Numba knows neither; NumPy converts float16 in
4 ms where these loops take 0.3 on one thread: 3.2 million numbers, of a layer that takes 7.
"""

from math import ceil
from typing import Any

import numba
import numpy as np
from numba import types
from numpy.typing import NDArray

from ..memory import empty
from .blocks import Tables
from .elementwise import OPERATIONS, PIECE
from .engine import Engine
from .kernel import Kernel
from .simd import element, pointer_to, put
from .stages import Plan
from .views import Layout

Array = NDArray[Any]

SINGLE = np.dtype(np.float32)

# Of float32, as bits: infinity, the least that rounds to infinity in float16, and the least that is
# normal there. Exponents of float32 are larger by 112.
INFINITY = 0x7F800000
TOO_LARGE = 0x477FF000
NORMAL = 0x38800000
BIAS = 112 << 23


half_bits = pointer_to(types.uint16)
single_bits = pointer_to(types.uint32)


@Kernel
def widen_float16(task, slot, size, table, halves, b, c, singles, work):
    """``singles = halves`` for one piece of ``size[0]``."""
    source, target = half_bits(halves), single_bits(singles)
    for i in range(task * PIECE, min(task * PIECE + PIECE, size[0])):
        half = np.uint32(element(source, i))
        sign, magnitude = np.uint32((half & 0x8000) << 16), np.uint32(half & 0x7FFF)
        if magnitude < 0x0400:  # without a leading 1: a multiple of 2**-24
            bits = np.float32(magnitude * np.float32(2.0**-24)).view(np.uint32)
        elif magnitude < 0x7C00:
            bits = np.uint32((magnitude << 13) + BIAS)
        else:  # infinity, or NaN with its payload
            bits = np.uint32((magnitude << 13) | INFINITY)
        put(target, i, np.uint32(sign | bits))


@Kernel
def widen_bfloat16(task, slot, size, table, halves, b, c, singles, work):
    """``singles = halves`` for one piece of ``size[0]``."""
    source, target = half_bits(halves), single_bits(singles)
    for i in range(task * PIECE, min(task * PIECE + PIECE, size[0])):
        put(target, i, np.uint32(np.uint32(element(source, i)) << 16))


@Kernel
def narrow_float16(task, slot, size, table, singles, b, c, halves, work):
    """``halves = singles``, rounded, for one piece of ``size[0]``."""
    source, target = single_bits(singles), half_bits(halves)
    for i in range(task * PIECE, min(task * PIECE + PIECE, size[0])):
        single = np.uint32(element(source, i))
        sign, magnitude = single >> 16 & 0x8000, np.uint32(single & 0x7FFFFFFF)
        if magnitude > INFINITY:  # NaN: quiet, with what its payload has in front
            bits = np.uint32(0x7E00 | (magnitude >> 13 & 0x03FF))
        elif magnitude >= TOO_LARGE:
            bits = np.uint32(0x7C00)
        elif magnitude < NORMAL:  # multiples of 2**-24: to these a sum with 0.5 is rounded
            value = np.float32(np.uint32(magnitude).view(np.float32) + np.float32(0.5))
            bits = np.uint32(np.float32(value).view(np.uint32) - 0x3F000000)
        else:  # half a unit less one, and the one where the last bit is 1: ties go to even
            bits = np.uint32((magnitude - BIAS + 0x0FFF + (magnitude >> 13 & 1)) >> 13)
        put(target, i, np.uint16(sign | bits))


@Kernel
def narrow_bfloat16(task, slot, size, table, singles, b, c, halves, work):
    """``halves = singles``, rounded, for one piece of ``size[0]``."""
    source, target = single_bits(singles), half_bits(halves)
    for i in range(task * PIECE, min(task * PIECE + PIECE, size[0])):
        single = np.uint32(element(source, i))
        if np.uint32(single & 0x7FFFFFFF) > INFINITY:
            bits = np.uint32(single >> 16 | 0x0040)
        else:
            bits = np.uint32((single + 0x7FFF + (single >> 16 & 1)) >> 16)
        put(target, i, np.uint16(bits))


def _engine(kernel: Kernel) -> Engine:
    """A kernel for a line of singles and one of as many halves, two of them as one float32."""

    @Engine
    def convert(dtype: np.dtype[Any], threads: int, a: Layout, b: Layout, out: Layout) -> Plan:
        count = max(a.shape[5], out.shape[5])
        stages = [(kernel, ceil(count / PIECE))]
        return Plan(dtype, stages, (count,), Tables(), 0, OPERATIONS * count)

    return convert


_WIDEN = {"float16": _engine(widen_float16), "bfloat16": _engine(widen_bfloat16)}
_NARROW = {"float16": _engine(narrow_float16), "bfloat16": _engine(narrow_bfloat16)}


def widen(halves: Array) -> Array:
    """Halves as float32: a contiguous copy."""
    singles = empty(halves.shape, SINGLE)
    _convert(_WIDEN, np.ascontiguousarray(halves), singles, halves.dtype.name)
    return singles


def narrow(numbers: Array, halves: Array) -> None:
    """Round float32 or float64, contiguous, to the nearest of ``halves``."""
    singles = numbers if numbers.dtype == SINGLE else _to_odd(numbers)
    contiguous = halves if halves.flags.c_contiguous else np.empty(halves.shape, halves.dtype)
    _convert(_NARROW, singles, contiguous, halves.dtype.name)
    if contiguous is not halves:
        halves[...] = contiguous


def _convert(engines: dict[str, Engine], source: Array, target: Array, name: str) -> None:
    source, target = source.reshape(-1), target.reshape(-1)
    pairs = 0 if numba.config.DISABLE_JIT else source.size // 2 * 2
    if pairs:
        a, out = (x[:pairs].view(SINGLE).reshape(1, 1, 1, 1, 1, -1) for x in (source, target))
        engines[name](a, a, None, out)
    with np.errstate(over="ignore", invalid="ignore"):
        target[pairs:] = source[pairs:]  # NumPy takes the last of an odd number


def _to_odd(doubles: Array) -> Array:
    """float64 to a neighbour in float32: where not exact, to the one whose last bit is 1.

    A number halfway between two of less bits stands for itself only, so that rounding to these
    comes out as it would from float64 (S. Boldo and G. Melquiond, "Emulation of FMA and correctly
    rounded sums", IEEE Transactions on Computers 57(4), 2008).
    """
    with np.errstate(over="ignore", invalid="ignore"):
        singles = doubles.astype(np.float32)
    bits = singles.view(np.uint32)
    bits -= np.abs(singles) > np.abs(doubles)  # towards zero
    bits |= (singles != doubles) & ~np.isnan(doubles)
    return singles
