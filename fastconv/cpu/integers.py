"""Integers: exact sums, by kernels of floating-point numbers that round none of them.

Whole numbers up to 2**24 are exact in float32, up to 2**53 in float64, and so are sums of them that
stay below, in any order. Numbers of 8 and 16 bits go to the kernels as they are, so many channels
at a time as that allows; what comes back is added up modulo 2**bits. Wider ones go there as digits
of 16 bits:

    x = sum_i x_i 2**16i     w = sum_j w_j 2**16j
    sum x w = sum_m 2**16m (sum_{i+j=m} sum x_i w_j)     for 16m < bits: the rest is 0 mod 2**bits

of which the sum in brackets is one convolution, with as many times the channels as it has terms.
"""

from dataclasses import replace
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import cpu
from ..dtypes import Numbers
from ..geometry import ConvGeometry, Ints
from ..memory import copied, empty
from ..plan import Choice
from ..plan import cpu as plan
from ..results import result_like
from .padding import pad_plainly
from .stored_backend import Stored

Array = NDArray[Any]
DType = np.dtype[Any]

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
INT32, INT64 = np.dtype(np.int32), np.dtype(np.int64)
EXACT = {FLOAT32: 2**24, FLOAT64: 2**53}

# Channels at a time from which float32 is taken: 13 parts of 9 channels, 5x5, in 0.65 of the time
# that all 128 take in float64, 3 parts of 85, 3x3, in 0.53; 2 parts of 8, 5x5, in 1.13.
ENOUGH = 9


class Part(NamedTuple):
    """A convolution that makes up the result, of this ``geometry``.

    Of ``channels`` of the source, a slice, it adds up the products of its ``digits``, pairs (i, j),
    which are worth ``2**shift``. ``whole`` is an integer dtype that has all such sums.
    """

    channels: slice
    digits: tuple[tuple[int, int], ...]
    shift: int
    whole: DType
    geometry: ConvGeometry


class Sums(NamedTuple):
    """How a map is computed: in this dtype, as these parts."""

    dtype: DType
    parts: tuple[Part, ...]


def digits_of(dtype: DType) -> tuple[DType, ...]:
    """Dtypes of the digits of a number: the last one has the sign.

    >>> digits_of(np.dtype("int32")), digits_of(np.dtype("uint8"))
    ((dtype('uint16'), dtype('int16')), (dtype('uint8'),))
    """
    if dtype.itemsize <= 2:
        return (dtype,)
    return (*(dtype.itemsize // 2 - 1) * (np.dtype(np.uint16),), np.dtype(f"{dtype.kind}2"))


def _magnitude(dtype: DType) -> int:
    facts = np.iinfo(dtype)
    return max(-int(facts.min), int(facts.max))


@lru_cache(maxsize=1024)
def sums_of(numbers: Numbers, map_name: str, g: ConvGeometry) -> Sums | None:
    """How a map is computed; None if the taps of one channel are too many for exact sums."""
    x, weight = digits_of(numbers.x), digits_of(numbers.weight)
    forward = map_name == "forward"
    channels = (g.in_channels if forward else g.out_channels) // g.groups
    largest = _magnitude(x[0]) * _magnitude(weight[0]) * prod(g.kernel)  # of sums over a channel
    dtype = FLOAT32 if largest * min(channels, ENOUGH) <= EXACT[FLOAT32] else FLOAT64
    parts = []
    for m in range(min(len(x) + len(weight) - 1, -(-numbers.result.itemsize // 2))):
        digits = tuple([(i, m - i) for i in range(len(x)) if 0 <= m - i < len(weight)])
        largest_of_all = largest * len(digits)
        at_once = min(EXACT[dtype] // largest_of_all, channels)
        if at_once == 0:
            return None
        whole = INT32 if largest_of_all * at_once < 2**31 else INT64
        count = -(-channels // at_once)
        for k in range(count):
            some = slice(k * channels // count, (k + 1) * channels // count)
            n = g.groups * len(digits) * (some.stop - some.start)
            geometry = replace(g, in_channels=n) if forward else replace(g, out_channels=n)
            parts.append(Part(some, digits, 16 * m, whole, geometry))
    return Sums(dtype, tuple(parts))


class Integers(Stored):
    """A backend as ``cpu`` is one, for the maps of integers: they have no gradients."""

    def __init__(self, numbers: Numbers) -> None:
        self.numbers = numbers

    def explain_choice(self, map_name: str, g: ConvGeometry, algorithm: str) -> Choice:
        sums = sums_of(self.numbers, map_name, g)
        if sums is None:
            choice = plan.explain_choice(map_name, g, FLOAT64, algorithm)
            served = choice.algorithm == "reference"
            instead, obstacle = "reference", f"sums over {prod(g.kernel)} taps would be rounded"
        else:
            geometry = sums.parts[0].geometry
            choice = plan.explain_choice(map_name, geometry, sums.dtype, algorithm)
            served = choice.algorithm != "winograd"
            instead, obstacle = "direct", "winograd would round sums of integers"
        if served:
            return choice
        if algorithm != "auto":
            raise ValueError(f'algorithm "{algorithm}" cannot serve this call: {obstacle}')
        return Choice(instead, obstacle)

    def requirements(self, map_name: str, g: ConvGeometry, algorithm: str) -> Ints:
        sums = sums_of(self.numbers, map_name, g)
        if sums is None or algorithm == "reference":
            return g.operations, INT64.itemsize * self.copies(g), 1
        each = [
            (part.geometry, cpu.requirements(map_name, part.geometry, sums.dtype, algorithm))
            for part in sums.parts
        ]
        operations = sum(needs[0] for _, needs in each)
        elements = max(self.copies(part) + needs[1] for part, needs in each)
        return operations, sums.dtype.itemsize * elements, max(needs[2] for _, needs in each)

    def result_like(
        self, x: Array, shape: Ints, out: Array | None, inputs: tuple[Array | None, ...]
    ) -> Array:
        """The array for the result."""
        return result_like(x, shape, out, inputs, self.numbers.result)

    def forward(
        self,
        x: Array,
        weight: Array,
        bias: Array | None,
        geometry: ConvGeometry,
        out: Array,
        algorithm: str,
        relu: bool = False,
    ) -> Array:
        """Correlate ``x`` with ``weight``."""
        return self._run("forward", x, weight, bias, geometry, out, algorithm, relu)

    def grad_input(
        self,
        grad_output: Array,
        weight: Array,
        bias: Array | None,
        geometry: ConvGeometry,
        out: Array,
        algorithm: str,
        relu: bool = False,
    ) -> Array:
        """Correlate with the flipped filters: the transposed convolution."""
        return self._run("grad_input", grad_output, weight, bias, geometry, out, algorithm, relu)

    def max_pool(
        self, x: Array, geometry: ConvGeometry, ndim: int, out: Array, indexed: bool
    ) -> Array | None:
        """Write the largest numbers of windows into ``out``; return their indices, if wanted.

        Of no more than 32 bits, as float64 has them.
        """
        y = empty(out.shape, FLOAT32 if x.itemsize <= 2 else FLOAT64)
        indices = cpu.max_pool(copied(x, y.dtype), geometry, ndim, y, indexed)
        np.maximum(y, np.iinfo(x.dtype).min, out=y)  # -inf where there is nothing but padding
        np.copyto(out, y, casting="unsafe")
        return indices

    def pad(self, x: Array, geometry: ConvGeometry, ndim: int, out: Array) -> None:
        """Copy ``x`` with its padding around it."""
        g = geometry
        image = cpu.grouped_image(x, g.x_shape, g)
        pad_plainly(image, cpu.grouped_image(out, g.padded.x_shape, g), *g.segments)

    kept_size = staticmethod(cpu.kept_size)
    temporary = staticmethod(cpu.temporary)

    def _run(
        self,
        map_name: str,
        x: Array,
        weight: Array,
        bias: Array | None,
        g: ConvGeometry,
        out: Array,
        algorithm: str,
        relu: bool,
    ) -> Array:
        """A map from the image ``x`` to the image ``out``."""
        compute, axis = getattr(cpu, map_name), 2 if map_name == "forward" else 1
        source, target = (g.x_shape, g.y_shape)[:: 1 if axis == 2 else -1]
        result = cpu.grouped_image(out, target, g)
        if algorithm == "reference":
            # In int64 alone: the others are the same modulo 2**bits.
            total = empty(out.shape, INT64)
            with np.errstate(over="ignore"):  # of plain Python, without the compiler
                compute(copied(x, INT64), copied(weight, INT64), None, g, total, algorithm)
            out[...] = total.astype(out.dtype)
        else:
            how = sums_of(self.numbers, map_name, g)
            assert how is not None  # or "reference" had been chosen
            dtype, parts = how
            xs = [cpu.grouped_image(digit, source, g) for digit in _digits(x, dtype)]
            ws = [digit.reshape(g.weight_shape) for digit in _digits(weight, dtype)]
            sums = cpu.grouped_image(empty(out.shape, dtype), target, g)
            for part in parts:
                some = (*axis * (slice(None),), part.channels)
                a = _joined([xs[i][:, :, part.channels] for i, _ in part.digits], 2)
                b = _joined([ws[j][some] for _, j in part.digits], axis)
                compute(a, b, None, part.geometry, sums, algorithm)
                _add(sums, part, result, first=part is parts[0])
        if bias is not None:
            result += bias.reshape(*target[1:3], 1, 1, 1)
        if relu:
            np.maximum(result, 0, out=result)
        return out


def _digits(numbers: Array, dtype: DType) -> list[Array]:
    """The digits of numbers, in a dtype of the kernels."""
    kinds = digits_of(numbers.dtype)
    if len(kinds) == 1:
        return [copied(numbers, dtype)]
    return [copied((numbers >> 16 * i).astype(kind), dtype) for i, kind in enumerate(kinds)]


def _joined(digits: list[Array], axis: int) -> Array:
    return digits[0] if len(digits) == 1 else np.concatenate(digits, axis)


def _add(sums: Array, part: Part, result: Array, first: bool) -> None:
    """``result += sums * 2**shift``, or ``=`` for the first part, modulo 2**bits."""
    if first and result.itemsize >= part.whole.itemsize:
        # As signed numbers: NumPy does not say what becomes of negative floats without a sign.
        np.copyto(result.view(f"i{result.itemsize}"), sums, casting="unsafe")
        return
    whole = copied(sums, part.whole)
    if part.shift:
        np.left_shift(whole, part.shift, out=whole)
    wrapped = whole.astype(result.dtype, copy=False)
    if first:
        result[...] = wrapped
    else:
        result += wrapped
