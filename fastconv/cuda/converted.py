"""Numbers on a device that no kernel has: converted, computed, and converted back.

bfloat16 goes to float32, and what is summed in float64 to that. Integers are summed in int32, or in
int64 for results of 64 bits: modulo 2**bits of the result, these are its sums.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .. import converted, cuda
from ..dtypes import Numbers, check_ordered
from ..geometry import ConvGeometry, Ints
from ..plan.cuda import dtype_for, explain_choice, precision_for
from .arrays import dtype_of, empty_like, operand
from .conversion import Conversion, convert
from .elementwise import mask_into

Array = Any


class Converted(converted.Converted):
    """A backend as ``cuda`` is one, for bfloat16, and for what is summed in float64."""

    def __init__(self, numbers: Numbers) -> None:
        super().__init__(numbers, dtype_for(numbers), cuda)

    def choose(
        self, map_name: str, geometry: ConvGeometry, x: Array, algorithm: str, precision: str
    ) -> str:
        """The algorithm for a map."""
        g = self.geometry(geometry)
        precision = precision_for(self.numbers, precision)
        return explain_choice(map_name, g, self.sums, algorithm, precision).algorithm

    def wide(self, array: Array) -> Array:
        """A wide copy, or the array itself if it is wide."""
        if dtype_of(array) == self.sums:
            return array
        wide = empty_like(array, tuple(array.shape), self.sums)
        self._copy(array, wide)
        return wide

    @contextmanager
    def summed(self, out: Array) -> Iterator[Array]:
        """A wide array for sums, which then are rounded to ``out``; itself, if it is wide."""
        if dtype_of(out) == self.sums:
            yield out
            return
        sums = empty_like(out, tuple(out.shape), self.sums)
        yield sums
        self._copy(sums, out)

    def _copy(self, source: Array, target: Array) -> None:
        conversion = Conversion(dtype_of(source), dtype_of(target))
        convert(operand(source), operand(target), conversion, source)

    def grad_bias(self, grad_output: Array, shape: Ints, channels_last: bool) -> Array:
        """Sum ``grad_output`` by channel."""
        sums = cuda.grad_bias(self.wide(grad_output), shape, channels_last)
        out = empty_like(grad_output, tuple(sums.shape))
        self._copy(sums, out)
        return out

    def mask(self, a: Array, y: Array) -> Array:
        """A new array: ``a`` where ``y``, of the same shape, is above 0 or NaN, 0 elsewhere."""
        check_ordered(self.numbers.x)
        out = empty_like(a, tuple(a.shape))
        with self.summed(out) as masked:
            mask_into(masked, self.wide(a), self.wide(y))
        return out


class Integers(Converted):
    """The same for integers: they have no gradients."""

    def result_like(
        self, x: Array, shape: Ints, out: Array | None, inputs: tuple[Array | None, ...]
    ) -> Array:
        """The array for the result."""
        return cuda.result_like(x, shape, out, inputs, self.numbers.result)

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
        super().forward(x, weight, bias, geometry, out, algorithm)
        return self._activated(out, relu)

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
        super().grad_input(grad_output, weight, bias, geometry, out, algorithm)
        return self._activated(out, relu)

    def max_pool(
        self, x: Array, geometry: ConvGeometry, ndim: int, out: Array, indexed: bool
    ) -> Array | None:
        """Write the largest numbers of windows into ``out``; return their indices, if wanted."""
        return cuda.max_pool(x, geometry, ndim, out, indexed)  # which needs no sums

    def _activated(self, out: Array, relu: bool) -> Array:
        """``out``, whose own bits say what is below zero: those of its sums may not."""
        if relu:
            mask_into(out, out, out)
        return out
