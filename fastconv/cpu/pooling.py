"""The CPU backend's poolings: from the arrays of the caller to the engines.

``ndim``, the number of spatial axes, is for backends that cannot make views of six axes.
"""

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..geometry import ConvGeometry, Ints
from . import pool, pool_gradient
from .views import grouped_image

Array = NDArray[Any]


def max_pool(
    x: Array, geometry: ConvGeometry, ndim: int, out: Array, indexed: bool
) -> Array | None:
    """Write the largest numbers of windows into ``out``; return their indices if those are wanted.

    Raises
    ------
    ValueError
        If a plane has more pixels than a number of the dtype has bits to count.
    """
    g = geometry
    _check_pixels(x, g)
    indices = np.empty(out.shape, np.int64) if indexed else None
    if g.batch:
        guise = np.empty((0,) * 6, out.dtype)
        if indices is not None:
            guise = grouped_image(_in_guise(indices, out.dtype), g.y_shape, g)
        x, y = grouped_image(x, g.x_shape, g), grouped_image(out, g.y_shape, g)
        pool.max_pool(x, guise, None, y, g.kernel, g.stride, g.before, g.dilation)
    return indices


def max_pool_grad_input(
    grad_output: Array, x: Array, geometry: ConvGeometry, ndim: int, out: Array
) -> None:
    """Write the gradient of ``max_pool`` into ``out``."""
    g = geometry
    _check_pixels(x, g)
    if g.batch:
        dy, x = grouped_image(grad_output, g.y_shape, g), grouped_image(x, g.x_shape, g)
        dx = grouped_image(out, g.x_shape, g)
        pool_gradient.max_pool_grad_input(x, dy, None, dx, g.kernel, g.stride, g.before, g.dilation)


def avg_pool(x: Array, geometry: ConvGeometry, ndim: int, out: Array, padded: bool) -> None:
    """Write the means of windows into ``out``; pixels of the padding count if it is ``padded``."""
    g = geometry
    if g.batch:
        x, y = grouped_image(x, g.x_shape, g), grouped_image(out, g.y_shape, g)
        pool.avg_pool(x, x, None, y, *_sizes(g, padded))


def avg_pool_grad_input(
    grad_output: Array, geometry: ConvGeometry, ndim: int, out: Array, padded: bool
) -> None:
    """Write the gradient of ``avg_pool`` into ``out``."""
    g = geometry
    if g.batch:
        dy, dx = grouped_image(grad_output, g.y_shape, g), grouped_image(out, g.x_shape, g)
        pool_gradient.avg_pool_grad_input(dy, dy, None, dx, *_sizes(g, padded))


def _sizes(g: ConvGeometry, padded: bool) -> tuple[Ints, ...]:
    return g.kernel, g.stride, g.before, g.after, (int(padded),)


def _check_pixels(x: Array, g: ConvGeometry) -> None:
    # Kernels keep an index in the bits of a number.
    pixels, most = prod(g.input), 2 ** (8 * x.itemsize - 1) - 1
    if pixels > most:
        raise ValueError(
            f"x must have at most {most} pixels to a channel, to find the largest of {x.dtype}"
            f" numbers, got {pixels}"
        )


def _in_guise(integers: Array, dtype: np.dtype[Any]) -> Array:
    """64-bit integers as an array of ``dtype``, each number the beginning of an integer."""
    beginning = np.dtype({"names": ["number"], "formats": [dtype], "itemsize": 8})
    guise: Array = integers.view(beginning)["number"]
    return guise
