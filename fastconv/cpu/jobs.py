"""What the maps are made of: an engine and the views of the arrays that it takes, for each part."""

from collections.abc import Iterable, Iterator
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..geometry import ConvGeometry
from ..memory import ALIGNED_BYTES, empty
from ..repeats import Repeat
from . import (
    depthwise,
    depthwise_weight,
    direct,
    direct_weight,
    fill,
    gemm,
    phase_filters,
    planar,
    planar_weight,
    winograd,
    winograd_weight,
)
from .driver import Run
from .engine import Engine, Option
from .strided import ONES, by_phases
from .views import grouped_image, viewer

Array = NDArray[Any]

# The engines: for forward, for grad_input of any stride, and for grad_weight.
_CORRELATE = {
    "depthwise": depthwise.correlate,
    "direct": direct.correlate,
    "gemm": gemm.correlate,
    "planar": planar.correlate,
    "winograd": winograd.correlate,
}
_GRAD_INPUT = {
    "direct": by_phases(direct.correlate, phase_filters.pack),
    "gemm": by_phases(gemm.correlate),
    "planar": by_phases(planar.correlate),
    "winograd": by_phases(winograd.correlate),
}
_WEIGHT = {
    "depthwise": depthwise_weight.grad_weight,
    "direct": direct_weight.grad_weight,
    "gemm": direct_weight.grad_weight,  # lanes that are pixels gain nothing
    "planar": planar_weight.grad_weight,
    "winograd": winograd_weight.grad_weight,
}


class Job(NamedTuple):
    """What an engine takes but a bias."""

    engine: Engine
    a: Array
    b: Array
    out: Array
    options: tuple[Option, ...]
    swapped: bool = False  # whether `a` is a view of the map's second array, and `b` of its first


def jobs_of(
    map_name: str,
    a: Array,
    b: Array,
    out: Array,
    g: ConvGeometry,
    algorithm: str,
    biased: bool = False,
    relu: bool = False,
) -> Iterator[Job]:
    """The jobs of a map that takes ``a`` and ``b`` to ``out``, as the caller has them or grouped.

    They are done in this order: the first may write what others write again.
    """
    part, taps, windows = g.met
    if map_name == "forward":
        x, y = grouped_image(a, g.x_shape, g), grouped_image(out, g.y_shape, g)
        weight = b.reshape(g.weight_shape)
        if part.output != g.output:
            yield Job(fill.correlate, x, weight, y, (relu,))
        if prod(part.output):
            options = part.stride, part.before, part.dilation, relu
            yield Job(_CORRELATE[algorithm], x, weight[taps], y[windows], options)
    elif map_name == "grad_weight":
        dy, x = grouped_image(a, g.y_shape, g), grouped_image(b, g.x_shape, g)
        dw = out.reshape(g.weight_shape)
        if part.kernel != g.kernel:
            yield Job(fill.correlate, dy, x, dw, (False,))
        if prod(part.output):
            yield _grad_weight(dy[windows], x, dw[taps], part, algorithm)
    else:
        dy, dx = grouped_image(a, g.y_shape, g), grouped_image(out, g.x_shape, g)
        weight = b.reshape(g.weight_shape)[taps]
        yield from _grad_input(dy[windows], weight, dx, part, algorithm, biased, relu)


def _grad_weight(dy: Array, x: Array, dw: Array, g: ConvGeometry, algorithm: str) -> Job:
    engine, stride = _WEIGHT[algorithm], g.stride
    if engine is direct_weight.grad_weight and g.is_pointwise:
        # Filters meet every stride-th pixel and no other, for which stride 1 is left.
        d, h, w = stride
        x, stride = x[..., ::d, ::h, ::w], ONES
        if direct_weight.fills_more_swapped(dw.shape, dw.dtype):
            how = stride, g.before, g.dilation
            return Job(engine, x, dy, dw.swapaxes(1, 2), how, swapped=True)
    return Job(engine, dy, x, dw, (stride, g.before, g.dilation))


def _grad_input(
    dy: Array, weight: Array, dx: Array, g: ConvGeometry, algorithm: str, biased: bool, relu: bool
) -> Iterator[Job]:
    """A gradient of any stride; filters have their two channel axes swapped."""
    if prod(g.output) == 0:
        yield Job(fill.correlate, dy, weight, dx, (relu,))
        return
    swapped = weight.swapaxes(1, 2)
    if algorithm == "depthwise":
        flipped = swapped[..., ::-1, ::-1, ::-1]
        axes = zip(g.kernel, g.dilation, g.before, strict=True)
        before = tuple([(r - 1) * dilation - b for r, dilation, b in axes])
        yield Job(depthwise.correlate, dy, flipped, dx, (ONES, before, g.dilation, relu, g.stride))
        return
    if g.is_product and not biased:
        # Pixels become channels: as pixels, each would meet one tap and zeros under all others.
        order = (0, 1, 3, 4, 5, 2) if g.channels_last else (0, 1, 2, 3, 4, 5)
        image, ordered = dx.transpose(order), weight.transpose(order)
        if image.flags.c_contiguous:
            columns = np.ascontiguousarray(ordered).reshape(*ordered.shape[:2], -1, *ONES)
            row = image.reshape(*image.shape[:2], -1, *ONES)
            swapped = columns.swapaxes(1, 2)
            yield Job(direct.correlate, dy, swapped, row, (ONES, (0, 0, 0), ONES, relu))
            return
    if not g.is_covered:
        yield Job(fill.correlate, dy, weight, dx, (relu,))
    if g.phases:
        yield Job(_GRAD_INPUT[algorithm], dy, swapped, dx, (g, relu))


def repeated(jobs: Iterable[Job], a: Array, b: Array, out: Array) -> Repeat | None:
    """What takes other arrays like ``a`` and ``b``, all aligned, and a bias to one like ``out``.

    None if a job's arrays are no views of these.
    """
    parts = []
    for job in jobs:
        of_a, of_b = (job.b, job.a) if job.swapped else (job.a, job.b)
        see_a, see_b, see_out = viewer(a, of_a), viewer(b, of_b), viewer(out, job.out)
        if not (see_a and see_b and see_out):
            return None
        parts.append((_runner(job), see_a, see_b, see_out))
    shape, dtype = out.shape, out.dtype
    new = np.empty if out.nbytes < ALIGNED_BYTES else empty

    def repeat(a: Array, b: Array, bias: Array | None) -> Array:
        out = new(shape, dtype)
        for run, see_a, see_b, see_out in parts:
            run(see_a(a), see_b(b), bias, see_out(out))
        return out

    return repeat


def _runner(job: Job) -> Run:
    """What runs a job on views like its own, all aligned, in the order of the map's arrays."""
    run = job.engine.repeat(job.a, job.b, job.out, *job.options)
    return (lambda a, b, bias, out: run(b, a, bias, out)) if job.swapped else run
