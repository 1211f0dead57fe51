"""The gradient of the filters of many groups with few channels and filters: lanes are groups.

    dw[g,k,c,r] = sum_n sum_p  dy[n,g,k,p] x[n,g,c, p*stride + r*dilation - before]

A task goes through a *share* of the blocks with one vector of groups and keeps a vector of sums for
each tap. The number of shares depends on the problem alone, and they are added in order.
"""

from math import ceil, prod
from typing import Any

import numpy as np

from ..host import lanes_of
from . import depthwise_last_weight
from .blocks import Ints, Tables, odd_pitch, offsets, runs
from .engine import Engine
from .groups import (
    BLOCK_FIELDS,
    BLOCK_TABLE,
    BOX_WIDTH,
    COPY_FIELDS,
    GROUPS,
    LINES,
    RESULT,
    GroupCopy,
    copy_groups,
)
from .kernel import Kernel, inline
from .lines import are_neighbours
from .panels import clear_lanes, pack_lanes, unpack_panel
from .shares import TASKS, add_up
from .simd import element, fma, lanes, load, pointer, store, tile, zero
from .stages import Plan
from .views import Layout

# Taps that one pass over a block serves, and pixels of a line taken together: TAPS x RUN sums hide
# the latency of the multiply-adds, and TAPS addresses fit in registers: with 9 taps and single
# pixels most of the time went into reloading them.
TAPS, RUN = 3, 4

# Fields of `size` after those of the copy.
(
    FILTERS,  # K/G
    DEPTH,  # sums for each filter, C/G * T * R * S
    BLOCKS,
    SHARES,
    LINE,  # pixels in a line of dy
    STRIDE_H,
    STRIDE_W,
    Y_GROUP,  # strides of dy and dw
    Y_FILTER,
    Y_ROW,
    Y_COL,
    W_GROUP,
    W_FILTER,
    W_OFFSETS,  # where in `table`: offsets of dw, their runs, offsets of channels and taps
    W_RUNS,
    W_STEP,
    X_STEPS,
    SLOTS,  # where in `work` the slots begin, how far apart they are, where in one dy is
    SLOT,
    PIXELS,
) = range(COPY_FIELDS, COPY_FIELDS + 20)


@inline
def _add_line(acc, values, x, line, stride, table, steps, last):
    # acc[i] += sum_q values[q] x[q*stride + step of tap i]; taps past the last one repeat it.
    width = lanes(values)
    whole = line - line % RUN
    for q in range(0, whole, RUN):
        for i in range(TAPS):
            met = pointer(x, (q * stride + element(table, steps + min(i, last))) * width)
            for j in range(RUN):
                value = load(values, (q + j) * width)
                acc[i, j] = fma(value, load(met, j * stride * width), acc[i, j])
    for q in range(whole, line):
        for i in range(TAPS):
            met = pointer(x, (q * stride + element(table, steps + min(i, last))) * width)
            acc[i, 0] = fma(load(values, q * width), load(met, 0), acc[i, 0])


@Kernel
def depthwise_share(task, slot, size, table, dy, x, unused, dw, work):
    """Sum one share of the blocks for all filters and taps of one vector of groups."""
    width = lanes(work)
    depth, filters, shares, line = size[DEPTH], size[FILTERS], size[SHARES], size[LINE]
    vector, share = divmod(task, shares)
    first = vector * width
    used = min(size[GROUPS] - first, width)
    sums = pointer(work, task * filters * depth * width)
    clear_lanes(sums, filters * depth)
    copy = pointer(work, size[SLOTS] + slot * size[SLOT])
    pixels = pointer(copy, size[PIXELS])
    stride = size[STRIDE_W]
    acc = tile(work, TAPS, RUN)
    for number in range(share * size[BLOCKS] // shares, (share + 1) * size[BLOCKS] // shares):
        block = size[BLOCK_TABLE] + number * BLOCK_FIELDS
        copy_groups(x, size, table, block, first, used, copy)
        lines = table[block + LINES]
        for k in range(filters):
            source = pointer(dy, first * size[Y_GROUP] + k * size[Y_FILTER] + table[block + RESULT])
            if size[Y_ROW] == line * size[Y_COL]:
                pack_lanes(source, size[Y_COL], size[Y_GROUP], used, lines * line, pixels, width)
            else:
                for p in range(lines):
                    from_, to = pointer(source, p * size[Y_ROW]), pointer(pixels, p * line * width)
                    pack_lanes(from_, size[Y_COL], size[Y_GROUP], used, line, to, width)
            for tap in range(0, depth, TAPS):
                last = min(TAPS, depth - tap) - 1
                steps = size[X_STEPS] + tap
                for i in range(TAPS):
                    for j in range(RUN):
                        acc[i, j] = zero(work)
                for p in range(lines):
                    seen = pointer(copy, p * size[STRIDE_H] * size[BOX_WIDTH] * width)
                    values = pointer(pixels, p * line * width)
                    if stride == 1:  # as a literal, the stride goes into addresses
                        _add_line(acc, values, seen, line, 1, table, steps, last)
                    else:
                        _add_line(acc, values, seen, line, stride, table, steps, last)
                for i in range(TAPS):
                    if i <= last:
                        total = load(sums, (k * depth + tap + i) * width)
                        for j in range(RUN):
                            total = total + acc[i, j]
                        store(sums, (k * depth + tap + i) * width, total)


@Kernel
def depthwise_total(task, slot, size, table, dy, x, unused, dw, work):
    """Add up the shares of one vector of groups, in order, and write them to ``dw``."""
    width = lanes(work)
    depth, filters, shares = size[DEPTH], size[FILTERS], size[SHARES]
    every = filters * depth * width
    sums = pointer(work, task * shares * every)
    add_up(sums, 0, every, shares, every)
    first = task * width
    for k in range(filters):
        unpack_panel(
            pointer(sums, k * depth * width),
            1,
            depth,
            pointer(dw, first * size[W_GROUP] + k * size[W_FILTER]),
            size[W_GROUP],
            size[GROUPS] - first,
            table,
            size[W_OFFSETS],
            size[W_RUNS],
            size[W_STEP],
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
    if are_neighbours(x, dw, dy, width):
        return depthwise_last_weight.make_plan(dtype, threads, dy, x, dw, stride, before, dilation)
    groups, filters, channels, *taps = dw.shape
    depth = channels * prod(taps)
    vectors = ceil(groups / width)
    copy = GroupCopy(
        x,
        dy,
        tuple(taps),
        stride,
        before,
        dilation,
        (1, 1, 1),
        width,
    )
    blocks = len(copy.blocks)
    shares = min(ceil(TASKS / vectors), blocks)
    slots = vectors * shares * filters * depth * width
    seen = copy.vectors * width
    slot = odd_pitch(seen + copy.lines * copy.line * width, width)

    tables = Tables()
    w_offsets = offsets((channels, *taps), dw.strides[2:])
    size = (
        *copy.fields(tables),
        filters,
        depth,
        blocks,
        shares,
        copy.line,
        *stride[1:],
        *dy.strides[1:3],
        *dy.strides[4:],
        *dw.strides[:2],
        tables.add(w_offsets),
        tables.add(runs(w_offsets, dw.strides[5])),
        dw.strides[5],
        tables.add(copy.steps),
        slots,
        slot,
        seen,
    )
    stages = [
        (depthwise_share, vectors * shares),
        (depthwise_total, vectors),
    ]
    operations = 2 * groups * filters * depth * dy.shape[0] * prod(dy.shape[3:])
    return Plan(dtype, stages, size, tables, slots + threads * slot, operations)
