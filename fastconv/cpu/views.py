"""The form in which arrays reach the kernels, all of them views: nothing is copied."""

from typing import Any, NamedTuple

from numpy.typing import NDArray

from .blocks import Ints


class Layout(NamedTuple):
    """Where the elements of an array lie, strides counted in elements."""

    shape: Ints
    strides: Ints


def layout(shape: Ints, byte_strides: Ints, itemsize: int) -> Layout:
    """Layout of an array, given what NumPy says of it."""
    return Layout(shape, tuple([stride // itemsize for stride in byte_strides]))


def aligned(x: NDArray[Any]) -> NDArray[Any]:
    """``x``, or a copy if its elements do not lie whole numbers of elements apart."""
    return x if x.flags.aligned else x.copy()


def flat(*arrays: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Views of the arrays with all pixels on one line, if each holds them all in one line."""
    for x in arrays:
        line = x.strides[5]
        if x.strides[3:5] != (x.shape[4] * x.shape[5] * line, x.shape[5] * line):
            return arrays
    return tuple([x.reshape(*x.shape[:3], 1, 1, -1) for x in arrays])


def origin(x: NDArray[Any]) -> NDArray[Any]:
    """View of the first element of ``x``, from which kernels count their offsets."""
    return x[:1, 0, 0, 0, 0, 0]
