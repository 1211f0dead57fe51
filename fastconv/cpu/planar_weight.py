"""The gradient of the filters where a group has few: lanes are pixels.

    dw[k,c,r] = sum_n sum_p  dy[n,k,p] x[n, c, p*stride + r*dilation - before]

Vectors of ``dy`` along a line meet vectors of ``x`` under several taps at once; the lanes of each
tap's sum are added up at the end of a block. Where taps below one another see lines below one
another, a line of ``x`` meets several lines of ``dy``, each under another line of taps: what is
loaded of it serves them all. The blocks are divided into shares, see ``shares.py``.
"""

from math import ceil, prod
from typing import Any

import numpy as np

from ..host import VECTOR_REGISTERS, lanes_of
from .blocks import Ints, Tables, odd_pitch, offsets
from .engine import Engine
from .kernel import Kernel, inline, named
from .packing import clear, pack_line
from .phases import (
    BLOCK_FIELDS,
    BLOCK_TABLE,
    COPY_FIELDS,
    COUNTS,
    LINE_PITCH,
    PLANE_PITCH,
    RESULT,
    STRIDE,
    cached_copy,
    copy_phases,
)
from .shares import TASKS, write_total
from .simd import (
    element,
    fma,
    lanes,
    load,
    load_first,
    pointer,
    put,
    store,
    sum_lanes,
    tile,
)
from .stages import Plan
from .views import Layout

# Lines and columns of taps that one pass over a block serves. In a single line each multiply-add
# loads its own pixels; its taps are those of a 3x3 filter, and more than the 8 sums that hide the
# latency of multiply-adds. Others fill the registers, with vectors of dy and one of x.
LINE = (1, 9)
TILES = ((3, 3), (4, 4), (5, 5)) if VECTOR_REGISTERS == 32 else ((3, 3),)

# Fields of `size` after those of the copy.
(
    FILTERS,
    DEPTH,
    DOWN,  # lines of taps whose pixels are neighbours, and the taps of a line
    ACROSS,
    BLOCKS,
    SHARES,
    Y_GROUP,
    Y_FILTER,
    Y_PLANE,
    Y_ROW,
    Y_COL,
    W_GROUP,
    W_FILTER,
    W_OFFSETS,
    X_STEPS,
    SLOTS,  # where in `work` the slots begin, how far apart they are, where in one the copy is
    SLOT,
    COPY,
) = range(COPY_FIELDS, COPY_FIELDS + 18)


@inline
def _add_vector(acc, down, across, dy, pitch, x, taps, used, partial):
    # acc[i, j] += dy[-i] * x under tap j; lines of dy are `pitch` apart; lanes from `used` on count
    # as zero on both sides.
    table, steps, last = taps
    values = tile(dy, down, 1)
    for i in range(down):
        values[i, 0] = load(dy, -i * pitch)
    for j in range(across):
        step = element(table, steps + min(j, last))
        pixels = load_first(x, step, used) if partial else load(x, step)
        for i in range(down):
            acc[i, j] = fma(values[i, 0], pixels, acc[i, j])


@inline
def _add_lines(down, across, sums, taps, seen, begin, end):
    # Lines begin to end of x under `down` lines of taps: each meets the line of dy of its number
    # under the first, those before it under the others.
    width = lanes(sums)
    size, (planes, rows, cols, pitch), lines, copy = seen
    whole = cols - cols % width
    acc = tile(sums, down, across)
    for i in range(down):
        for j in range(across):
            acc[i, j] = load(sums, (i * across + j) * width)
    for o in range(planes):
        for h in range(begin, end):
            dy = pointer(lines, (o * rows + h) * pitch)
            x = pointer(copy, o * size[STRIDE] * size[PLANE_PITCH] + h * size[LINE_PITCH])
            for q in range(0, whole, width):
                _add_vector(acc, down, across, pointer(dy, q), pitch, pointer(x, q), taps, 0, False)
            if whole < cols:
                dy, x, used = pointer(dy, whole), pointer(x, whole), cols - whole
                _add_vector(acc, down, across, dy, pitch, x, taps, used, True)
    for i in range(down):
        for j in range(across):
            store(sums, (i * across + j) * width, acc[i, j])


def _kernel(down: int, across: int) -> Kernel:
    """The kernel whose passes serve so many lines and columns of taps."""

    @named(down, across)
    def planar_share(task, slot, size, table, dy, x, unused, dw, work):
        """Sum one share of the blocks for all filters and taps of one group."""
        width = lanes(work)
        filters, depth, shares = size[FILTERS], size[DEPTH], size[SHARES]
        group, share = divmod(task, shares)
        sums = pointer(work, task * filters * depth)
        clear(sums, filters * depth)
        vectors = pointer(work, size[SLOTS] + slot * size[SLOT])
        lines = pointer(vectors, down * across * width)
        copy = pointer(lines, size[COPY])
        for number in range(share * size[BLOCKS] // shares, (share + 1) * size[BLOCKS] // shares):
            block = size[BLOCK_TABLE] + number * BLOCK_FIELDS
            copy_phases(x, size, table, block, group, copy)
            planes, rows = table[block + COUNTS], table[block + COUNTS + 1]
            cols = table[block + COUNTS + 2]
            pitch = (cols + width - 1) // width * width
            counts = planes, rows, cols, pitch
            source = pointer(dy, group * size[Y_GROUP] + table[block + RESULT])
            for k in range(filters):
                for o in range(planes):
                    for p in range(rows):
                        line = k * size[Y_FILTER] + o * size[Y_PLANE] + p * size[Y_ROW]
                        place = pointer(lines, (o * rows + p) * pitch)
                        pack_line(pointer(source, line), size[Y_COL], 0, 1, 0, cols, place, pitch)
                for top in range(0, depth // size[ACROSS], size[DOWN]):
                    for a in range(top, top + size[DOWN], down):
                        left = min(top + size[DOWN] - a, down)
                        for b in range(0, size[ACROSS], across):
                            first, last = a * size[ACROSS] + b, min(size[ACROSS] - b, across) - 1
                            steps = size[X_STEPS] + first
                            clear(vectors, down * across * width)
                            seen = size, counts, lines, copy
                            taps = table, steps, last
                            _add_lines(down, across, vectors, taps, seen, down - 1, rows)
                            # What lines at both ends of the block meet under some lines of taps.
                            for i in range(left):
                                some = pointer(vectors, i * across * width)
                                taps = table, steps + i * size[ACROSS], last
                                inside = min(down - 1 - i, rows)
                                for begin, end in (0, inside), (max(rows - i, inside), rows):
                                    _add_lines(1, across, some, taps, seen, begin, end)
                            for i in range(left):
                                for j in range(last + 1):
                                    tap = k * depth + first + i * size[ACROSS] + j
                                    total = sum_lanes(load(vectors, (i * across + j) * width))
                                    put(sums, tap, element(sums, tap) + total)

    return Kernel(planar_share)


PLANAR_SHARE = {size: _kernel(*size) for size in (LINE, *TILES)}


@Kernel
def planar_total(task, slot, size, table, dy, x, unused, dw, work):
    """Add up the shares of one group, in order, and write them to ``dw``."""
    every = size[FILTERS] * size[DEPTH]
    write_total(
        pointer(work, task * size[SHARES] * every),
        size[SHARES],
        every,
        size[FILTERS],
        size[DEPTH],
        table,
        size[W_OFFSETS],
        pointer(dw, task * size[W_GROUP]),
        size[W_FILTER],
    )


def _cycles(passes: tuple[int, int], down: int, across: int) -> float:
    """Of a vector of ``x`` and all taps: two multiply-adds in one, or loads of one vector across
    two cache lines or two of ``dy``.
    """
    i, j = passes
    return ceil(down / i) * ceil(across / j) * max(i * j, i + 2 * j) / 2


@Engine
def grad_weight(
    dtype: np.dtype[Any],
    threads: int,
    dy: Layout,
    x: Layout,
    dw: Layout,
    stride: Ints,
    before: Ints,
    dilation: Ints,
) -> Plan:
    """Plan a gradient of the filters."""
    width = lanes_of(dtype)
    groups, filters, channels, *taps = dw.shape
    depth = channels * prod(taps)
    pixels = (dy.shape[0], *dy.shape[3:])
    down, across = 1, depth
    passes = LINE
    if taps[1] > 1 and stride[1] == dilation[1] == 1:
        down, across = taps[1:]
        passes = min(TILES, key=lambda size: _cycles(size, down, across))

    copy = cached_copy(x, dy, tuple(taps), stride, before, dilation, dtype.itemsize, least=TASKS)
    blocks = len(copy.blocks)
    shares = min(ceil(TASKS / groups), blocks)
    slots = odd_pitch(groups * shares * filters * depth, width)
    _, planes, rows, cols = copy.block
    lines = odd_pitch(planes * rows * ceil(cols / width) * width, width)
    slot = odd_pitch(prod(passes) * width + lines + copy.size + width, width)

    tables = Tables()
    size = (
        *copy.fields(tables),
        filters,
        depth,
        down,
        across,
        blocks,
        shares,
        *dy.strides[1:],
        *dw.strides[:2],
        tables.add(offsets((channels, *taps), dw.strides[2:])),
        tables.add(copy.steps),
        slots,
        slot,
        lines,
    )
    stages = [
        (PLANAR_SHARE[passes], groups * shares),
        (planar_total, groups),
    ]
    operations = 2 * groups * filters * depth * prod(pixels)
    return Plan(dtype, stages, size, tables, slots + threads * slot, operations)
