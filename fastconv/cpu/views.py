"""The form in which arrays reach the kernels: groups as an axis of their own, strides in elements.

    x  (N, G, C/G, D, H, W)      w  (G, K/G, C/G, T, R, S)      y  (N, G, K/G, O, P, Q)

All are views: nothing is copied, whatever the strides.
"""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from .blocks import Ints


@dataclass(frozen=True)
class Layout:
    """Where the elements of an array lie, apart from the array itself: a key for plans."""

    shape: Ints
    strides: Ints


def layout(x: NDArray[Any]) -> Layout:
    """Shape and strides of ``x``, in elements."""
    size = x.itemsize
    return Layout(x.shape, tuple([stride // size for stride in x.strides]))


def origin(x: NDArray[Any]) -> NDArray[Any]:
    """View of the first element of ``x``, from which kernels count their offsets."""
    return x[:1, 0, 0, 0, 0, 0]


def image_groups(x: NDArray[Any], groups: int) -> NDArray[Any]:
    """(N, C, D, H, W) as (N, G, C/G, D, H, W)."""
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])


def filter_groups(weight: NDArray[Any], groups: int) -> NDArray[Any]:
    """(K, C/G, T, R, S) as (G, K/G, C/G, T, R, S)."""
    return weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
