"""The gradient of depthwise filters for images with their channels last: nothing is copied.

    dw[g,r] = sum_n sum_p  dy[n,p,g] x[n, p*stride + r*dilation - before, g]

A task sums a *share* of the lines (``lines.py``) for all groups and taps; the number of shares
depends on the problem alone, and they are added in order.
"""

from math import prod
from typing import Any

import numpy as np

from ..host import VECTOR_BITS
from .blocks import Ints, Tables, offsets, runs
from .driver import Plan
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
from .packing import clear_lanes, unpack_panel
from .simd import element, fma, lanes, load, load_if, pointer, store, tile, zero
from .views import Layout

# Pixels after which sums join those of the share: it keeps the rounding error of long ones low.
PIECE = 512

# Shares at most.
SHARES = 16

# Fields of `size` after those of the image.
(
    SHARED,  # shares
    DEPTH,  # taps, T * R * S
    Y_ROW,
    Y_COL,
    W_GROUP,
    W_OFFSETS,  # where in `table`: offsets of taps in dw, their runs
    W_RUNS,
    W_STEP,
    SLOTS,  # where in `work` the sums of pieces begin, one for each slot
) = range(IMAGE_FIELDS, IMAGE_FIELDS + 9)


def _row_adder(cols, step, edge):
    # Adds to the sums of one row of so many taps, for pixels that are so far apart.
    load_pixels = pixel_loader((RUN - 1) * step + cols, edge)

    @inline
    def add_row(sums, values, count, x, offset, col, at, extent):
        seen = tile(x, 1, SEEN)
        load_pixels(x, offset, col, at, extent, seen)
        for s in range(cols):
            total = load(sums, s * lanes(x))
            for j in range(RUN):
                if not edge or j < count:
                    total = fma(values[0, j], seen[0, j * step + s], total)
            store(sums, s * lanes(x), total)

    return add_row


_add_3_strided, _add_3_strided_at_edge = (_row_adder(3, 2, edge) for edge in (False, True))
_add_3, _add_3_at_edge = (_row_adder(3, 1, edge) for edge in (False, True))


@inline
def _add_any_row(sums, values, count, x, offset, col, at, extent, cols, step, dilation):
    # One row of taps, whatever they are.
    for s in range(cols):
        total = load(sums, s * lanes(x))
        for j in range(RUN):
            i = s * dilation + j * step
            if j < count and 0 <= at + i < extent:
                total = fma(values[0, j], load(x, offset + i * col), total)
        store(sums, s * lanes(x), total)


@device
def _add_run(x, size, table, at, count, planes, down, dy, sums):
    # `count` pixels of a line, all groups; `at` is where in a line of x the first tap of the first
    # lies. Fields are read once: for all that the compiler knows, sums may lie where they are.
    width = lanes(sums)
    groups, depth, extent, y_col = size[GROUPS], size[DEPTH], size[EXTENTS + 2], size[Y_COL]
    rows, cols, step, dilation = size[TAPS + 1], size[TAPS + 2], size[STEP], size[DILATION + 2]
    row_table, line, col = size[ROW_TABLE], size[STRIDES + 1], size[STRIDES + 2]
    # What the next line is the first to see.
    ahead, below = ((rows - 1) * size[DILATION + 1] + 1) * line, size[Y_ROW]
    edge = at < 0 or count < RUN or at + (RUN - 1) * step + cols > extent
    special = dilation == 1 and step <= 2 and cols == 3
    values = tile(sums, 1, RUN)
    for v in range(size[VECTORS]):
        group = min(v * width, groups - width)
        for j in range(RUN):
            values[0, j] = load_if(pointer(dy, j * y_col), group, j < count)
        for t in range(planes[0], planes[1]):
            for r in range(down[0], down[1]):
                row = t * rows + r
                seen = element(table, row_table + row) + group
                taps = pointer(sums, (v * depth + row * cols) * width)
                if not special:
                    _add_any_row(
                        taps, values, count, x, seen, col, at, extent, cols, step, dilation
                    )
                elif step == 2 and edge:
                    _add_3_strided_at_edge(taps, values, count, x, seen, col, at, extent)
                elif step == 2:
                    _add_3_strided(taps, values, count, x, seen, col, at, extent)
                elif edge:
                    _add_3_at_edge(taps, values, count, x, seen, col, at, extent)
                else:
                    _add_3(taps, values, count, x, seen, col, at, extent)
        if size[AHEAD]:
            ask_ahead(x, ahead + group, line, size[DOWN], col, RUN * step)
            ask_ahead(dy, below + group, 0, 1, y_col, RUN)


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
    shares, lines, step = size[SHARED], size[LINES], size[STEP]
    count = size[VECTORS] * size[DEPTH]
    sums = pointer(work, task * count * lanes(work))
    piece = pointer(work, size[SLOTS] + slot * count * lanes(work))
    clear_lanes(sums, count)
    clear_lanes(piece, count)
    summed = 0
    for number in range(task * lines // shares, (task + 1) * lines // shares):
        line = size[LINE_TABLE] + number * LINE_FIELDS
        seen, values = pointer(x, first_pixel(size, table, line)), pointer(dy, table[line + RESULT])
        planes, down = taps_inside(size, table, line, 0), taps_inside(size, table, line, 1)
        at, pixels = table[line + CORNER + 2], table[line + PIXELS]
        for q in range(0, pixels, RUN):
            _add_run(
                pointer(seen, q * step * size[STRIDES + 2]),
                size,
                table,
                at + q * step,
                min(RUN, pixels - q),
                planes,
                down,
                pointer(values, q * size[Y_COL]),
                piece,
            )
        summed += pixels
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
    groups, taps = dw.shape[0], dw.shape[3:]
    depth = prod(taps)
    image = ImageLines(x, dw, dy, stride, before, dilation, width)
    shares = min(SHARES, len(image.lines))
    sums = image.vectors * depth * width
    tables = Tables()
    w_offsets = offsets(taps, dw.strides[3:])
    size = (
        *image.fields(tables),
        shares,
        depth,
        *dy.strides[4:],
        dw.strides[0],
        tables.add(w_offsets),
        tables.add(runs(w_offsets, dw.strides[5])),
        dw.strides[5],
        shares * sums,
    )
    stages = [(share_lines, shares), (add_shares, image.vectors)]
    operations = 2 * groups * depth * dy.shape[0] * prod(dy.shape[3:])
    work = (shares + threads) * sums + width
    return Plan(dtype, stages, size, tables, work, operations)
