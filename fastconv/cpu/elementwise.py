"""What gradients need beside convolutions: arrays joined, filled with a bias, and masked."""

from math import ceil
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from ..geometry import Ints
from ..memory import empty
from .blocks import Tables
from .engine import Engine
from .kernel import Kernel
from .simd import lanes, load, load_first, store, store_first, where_positive
from .stages import Plan
from .views import Layout

Array = NDArray[Any]

PIECE = 16384  # numbers to a task

# What a number counts for, where the driver asks whether there is enough to share out: in the time
# that three take to come and go, a core does about as many operations.
OPERATIONS = 16


def side_by_side(a: Array, b: Array, axis: int, groups: int) -> Array:
    """``a`` and ``b``, of one shape, joined along an axis within each of its ``groups``.

    >>> side_by_side(np.array([1, 2, 3, 4]), np.array([5, 6, 7, 8]), axis=0, groups=2)
    array([1, 2, 5, 6, 3, 4, 7, 8])
    """
    outer, length, inner = a.shape[:axis], a.shape[axis], a.shape[axis + 1 :]
    joined = empty((*outer, 2 * length, *inner), a.dtype)
    parts = [x.reshape(*outer, groups, length // groups, *inner) for x in (a, b)]
    cut = joined.reshape(*outer, groups, 2 * length // groups, *inner)
    np.concatenate(parts, axis + 1, out=cut)
    return joined


def spread_bias(bias: Array, shape: Ints, ndim: int, channels_last: bool) -> Array:
    """A new array of an image's shape that has the bias of its channel in every pixel."""
    out = empty(shape, bias.dtype)
    out[...] = bias if channels_last else bias.reshape(-1, *[1] * ndim)
    return out


def mask(a: Array, y: Array) -> Array:
    """A new array: ``a`` where ``y``, of the same shape, is above 0 or NaN, 0 elsewhere."""
    if numba.config.DISABLE_JIT:
        return np.where(y <= 0, np.zeros((), a.dtype), a)
    out = empty(a.shape, a.dtype)
    if out.size:
        line = (1, 1, 1, 1, 1, out.size)
        a, y = (np.ascontiguousarray(x).reshape(line) for x in (a, y))
        _mask(a, y, None, out.reshape(line))
    return out


@Kernel
def mask_piece(task, slot, size, table, a, y, unused, out, work):
    """``out = a`` where ``y`` is above 0 or NaN, 0 elsewhere, for one piece of ``size[0]``."""
    width = lanes(out)
    first = task * PIECE
    end = min(first + PIECE, size[0])
    whole = end - (end - first) % width
    for i in range(first, whole, width):
        store(out, i, where_positive(load(a, i), load(y, i)))
    if whole < end:
        rest = where_positive(load_first(a, whole, end - whole), load_first(y, whole, end - whole))
        store_first(out, whole, rest, end - whole)


@Engine
def _mask(dtype: np.dtype[Any], threads: int, a: Layout, y: Layout, out: Layout) -> Plan:
    count = out.shape[5]
    stages = [(mask_piece, ceil(count / PIECE))]
    return Plan(dtype, stages, (count,), Tables(), 0, OPERATIONS * count)
