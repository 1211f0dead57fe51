"""Complex numbers on a device: their parts as channels of a real convolution.

As on the CPU, where ``cpu/complexes.py`` says why that is one. Wide images have channels 2c and
2c+1 for the parts of channel c, and wide filters

    wide[2k+i, 2c+j] = [[Re w, -Im w], [Im w, Re w]][i, j]
    Re dw = wide[2k, 2c] + wide[2k+1, 2c+1]        Im dw = wide[2k+1, 2c] - wide[2k, 2c+1]

with the signs of both imaginary parts turned around for transposed convolutions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

from ..dtypes import COMPLEX, Numbers, check_ordered
from ..geometry import ConvGeometry, Ints
from .arrays import Operand, dtype_of, empty_like, operand, stream_of
from .conversion import Conversion, convert, gather_filters, spread_filters
from .converted import Converted
from .kernel import Kernel, blocks_for

Array = Any


class Complex(Converted):
    """A backend as ``cuda`` is one, for complex numbers."""

    def __init__(self, numbers: Numbers) -> None:
        super().__init__(numbers)
        self.sign = -1 if numbers.transposed else 1  # of the imaginary parts of filters

    def geometry(self, g: ConvGeometry) -> ConvGeometry:
        return g.of_parts

    def image(self, image: Array, grouped: Ints, g: ConvGeometry, ndim: int) -> Array:
        return self._parts(image, _channels(image, g.channels_last, ndim))

    def bias(self, bias: Array | None) -> Array | None:
        return None if bias is None else self._parts(bias, 0)

    def filters(self, filters: Array, g: ConvGeometry) -> Array:
        outer, inner, *taps = filters.shape
        wide = empty_like(filters, (2 * outer, 2 * inner, *taps), self.sums)
        conversion = Conversion(COMPLEX[dtype_of(filters)], self.sums)
        each, parts = _in_six_axes(filters, False), _in_six_axes(wide, False)
        self._launch(spread_filters.of(conversion), conversion, each, parts, each.shape)
        return wide

    @contextmanager
    def image_result(
        self, out: Array, grouped: Ints, g: ConvGeometry, ndim: int
    ) -> Iterator[Array]:
        if dtype_of(out) == self.sums:
            yield out
            return
        axis = _channels(out, g.channels_last, ndim)
        sums = empty_like(out, _doubled(out, axis), self.sums)
        yield sums
        self._join(sums, out, axis)

    @contextmanager
    def filters_result(self, out: Array, g: ConvGeometry, per_sample: bool) -> Iterator[Array]:
        if dtype_of(out) == self.sums:
            yield out
            return
        *samples, outer, inner = out.shape[: 2 + per_sample]
        shape = (*samples, 2 * outer, 2 * inner, *out.shape[2 + per_sample :])
        sums = empty_like(out, shape, self.sums)
        yield sums
        conversion = Conversion(self.sums, COMPLEX[dtype_of(out)])
        parts, each = _in_six_axes(sums, per_sample), _in_six_axes(out, per_sample)
        self._launch(gather_filters.of(conversion), conversion, parts, each, each.shape)

    def grad_bias(self, grad_output: Array, shape: Ints, channels_last: bool) -> Array:
        """Sum ``grad_output`` by channel."""
        axis = _channels(grad_output, channels_last, len(shape) - 2)
        parts = (shape[0], 2 * shape[1], *shape[2:])
        sums = self.backend.grad_bias(self._parts(grad_output, axis), parts, channels_last)
        out = empty_like(grad_output, shape[1:2])
        self._join(sums, out, 0)
        return out

    def mask(self, a: Array, y: Array) -> Array:
        """Raise TypeError: complex numbers have no order."""
        check_ordered(self.numbers.x)

    def _parts(self, array: Array, axis: int) -> Array:
        """The parts of an array as a wide one, along an axis of twice the extent."""
        if dtype_of(array) == self.sums:
            return array
        parts = empty_like(array, _doubled(array, axis), self.sums)
        conversion = Conversion(COMPLEX[dtype_of(array)], self.sums)
        convert(_in_parts(array), _split(parts, axis), conversion, array)
        return parts

    def _join(self, parts: Array, out: Array, axis: int) -> None:
        conversion = Conversion(self.sums, COMPLEX[dtype_of(out)])
        convert(_split(parts, axis), _in_parts(out), conversion, out)

    def _launch(
        self,
        kernel: Kernel,
        conversion: Conversion,
        source: Operand,
        target: Operand,
        shape: Ints,
    ) -> None:
        """Run a kernel that has a thread for each complex number of filters of this shape."""
        kernel.launch(
            conversion.target,
            stream_of(target.owner),
            blocks_for(prod(shape)),
            source.pointer,
            target.pointer,
            source.strides,
            target.strides,
            shape,
            self.sign,
        )


def _channels(image: Array, channels_last: bool, ndim: int) -> int:
    """The axis of an image, as the caller has it, that has the channels."""
    return len(image.shape) - 1 - (0 if channels_last else ndim)


def _doubled(array: Array, axis: int) -> Ints:
    shape = [*array.shape]
    shape[axis] *= 2
    return tuple(shape)


def _in_parts(array: Array) -> Operand:
    """A complex array with an axis for its parts as the last one."""
    whole = operand(array)
    return whole._replace(shape=(*whole.shape, 2), strides=(*whole.strides, 1))


def _split(parts: Array, axis: int) -> Operand:
    """The same of their wide copy, which has them along an axis, one after the other."""
    whole = operand(parts)
    shape, strides = [*whole.shape], [*whole.strides]
    shape[axis] //= 2
    step, strides[axis] = strides[axis], 2 * strides[axis]
    return whole._replace(shape=(*shape, 2), strides=(*strides, step))


def _in_six_axes(filters: Array, per_sample: bool) -> Operand:
    """Filters as (N, K, C/G, T, R, S), where N is that of samples or 1."""
    whole = operand(filters)
    lead = 2 + per_sample
    batch, none = (1,) * (not per_sample), 6 - len(whole.shape) - (not per_sample)
    return whole._replace(
        shape=(*batch, *whole.shape[:lead], *[1] * none, *whole.shape[lead:]),
        strides=(*batch, *whole.strides[:lead], *[0] * none, *whole.strides[lead:]),
    )
