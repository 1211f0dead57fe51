"""float16 and bfloat16: to float32, which has all their numbers, and back to the nearest of them.

Numbers are bits here: a sign, the exponent (5 bits of float16, 8 of bfloat16 and float32) and the
fraction. bfloat16 is the upper half of float32. Numba knows neither; NumPy converts float16 in
4 ms where these loops take 0.3: 3.2 million numbers, of a layer that takes 7.
"""

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from ..caching import PerDtype
from ..memory import COPY_BYTES, empty

Array = NDArray[Any]
DType = np.dtype[Any]

BITS = np.dtype(np.uint16)
SINGLE = np.dtype(np.float32)

# Of float32, as bits: infinity, the least that rounds to infinity in float16, and the least that is
# normal there. Exponents of float32 are larger by 112.
INFINITY = 0x7F800000
TOO_LARGE = 0x477FF000
NORMAL = 0x38800000
BIAS = 112 << 23


def _loop(source: types.Type, target: types.Type) -> Any:
    arrays = types.Array(source, 1, "C", readonly=True), types.Array(target, 1, "C")
    return lambda function: PerDtype(function, lambda scalar: types.void(*arrays), nogil=True)


_to_single = _loop(types.uint16, types.uint32)
_to_half = _loop(types.uint32, types.uint16)


@_to_single
def _widen_float16(halves, singles):
    for i in range(halves.size):
        half = np.uint32(halves[i])
        sign, magnitude = np.uint32((half & 0x8000) << 16), np.uint32(half & 0x7FFF)
        if magnitude < 0x0400:  # without a leading 1: a multiple of 2**-24
            bits = np.float32(magnitude * np.float32(2.0**-24)).view(np.uint32)
        elif magnitude < 0x7C00:
            bits = np.uint32((magnitude << 13) + BIAS)
        else:  # infinity, or NaN with its payload
            bits = np.uint32((magnitude << 13) | INFINITY)
        singles[i] = sign | bits


@_to_single
def _widen_bfloat16(halves, singles):
    for i in range(halves.size):
        singles[i] = np.uint32(halves[i]) << 16


@_to_half
def _narrow_float16(singles, halves):
    for i in range(singles.size):
        sign, magnitude = singles[i] >> 16 & 0x8000, np.uint32(singles[i] & 0x7FFFFFFF)
        if magnitude > INFINITY:  # NaN: quiet, with what its payload has in front
            bits = np.uint32(0x7E00 | (magnitude >> 13 & 0x03FF))
        elif magnitude >= TOO_LARGE:
            bits = np.uint32(0x7C00)
        elif magnitude < NORMAL:  # multiples of 2**-24: to these a sum with 0.5 is rounded
            value = np.float32(np.uint32(magnitude).view(np.float32) + np.float32(0.5))
            bits = np.uint32(np.float32(value).view(np.uint32) - 0x3F000000)
        else:  # half a unit less one, and the one where the last bit is 1: ties go to even
            bits = np.uint32((magnitude - BIAS + 0x0FFF + (magnitude >> 13 & 1)) >> 13)
        halves[i] = sign | bits


@_to_half
def _narrow_bfloat16(singles, halves):
    for i in range(singles.size):
        single = np.uint32(singles[i])
        if np.uint32(single & 0x7FFFFFFF) > INFINITY:
            bits = np.uint32(single >> 16 | 0x0040)
        else:
            bits = np.uint32((single + 0x7FFF + (single >> 16 & 1)) >> 16)
        halves[i] = bits


def _loops_of(dtype: DType) -> tuple[PerDtype, PerDtype]:
    if dtype == np.float16:
        return _widen_float16, _narrow_float16
    return _widen_bfloat16, _narrow_bfloat16


def widen(halves: Array) -> Array:
    """Halves as float32: a contiguous copy."""
    singles = empty(halves.shape, SINGLE, COPY_BYTES)
    loop, _ = _loops_of(halves.dtype)
    loop[BITS](_bits(np.ascontiguousarray(halves), np.uint16), _bits(singles, np.uint32))
    return singles


def narrow(numbers: Array, halves: Array) -> None:
    """Round float32 or float64, contiguous, to the nearest of ``halves``."""
    _, loop = _loops_of(halves.dtype)
    singles = numbers if numbers.dtype == np.float32 else _to_odd(numbers)
    contiguous = halves if halves.flags.c_contiguous else np.empty(halves.shape, halves.dtype)
    loop[BITS](_bits(singles, np.uint32), _bits(contiguous, np.uint16))
    if contiguous is not halves:
        halves[...] = contiguous


def _bits(contiguous: Array, kind: type) -> Array:
    return contiguous.reshape(-1).view(kind)


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
