"""The gradient of depthwise filters for images with their channels last: nothing is copied.

    dw[g,r] = sum_n sum_p  dy[n,p,g] x[n, p*stride + r*dilation - before, g]

A task sums a *share* of the lines (``lines.py``) for all groups and taps; the number of shares
depends on the problem alone, and they are added in order.
"""

from typing import Any

import numpy as np

from ..host import VECTOR_BITS
from .blocks import Ints, Tables, runs
from .driver import Plan
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
    LINE_FIELDS,
    LINE_TABLE,
    LINES,
    PIXELS,
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
from .packing import clear_lanes, inside, unpack_panel
from .simd import fma, lanes, load, pointer, rolled, store, tile, zero
from .views import Layout

# Pixels after which sums join those of the share: it keeps the rounding error of long ones low.
PIECE = 512

# Shares at most.
SHARES = 16

# Fields of `size` after those of the image.
(
    SHARED,  # shares
    W_GROUP,
    W_OFFSETS,  # where in `table`: offsets of taps in dw, their runs
    W_RUNS,
    W_STEP,
    SLOTS,  # where in `work` the sums of pieces begin, one for each slot
) = range(IMAGE_FIELDS, IMAGE_FIELDS + 6)


def _row_adder(run, three):
    # Adds a run of pixels to the sums of one row of taps: of three neighbours, or any.
    load_pixels, reach = pixel_loader(run, three), (run - 1) * three + 3

    @inline
    def add_three(sums, values, x, offset, at, first, last, step, dilation, col, extent):
        seen = tile(x, 1, reach)
        load_pixels(x, offset, col, at, extent, seen)
        for s in range(3):
            total = load(sums, s * lanes(x))
            for j in range(run):
                total = fma(values[0, j], seen[0, j * three + s], total)
            store(sums, s * lanes(x), total)

    @inline
    def add_any(sums, values, x, offset, at, first, last, step, dilation, col, extent):
        for s in range(first, last):
            rolled()
            total = load(sums, s * lanes(x))
            for j in range(run):
                pixel = load(pointer(x, j * step * col), offset + s * dilation * col)
                total = fma(values[0, j], pixel, total)
            store(sums, s * lanes(x), total)

    return add_three if three else add_any


def _runner(run, three):
    add_row, ask = _row_adder(run, three), asker(run, three)

    @device
    def add_run(x, size, table, line, at, some, dy, sums):
        # Fields are read once: for all that the compiler knows, sums may lie where they are.
        width, groups, pitch = lanes(sums), size[GROUPS], size[DEPTH] * lanes(sums)
        rows, begin = table[line + ROWS], table[line + ROW_TABLE]
        cols, dilation, extent = table[line + TAPS], table[line + DILATION], size[EXTENT]
        step, col, y_col, ahead = size[STEP], size[COL], size[Y_COL], size[AHEAD]
        new = size[LINE]
        if rows:
            new += table[begin + (rows - 1) * ROW_FIELDS + SEEN]
        first, last = 0, cols
        if run == 1 and not three:
            first, last = inside(at, dilation, extent, cols)
        values = tile(sums, 1, run)
        for v in range(some[0], some[1]):
            group = min(v * width, groups - width)
            panel = pointer(sums, v * pitch)
            for j in range(run):
                values[0, j] = load(dy, j * y_col + group)
            for row in range(begin, begin + rows * ROW_FIELDS, ROW_FIELDS):
                rolled()
                seen = table[row + SEEN] + group
                taps = pointer(panel, table[row + TAP] * width)
                add_row(taps, values, x, seen, at, first, last, step, dilation, col, extent)
            if ahead:
                ask(x, new, col, size[LINE], size[DOWN], dy, size[Y_ROW], y_col, group)

    return add_run


_add_line = line_walker(_runner)


@device
def _move_sums(source, target, count):
    # target += source, which is cleared.
    width = lanes(source)
    for i in range(0, count * width, width):
        store(target, i, load(target, i) + load(source, i))
        store(source, i, zero(source))


@Kernel
def share_lines(task, slot, size, table, dy, x, unused, dw, work):
    """Sum one share of the lines for all groups and taps."""
    shares, lines = size[SHARED], size[LINES]
    count = size[VECTORS] * size[DEPTH]
    sums = pointer(work, task * count * lanes(work))
    piece = pointer(work, size[SLOTS] + slot * count * lanes(work))
    clear_lanes(sums, count)
    clear_lanes(piece, count)
    summed = 0
    for number in range(task * lines // shares, (task + 1) * lines // shares):
        _add_line(x, size, table, number, dy, piece)
        summed += table[size[LINE_TABLE] + number * LINE_FIELDS + PIXELS]
        if summed >= PIECE:
            _move_sums(piece, sums, count)
            summed = 0
    _move_sums(piece, sums, count)


@Kernel
def add_shares(task, slot, size, table, dy, x, unused, dw, work):
    """Add up the shares of one vector of groups, in order, and write them to ``dw``."""
    width = lanes(work)
    depth = size[DEPTH]
    every = size[VECTORS] * depth * width
    sums = pointer(work, task * depth * width)
    for i in range(0, depth * width, width):
        total = load(sums, i)
        for share in range(1, size[SHARED]):
            total = total + load(sums, share * every + i)
        store(sums, i, total)
    # Groups of the last vector that belong to the one before are left to that.
    begin = task * width
    first = min(begin, size[GROUPS] - width)
    unpack_panel(
        pointer(sums, begin - first),
        1,
        depth,
        pointer(dw, begin * size[W_GROUP]),
        size[W_GROUP],
        size[GROUPS] - begin,
        table,
        size[W_OFFSETS],
        size[W_RUNS],
        size[W_STEP],
    )


def make_plan(
    dtype: np.dtype[Any],
    threads: int,
    dy: Layout,
    x: Layout,
    dw: Layout,
    stride: Ints,
    before: Ints,
    dilation: Ints,
) -> Plan:
    """Plan a gradient of the filters of groups that ``lines.are_neighbours``."""
    width = VECTOR_BITS // 8 // dtype.itemsize
    tables = Tables()
    image = ImageLines(tables, x, dw, dy, stride, before, dilation, (1, 1, 1), width)
    depth, vectors = image.fields[DEPTH], image.fields[VECTORS]
    shares = min(SHARES, image.count)
    sums = vectors * depth * width
    size = (
        *image.fields,
        shares,
        dw.strides[0],
        tables.add(image.taps),
        tables.add(runs(image.taps, dw.strides[5])),
        dw.strides[5],
        shares * sums,
    )
    stages = [(share_lines, shares), (add_shares, vectors)]
    work = (shares + threads) * sums + width
    return Plan(dtype, stages, size, tables, work, image.operations)
