"""Numbers on a device that no kernel has: converted, computed, and converted back.

bfloat16 goes to float32, and what is summed in float64 to that. Integers are summed in int32, or in
int64 for results of 64 bits: modulo 2**bits of the result, these are its sums.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .. import converted, cuda
from ..dtypes import Numbers
from ..geometry import ConvGeometry, Ints
from ..plan.cuda import dtype_for, explain_choice, precision_for
from .arrays import dtype_of, empty_like, operand
from .conversion import Conversion, convert
from .elementwise import mask_into
from .kernel import word_of

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
        if word_of(self.numbers.x) == self.numbers.x:  # the kernel reads them as they are
            return cuda.mask(a, y)
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

    def _to_image(
        self,
        map_name: str,
        source: Array,
        weight: Array,
        bias: Array | None,
        g: ConvGeometry,
        out: Array,
        algorithm: str,
        relu: bool,
    ) -> Array:
        """A map from the images ``source`` to the images ``out``."""
        super()._to_image(map_name, source, weight, bias, g, out, algorithm, False)
        if relu:  # their own bits say what is below zero: those of their sums may not
            mask_into(out, out, out)
        return out

    def max_pool(
        self, x: Array, geometry: ConvGeometry, ndim: int, out: Array, indexed: bool
    ) -> Array | None:
        """Write the largest numbers of windows into ``out``; return their indices, if wanted."""
        return cuda.max_pool(x, geometry, ndim, out, indexed)  # which needs no sums
