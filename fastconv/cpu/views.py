"""The form in which arrays reach the kernels, all of them views: nothing is copied."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..geometry import ConvGeometry
from .blocks import Ints


class Layout(NamedTuple):
    """Where the elements of an array lie, strides counted in elements."""

    shape: Ints
    strides: Ints


def layout(shape: Ints, byte_strides: Ints, itemsize: int) -> Layout:
    """Layout of an array, given what NumPy says of it."""
    return Layout(shape, tuple([stride // itemsize for stride in byte_strides]))


def part_of(whole: Layout, spatial: Sequence[slice]) -> tuple[Layout, int]:
    """Layout of ``array[..., *spatial]``, and where in the array it begins."""
    ranges = [range(n)[one] for n, one in zip(whole.shape[3:], spatial, strict=True)]
    axes = list(zip(ranges, whole.strides[3:], strict=True))
    # To no second element there is no step, which could be too long for 64 bits.
    steps = [one.step * stride if len(one) > 1 else 0 for one, stride in axes]
    start = sum([one.start * stride for one, stride in axes])
    shape = *whole.shape[:3], *map(len, ranges)
    return Layout(shape, (*whole.strides[:3], *steps)), start


def grouped_image(array: NDArray[Any], grouped: Ints, g: ConvGeometry) -> NDArray[Any]:
    """View of an image as the caller has it, or such a view, of this shape (N, G, C/G, D, H, W)."""
    if array.ndim == 6:
        return array
    if not g.channels_last:
        return array.reshape(grouped)
    batch, groups, channels, *spatial = grouped
    return array.reshape(batch, *spatial, groups, channels).transpose(0, 4, 5, 1, 2, 3)


def viewer(
    array: NDArray[Any], view: NDArray[Any]
) -> Callable[[NDArray[Any]], NDArray[Any]] | None:
    """What makes the same view of other arrays that are laid out as this one; None if nothing does.

    It takes 0.2 or 0.4 us, less than to find out again which view that is.
    """
    if view.size == 0:
        return lambda other: view
    shape, strides, dtype = view.shape, view.strides, view.dtype
    start = view.ctypes.data
    if view.size == array.size:  # and not some taps of filters
        plain = array.reshape(shape)
        if plain.strides == strides and plain.ctypes.data == start:
            return lambda other: other.reshape(shape)
    if not array.flags.c_contiguous or not np.may_share_memory(array, view):
        return None
    offset = start - array.ctypes.data
    return lambda other: np.ndarray(shape, dtype, other, offset, strides)


def aligned(x: NDArray[Any]) -> NDArray[Any]:
    """``x``, or a copy if its elements do not lie whole numbers of elements apart."""
    return x if x.flags.aligned else x.copy()


def flat(*layouts: Layout) -> tuple[Layout, ...]:
    """The layouts with all pixels on one line, if all have the same and each holds them in one.

    So are those of all images, if in each layout these follow one another.
    """
    in_a_row = True
    for shape, strides in layouts:
        line = strides[5]
        followed = (shape[4] * shape[5] * line, shape[5] * line)
        for extent, stride, step in zip(shape[3:5], strides[3:5], followed, strict=True):
            # After the only plane or line of an image comes no next one: `part_of` puts 0 there.
            if extent > 1 and stride != step:
                return layouts
        if shape[3:] != layouts[0].shape[3:]:
            return layouts
        in_a_row = in_a_row and strides[0] == prod(shape[3:]) * line
    lines = []
    for shape, strides in layouts:
        images, pixels = shape[0], prod(shape[3:])
        if in_a_row:
            images, pixels = 1, images * pixels
        flattened = (images, *shape[1:3], 1, 1, pixels)
        lines.append(Layout(flattened, (*strides[:3], 0, 0, strides[5])))
    return tuple(lines)


def flat_if_pointwise(
    x: Layout, y: Layout, taps: Sequence[int], stride: Ints, before: Ints
) -> tuple[Layout, ...]:
    """The layouts ``flat``, if a pixel of ``y`` meets the same one of ``x`` and no other."""
    return flat(x, y) if prod(taps) * prod(stride) == 1 and before == (0, 0, 0) else (x, y)


def lanes_merged(*layouts: Layout) -> tuple[Layout, ...]:
    """The layouts (N, G, ...) as (1, N * G, ...), if in all of them images lie as groups do."""
    steps = [
        strides[0] if shape[1] == 1 and shape[0] > 1 else strides[1] for shape, strides in layouts
    ]
    for (shape, strides), step in zip(layouts, steps, strict=True):
        if shape[0] > 1 and strides[0] != shape[1] * step:
            return layouts
    return tuple(
        [
            Layout((1, shape[0] * shape[1], *shape[2:]), (0, step, *strides[2:]))
            for (shape, strides), step in zip(layouts, steps, strict=True)
        ]
    )
