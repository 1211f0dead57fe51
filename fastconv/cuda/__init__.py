"""The CUDA backend: what ``cpu`` offers, on device arrays.

    forward(x, weight, bias, geometry, out, algorithm, relu)
    grad_input(grad_output, weight, bias, geometry, out, algorithm, relu)
    grad_weight(grad_output, x, geometry, out, algorithm)
    grad_weight_per_sample(grad_output, x, geometry, out, algorithm)
    grad_bias(grad_output, shape, channels_last)
    mask(a, y)
    side_by_side(a, b, axis, groups)
    spread_bias(bias, shape, ndim, channels_last)
    max_pool(x, geometry, ndim, out, indexed)
    max_pool_grad_input(grad_output, x, geometry, ndim, out)
    avg_pool(x, geometry, ndim, out, padded)
    avg_pool_grad_input(grad_output, geometry, ndim, out, padded)

Results are arrays of the first argument's library, computed on that library's current stream;
nothing is copied between host and device.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from math import prod
from typing import Any

import numpy as np

from ..geometry import ConvGeometry, Ints, image_shape
from ..plan.cuda import explain_choice
from ..results import overlaps_itself
from . import gemm, gemm_weight, padding, planar, planar_weight, pool, reference, simt, tensor
from .arrays import Operand, bounds, empty_like, operand, stream_of
from .arrays import check_devices as check_devices
from .arrays import check_resolved as check_resolved
from .arrays import device as device
from .arrays import dtype_of as dtype_of
from .arrays import synchronize as synchronize
from .arrays import to_device as to_device
from .arrays import to_host as to_host
from .elementwise import copy
from .elementwise import mask as mask
from .elementwise import side_by_side as side_by_side
from .elementwise import spread_bias as spread_bias
from .kernel import Kernel, blocks_for

Array = Any

ONES = (1, 1, 1)

_PRODUCTS = {"gemm": simt.PRODUCT, "tf32": tensor.TF32, "3xtf32": tensor.TF32_THRICE}

# What computes forward and grad_input, and grad_weight.
_CORRELATE = {"planar": planar.correlate} | {
    name: partial(gemm.correlate, product) for name, product in _PRODUCTS.items()
}
_WEIGHT = {"planar": planar_weight.grad_weight} | {
    name: partial(gemm_weight.grad_weight, product) for name, product in _PRODUCTS.items()
}


def choose(map_name: str, geometry: ConvGeometry, x: Array, algorithm: str, precision: str) -> str:
    """The algorithm for a map of an array like ``x``: see ``plan.cuda.explain_choice``."""
    return explain_choice(map_name, geometry, dtype_of(x), algorithm, precision).algorithm


def result_like(
    x: Array,
    shape: Ints,
    out: Array | None,
    inputs: tuple[Array | None, ...],
    dtype: np.dtype[Any] | None = None,
) -> Array:
    """``out``, or a new array of this shape, of ``x``'s kind and, by default, dtype.

    Raises
    ------
    TypeError
        If ``out`` is of another kind than ``x``.
    ValueError
        If ``out`` has another shape or dtype, or lies in the same part of memory as an input.
    """
    dtype = dtype or dtype_of(x)
    if out is None:
        return empty_like(x, shape, dtype)
    if type(out) is not type(x):
        raise TypeError(
            f"out must be of the inputs' type, {type(x).__module__}.{type(x).__qualname__}, got"
            f" {type(out).__module__}.{type(out).__qualname__}"
        )
    if dtype_of(out) != dtype:
        raise ValueError(f"out must be {dtype}, got {dtype_of(out)}")
    if tuple(out.shape) != tuple(shape):
        raise ValueError(f"out must have shape {tuple(shape)}, got {tuple(out.shape)}")
    check_resolved("out", out)
    target = operand(out)
    words = dtype.itemsize // target.itemsize
    if overlaps_itself(target.shape, target.strides, words):
        raise ValueError(
            "out must have distinct elements, got an array whose elements share memory, of strides"
            f" {tuple([stride // words for stride in target.strides])} in elements"
        )
    if prod(shape):
        start, end = bounds(out)
        for array in inputs:
            if array is not None and prod(array.shape):
                first, last = bounds(array)
                if start < last and first < end:
                    raise ValueError("out must not lie in the same part of memory as an input")
    return out


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
    g, ndim = geometry, len(weight.shape) - 2
    seen, y = (
        _image(x, ndim, g.x_shape, g.channels_last),
        _image(out, ndim, g.y_shape, g.channels_last),
    )
    filters = _filters(weight, g)
    if algorithm == "reference":
        _reference(reference.forward, (seen, filters, y), bias, g, x, relu)
    else:
        taps = tuple([range(n) for n in g.kernel])
        _CORRELATE[algorithm](
            seen, filters, _bias(bias, seen), y, taps, g.stride, g.before, g.dilation, relu, x
        )
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
    g, ndim = geometry, len(weight.shape) - 2
    dy, dx = (
        _image(grad_output, ndim, g.y_shape, g.channels_last),
        _image(out, ndim, g.x_shape, g.channels_last),
    )
    filters = _filters(weight, g)
    if algorithm == "reference":
        _reference(reference.grad_input, (dy, filters, dx), bias, g, grad_output, relu)
        return out
    swapped = filters.swapped(1, 2)
    added = _bias(bias, dy)
    if not g.is_covered:  # no taps at all, for what none reaches
        none = (range(0),) * 3
        _CORRELATE[algorithm](
            dy, swapped, added, dx, none, ONES, (0, 0, 0), ONES, relu, grad_output
        )
    for phase in g.phases:
        part = dx.part(phase.place[1:])
        taps = _ranges(phase.taps[1:], g.kernel)
        _CORRELATE[algorithm](
            dy, swapped, added, part, taps, ONES, phase.before, phase.dilation, relu, grad_output
        )
    return out


def grad_weight(
    grad_output: Array, x: Array, geometry: ConvGeometry, out: Array, algorithm: str
) -> Array:
    """Correlate ``x`` with ``grad_output``."""
    g, ndim = geometry, len(out.shape) - 2
    dy, seen, dw = (
        _image(grad_output, ndim, g.y_shape, g.channels_last),
        _image(x, ndim, g.x_shape, g.channels_last),
        _filters(out, g),
    )
    _grad_weight(dy, seen, dw, g, algorithm, x)
    return out


def grad_weight_per_sample(
    grad_output: Array, x: Array, geometry: ConvGeometry, out: Array, algorithm: str
) -> None:
    """Correlate each sample of ``x`` with that of ``grad_output``: as groups of one image."""
    g, ndim = geometry, len(out.shape) - 3
    dy, seen = (
        _samples(grad_output, ndim, g.y_shape, g.channels_last),
        _samples(x, ndim, g.x_shape, g.channels_last),
    )
    target = operand(out)
    samples, filters, *others = target.strides
    whole = g.groups == 1 or samples == g.out_channels * filters
    dw = target if whole else operand(empty_like(out, target.shape))
    samples, filters, *others = dw.strides
    step = samples if g.groups == 1 else g.weight_shape[1] * filters
    inner = (*others[:1], *[0] * (3 - ndim), *others[1:])
    each = g.per_sample
    grouped = dw._replace(shape=each.weight_shape, strides=(step, filters, *inner))
    _grad_weight(dy, seen, grouped, each, algorithm, x)
    if not whole:
        copy(dw, target, out)


def _grad_weight(
    dy: Operand, x: Operand, dw: Operand, g: ConvGeometry, algorithm: str, like: Array
) -> None:
    if algorithm == "reference" or g.batch == 0:
        _reference(reference.grad_weight, (dy, x, dw), None, g, like)
    else:
        _WEIGHT[algorithm](dy, x, dw, g.stride, g.before, g.dilation, like)


def grad_bias(grad_output: Array, shape: Ints, channels_last: bool) -> Array:
    """Sum ``grad_output`` by channel; of this shape (N, K, *spatial), but for the caller's order
    of axes and a missing batch.
    """
    batch, channels, *spatial = shape
    out = empty_like(grad_output, (channels,))
    grouped = (batch, 1, channels, *[1] * (3 - len(spatial)), *spatial)
    dy = _image(grad_output, len(spatial), grouped, channels_last)
    db = operand(out)
    arguments = (dy.pointer, db.pointer, dy.strides, dy.shape)
    stream = stream_of(grad_output)
    reference.grad_bias.launch(dtype_of(grad_output), stream, blocks_for(channels), *arguments)
    return out


def kept_size(x: Array) -> int:
    """Bytes of a number of an image with its padding."""
    return dtype_of(x).itemsize


def temporary(
    like: Array, geometry: ConvGeometry, ndim: int, dtype: np.dtype[Any] | None = None
) -> Array:
    """Uninitialised array for images like this with their padding."""
    shape = image_shape(geometry.padded.x_shape, ndim, like.shape, geometry.channels_last)
    return empty_like(like, shape, dtype)


def pad(x: Array, geometry: ConvGeometry, ndim: int, out: Array) -> None:
    """Copy ``x`` with its padding around it; ``ndim`` is the number of its spatial axes."""
    g = geometry
    image = _image(x, ndim, g.x_shape, g.channels_last)
    padded = _image(out, ndim, g.padded.x_shape, g.channels_last)
    _for_each(padding.pad, x, image, padded, g.segments)


def fold(padded: Array, geometry: ConvGeometry, ndim: int, out: Array) -> None:
    """Add up, for each pixel, the positions with the padding that show it."""
    g = geometry
    image = _image(out, ndim, g.x_shape, g.channels_last)
    shown = _image(padded, ndim, g.padded.x_shape, g.channels_last)
    _for_each(padding.fold, padded, shown, image, g.segments)


def filters_result(
    out: Array, geometry: ConvGeometry, per_sample: bool
) -> AbstractContextManager[Array]:
    """Where parts of ``out`` are added up: there."""
    return nullcontext(out)


def add(part: Array, geometry: ConvGeometry, out: Array) -> None:
    """``out += part``, filters both."""
    _for_each(padding.add, part, _filters(part, geometry), _filters(out, geometry), ())


def _for_each(
    kernel: Kernel, like: Array, source: Operand, out: Operand, segments: tuple[Ints, ...]
) -> None:
    """Run a kernel that has a thread for each element of ``out``."""
    kernel.launch(
        dtype_of(like),
        stream_of(like),
        blocks_for(prod(out.shape)),
        source.pointer,
        out.pointer,
        source.strides,
        out.strides,
        out.shape,
        *segments,
    )


def max_pool(
    x: Array, geometry: ConvGeometry, ndim: int, out: Array, indexed: bool
) -> Array | None:
    """Write the largest numbers of windows into ``out``; return their indices, if wanted."""
    g, last = geometry, geometry.channels_last
    seen, y = _image(x, ndim, g.x_shape, last), _image(out, ndim, g.y_shape, last)
    indices = empty_like(x, tuple(out.shape), "int64") if indexed else None
    found = None if indices is None else _image(indices, ndim, g.y_shape, last)
    if g.batch:
        pool.max_pool(seen, y, found, g, x)
    return indices


def max_pool_grad_input(
    grad_output: Array, x: Array, geometry: ConvGeometry, ndim: int, out: Array
) -> None:
    """Write the gradient of ``max_pool`` into ``out``."""
    g, last = geometry, geometry.channels_last
    if g.batch:
        dy, seen, dx = (
            _image(array, ndim, shape, last)
            for array, shape in ((grad_output, g.y_shape), (x, g.x_shape), (out, g.x_shape))
        )
        indices = empty_like(x, image_shape(g.y_shape, 3, g.y_shape, last), "int64")
        pool.max_pool_grad_input(dy, seen, dx, _image(indices, 3, g.y_shape, last), g, x)


def avg_pool(x: Array, geometry: ConvGeometry, ndim: int, out: Array, padded: bool) -> None:
    """Write the means of windows into ``out``; pixels of the padding count if it is ``padded``."""
    g, last = geometry, geometry.channels_last
    if g.batch:
        seen, y = _image(x, ndim, g.x_shape, last), _image(out, ndim, g.y_shape, last)
        pool.avg_pool(seen, y, g, padded, x)


def avg_pool_grad_input(
    grad_output: Array, geometry: ConvGeometry, ndim: int, out: Array, padded: bool
) -> None:
    """Write the gradient of ``avg_pool`` into ``out``."""
    g, last = geometry, geometry.channels_last
    if g.batch:
        dy, dx = _image(grad_output, ndim, g.y_shape, last), _image(out, ndim, g.x_shape, last)
        pool.avg_pool_grad_input(dy, dx, g, padded, grad_output)


def _reference(
    kernel: Kernel,
    operands: tuple[Operand, Operand, Operand],
    bias: Array | None,
    g: ConvGeometry,
    like: Array,
    relu: bool = False,
) -> None:
    a, b, out = operands
    added = _bias(bias, a)
    kernel.launch(
        dtype_of(like),
        stream_of(like),
        blocks_for(prod(out.shape)),
        a.pointer,
        b.pointer,
        added.pointer,
        out.pointer,
        a.strides,
        b.strides,
        out.strides,
        a.shape,
        b.shape,
        out.shape,
        g.stride,
        g.before,
        g.dilation,
        added.strides[0],
        added.shape[0],
        int(relu),
    )


def _bias(bias: Array | None, other: Operand) -> Operand:
    """The bias (K,), or for none one of shape (0,), whose pointer is never read from."""
    return other._replace(shape=(0,), strides=(0,)) if bias is None else operand(bias)


def _ranges(taps: tuple[slice, ...], kernel: Ints) -> tuple[range, ...]:
    """The taps that slices of the filter's axes pick."""
    return tuple([range(n)[axis] for axis, n in zip(taps, kernel, strict=True)])


def _image(array: Array, ndim: int, grouped: Ints, channels_last: bool) -> Operand:
    """An image as the caller has it, with or without N, as (N, G, C/G, D, H, W)."""
    whole = operand(array)
    strides = whole.strides
    batch = strides[0] if len(strides) == ndim + 2 else 0
    inner = strides[-1 - ndim :]
    channel, *spatial = (inner[-1], *inner[:-1]) if channels_last else inner
    strides = (batch, grouped[2] * channel, channel, *[0] * (3 - ndim), *spatial)
    return whole._replace(shape=grouped, strides=strides)


def _samples(array: Array, ndim: int, grouped: Ints, channels_last: bool) -> Operand:
    """An image as (1, N*G, C/G, D, H, W); a copy, if no strides have these axes."""
    image = _image(array, ndim, grouped, channels_last)
    batch, groups = grouped[:2]
    if 1 not in (batch, groups) and image.strides[0] != groups * image.strides[1]:
        whole = operand(empty_like(array, grouped))
        copy(image, whole, array)
        image = whole
    step = image.strides[0] if groups == 1 else image.strides[1]
    shape = (1, batch * groups, *grouped[2:])
    return image._replace(shape=shape, strides=(0, step, *image.strides[2:]))


def _filters(array: Array, g: ConvGeometry) -> Operand:
    """Filters (K, C/G, *kernel) as (G, K/G, C/G, T, R, S)."""
    whole = operand(array)
    filters, channels, *taps = whole.strides
    strides = (g.weight_shape[1] * filters, filters, channels, *[0] * (3 - len(taps)), *taps)
    return whole._replace(shape=g.weight_shape, strides=strides)
