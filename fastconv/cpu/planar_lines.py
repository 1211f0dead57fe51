"""Correlation with a single filter to a group: three lines of the result at a time.

    y[n,p,q] = bias + sum_c sum_a sum_b  x[n, c, p+a - above, q*stride + b*dilation - left] w[c,a,b]

A line of the image is seen by several lines of the result, each through another line of the filter:
what is loaded of it serves three. ``planar.py`` loads as many vectors as it multiplies, half of
them across two cache lines, which takes twice as long as the multiply-adds.
"""

from math import ceil, prod
from typing import Any

import numpy as np

from ..host import VECTOR_REGISTERS, lanes_of
from .blocks import Ints, Tables, odd_pitch, offsets
from .kernel import Kernel, inline, named
from .packing import copy_line
from .phases import (
    BLOCK_FIELDS,
    BLOCK_TABLE,
    COPY_FIELDS,
    CORNER,
    COUNTS,
    LINE_PITCH,
    PLANE_PITCH,
    RESULT,
    STRIDE,
    cached_copy,
    copy_phases,
)
from .simd import broadcast, element, fma, lanes, load, pointer, store, tile, where_positive, zero
from .stages import Plan
from .views import Layout

# Lines of a tile, and vectors of pixels in each.
LINES = 3
COLS = 6 if VECTOR_REGISTERS == 32 else 3

# Pixels of an image of the result from which on the tables for it are worth while.
MANY_PIXELS = 4096

# Products added up before they join the sum: ten million float32 numbers of one sign, one after the
# other, would be off by 1%.
PIECE = 512

# Fields of `size` after those of the copy.
(
    TAPS,  # in a line of the filter, of all channels and planes
    DOWN,  # lines of the filter, and how many are added up at a time
    SPAN,
    BLOCKS,
    W_GROUP,
    W_DOWN,
    Y_GROUP,
    Y_LINE,  # from a line of y to the next, to the third next, to the next plane, to the next pixel
    Y_ROW,
    Y_PLANE,
    Y_COL,
    LEFT,  # lines of y from the corner of the first window on
    W_OFFSETS,  # where in `table`: offsets of taps in w and in the copy, line by line
    X_STEPS,
    RELU,
    SLOT,
    SUMS,
) = range(COPY_FIELDS, COPY_FIELDS + 17)


def serves(w: Layout, y: Layout, stride: Ints, dilation: Ints) -> bool:
    """Whether lines of the result see neighbours, and few of those computed are left over."""
    _, filters, channels, planes, down, across = w.shape
    neighbours = filters == stride[1] == dilation[1] == 1 and down >= LINES
    lines = y.shape[4]
    few = ceil(lines / LINES) * LINES <= 1.2 * lines
    short = channels * planes * across <= PIECE
    return neighbours and few and short and prod(y.shape[3:]) >= MANY_PIXELS


@inline
def _add_lines(acc, factors, seen, taps, count, begin, end):
    # `count` lines of the image, from line `seen` on. Lines begin to end of the tile see the first
    # of them through line `taps` of the filter, and through those before it.
    x, weight, size, table = factors
    pixels = tile(x, 1, COLS)
    for s in range(count * size[TAPS]):
        first = element(table, size[X_STEPS] + seen * size[TAPS] + s)
        for j in range(COLS):
            pixels[0, j] = load(x, first + j * lanes(x))
        tap = element(table, size[W_OFFSETS] + taps * size[TAPS] + s)
        for k in range(begin, end):
            value = broadcast(weight, tap - (k - begin) * size[W_DOWN])
            for j in range(COLS):
                acc[k, j] = fma(value, pixels[0, j], acc[k, j])


@inline
def _put_sums(acc, left, out, pitch, add, relu):
    # Lines that are not left are not written.
    for k in range(LINES):
        if k < left:
            for j in range(COLS):
                place = k * pitch + j * lanes(out)
                total = load(out, place) + acc[k, j] if add else acc[k, j]
                store(out, place, where_positive(total, total) if relu else total)


@inline
def _correlate_tile(factors, size, bias, left, out, pitch, long):
    # Three lines of COLS vectors, of which those that are `left` are written, `pitch` apart. With
    # `long` sums, those of SPAN lines of taps are added up in `out`.
    down, span = size[DOWN], size[SPAN]
    acc = tile(out, LINES, COLS)
    for k in range(LINES):
        for j in range(COLS):
            acc[k, j] = broadcast(bias, 0)
    # The first two lines of the image are seen by one and by two lines of the tile, so are the last
    # two; all others by all three. The literals unroll the loops over the tile.
    _add_lines(acc, factors, 0, 0, 1, 0, 1)
    _add_lines(acc, factors, 1, 1, 1, 0, 2)
    if long:
        for first in range(2, down, span):
            if first > 2:
                _put_sums(acc, left, out, pitch, first > 2 + span, False)
                for k in range(LINES):
                    for j in range(COLS):
                        acc[k, j] = zero(out)
            _add_lines(acc, factors, first, first, min(span, down - first), 0, 3)
    else:
        _add_lines(acc, factors, 2, 2, down - 2, 0, 3)
    _add_lines(acc, factors, down, down - 1, 1, 1, 3)
    _add_lines(acc, factors, down + 1, down - 1, 1, 2, 3)
    _put_sums(acc, left, out, pitch, long and down - 2 > span, size[RELU] > 0)


def _kernel(long: bool) -> Kernel:
    """The kernel for sums that are added up in pieces, or for others: with it they took up to 1.17
    times as long.
    """

    @named(long)
    def lines_block(task, slot, size, table, x, weight, bias, y, work):
        """Take one block of pixels through the filter of one group."""
        step = COLS * lanes(work)
        group, block = divmod(task, size[BLOCKS])
        block = size[BLOCK_TABLE] + block * BLOCK_FIELDS
        sums = pointer(work, slot * size[SLOT])
        copy = pointer(sums, LINES * size[SUMS])
        copy_phases(x, size, table, block, group, copy)
        planes, rows = table[block + COUNTS], table[block + COUNTS + 1]
        cols = table[block + COUNTS + 2]
        lines = size[LEFT] - table[block + CORNER + 1]
        filters, number = pointer(weight, group * size[W_GROUP]), pointer(bias, group)
        in_place = size[Y_COL] == 1 and cols >= step
        for o in range(planes):
            plane = pointer(copy, o * size[STRIDE] * size[PLANE_PITCH])
            result = pointer(y, group * size[Y_GROUP] + table[block + RESULT] + o * size[Y_PLANE])
            for p in range(rows):
                line, to = pointer(plane, p * size[LINE_PITCH]), pointer(result, p * size[Y_ROW])
                left = min(lines - p * LINES, LINES)
                for i in range(0, cols, step):
                    if in_place:
                        q = min(i, cols - step)  # the last tile of a line overlaps the one before
                        out, pitch = pointer(to, q), size[Y_LINE]
                    else:
                        q, out, pitch = i, pointer(sums, i), size[SUMS]
                    factors = pointer(line, q), filters, size, table
                    _correlate_tile(factors, size, number, left, out, pitch, long)
                for k in range(0 if in_place else left):
                    place = pointer(to, k * size[Y_LINE])
                    copy_line(pointer(sums, k * size[SUMS]), 1, cols, place, size[Y_COL])

    return Kernel(lines_block)


LINES_BLOCK = {long: _kernel(long) for long in (False, True)}


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
    """Plan a correlation that this ``serves``."""
    width = lanes_of(dtype)
    groups, _, channels, planes, down, across = w.shape
    batch, _, _, depth, lines, cols = y.shape
    image, of_group, filter_, plane, line, col = y.strides
    # Three lines are a row of blocks; the copy holds them apart, as it does what strides skip.
    rows = Layout(
        (batch, groups, 1, depth, ceil(lines / LINES), cols),
        (image, of_group, filter_, plane, LINES * line, col),
    )
    seen = planes, down + LINES - 1, across
    steps = stride[0], LINES, stride[2]

    copy = cached_copy(
        x, rows, seen, steps, before, dilation, dtype.itemsize, least=4 * threads, each=LINES
    )
    # The last tile of a line reads and writes past the pixels.
    sums = odd_pitch(copy.block[3] + COLS * width, width)
    slot = odd_pitch(LINES * sums + copy.size + COLS * width, width)

    tables = Tables()
    group, _, of_channel, of_plane, of_line, of_col = w.strides
    by_line = offsets((down, channels, planes, across), (of_line, of_channel, of_plane, of_col))
    size = (
        *copy.fields(tables),
        channels * planes * across,
        down,
        PIECE // (channels * planes * across),
        len(copy.blocks),
        group,
        of_line,
        of_group,
        line,
        LINES * line,
        plane,
        col,
        lines - before[1],
        tables.add(by_line),
        tables.add(np.moveaxis(copy.steps.reshape(channels, *seen), 2, 0)),
        int(relu),
        slot,
        sums,
    )
    long = prod(w.shape[2:]) > PIECE
    stages = [(LINES_BLOCK[long], groups * len(copy.blocks))]
    operations = 2 * prod(w.shape) * batch * prod(y.shape[3:])
    return Plan(dtype, stages, size, tables, threads * slot, operations, groups)
