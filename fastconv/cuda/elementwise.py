"""What gradients need beside convolutions: arrays joined, filled with a bias, and masked."""

from math import prod
from typing import Any

import numpy as np
from numba import cuda

from ..geometry import Ints
from .arrays import Operand, dtype_of, empty_like, operand, stream_of
from .kernel import Kernel, blocks_for, kernel, word_of
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


@kernel("ppp6666")
def mask_elements(wide):
    """``out[i] = a[i]`` where ``y[i]`` is above 0 or NaN, 0 elsewhere."""

    def mask(a, y, out, sa, sy, so, shape):
        elements = shape[0] * shape[1] * shape[2] * shape[3] * shape[4] * shape[5]
        for i in range(cuda.grid(1), elements, cuda.gridsize(1)):
            i0, i1, i2, i3, i4, i5 = unravel(i, shape)
            value = wide(a[offset(sa, i0, i1, i2, i3, i4, i5)])
            if wide(y[offset(sy, i0, i1, i2, i3, i4, i5)]) <= wide(0):
                value = wide(0)
            out[offset(so, i0, i1, i2, i3, i4, i5)] = value

    return mask


def copy(source: Operand, target: Operand, like: Array) -> None:
    """``target[i] = source[i]`` for the indices that ``source`` has; a stride of 0 repeats."""
    dtype, stream = word_of(dtype_of(like)), stream_of(like)
    for word in range(dtype_of(like).itemsize // source.itemsize):
        launch(copy_elements, (source.moved(word), target.moved(word)), dtype, stream)


def mask(a: Array, y: Array) -> Array:
    """A new array: ``a`` where ``y``, of the same shape, is above 0 or NaN, 0 elsewhere."""
    out = empty_like(a, tuple(a.shape))
    mask_into(out, a, y)
    return out


def mask_into(out: Array, a: Array, y: Array) -> None:
    """The same, written to ``out``, which may be ``a`` or ``y``."""
    launch(mask_elements, (operand(a), operand(y), operand(out)), dtype_of(a), stream_of(a))


def launch(
    elementwise: Kernel, operands: tuple[Operand, ...], dtype: np.dtype[Any], stream: int
) -> None:
    """Run the kernel of a dtype for all indices of the first operand."""
    shape = operands[0].shape
    missing = 6 - len(shape)
    elementwise.launch(
        dtype,
        stream,
        blocks_for(prod(shape)),
        *[each.pointer for each in operands],
        *[(0,) * missing + each.strides for each in operands],
        (1,) * missing + shape,
    )


def side_by_side(a: Array, b: Array, axis: int, groups: int) -> Array:
    """``a`` and ``b``, of one shape, joined along an axis within each of its ``groups``."""
    shape = tuple(a.shape)
    outer, length, inner = shape[:axis], shape[axis], shape[axis + 1 :]
    joined = empty_like(a, (*outer, 2 * length, *inner))
    cut, own = _cut(joined, axis, groups), length // groups
    for array, start in ((a, 0), (b, own)):
        place = (slice(start, None, 1), *[slice(0, None, 1)] * len(inner))
        copy(_cut(array, axis, groups), cut.part(place), a)
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
