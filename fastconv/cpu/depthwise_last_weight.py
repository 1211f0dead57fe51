"""The gradient of depthwise filters for images with their channels last: nothing is copied.

    dw[g,r] = sum_n sum_p  dy[n,p,g] x[n, p*stride + r*dilation - before, g]

A task sums a *share* of the lines (``lines.py``) for all groups and taps; the number of shares
depends on the problem alone, and they are added in order.
"""

from math import prod
from typing import Any

import numpy as np

from ..host import lanes_of
from .blocks import Ints, Tables, runs
from .kernel import Kernel, device, inline
from .line_walk import line_walker
from .lines import (
    DEPTH,
    GROUPS,
    IMAGE_FIELDS,
    LINE_FIELDS,
    LINE_TABLE,
    LINES,
    PIXELS,
    VECTORS,
    ImageLines,
)
from .panels import clear_lanes, unpack_panel
from .shares import add_up
from .simd import fma, lanes, load, pointer, store, zero
from .stages import Plan
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


def _begin(run):
    @inline
    def begin(values, panel, dy, y_col, group):
        for j in range(run):
            values[0, j] = load(dy, j * y_col + group)

    return begin


def _adder(run, count, step):
    @inline
    def add_taps(values, seen, sums):
        for s in range(count):
            total = load(sums, s * lanes(sums))
            for j in range(run):
                total = fma(values[0, j], seen[0, j * step + s], total)
            store(sums, s * lanes(sums), total)

    return add_taps


def _finish(run):
    @inline
    def finish(values, size, dy, y_col, group):
        pass  # the sums are where they belong

    return finish


_add_line = line_walker("add", _begin, _adder, _finish)


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
    add_up(sums, 0, depth * width, size[SHARED], every)
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
    width = lanes_of(dtype)
    tables = Tables()
    depth = prod(dw.shape[3:])
    image = ImageLines(tables, x, dw, dy, stride, before, dilation, (1, 1, 1), depth, width)
    vectors = image.fields[VECTORS]
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
