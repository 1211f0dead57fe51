"""The CPU backend's poolings: from the arrays of the caller to the engines.

``ndim``, the number of spatial axes, is for backends that cannot make views of six axes.
"""

from math import prod
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from ..geometry import ConvGeometry, Ints
from ..repeats import Repeat
from . import pool, pool_gradient
from .jobs import Job, repeated
from .views import grouped_image

Array = NDArray[Any]


def max_pool(
    x: Array, geometry: ConvGeometry, ndim: int, out: Array, indexed: bool
) -> Array | None:
    """Write the largest numbers of windows into ``out``; return their indices if those are wanted.

    Raises
    ------
    ValueError
        If an image has more pixels than a number of the dtype has bits to count.
    """
    _check_pixels(x, geometry)
    indices = np.empty(out.shape, np.int64) if indexed else None
    _run("max_pool", x, None, indices, geometry, out)
    return indices


def max_pool_grad_input(
    grad_output: Array, x: Array, geometry: ConvGeometry, ndim: int, out: Array
) -> None:
    """Write the gradient of ``max_pool`` into ``out``."""
    _check_pixels(x, geometry)
    _run("max_pool_grad_input", grad_output, x, None, geometry, out)


def avg_pool(x: Array, geometry: ConvGeometry, ndim: int, out: Array, padded: bool) -> None:
    """Write the means of windows into ``out``; pixels of the padding count if it is ``padded``."""
    _run("avg_pool", x, None, None, geometry, out, padded)


def avg_pool_grad_input(
    grad_output: Array, geometry: ConvGeometry, ndim: int, out: Array, padded: bool
) -> None:
    """Write the gradient of ``avg_pool`` into ``out``."""
    _run("avg_pool_grad_input", grad_output, None, None, geometry, out, padded)


def pool_repeat_of(
    map_name: str, a: Array, x: Array | None, geometry: ConvGeometry, out: Array, padded: bool
) -> Repeat | None:
    """What takes other arrays like ``a`` and ``x``, all aligned, to one like ``out``, no indices.

    ``x`` are the images where ``a`` is the gradient of their maxima, and None otherwise.
    """
    job = _job(map_name, a, x, None, geometry, out, padded)
    return repeated([job], a, a if x is None else x, out)


def _run(
    map_name: str,
    a: Array,
    x: Array | None,
    indices: Array | None,
    g: ConvGeometry,
    out: Array,
    padded: bool = False,
) -> None:
    if numba.config.DISABLE_JIT:
        raise ValueError("pooling needs Numba's compiler, which NUMBA_DISABLE_JIT turns off")
    if g.batch:
        job = _job(map_name, a, x, indices, g, out, padded)
        job.engine(job.a, job.b, None, job.out, *job.options)


def _job(
    map_name: str,
    a: Array,
    x: Array | None,
    indices: Array | None,
    g: ConvGeometry,
    out: Array,
    padded: bool,
) -> Job:
    """What takes ``a``, images or the gradient of results, to ``out``."""
    windows = g.kernel, g.stride, g.before, g.dilation
    if map_name == "max_pool":
        guise = np.empty((0,) * 6, out.dtype)
        if indices is not None:
            guise = grouped_image(_in_guise(indices, out.dtype), g.y_shape, g)
        a, y = grouped_image(a, g.x_shape, g), grouped_image(out, g.y_shape, g)
        return Job(pool.max_pool, a, guise, y, windows)
    if map_name == "avg_pool":
        a, y = grouped_image(a, g.x_shape, g), grouped_image(out, g.y_shape, g)
        return Job(pool.avg_pool, a, a, y, _sizes(g, padded))
    dy, dx = grouped_image(a, g.y_shape, g), grouped_image(out, g.x_shape, g)
    if x is None:
        return Job(pool_gradient.avg_pool_grad_input, dy, dy, dx, _sizes(g, padded))
    x = grouped_image(x, g.x_shape, g)
    return Job(pool_gradient.max_pool_grad_input, x, dy, dx, windows, swapped=True)


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
