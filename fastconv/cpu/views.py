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


def origin(x: NDArray[Any]) -> NDArray[Any]:
    """View of the first element of ``x``, from which kernels count their offsets."""
    return x[:1, 0, 0, 0, 0, 0]
