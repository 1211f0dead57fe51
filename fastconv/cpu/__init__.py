"""The CPU backend: the three maps on NumPy arrays.

    forward(x, weight, bias, geometry, out, algorithm, relu)
    grad_input(grad_output, weight, bias, geometry, out, algorithm, relu)
    grad_weight(grad_output, x, geometry, out, algorithm)
    grad_weight_per_sample(grad_output, x, geometry, out, algorithm)
    grad_bias(grad_output, shape, channels_last)

what these need where padding shows pixels (``fastconv/padded.py``),

    kept_size(x)
    temporary(like, geometry, ndim)
    pad(x, geometry, ndim, out)
    fold(padded, geometry, ndim, out)
    filters_result(out, geometry, per_sample)
    add(part, geometry, out)

what gradients need besides,

    mask(a, y)
    side_by_side(a, b, axis, groups)
    spread_bias(bias, shape, ndim, channels_last),

and for pooling,

    max_pool(x, geometry, ndim, out, indexed)
    max_pool_grad_input(grad_output, x, geometry, ndim, out)
    avg_pool(x, geometry, ndim, out, padded)
    avg_pool_grad_input(grad_output, geometry, ndim, out, padded)

Arrays come as the caller has them, but checked; ``choose`` has said which algorithm, and ``out`` is
from ``result_like``, is written whole and returned. With ``relu``, 0 takes the place of results
below it. ``grad_input`` has that and a bias because a transposed convolution, which it computes as
well, has them.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from math import prod
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from .. import reference
from ..caching import PerDtype
from ..geometry import ConvGeometry, Ints, image_shape
from ..memory import workspace
from ..plan import check_precision
from ..plan import cpu as plan
from ..results import result_like as result_like
from . import (
    depthwise,
    depthwise_weight,
    direct,
    direct_weight,
    driver,
    gemm,
    padding,
    planar,
    planar_weight,
    winograd,
    winograd_weight,
)
from .elementwise import mask as mask
from .elementwise import side_by_side as side_by_side
from .elementwise import spread_bias as spread_bias
from .engine import Engine
from .pooling import avg_pool as avg_pool
from .pooling import avg_pool_grad_input as avg_pool_grad_input
from .pooling import max_pool as max_pool
from .pooling import max_pool_grad_input as max_pool_grad_input
from .views import grouped_image as grouped_image

Array = NDArray[Any]
ONES = (1, 1, 1)

# Gradients of filters per sample are computed together up to this size.
SAMPLES_BYTES = 16 * 2**20

# Rows of pixels that ``grad_bias`` adds up one after the other.
ROWS_SUMMED = 256

# The engines: for forward and grad_input, and for grad_weight.
_CORRELATE = {
    "depthwise": depthwise.correlate,
    "direct": direct.correlate,
    "gemm": gemm.correlate,
    "planar": planar.correlate,
    "winograd": winograd.correlate,
}
_WEIGHT = {
    "depthwise": depthwise_weight.grad_weight,
    "direct": direct_weight.grad_weight,
    "gemm": direct_weight.grad_weight,  # is one: filters by channels and taps, over pixels
    "planar": planar_weight.grad_weight,
    "winograd": winograd_weight.grad_weight,
}


def choose(map_name: str, geometry: ConvGeometry, x: Array, algorithm: str, precision: str) -> str:
    """The algorithm for a map of an array like ``x``: see ``plan.cpu.choose``."""
    check_precision(precision)  # that of the dtype serves them all
    return plan.choose(map_name, geometry, x.dtype, algorithm)


def forward(
    x: Array,
    weight: Array,
    bias: Array | None,
    geometry: ConvGeometry,
    out: Array,
    algorithm: str,
    relu: bool = False,
) -> Array:
    """Correlate ``x`` with ``weight``."""
    g = geometry
    x, y = grouped_image(x, g.x_shape, g), grouped_image(out, g.y_shape, g)
    weight, bias = weight.reshape(g.weight_shape), _contiguous(bias)
    if algorithm == "reference":
        _reference(reference.forward, (x, weight, _bias(bias, y)), g, y, relu)
    else:
        _CORRELATE[algorithm](x, weight, bias, y, g.stride, g.before, g.dilation, relu)
    return out


def grad_input(
    grad_output: Array,
    weight: Array,
    bias: Array | None,
    geometry: ConvGeometry,
    out: Array,
    algorithm: str,
    relu: bool = False,
) -> Array:
    """Correlate ``grad_output`` with the flipped filters, their two channel axes swapped."""
    g = geometry
    grad_output, dx = grouped_image(grad_output, g.y_shape, g), grouped_image(out, g.x_shape, g)
    weight, bias = weight.reshape(g.weight_shape), _contiguous(bias)
    if algorithm == "reference":
        _reference(reference.grad_input, (grad_output, weight, _bias(bias, dx)), g, dx, relu)
        return out
    for engine, filters, part, options in _phases(algorithm, weight, g, dx, bias, relu):
        if filters is None:
            sums = _bias(bias, dx).reshape(*dx.shape[1:3], 1, 1, 1)
            part[...] = np.maximum(sums, 0) if relu else sums
        else:
            engine(grad_output, filters, bias, part, ONES, *options)
    return out


def _phases(
    algorithm: str, weight: Array, g: ConvGeometry, out: Array, bias: Array | None, relu: bool
) -> Iterator[tuple[Engine, Array | None, Array, tuple[Ints | bool, ...]]]:
    """The correlations that ``grad_input`` is made of: engine, flipped filters (None where no tap
    reaches), part of ``out``, and what the engine takes after the stride of 1.
    """
    swapped = weight.swapaxes(1, 2)
    if algorithm == "depthwise":
        flipped = swapped[..., ::-1, ::-1, ::-1]
        axes = zip(g.kernel, g.dilation, g.before, strict=True)
        before = tuple([(r - 1) * dilation - b for r, dilation, b in axes])
        yield depthwise.correlate, flipped, out, (before, g.dilation, relu, g.stride)
        return
    if g.is_product and bias is None:
        # Pixels become channels: as pixels, each would meet one tap and zeros under all others.
        order = (0, 1, 3, 4, 5, 2) if g.channels_last else (0, 1, 2, 3, 4, 5)
        image, ordered = out.transpose(order), weight.transpose(order)
        if image.flags.c_contiguous:
            columns = np.ascontiguousarray(ordered).reshape(*ordered.shape[:2], -1, *ONES)
            row = image.reshape(*image.shape[:2], -1, *ONES)
            yield direct.correlate, columns.swapaxes(1, 2), row, ((0, 0, 0), ONES, relu)
            return
    for phase in g.phases:
        filters, part = None if phase.taps is None else swapped[phase.taps], out[phase.place]
        yield _CORRELATE[algorithm], filters, part, (phase.before, phase.dilation, relu)


def grad_weight(
    grad_output: Array, x: Array, geometry: ConvGeometry, out: Array, algorithm: str
) -> Array:
    """Correlate ``x`` with ``grad_output``."""
    g = geometry
    if g.batch == 0:
        out[...] = 0
        return out
    grad_output, x = grouped_image(grad_output, g.y_shape, g), grouped_image(x, g.x_shape, g)
    _grad_weight(grad_output, x, g, out.reshape(g.weight_shape), algorithm)
    return out


def grad_weight_per_sample(
    grad_output: Array, x: Array, geometry: ConvGeometry, out: Array, algorithm: str
) -> None:
    """Correlate each sample of ``x`` with that of ``grad_output``: as groups of one image.

    Some samples at a time, for as much scratch memory as their gradients take is needed besides.
    """
    g = geometry
    grad_output, x = grouped_image(grad_output, g.y_shape, g), grouped_image(x, g.x_shape, g)
    some = max(1, SAMPLES_BYTES // (prod(g.weight_shape) * out.itemsize))
    for first in range(0, g.batch, some):
        samples = slice(first, first + some)
        each = replace(g, batch=len(out[samples])).per_sample
        target = out[samples].reshape(each.weight_shape)  # a copy, if no view has these axes
        dy, seen = grad_output[samples].reshape(each.y_shape), x[samples].reshape(each.x_shape)
        _grad_weight(dy, seen, each, target, algorithm)
        if not np.may_share_memory(target, out):
            out[samples] = target.reshape(out[samples].shape)


def _grad_weight(dy: Array, x: Array, g: ConvGeometry, dw: Array, algorithm: str) -> None:
    if algorithm == "reference":
        _reference(reference.grad_weight, (dy, x), g, dw)
    else:
        _WEIGHT[algorithm](dy, x, None, dw, g.stride, g.before, g.dilation)


def grad_bias(grad_output: Array, shape: Ints, channels_last: bool) -> Array:
    """Sum ``grad_output`` by channel; of this shape (N, K, *spatial), but for the caller's order
    of axes and a missing batch.
    """
    batch, filters, pixels = *shape[:2], prod(shape[2:])
    if channels_last:
        return _sum_rows(grad_output.reshape(batch * pixels, filters))
    # Pixels first: NumPy adds along a contiguous axis pairwise, so long sums lose little.
    return np.asarray(grad_output.reshape(batch, filters, pixels).sum(axis=2).sum(axis=0))


def _sum_rows(rows: Array) -> Array:
    """Sum over the first axis, by pieces: NumPy would add one row after the other."""
    while len(rows) > ROWS_SUMMED:
        rows = np.add.reduceat(rows, np.arange(0, len(rows), ROWS_SUMMED), axis=0)
    return np.asarray(rows.sum(axis=0))


def kept_size(x: Array) -> int:
    """Bytes of a number of an image with its padding."""
    return x.itemsize


def temporary(
    like: Array, geometry: ConvGeometry, ndim: int, dtype: np.dtype[Any] | None = None
) -> Array:
    """Uninitialised array for images like this with their padding.

    It is valid until the calling thread asks for the next one.
    """
    shape = image_shape(geometry.padded.x_shape, ndim, like.shape, geometry.channels_last)
    count = prod(shape)
    return workspace(count, dtype or like.dtype, "images")[:count].reshape(shape)


def pad(x: Array, geometry: ConvGeometry, ndim: int, out: Array) -> None:
    """Copy ``x`` with its padding around it; ``ndim`` is the number of its spatial axes."""
    g = geometry
    x, out = grouped_image(x, g.x_shape, g), grouped_image(out, g.padded.x_shape, g)
    if numba.config.DISABLE_JIT:
        padding.pad_plainly(x, out, *g.segments)
    elif g.batch:
        padding.pad(x, out, None, out, *g.segments)


def fold(padded: Array, geometry: ConvGeometry, ndim: int, out: Array) -> None:
    """Add up, for each pixel, the positions with the padding that show it."""
    g = geometry
    padded, out = grouped_image(padded, g.padded.x_shape, g), grouped_image(out, g.x_shape, g)
    if numba.config.DISABLE_JIT:
        padding.fold_plainly(padded, out, *g.segments)
    elif g.batch:
        padding.fold(padded, out, None, out, *g.segments)


def filters_result(
    out: Array, geometry: ConvGeometry, per_sample: bool
) -> AbstractContextManager[Array]:
    """Where parts of ``out`` are added up before they go there, as a context: ``out`` itself."""
    return nullcontext(out)


def add(part: Array, geometry: ConvGeometry, out: Array) -> None:
    """``out += part``, filters both."""
    np.add(out, part, out=out)


def requirements(
    map_name: str, g: ConvGeometry, dtype: np.dtype[Any], algorithm: str
) -> tuple[int, int, int]:
    """Floating-point operations, numbers of scratch memory, and threads of a map."""
    if algorithm == "reference":
        return g.operations, 0, 1
    # Never touched, so that they take no memory.
    x, y = (_empty_image(shape, dtype, g) for shape in (g.x_shape, g.y_shape))
    w = np.empty(g.weight_shape, dtype)
    if map_name == "grad_weight":
        plans = [_WEIGHT[algorithm].plan(y, x, w, g.stride, g.before, g.dilation)]
    elif map_name == "forward":
        plans = [_CORRELATE[algorithm].plan(x, w, y, g.stride, g.before, g.dilation)]
    else:
        plans = [
            engine.plan(y, filters, part, ONES, *options)
            for engine, filters, part, options in _phases(algorithm, w, g, x, None, False)
            if filters is not None
        ]
    return (
        sum(plan.operations for plan in plans),
        max((plan.work for plan in plans), default=0),
        max((driver.threads_of(plan) for plan in plans), default=1),
    )


def _empty_image(grouped: Ints, dtype: np.dtype[Any], g: ConvGeometry) -> Array:
    batch, channels, spatial = grouped[0], grouped[1] * grouped[2], grouped[3:]
    shape = (batch, *spatial, channels) if g.channels_last else (batch, channels, *spatial)
    return grouped_image(np.empty(shape, dtype), grouped, g)


def _contiguous(bias: Array | None) -> Array | None:
    return None if bias is None else np.ascontiguousarray(bias)


def _bias(bias: Array | None, out: Array) -> Array:
    return np.zeros(out.shape[1] * out.shape[2], out.dtype) if bias is None else bias


def _reference(
    function: PerDtype,
    inputs: tuple[Array, ...],
    g: ConvGeometry,
    out: Array,
    relu: bool = False,
) -> None:
    """Call a function of ``reference.py`` on contiguous arrays, for which alone it is compiled."""
    contiguous = [np.ascontiguousarray(array) for array in inputs]
    result = np.empty_like(out, order="C")
    function[out.dtype](*contiguous, g.stride, g.before, g.dilation, result)
    out[...] = np.maximum(result, 0) if relu else result
