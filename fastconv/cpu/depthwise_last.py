"""Depthwise correlation of images whose groups are neighbours in memory: channels last.

    y[n,p,g] = bias[g] + sum_r  x[n, p*stride + r*dilation - before, g] w[g,r]

Nothing is copied. A task takes some lines of the result (``lines.py``), a run of pixels of a line
at a time, and of these all groups: memory is read and written as it lies. A vector of the image is
loaded once for all taps of a row of the filter that meet it.
"""

from typing import Any

import numpy as np

from ..host import VECTOR_BITS
from .blocks import Ints, Tables, runs
from .driver import Plan
from .groups import pack_group_filter
from .kernel import Kernel, device, inline
from .line_walk import asker, line_walker, pixel_loader
from .lines import (
    AHEAD,
    COL,
    DEPTH,
    DILATION,
    DOWN,
    EXTENT,
    GROUPS,
    IMAGE_FIELDS,
    LINE,
    LINES,
    ROW_FIELDS,
    ROW_TABLE,
    ROWS,
    SEEN,
    STEP,
    TAP,
    TAPS,
    VECTORS,
    Y_COL,
    Y_ROW,
    ImageLines,
)
from .packing import inside
from .simd import fma, lanes, load, pointer, rolled, store, tile, where_positive
from .views import Layout

# Tasks for every thread.
EACH = 8

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
        pointer(work, task * (size[DEPTH] + 1) * lanes(work)),
    )


def _row_adder(run, three):
    # Adds one row of taps to a run of pixels: of three neighbours, for pixels so far apart, or any.
    load_pixels, reach = pixel_loader(run, three), (run - 1) * three + 3

    @inline
    def add_three(acc, x, offset, at, first, last, step, dilation, col, extent, taps):
        seen = tile(x, 1, reach)
        load_pixels(x, offset, col, at, extent, seen)
        for s in range(3):
            tap = load(taps, s * lanes(x))
            for j in range(run):
                acc[0, j] = fma(tap, seen[0, j * three + s], acc[0, j])

    @inline
    def add_any(acc, x, offset, at, first, last, step, dilation, col, extent, taps):
        for s in range(first, last):
            rolled()
            tap = load(taps, s * lanes(x))
            for j in range(run):
                pixel = load(pointer(x, j * step * col), offset + s * dilation * col)
                acc[0, j] = fma(tap, pixel, acc[0, j])

    return add_three if three else add_any


def _runner(run, three):
    add_row, ask = _row_adder(run, three), asker(run, three)

    @device
    def correlate_run(x, size, table, line, at, some, y, panels):
        # Fields are read once: for all that the compiler knows, y may lie where they are.
        width, groups, pitch = lanes(y), size[GROUPS], (size[DEPTH] + 1) * lanes(y)
        rows, begin = table[line + ROWS], table[line + ROW_TABLE]
        cols, dilation, extent = table[line + TAPS], table[line + DILATION], size[EXTENT]
        step, col, y_col, relu, ahead = size[STEP], size[COL], size[Y_COL], size[RELU], size[AHEAD]
        new = size[LINE]
        if rows:
            new += table[begin + (rows - 1) * ROW_FIELDS + SEEN]
        first, last = 0, cols
        if run == 1 and not three:
            first, last = inside(at, dilation, extent, cols)
        acc = tile(y, 1, run)
        for v in range(some[0], some[1]):
            group = min(v * width, groups - width)
            panel = pointer(panels, v * pitch)
            for j in range(run):
                acc[0, j] = load(panel, 0)
            for row in range(begin, begin + rows * ROW_FIELDS, ROW_FIELDS):
                rolled()
                seen = table[row + SEEN] + group
                taps = pointer(panel, (1 + table[row + TAP]) * width)
                add_row(acc, x, seen, at, first, last, step, dilation, col, extent, taps)
            if relu:
                for j in range(run):
                    acc[0, j] = where_positive(acc[0, j], acc[0, j])
            for j in range(run):
                store(y, j * y_col + group, acc[0, j])
            if ahead:
                ask(x, new, col, size[LINE], size[DOWN], y, size[Y_ROW], y_col, group)

    return correlate_run


_correlate_line = line_walker(_runner)


@Kernel
def depthwise_lines(task, slot, size, table, x, weight, bias, y, work):
    """Compute some lines of the result."""
    tasks, lines = size[TASKS], size[LINES]
    for number in range(task * lines // tasks, (task + 1) * lines // tasks):
        _correlate_line(x, size, table, number, y, work)


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
    width = VECTOR_BITS // 8 // dtype.itemsize
    tables = Tables()
    image = ImageLines(tables, x, w, y, stride, before, dilation, spacing, width)
    tasks = min(EACH * threads, image.count)
    size = (
        *image.fields,
        tasks,
        w.strides[0],
        tables.add(image.taps),
        tables.add(runs(image.taps, w.strides[5])),
        w.strides[5],
        int(relu),
    )
    depth, vectors = image.fields[DEPTH], image.fields[VECTORS]
    stages = [(pack_filters, vectors), (depthwise_lines, tasks)]
    work = vectors * (depth + 1) * width
    return Plan(dtype, stages, size, tables, work, image.operations, w.shape[0])
