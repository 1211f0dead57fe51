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

calls that were made before,

    repeat_of(map_name, a, b, bias, geometry, out, algorithm, relu)

and for pooling,

    max_pool(x, geometry, ndim, out, indexed)
    max_pool_grad_input(grad_output, x, geometry, ndim, out)
    avg_pool(x, geometry, ndim, out, padded)
    avg_pool_grad_input(grad_output, geometry, ndim, out, padded)
    pool_repeat_of(map_name, a, b, geometry, out, padded)

Arrays come as the caller has them, but checked; ``choose`` has said which algorithm, and ``out`` is
from ``result_like``, is written whole, and returned by the three maps. With ``relu``, 0 takes the
place of results below it. ``grad_input`` has that and a bias because a transposed convolution,
which it computes as well, has them.
"""

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
from ..repeats import Repeat
from ..results import result_like as result_like
from . import driver, fill, padding
from .elementwise import mask as mask
from .elementwise import side_by_side as side_by_side
from .elementwise import spread_bias as spread_bias
from .jobs import jobs_of, repeated
from .pooling import avg_pool as avg_pool
from .pooling import avg_pool_grad_input as avg_pool_grad_input
from .pooling import max_pool as max_pool
from .pooling import max_pool_grad_input as max_pool_grad_input
from .pooling import pool_repeat_of as pool_repeat_of
from .views import grouped_image as grouped_image

Array = NDArray[Any]

# Gradients of filters per sample are computed together up to this size.
SAMPLES_BYTES = 16 * 2**20

# Rows that ``grad_bias`` adds up one after the other.
ROWS_SUMMED = 64

# Numbers of the rows that it takes for one: NumPy needs as long to add rows of 2 as of 64.
WIDE = 1024

# Pixels of the images that ``requirements`` makes plans for: their tables grow with them, to 10 GiB
# for a million images of 224x224. What more images need is in proportion.
PIXELS_PLANNED = 2**25


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
    g, bias = geometry, _contiguous(bias)
    if algorithm == "reference":
        x, y = grouped_image(x, g.x_shape, g), grouped_image(out, g.y_shape, g)
        inputs = x, weight.reshape(g.weight_shape), _bias(bias, y)
        _reference(reference.forward, inputs, g, y, relu)
    else:
        for job in jobs_of("forward", x, weight, out, g, algorithm, relu=relu):
            job.engine(job.a, job.b, bias, job.out, *job.options)
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
    g, bias = geometry, _contiguous(bias)
    if algorithm == "reference":
        dy, dx = grouped_image(grad_output, g.y_shape, g), grouped_image(out, g.x_shape, g)
        inputs = dy, weight.reshape(g.weight_shape), _bias(bias, dx)
        _reference(reference.grad_input, inputs, g, dx, relu)
        return out
    biased = bias is not None
    for job in jobs_of("grad_input", grad_output, weight, out, g, algorithm, biased, relu):
        job.engine(job.a, job.b, bias, job.out, *job.options)
    return out


def grad_weight(
    grad_output: Array, x: Array, geometry: ConvGeometry, out: Array, algorithm: str
) -> Array:
    """Correlate ``x`` with ``grad_output``."""
    g = geometry
    if g.batch == 0:
        out[...] = 0
    else:
        _grad_weight(grad_output, x, g, out, algorithm)
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
        dy, x = grouped_image(dy, g.y_shape, g), grouped_image(x, g.x_shape, g)
        _reference(reference.grad_weight, (dy, x), g, dw.reshape(g.weight_shape))
    else:
        for job in jobs_of("grad_weight", dy, x, dw, g, algorithm):
            job.engine(job.a, job.b, None, job.out, *job.options)


def repeat_of(
    map_name: str,
    a: Array,
    b: Array,
    bias: Array | None,
    geometry: ConvGeometry,
    out: Array,
    algorithm: str,
    relu: bool = False,
) -> Repeat | None:
    """What takes other arrays like ``a``, ``b`` and ``bias``, all aligned, to one like ``out``.

    None if some part of the map is no view of these arrays, or no engine's.
    """
    g = geometry
    if algorithm == "reference":
        return None
    jobs = jobs_of(map_name, a, b, out, g, algorithm, bias is not None, relu)
    return repeated(jobs, a, b, out)


def grad_bias(grad_output: Array, shape: Ints, channels_last: bool) -> Array:
    """Sum ``grad_output`` by channel; of this shape (N, K, *spatial), but for the caller's order
    of axes and a missing batch.
    """
    batch, filters, pixels = *shape[:2], prod(shape[2:])
    if channels_last:
        rows = grad_output.reshape(batch, pixels, filters)
    else:
        rows = grad_output.reshape(batch, filters, pixels).swapaxes(1, 2)
    if batch * pixels <= ROWS_SUMMED:
        return np.asarray(rows.sum(axis=(0, 1)))
    if rows.flags.c_contiguous:
        return _sum_rows(rows.reshape(batch * pixels, filters))
    image, pixel, channel = map(abs, rows.strides)
    # NumPy adds pairwise along the axis that is nearest in memory, and along no other.
    pairwise = pixel < min(image, channel)
    return _sum_rows(rows.sum(axis=1) if pairwise else _sum_rows(rows.swapaxes(0, 1)))


def _sum_rows(rows: Array) -> Array:
    """Sum over the first axis."""
    if rows.size > 4 * WIDE and rows.flags.c_contiguous and (beside := WIDE // rows[0].size) > 1:
        count = len(rows) // beside
        whole = count * beside
        wide = _sum_pieces(rows[:whole].reshape(count, beside, *rows.shape[1:]))
        return np.asarray(_sum_pieces(wide) + _sum_pieces(rows[whole:]))
    return _sum_pieces(rows)


def _sum_pieces(rows: Array) -> Array:
    """Sum over the first axis, by pieces: NumPy would add one row after the other."""
    while len(rows) > ROWS_SUMMED:
        count = len(rows) // ROWS_SUMMED
        whole = count * ROWS_SUMMED
        pieces = rows[:whole].reshape(count, ROWS_SUMMED, *rows.shape[1:]).sum(axis=1)
        rows = np.concatenate([pieces, rows[whole:].sum(axis=0, keepdims=True)])
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
    if algorithm == "reference" or g.batch == 0:
        return g.operations, 0, 1
    batch = g.batch
    g = replace(g, batch=max(1, min(batch, PIXELS_PLANNED // prod(g.input))))
    x, y = (_described_image(shape, dtype, g) for shape in (g.x_shape, g.y_shape))
    w = np.empty(g.weight_shape, dtype)
    arrays = {"forward": (x, w, y), "grad_input": (y, w, x), "grad_weight": (y, x, w)}
    plans = []
    for job in jobs_of(map_name, *arrays[map_name], g, algorithm):
        plan = job.engine.plan(job.a, job.b, job.out, *job.options)  # compiles the kernels, too
        if job.engine is not fill.correlate:
            plans.append(plan)
    return (
        sum(plan.operations for plan in plans) * batch // g.batch,
        max((plan.work for plan in plans), default=0),
        max((driver.threads_of(plan) for plan in plans), default=1),
    )


def _described_image(grouped: Ints, dtype: np.dtype[Any], g: ConvGeometry) -> Array:
    """An image to plan for, which may be larger than memory: there is but one number of it."""
    batch, channels, spatial = grouped[0], grouped[1] * grouped[2], grouped[3:]
    shape = (batch, *spatial, channels) if g.channels_last else (batch, channels, *spatial)
    strides = [dtype.itemsize * prod(shape[axis + 1 :]) for axis in range(len(shape))]
    image = np.lib.stride_tricks.as_strided(np.empty(1, dtype), shape, strides)
    return grouped_image(image, grouped, g)


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
