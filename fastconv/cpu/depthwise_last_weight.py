"""The gradient of depthwise filters for images with their channels last: nothing is copied.

    dw[g,r] = sum_n sum_p  dy[n,p,g] x[n, p*stride + r*dilation - before, g]

A task sums a *share* of the lines (``lines.py``) for all groups and taps; the number of shares
depends on the problem alone, and they are added in order.
"""

from math import ceil, prod
from typing import Any

import numpy as np

from ..host import L1_BYTES, VECTOR_BITS, lanes_of
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
    LONGEST,
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

# Where so many vectors of groups are fewer than all, and a line of them fits into the first-level
# cache with the lines of x that it sees and its sums, they go through a share by themselves: lines
# are seen again by the next ones. 960 groups of 7x7 pixels took 0.78 to 0.83 of the time, 576 of
# 14x14, stride 2, 0.82, 192 of 28x28 0.7 to 0.85.
SEEN_BYTES = L1_BYTES
FEWEST = 3

# See ``lines.CACHED_BYTES``. 384 groups of 14x14, 9.2 MiB, took 0.54 of the time after others had
# filled the caches, and 1.07 where they lay there.
CACHED_BYTES = (9 if VECTOR_BITS == 512 else 8) * 2**20

# Fields of `size` after those of the image.
(
    SHARED,  # shares
    W_GROUP,
    W_OFFSETS,  # where in `table`: offsets of taps in dw, their runs
    W_RUNS,
    W_STEP,
    TOGETHER,  # vectors of groups that go through all lines of a share before the next ones do
    PIECES,  # whether shares are summed in pieces
    SLOTS,  # where in `work` the sums of pieces begin, one for each slot
) = range(IMAGE_FIELDS, IMAGE_FIELDS + 8)


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
    every = size[VECTORS] * size[DEPTH] * lanes(work)
    sums = pointer(work, task * every)
    piece = pointer(work, size[SLOTS] + slot * every) if size[PIECES] else sums
    for first in range(0, size[VECTORS], size[TOGETHER]):
        last = min(first + size[TOGETHER], size[VECTORS])
        begin, count = first * size[DEPTH] * lanes(work), (last - first) * size[DEPTH]
        clear_lanes(pointer(sums, begin), count)
        clear_lanes(pointer(piece, begin), count)
        summed = 0
        for number in range(task * lines // shares, (task + 1) * lines // shares):
            _add_line(x, size, table, number, dy, piece, first, last)
            summed += table[size[LINE_TABLE] + number * LINE_FIELDS + PIXELS]
            if size[PIECES] and summed >= PIECE:
                _move_sums(pointer(piece, begin), pointer(sums, begin), count)
                summed = 0
        if size[PIECES]:
            _move_sums(pointer(piece, begin), pointer(sums, begin), count)


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
    how = stride, before, dilation, (1, 1, 1), depth, width
    image = ImageLines(tables, x, dw, dy, *how, cached=CACHED_BYTES)
    vectors = image.fields[VECTORS]
    shares = min(SHARES, image.count)
    sums = vectors * depth * width
    # Pixels that a line and its taps see and their sums, for one vector of groups.
    seen = prod(dw.shape[3:5]) * x.shape[5] + dy.shape[5] + depth
    together = SEEN_BYTES // (seen * width * dtype.itemsize)
    parts = ceil(vectors / together) if together >= FEWEST else 1
    size = (
        *image.fields,
        shares,
        dw.strides[0],
        tables.add(image.taps),
        tables.add(runs(image.taps, dw.strides[5])),
        dw.strides[5],
        ceil(vectors / parts),
        int(ceil(image.count / shares) * min(dy.shape[5], LONGEST) > PIECE),
        shares * sums,
    )
    stages = [(share_lines, shares), (add_shares, vectors)]
    work = (shares + threads) * sums + width
    return Plan(dtype, stages, size, tables, work, image.operations)
