"""The gradient of the filters where a group has few: lanes are pixels.

    dw[k,c,r] = sum_n sum_p  dy[n,k,p] x[n, c, p*stride + r*dilation - before]

Vectors of ``dy`` along a line meet vectors of ``x`` under several taps at once; the lanes of each
tap's sum are added up at the end of a block. The blocks are divided into shares, see ``shares.py``.
"""

from math import ceil, prod
from typing import Any

import numpy as np

from ..host import lanes_of
from .blocks import Ints, Tables, odd_pitch, offsets
from .engine import Engine
from .kernel import Kernel, inline
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
    sum_lanes,
    tile,
    zero,
)
from .stages import Plan
from .views import Layout

# Taps that one pass over a block serves: those of a 3x3 filter, and more than the 8 sums that hide
# the latency of the multiply-adds.
TAPS = 9

# Fields of `size` after those of the copy.
(
    FILTERS,
    DEPTH,
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
) = range(COPY_FIELDS, COPY_FIELDS + 16)


@inline
def _add_vector(acc, dy, x, table, steps, last, used, partial):
    # acc[tap] += dy * x under the tap; lanes from ``used`` on count as zero on both sides.
    value = load(dy, 0)
    for tap in range(TAPS):
        step = element(table, steps + min(tap, last))
        pixels = load_first(x, step, used) if partial else load(x, step)
        acc[tap, 0] = fma(value, pixels, acc[tap, 0])


@Kernel
def planar_share(task, slot, size, table, dy, x, unused, dw, work):
    """Sum one share of the blocks for all filters and taps of one group."""
    width = lanes(work)
    filters, depth, shares = size[FILTERS], size[DEPTH], size[SHARES]
    group, share = divmod(task, shares)
    sums = pointer(work, task * filters * depth)
    clear(sums, filters * depth)
    lines = pointer(work, size[SLOTS] + slot * size[SLOT])
    copy = pointer(lines, size[COPY])
    acc = tile(work, TAPS, 1)
    for number in range(share * size[BLOCKS] // shares, (share + 1) * size[BLOCKS] // shares):
        block = size[BLOCK_TABLE] + number * BLOCK_FIELDS
        copy_phases(x, size, table, block, group, copy)
        planes, rows = table[block + COUNTS], table[block + COUNTS + 1]
        cols = table[block + COUNTS + 2]
        pitch = (cols + width - 1) // width * width
        whole = cols - cols % width
        source = pointer(dy, group * size[Y_GROUP] + table[block + RESULT])
        for k in range(filters):
            for o in range(planes):
                for p in range(rows):
                    line = k * size[Y_FILTER] + o * size[Y_PLANE] + p * size[Y_ROW]
                    place = pointer(lines, (o * rows + p) * pitch)
                    pack_line(pointer(source, line), size[Y_COL], 0, 1, 0, cols, place, pitch)
            for first in range(0, depth, TAPS):
                last = min(depth - first, TAPS) - 1
                steps = size[X_STEPS] + first
                for tap in range(TAPS):
                    acc[tap, 0] = zero(work)
                for o in range(planes):
                    plane = pointer(copy, o * size[STRIDE] * size[PLANE_PITCH])
                    for p in range(rows):
                        line = pointer(lines, (o * rows + p) * pitch)
                        at = pointer(plane, p * size[LINE_PITCH])
                        for q in range(0, whole, width):
                            _add_vector(
                                acc, pointer(line, q), pointer(at, q), table, steps, last, 0, False
                            )
                        if whole < cols:
                            _add_vector(
                                acc,
                                pointer(line, whole),
                                pointer(at, whole),
                                table,
                                steps,
                                last,
                                cols - whole,
                                True,
                            )
                for tap in range(TAPS):
                    if tap <= last:
                        i = k * depth + first + tap
                        put(sums, i, element(sums, i) + sum_lanes(acc[tap, 0]))


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

    copy = cached_copy(x, dy, tuple(taps), stride, before, dilation, dtype.itemsize)
    blocks = len(copy.blocks)
    shares = min(ceil(TASKS / groups), blocks)
    slots = odd_pitch(groups * shares * filters * depth, width)
    _, planes, rows, cols = copy.block
    lines = odd_pitch(planes * rows * ceil(cols / width) * width, width)
    slot = odd_pitch(lines + copy.size + width, width)

    tables = Tables()
    size = (
        *copy.fields(tables),
        filters,
        depth,
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
        (planar_share, groups * shares),
        (planar_total, groups),
    ]
    operations = 2 * groups * filters * depth * prod(pixels)
    return Plan(dtype, stages, size, tables, slots + threads * slot, operations)
