"""What gradients need beside convolutions: arrays joined, and filled with a bias.

One kernel copies elements from any strides to any others; a stride of 0 repeats them.
"""

from math import prod
from typing import Any

from numba import cuda

from ..geometry import Ints
from .arrays import Operand, dtype_of, empty_like, operand, stream_of
from .kernel import blocks_for, kernel
from .reference import offset, unravel

Array = Any


@kernel("pp666")
def copy_elements(wide):
    """``target[i] = source[i]`` for all indices of an array of this shape."""

    def copy(source, target, ss, ts, shape):
        elements = shape[0] * shape[1] * shape[2] * shape[3] * shape[4] * shape[5]
        for i in range(cuda.grid(1), elements, cuda.gridsize(1)):
            i0, i1, i2, i3, i4, i5 = unravel(i, shape)
            value = wide(source[offset(ss, i0, i1, i2, i3, i4, i5)])
            target[offset(ts, i0, i1, i2, i3, i4, i5)] = value

    return copy


def copy(source: Operand, target: Operand, like: Array) -> None:
    """Write ``source`` to the elements of ``target`` of the same indices, on ``like``'s stream."""
    ones = (1,) * (6 - len(source.shape))
    zeros = (0,) * len(ones)
    copy_elements.launch(
        dtype_of(like),
        stream_of(like),
        blocks_for(prod(source.shape)),
        source.pointer,
        target.pointer,
        zeros + source.strides,
        zeros + target.strides,
        ones + source.shape,
    )


def side_by_side(a: Array, b: Array, axis: int, groups: int) -> Array:
    """``a`` and ``b``, of one shape, joined along an axis within each of its ``groups``."""
    shape = tuple(a.shape)
    outer, length, inner = shape[:axis], shape[axis], shape[axis + 1 :]
    joined = empty_like(a, (*outer, 2 * length, *inner))
    cut, own = _cut(joined, axis, groups), length // groups
    for array, start in ((a, 0), (b, own)):
        place = (slice(start, None, 1), *[slice(0, None, 1)] * len(inner))
        copy(_cut(array, axis, groups), cut.part(place, dtype_of(a).itemsize), a)
    return joined


def _cut(array: Array, axis: int, groups: int) -> Operand:
    """The array with an axis cut into two, of groups and of what is in each."""
    whole = operand(array)
    own, step = whole.shape[axis] // groups, whole.strides[axis]
    return whole._replace(
        shape=(*whole.shape[:axis], groups, own, *whole.shape[axis + 1 :]),
        strides=(*whole.strides[:axis], own * step, step, *whole.strides[axis + 1 :]),
    )


def spread_bias(bias: Array, shape: Ints, ndim: int, channels_last: bool) -> Array:
    """A new array of an image's shape that has the bias of its channel in every pixel."""
    out, shape = empty_like(bias, shape), tuple(shape)
    source, strides = operand(bias), [0] * len(shape)
    strides[-1 if channels_last else -1 - ndim] = source.strides[0]
    copy(source._replace(shape=shape, strides=tuple(strides)), operand(out), bias)
    return out
