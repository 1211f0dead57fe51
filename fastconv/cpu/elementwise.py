"""What gradients need beside convolutions: arrays joined, and filled with a bias."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..geometry import Ints
from ..memory import empty

Array = NDArray[Any]


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
