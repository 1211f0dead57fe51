"""Depthwise correlation of images whose groups are neighbours in memory: channels last.

    y[n,p,g] = bias[g] + sum_r  x[n, p*stride + r*dilation - before, g] w[g,r]

Nothing is copied. A task takes some lines of the result (``lines.py``), a run of pixels of a line
at a time, and of these many groups: memory is read and written as it lies. A vector of the image is
loaded once for all taps of a row of the filter that meet it.
"""

from math import prod
from typing import Any

import numpy as np

from ..host import lanes_of
from .blocks import Ints, Tables, runs
from .groups import pack_group_filter
from .kernel import Kernel, inline
from .line_walk import line_walker, writer_of
from .lines import (
    DEPTH,
    GROUPS,
    IMAGE_FIELDS,
    LINES,
    PITCH,
    VECTORS,
    ImageLines,
    goes_far,
    line_tasks,
)
from .simd import (
    fma,
    lanes,
    load,
    pointer,
    where_positive,
)
from .stages import Plan
from .views import Layout

# Fields of `size` after those of the image.
(
    TASKS,
    W_GROUP,
    W_OFFSETS,  # where in `table`: offsets of taps in w, their runs
    W_RUNS,
    W_STEP,
    RELU,
) = range(IMAGE_FIELDS, IMAGE_FIELDS + 6)


@Kernel
def pack_filters(task, slot, size, table, x, weight, bias, y, work):
    """Pack the filters of one vector of groups: biases, then all taps."""
    first = min(task * lanes(work), size[GROUPS] - lanes(work))
    pack_group_filter(
        pointer(weight, first * size[W_GROUP]),
        size[W_GROUP],
        pointer(bias, first),
        1,
        lanes(work),
        table,
        size[W_OFFSETS],
        size[W_RUNS],
        size[W_STEP],
        size[DEPTH],
        pointer(work, task * size[PITCH]),
    )


def _begin(run):
    @inline
    def begin(acc, panel, y, y_col, group):
        for j in range(run):
            acc[0, j] = load(panel, -lanes(y))  # biases stand before the taps

    return begin


def _adder(run, count, step):
    @inline
    def add_taps(acc, seen, taps):
        for s in range(count):
            tap = load(taps, s * lanes(taps))
            for j in range(run):
                acc[0, j] = fma(tap, seen[0, j * step + s], acc[0, j])

    return add_taps


def _pair_adder(run):
    @inline
    def add_taps(acc, seen, taps):
        for j in range(run):
            acc[0, 2 * j] = fma(load(taps, 0), seen[0, j], acc[0, 2 * j])
            left = fma(load(taps, lanes(taps)), seen[0, j], acc[0, 2 * j + 1])
            acc[0, 2 * j + 1] = fma(load(taps, 2 * lanes(taps)), seen[0, j + 1], left)

    return add_taps


def _finish(run):
    write = writer_of(run)

    @inline
    def finish(acc, size, y, y_col, group):
        if size[RELU]:
            for j in range(run):
                acc[0, j] = where_positive(acc[0, j], acc[0, j])
        write(acc, size, y, y_col, group)

    return finish


_correlate_line = line_walker("correlate", _begin, _adder, _finish, _pair_adder)


@Kernel
def depthwise_lines(task, slot, size, table, x, weight, bias, y, work):
    """Compute some lines of the result."""
    tasks, lines, taps = size[TASKS], size[LINES], pointer(work, lanes(work))
    for number in range(task * lines // tasks, (task + 1) * lines // tasks):
        _correlate_line(x, size, table, number, y, taps, 0, size[VECTORS])


def make_plan(
    dtype: np.dtype[Any],
    threads: int,
    x: Layout,
    w: Layout,
    y: Layout,
    stride: Ints,
    before: Ints,
    dilation: Ints,
    relu: bool,
    spacing: Ints,
) -> Plan:
    """Plan a correlation of groups that ``lines.are_neighbours``."""
    width = lanes_of(dtype)
    tables = Tables()
    pitch = 1 + prod(w.shape[3:])
    far = goes_far(y, dtype, prod(w.shape[3:]))
    image = ImageLines(tables, x, w, y, stride, before, dilation, spacing, pitch, width, far)
    tasks = line_tasks(image, threads)
    size = (
        *image.fields,
        tasks,
        w.strides[0],
        tables.add(image.taps),
        tables.add(runs(image.taps, w.strides[5])),
        w.strides[5],
        int(relu),
    )
    vectors = image.fields[VECTORS]
    stages = [(pack_filters, vectors), (depthwise_lines, tasks)]
    work = vectors * pitch * width
    return Plan(dtype, stages, size, tables, work, image.operations, w.shape[0])
