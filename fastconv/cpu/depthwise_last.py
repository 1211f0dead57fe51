"""Depthwise correlation of images whose groups are neighbours in memory: channels last.

    y[n,p,g] = bias[g] + sum_r  x[n, p*stride + r*dilation - before, g] w[g,r]

Nothing is copied. A task takes some lines of the result (``lines.py``), a run of pixels of a line
at a time, and of these all groups: memory is read and written as it lies. A vector of the image is
loaded once for all taps of a row of the filter that meet it.
"""

from math import prod
from typing import Any

import numpy as np

from ..host import VECTOR_BITS
from .blocks import Ints, Tables, offsets, runs
from .driver import Plan
from .groups import pack_group_filter
from .kernel import Kernel, device, inline
from .lines import (
    AHEAD,
    CORNER,
    DILATION,
    DOWN,
    EXTENTS,
    GROUPS,
    IMAGE_FIELDS,
    LINE_FIELDS,
    LINE_TABLE,
    LINES,
    PIXELS,
    RESULT,
    ROW_TABLE,
    RUN,
    SEEN,
    STEP,
    STRIDES,
    TAPS,
    VECTORS,
    ImageLines,
    ask_ahead,
    first_pixel,
    pixel_loader,
    taps_inside,
)
from .simd import element, fma, lanes, load, pointer, store, tile, where_positive
from .views import Layout

# Tasks for every thread.
EACH = 8

# Fields of `size` after those of the image.
(
    TASKS,
    DEPTH,  # taps, T * R * S
    Y_ROW,
    Y_COL,
    W_GROUP,
    W_OFFSETS,  # where in `table`: offsets of taps in w, their runs
    W_RUNS,
    W_STEP,
    RELU,
) = range(IMAGE_FIELDS, IMAGE_FIELDS + 9)


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
        pointer(work, task * (size[DEPTH] + 1) * lanes(work)),
    )


def _row_adder(cols, step, edge):
    # Adds one row of so many taps for pixels that are so far apart.
    load_pixels = pixel_loader((RUN - 1) * step + cols, edge)

    @inline
    def add_row(acc, x, offset, col, at, extent, panel):
        seen = tile(x, 1, SEEN)
        load_pixels(x, offset, col, at, extent, seen)
        for s in range(cols):
            tap = load(panel, s * lanes(x))
            for j in range(RUN):
                acc[0, j] = fma(tap, seen[0, j * step + s], acc[0, j])

    return add_row


_add_3_strided, _add_3_strided_at_edge = (_row_adder(3, 2, edge) for edge in (False, True))
_add_3, _add_3_at_edge = (_row_adder(3, 1, edge) for edge in (False, True))
_add_2, _add_1 = (_row_adder(cols, 1, True) for cols in (2, 1))


@inline
def _add_any_row(acc, x, offset, col, at, extent, panel, cols, step, dilation):
    # One row of taps, whatever they are.
    for s in range(cols):
        tap = load(panel, s * lanes(x))
        for j in range(RUN):
            i = s * dilation + j * step
            if 0 <= at + i < extent:
                acc[0, j] = fma(tap, load(x, offset + i * col), acc[0, j])


@device
def _correlate_run(x, size, table, at, count, planes, down, panels, y):
    # `count` pixels of a line, all groups; `at` is where in a line of x the first tap of the first
    # lies. Fields are read once: for all that the compiler knows, y may lie where they are.
    width = lanes(y)
    groups, depth, extent, y_col = size[GROUPS], size[DEPTH], size[EXTENTS + 2], size[Y_COL]
    rows, cols, step, dilation = size[TAPS + 1], size[TAPS + 2], size[STEP], size[DILATION + 2]
    row_table, col, relu = size[ROW_TABLE], size[STRIDES + 2], size[RELU]
    # What the next line is the first to see, and where it goes.
    line = size[STRIDES + 1]
    ahead, below = ((rows - 1) * size[DILATION + 1] + 1) * line, size[Y_ROW]
    edge = at < 0 or count < RUN or at + (RUN - 1) * step + cols > extent
    special = dilation == 1 and ((step == 1 and cols <= 3) or (step == 2 and cols == 3))
    acc = tile(y, 1, RUN)
    for v in range(size[VECTORS]):
        group = min(v * width, groups - width)
        panel = pointer(panels, v * (depth + 1) * width)
        begin = load(panel, 0)
        for j in range(RUN):
            acc[0, j] = begin
        for t in range(planes[0], planes[1]):
            for r in range(down[0], down[1]):
                row = t * rows + r
                seen = element(table, row_table + row) + group
                taps = pointer(panel, (1 + row * cols) * width)
                if not special:
                    _add_any_row(acc, x, seen, col, at, extent, taps, cols, step, dilation)
                elif step == 2 and edge:
                    _add_3_strided_at_edge(acc, x, seen, col, at, extent, taps)
                elif step == 2:
                    _add_3_strided(acc, x, seen, col, at, extent, taps)
                elif cols == 3 and edge:
                    _add_3_at_edge(acc, x, seen, col, at, extent, taps)
                elif cols == 3:
                    _add_3(acc, x, seen, col, at, extent, taps)
                elif cols == 2:
                    _add_2(acc, x, seen, col, at, extent, taps)
                else:
                    _add_1(acc, x, seen, col, at, extent, taps)
        if size[AHEAD]:
            ask_ahead(x, ahead + group, line, size[DOWN], col, RUN * step)
            ask_ahead(y, below + group, 0, 1, y_col, RUN)
        for j in range(RUN):
            if j < count:
                store(
                    y,
                    j * y_col + group,
                    where_positive(acc[0, j], acc[0, j]) if relu else acc[0, j],
                )


@Kernel
def depthwise_lines(task, slot, size, table, x, weight, bias, y, work):
    """Compute some lines of the result."""
    tasks, lines, step = size[TASKS], size[LINES], size[STEP]
    for number in range(task * lines // tasks, (task + 1) * lines // tasks):
        line = size[LINE_TABLE] + number * LINE_FIELDS
        seen, result = pointer(x, first_pixel(size, table, line)), pointer(y, table[line + RESULT])
        planes, down = taps_inside(size, table, line, 0), taps_inside(size, table, line, 1)
        at, pixels = table[line + CORNER + 2], table[line + PIXELS]
        for q in range(0, pixels, RUN):
            _correlate_run(
                pointer(seen, q * step * size[STRIDES + 2]),
                size,
                table,
                at + q * step,
                min(RUN, pixels - q),
                planes,
                down,
                work,
                pointer(result, q * size[Y_COL]),
            )


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
) -> Plan:
    """Plan a correlation of groups that ``lines.are_neighbours``."""
    width = VECTOR_BITS // 8 // dtype.itemsize
    groups, taps = w.shape[0], w.shape[3:]
    depth = prod(taps)
    image = ImageLines(x, w, y, stride, before, dilation, width)
    tasks = min(EACH * threads, len(image.lines))
    tables = Tables()
    w_offsets = offsets(taps, w.strides[3:])
    size = (
        *image.fields(tables),
        tasks,
        depth,
        *y.strides[4:],
        w.strides[0],
        tables.add(w_offsets),
        tables.add(runs(w_offsets, w.strides[5])),
        w.strides[5],
        int(relu),
    )
    stages = [(pack_filters, image.vectors), (depthwise_lines, tasks)]
    operations = 2 * groups * depth * y.shape[0] * prod(y.shape[3:])
    work = image.vectors * (depth + 1) * width
    return Plan(dtype, stages, size, tables, work, operations, groups)
