"""Correlation with few filters to a group: lanes are pixels.

    y[n,k,p] = bias[k] + sum_c sum_r  x[n, c, p*stride + r*dilation - before] w[k,c,r]

With one filter to a group (depthwise convolutions, image filters) or a few, vectors of filters
would be mostly empty. Here a vector holds neighbouring pixels and one weight at a time is
broadcast. A task copies what a block of pixels sees (``phases.py``), goes through it with all
filters of the group, and copies the lines of the result out of the sums. A single filter takes
three lines at a time: ``planar_lines.py``.
"""

from math import prod
from typing import Any

import numpy as np

from ..host import VECTOR_REGISTERS, lanes_of
from . import planar_lines
from .blocks import Ints, Tables, odd_pitch, offsets
from .engine import Engine
from .kernel import Kernel, inline
from .packing import copy_line
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
from .planar_lines import PIECE
from .simd import broadcast, element, fma, lanes, load, pointer, store, tile, where_positive, zero
from .stages import Plan
from .views import Layout

# Filters to a tile at most, and vectors of pixels that go with 1, 2, 3, 4 and 6 filters: 8 to 24
# accumulators hide the latency of the multiply-adds and leave registers for the pixels.
MOST = 6
WIDE = 8
MIDDLE, THIRD, NARROW, FLAT = (6, 6, 4, 4) if VECTOR_REGISTERS == 32 else (4, 3, 2, 2)

# Fields of `size` after those of the copy.
(
    FILTERS,
    DEPTH,
    BLOCKS,
    W_GROUP,
    W_FILTER,
    Y_GROUP,
    Y_FILTER,
    Y_PLANE,
    Y_ROW,
    Y_COL,
    W_OFFSETS,
    X_STEPS,
    RELU,
    SLOT,
    SUMS,
) = range(COPY_FIELDS, COPY_FIELDS + 15)


@inline
def _correlate_tile(x, weight, bias, size, table, last, out, rows, cols):
    # rows filters by cols vectors of pixels; filters after the last one repeat it.
    width = lanes(out)
    acc = tile(out, MOST, WIDE)
    pixels = tile(out, 1, WIDE)
    for piece in range(0, size[DEPTH], PIECE):
        relu = size[RELU] and piece + PIECE >= size[DEPTH]
        for k in range(rows):
            begin = zero(out) if piece > 0 else broadcast(bias, min(k, last))
            for j in range(cols):
                acc[k, j] = begin
        for s in range(piece, min(piece + PIECE, size[DEPTH])):
            first = element(table, size[X_STEPS] + s)
            for j in range(cols):
                pixels[0, j] = load(x, first + j * width)
            tap = element(table, size[W_OFFSETS] + s)
            for k in range(rows):
                value = broadcast(weight, tap + min(k, last) * size[W_FILTER])
                for j in range(cols):
                    acc[k, j] = fma(value, pixels[0, j], acc[k, j])
        for k in range(rows):
            for j in range(cols):
                place = k * size[SUMS] + j * width
                total = load(out, place) + acc[k, j] if piece > 0 else acc[k, j]
                store(out, place, where_positive(total, total) if relu else total)


@Kernel
def planar_block(task, slot, size, table, x, weight, bias, y, work):
    """Take one block of pixels through all filters of one group."""
    width = lanes(work)
    group, block = divmod(task, size[BLOCKS])
    block = size[BLOCK_TABLE] + block * BLOCK_FIELDS
    sums = pointer(work, slot * size[SLOT])
    copy = pointer(sums, MOST * size[SUMS])
    copy_phases(x, size, table, block, group, copy)
    planes, rows, cols = table[block + COUNTS], table[block + COUNTS + 1], table[block + COUNTS + 2]
    pixels = (rows - 1) * size[LINE_PITCH] + cols
    k = 0
    while k < size[FILTERS]:
        last = min(MOST, size[FILTERS] - k) - 1
        filters = pointer(weight, group * size[W_GROUP] + k * size[W_FILTER])
        biases = pointer(bias, group * size[FILTERS] + k)
        result = pointer(y, group * size[Y_GROUP] + k * size[Y_FILTER] + table[block + RESULT])
        for o in range(planes):
            plane = pointer(copy, o * size[STRIDE] * size[PLANE_PITCH])
            # The literals unroll the loops over a tile.
            if last == 0:
                for i in range(0, pixels, WIDE * width):
                    at, out = pointer(plane, i), pointer(sums, i)
                    _correlate_tile(at, filters, biases, size, table, last, out, 1, WIDE)
            elif last == 1:
                for i in range(0, pixels, MIDDLE * width):
                    at, out = pointer(plane, i), pointer(sums, i)
                    _correlate_tile(at, filters, biases, size, table, last, out, 2, MIDDLE)
            elif last == 2:
                for i in range(0, pixels, THIRD * width):
                    at, out = pointer(plane, i), pointer(sums, i)
                    _correlate_tile(at, filters, biases, size, table, last, out, 3, THIRD)
            elif last == 3:
                for i in range(0, pixels, NARROW * width):
                    at, out = pointer(plane, i), pointer(sums, i)
                    _correlate_tile(at, filters, biases, size, table, last, out, 4, NARROW)
            else:
                for i in range(0, pixels, FLAT * width):
                    at, out = pointer(plane, i), pointer(sums, i)
                    _correlate_tile(at, filters, biases, size, table, last, out, 6, FLAT)
            for f in range(last + 1):
                for p in range(rows):
                    line = pointer(sums, f * size[SUMS] + p * size[LINE_PITCH])
                    place = f * size[Y_FILTER] + o * size[Y_PLANE] + p * size[Y_ROW]
                    copy_line(line, 1, cols, pointer(result, place), size[Y_COL])
        k += last + 1


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
) -> Plan:
    """Plan a correlation."""
    if planar_lines.serves(w, y, stride, dilation):
        return planar_lines.make_plan(dtype, threads, x, w, y, stride, before, dilation, relu)
    width = lanes_of(dtype)
    groups, filters, channels, *taps = w.shape
    pixels = (y.shape[0], *y.shape[3:])

    copy = cached_copy(
        x, y, tuple(taps), stride, before, dilation, dtype.itemsize, least=4 * threads
    )
    # The last tile of a plane reads and writes past the pixels.
    sums = odd_pitch(copy.block[2] * copy.line + WIDE * width, width)
    slot = odd_pitch(MOST * sums + copy.size + WIDE * width, width)

    tables = Tables()
    size = (
        *copy.fields(tables),
        filters,
        channels * prod(taps),
        len(copy.blocks),
        *w.strides[:2],
        *y.strides[1:],
        tables.add(offsets((channels, *taps), w.strides[2:])),
        tables.add(copy.steps),
        int(relu),
        slot,
        sums,
    )
    stages = [(planar_block, groups * len(copy.blocks))]
    operations = 2 * groups * filters * channels * prod(taps) * prod(pixels)
    return Plan(dtype, stages, size, tables, threads * slot, operations, groups * filters)
