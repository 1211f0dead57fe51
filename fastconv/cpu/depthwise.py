"""Correlation of many groups with one or a few channels and filters each: lanes are groups.

    y[n,g,k,p] = bias[g,k] + sum_c sum_r  x[n,g,c, p*stride + r*dilation - before] w[g,k,c,r]

Groups have nothing in common, so that a vector of 16 of them does 16 times the work of one. A task
packs what a block of lines sees of one vector of groups (``groups.py``), correlates it and
transposes the result back.
"""

from math import ceil, prod
from typing import Any

import numpy as np

from ..host import lanes_of
from . import depthwise_last
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
    pack_group_filter,
)
from .kernel import Kernel, inline
from .lines import are_neighbours
from .panels import unpack_lanes
from .simd import element, fma, lanes, load, pointer, store, tile, where_positive
from .stages import Plan
from .views import Layout

# Pixels that are summed at a time: 8 sums hide the latency of the multiply-adds.
MOST, FEW = 16, 8

# Fields of `size` after those of the copy.
(
    FILTERS,  # K/G
    DEPTH,  # steps of a sum, C/G * T * R * S
    BLOCKS,
    LINE,  # pixels in a line of y
    STRIDE_H,
    STRIDE_W,
    W_GROUP,  # strides of w and y
    W_FILTER,
    Y_GROUP,
    Y_FILTER,
    Y_ROW,
    Y_COL,
    W_OFFSETS,  # where in `table`: offsets of w, their runs, offsets of channels and taps
    W_RUNS,
    W_STEP,
    X_STEPS,
    RELU,
    SLOTS,  # where in `work` the slots begin, how far apart they are, where in one the sums are
    SLOT,
    SUMS,
) = range(COPY_FIELDS, COPY_FIELDS + 20)


@Kernel
def pack_filters(task, slot, size, table, x, weight, bias, y, work):
    """Pack the filters of one vector of groups: for each a bias, then all channels and taps."""
    width = lanes(work)
    depth, filters = size[DEPTH], size[FILTERS]
    first = task * width
    used = min(size[GROUPS] - first, width)
    for k in range(filters):
        pack_group_filter(
            pointer(weight, first * size[W_GROUP] + k * size[W_FILTER]),
            size[W_GROUP],
            pointer(bias, first * filters + k),
            filters,
            used,
            table,
            size[W_OFFSETS],
            size[W_RUNS],
            size[W_STEP],
            depth,
            pointer(work, (task * filters + k) * (depth + 1) * width),
        )


@inline
def _correlate_pixels(x, step, table, steps, depth, panel, out, relu, pixels):
    # A literal number of pixels, `step` vectors apart in the copy.
    width = lanes(out)
    acc = tile(out, 1, MOST)
    begin = load(panel, 0)
    for j in range(pixels):
        acc[0, j] = begin
    for s in range(depth):
        seen = pointer(x, element(table, steps + s) * width)
        tap = load(panel, (s + 1) * width)
        for j in range(pixels):
            acc[0, j] = fma(tap, load(seen, j * step * width), acc[0, j])
    for j in range(pixels):
        store(out, j * width, where_positive(acc[0, j], acc[0, j]) if relu else acc[0, j])


@Kernel
def depthwise_block(task, slot, size, table, x, weight, bias, y, work):
    """Take one block of lines of one vector of groups through its filters."""
    width = lanes(work)
    depth, filters = size[DEPTH], size[FILTERS]
    vector, block = divmod(task, size[BLOCKS])
    first = vector * width
    used = min(size[GROUPS] - first, width)
    block = size[BLOCK_TABLE] + block * BLOCK_FIELDS
    copy = pointer(work, size[SLOTS] + slot * size[SLOT])
    sums = pointer(copy, size[SUMS])
    copy_groups(x, size, table, block, first, used, copy)
    lines, line, step, relu = table[block + LINES], size[LINE], size[STRIDE_W], size[RELU]
    for k in range(filters):
        panel = pointer(work, (vector * filters + k) * (depth + 1) * width)
        for p in range(lines):
            seen = pointer(copy, p * size[STRIDE_H] * size[BOX_WIDTH] * width)
            out = pointer(sums, p * line * width)
            # The last pixels of a line spill into the next, which is written after them.
            q = 0
            while q < line:
                at, place = pointer(seen, q * step * width), pointer(out, q * width)
                if step == 1 and line - q > FEW:  # as a literal, the step goes into addresses
                    _correlate_pixels(at, 1, table, size[X_STEPS], depth, panel, place, relu, MOST)
                    q += MOST
                elif line - q > FEW:
                    _correlate_pixels(
                        at, step, table, size[X_STEPS], depth, panel, place, relu, MOST
                    )
                    q += MOST
                else:
                    _correlate_pixels(
                        at, step, table, size[X_STEPS], depth, panel, place, relu, FEW
                    )
                    q += FEW
        result = pointer(y, first * size[Y_GROUP] + k * size[Y_FILTER] + table[block + RESULT])
        if size[Y_ROW] == line * size[Y_COL]:
            unpack_lanes(sums, width, lines * line, result, size[Y_COL], size[Y_GROUP], used)
        else:
            for p in range(lines):
                from_ = pointer(sums, p * line * width)
                to = pointer(result, p * size[Y_ROW])
                unpack_lanes(from_, width, line, to, size[Y_COL], size[Y_GROUP], used)


@Engine
def correlate(
    dtype: np.dtype[Any],
    threads: int,
    x: Layout,
    w: Layout,
    y: Layout,
    stride: Ints,
    before: Ints,
    dilation: Ints,
    relu: bool = False,
    spacing: Ints = (1, 1, 1),
) -> Plan:
    """Plan a correlation.

    ``spacing`` puts that many pixels less one, all zero, between those of ``x`` along each axis;
    ``before`` counts pixels of the result.
    """
    width = lanes_of(dtype)
    if are_neighbours(x, w, y, width):
        how = stride, before, dilation, relu, spacing
        return depthwise_last.make_plan(dtype, threads, x, w, y, *how)
    groups, filters, channels, *taps = w.shape
    depth = channels * prod(taps)
    vectors = ceil(groups / width)
    copy = GroupCopy(
        x,
        y,
        tuple(taps),
        stride,
        before,
        dilation,
        spacing,
        width,
    )
    blocks = len(copy.blocks)
    # The last pixels of a block read and write past it.
    seen = (copy.vectors + MOST * stride[2]) * width
    slot = odd_pitch(seen + (copy.lines * copy.line + MOST) * width, width)
    slots = vectors * filters * (depth + 1) * width

    tables = Tables()
    w_offsets = offsets((channels, *taps), w.strides[2:])
    size = (
        *copy.fields(tables),
        filters,
        depth,
        blocks,
        copy.line,
        *stride[1:],
        *w.strides[:2],
        *y.strides[1:3],
        *y.strides[4:],
        tables.add(w_offsets),
        tables.add(runs(w_offsets, w.strides[5])),
        w.strides[5],
        tables.add(copy.steps),
        int(relu),
        slots,
        slot,
        seen,
    )
    stages = [
        (pack_filters, vectors),
        (depthwise_block, vectors * blocks),
    ]
    operations = 2 * groups * filters * depth * y.shape[0] * prod(y.shape[3:])
    return Plan(dtype, stages, size, tables, slots + threads * slot, operations, groups * filters)
