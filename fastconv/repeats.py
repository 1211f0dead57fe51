"""Calls that are like earlier ones: straight to what they come to.

Which kernels a call runs, and how, depends on all of its arguments but the numbers in the arrays.
To find that out takes 3.5 of the 5.6 us of a convolution of one 8x8 image, to look it up 0.7. Of
larger ones, whose data has driven Python's out of the caches, it takes 50 us.
"""

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arguments import is_plain

Array = NDArray[Any]
Repeat = Callable[[Array, Array, Array | None], Array]

# Enough for all layers of a network: with more in turn, each would be looked at again.
KEPT = 1024

# None stands for calls that have to be looked at in earnest every time.
_known: dict[Hashable, Repeat | None] = {}


def key_of(
    name: str,
    ndim: int,
    a: Array,
    b: Array,
    bias: Array | None,
    numbers: tuple[object, ...],
    words: tuple[object, ...],
) -> Hashable:
    """What a call depends on; None of one that has to be looked at in earnest.

    Parameters
    ----------
    name, ndim
        Of the function.
    a, b, bias
        Its arrays, if they are some.
    numbers
        Arguments that are integers, tuples of such, or words.
    words
        Arguments that are words or None, and not allowed to be anything else.
    """
    if not type(a) is type(b) is np.ndarray:
        return None
    if not (a.flags.aligned and b.flags.aligned):
        return None
    of_bias = None
    if bias is not None:
        if type(bias) is not np.ndarray or not (bias.flags.c_contiguous and bias.flags.aligned):
            return None
        of_bias = bias.dtype, bias.shape
    for number in numbers:
        if type(number) is not int and not is_plain(number):
            return None
    layouts = a.dtype, a.shape, a.strides, b.dtype, b.shape, b.strides, of_bias
    return name, ndim, layouts, numbers, words


def known(key: Hashable) -> Repeat | None:
    """What a call of this key comes to, if there was one; for None, None."""
    try:
        return _known.get(key)
    except TypeError:  # as in is_new, or it is a list, and the call in for a complaint
        return None


def is_new(key: Hashable) -> bool:
    """Whether there is a key, and no call of it has been looked at."""
    try:
        return key is not None and key not in _known
    except TypeError:  # a word is an array of one, which cannot be looked up
        return False


def keep(key: Hashable, repeat: Repeat | None) -> None:
    """Remember what calls of a key come to, or, for None, that each may come to something else."""
    if len(_known) >= KEPT:
        _known.clear()
    _known[key] = repeat
