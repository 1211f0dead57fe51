"""The gradient of the filters as a product of matrices, ``dy`` by columns of the image.

    dw[k,s] = sum_p  dy[k,p] column[s,p]        column[s,p] = x[pixels[p] + steps[s]]

where s runs over channels and taps, and lanes are output pixels. A task copies the rows of some
filters and of some channels, a block of pixels at a time, and takes a tile of products of rows
along it; the lanes of each sum are added up at the end of a block. Meanwhile it asks for the rows
of the next block: where filters and channels are few, reading takes as long as multiplying. The
blocks are divided into shares, see ``shares.py``.
"""

from math import ceil, prod
from typing import Any

import numpy as np

from ..host import L2_BYTES, lanes_of
from .blocks import Ints, Tables, block_shape, odd_pitch, offsets, runs
from .engine import Engine
from .image import (
    BLOCK_FIELDS,
    BLOCK_TABLE,
    IMAGE_FIELDS,
    PIXELS,
    RESULT,
    WINDOW,
    X_GROUP,
    X_STRIDES,
    ImageBlocks,
    see_block,
)
from .kernel import Kernel, device, inline
from .packing import clear_lanes, gather_lines
from .shares import TASKS, write_total
from .simd import (
    LINE_VECTORS,
    element,
    fma,
    lanes,
    load,
    pointer,
    prefetch,
    put,
    store,
    sum_lanes,
    tile,
    zero,
)
from .stages import Plan
from .views import Layout, flat_if_pointwise

# Registers: 12 sums, 3 vectors of x and one of dy fill 16.
X_ROWS = 3
Y_ROWS = 4

# Filters whose rows pass over one after the other: with the most pixels, 16 KiB of them stay in the
# first-level cache.
TOGETHER = 8

# Pixels to a block at most and, where rows are many, at least: the tile's sums end with a block,
# which costs as much as 10 of its 64 vectors. Of the peak, one core reached 0.95 with 512 pixels,
# 0.75 with 256.
MOST_PIXELS = 512
LEAST_PIXELS = 128

# Rows of a task at most: of filters, and of filters, channels and taps together. With the fewest
# pixels they fill half a second-level cache of 512 KiB.
MOST_FILTERS = 128
MOST_ROWS = 512

# Fields of `size` after those of the image.
(
    FILTERS,  # K/G
    PARTS,  # tasks among which they are divided
    CHANNELS,  # C/G
    CHUNK,  # channels to a task
    CHUNKS,
    TAPS,
    SHARES,
    BLOCKS,
    Y_GROUP,  # strides of dy and dw
    Y_FILTER,
    W_GROUP,
    W_FILTER,
    W_CHANNEL,
    X_STEPS,  # where in `table`: offsets of channels and taps, of pixels; runs; the same of dy
    X_PIXELS,
    X_RUNS,
    X_STEP,
    Y_FILTERS,
    Y_PIXELS,
    Y_RUNS,
    Y_STEP,
    W_OFFSETS,
    IN_LINE,  # whether a row of a block lies in one piece in x and in dy
    PITCH,  # of the rows
    SUMS,  # numbers in the sums of one task
    SLOTS,  # where in `work` the slots begin, how far apart they are, where in one the slab is
    SLOT,
    SLAB,
) = range(IMAGE_FIELDS, IMAGE_FIELDS + 28)


@inline
def _multiply(x, x_last, dy, y_last, pitch, count, coming, sums, depth):
    # sums[j, i] += sum_p dy[j, p] x[i, p] for a tile of rows; those past the last one repeat it and
    # are not written. The row that comes next is asked for on the way.
    width = lanes(x)
    acc, pixels = tile(x, X_ROWS, Y_ROWS), tile(x, X_ROWS, 1)
    for i in range(X_ROWS):
        for j in range(Y_ROWS):
            acc[i, j] = zero(x)
    for p in range(0, count, width):
        prefetch(coming, p)
        for i in range(X_ROWS):
            pixels[i, 0] = load(x, min(i, x_last) * pitch + p)
        for j in range(Y_ROWS):
            value = load(dy, min(j, y_last) * pitch + p)
            for i in range(X_ROWS):
                acc[i, j] = fma(pixels[i, 0], value, acc[i, j])
    for j in range(Y_ROWS):
        if j <= y_last:
            for i in range(X_ROWS):
                if i <= x_last:
                    at = j * depth + i
                    put(sums, at, element(sums, at) + sum_lanes(acc[i, j]))


@device
def _clear_ends(rows, count, pitch, pixels):
    # The last vector of each row, which pixels may not fill.
    last = pixels - pixels % lanes(rows)
    if last < pixels:
        for i in range(count):
            store(rows, i * pitch + last, zero(rows))


@inline
def _part_of(task, size):
    # Group, first filter and how many, first channel and how many of one part of ``dw``.
    rest, chunk = divmod(task, size[CHUNKS])
    group, part = divmod(rest, size[PARTS])
    first = part * size[FILTERS] // size[PARTS]
    filters = (part + 1) * size[FILTERS] // size[PARTS] - first
    channel = chunk * size[CHUNK]
    return group, first, filters, channel, min(size[CHUNK], size[CHANNELS] - channel)


@inline
def _row(index, filters, size, table, block, of_dy, of_x):
    # Where one of the rows of a block lies, those of filters before those of channels and taps.
    if index < filters:
        place = element(table, block + RESULT) + element(table, size[Y_FILTERS] + index)
        return pointer(of_dy, place)
    place = element(table, block + WINDOW) + element(table, size[X_STEPS] + index - filters)
    return pointer(of_x, place)


@Kernel
def multiply_share(task, slot, size, table, dy, x, unused, dw, work):
    """Sum one share of the blocks for some filters and channels."""
    shares, blocks, pitch = size[SHARES], size[BLOCKS], size[PITCH]
    part, share = divmod(task, shares)
    group, first, filters, channel, channels = _part_of(part, size)
    depth = channels * size[TAPS]
    sums = pointer(work, task * size[SUMS])
    clear_lanes(sums, size[SUMS] // lanes(work))
    rows = pointer(work, size[SLOTS] + slot * size[SLOT])
    columns, slab = pointer(rows, filters * pitch), pointer(rows, size[SLAB])
    of_dy = pointer(dy, group * size[Y_GROUP] + first * size[Y_FILTER])
    of_x = pointer(x, group * size[X_GROUP] + channel * size[X_STRIDES + 1])
    end = (share + 1) * blocks // shares
    for number in range(share * blocks // shares, end):
        block = size[BLOCK_TABLE] + number * BLOCK_FIELDS
        pixels = table[block + PIXELS]
        image = see_block(x, size, table, block, group, channel, channels, slab)
        seen = pointer(of_dy, table[block + RESULT])
        _clear_ends(rows, filters + depth, pitch, pixels)
        of_rows = size[Y_PIXELS], size[Y_RUNS], size[Y_STEP], 0, pixels, rows, pitch
        of_columns = size[X_PIXELS], size[X_RUNS], size[X_STEP], 0, pixels, columns, pitch
        gather_lines(seen, table, size[Y_FILTERS], filters, *of_rows)
        gather_lines(image, table, size[X_STEPS], depth, *of_columns)
        unasked = filters + depth if size[IN_LINE] and number + 1 < end else 0
        for begin in range(0, filters, TOGETHER):
            for i in range(0, depth, X_ROWS):
                for j in range(begin, min(begin + TOGETHER, filters), Y_ROWS):
                    coming = rows  # is there
                    if unasked > 0:
                        unasked -= 1
                        following = block + BLOCK_FIELDS
                        coming = _row(unasked, filters, size, table, following, of_dy, of_x)
                    _multiply(
                        pointer(columns, i * pitch),
                        depth - 1 - i,
                        pointer(rows, j * pitch),
                        filters - 1 - j,
                        pitch,
                        pixels,
                        coming,
                        pointer(sums, j * depth + i),
                        depth,
                    )


@Kernel
def total(task, slot, size, table, dy, x, unused, dw, work):
    """Add up the shares of some filters and channels, and write them to ``dw``."""
    group, first, filters, channel, channels = _part_of(task, size)
    depth = channels * size[TAPS]
    place = group * size[W_GROUP] + first * size[W_FILTER] + channel * size[W_CHANNEL]
    write_total(
        pointer(work, task * size[SHARES] * size[SUMS]),
        size[SHARES],
        size[SUMS],
        filters,
        depth,
        table,
        size[W_OFFSETS],
        pointer(dw, place),
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
    x, dy = flat_if_pointwise(x, dy, dw.shape[3:], stride, before)
    width = lanes_of(dtype)
    groups, filters, channels, *extents = dw.shape
    taps = prod(extents)
    pixels = (dy.shape[0], *dy.shape[3:])
    parts = ceil(filters / MOST_FILTERS)
    most = ceil(filters / parts)
    chunks = ceil(channels / max(1, (MOST_ROWS - most) // taps))
    chunk = ceil(channels / chunks)
    chunks = ceil(channels / chunk)
    rows = most + chunk * taps

    room = L2_BYTES // 2 // (rows * dtype.itemsize)
    block = block_shape(pixels, max(LEAST_PIXELS, min(MOST_PIXELS, room)))
    if block[3] < pixels[3]:  # whole cache lines
        line = LINE_VECTORS * width
        block = (*block[:3], ceil(block[3] / line) * line)
    image = ImageBlocks(x, dy, tuple(extents), stride, before, dilation, chunk, block, width)
    blocks, wholes = len(image.blocks), groups * parts * chunks
    shares = min(ceil(TASKS / wholes), blocks)

    tables = Tables()
    y_offsets = offsets(block, (dy.strides[0], *dy.strides[3:]))
    in_line = not image.padded and image.step == dy.strides[5] == 1 and block[:3] == (1, 1, 1)
    pitch = odd_pitch(prod(block), width)
    sums = ceil(most * chunk * taps / width) * width
    slots = wholes * shares * sums
    slot = odd_pitch(rows * pitch + image.slab + width, width)
    size = (
        *image.fields(tables),
        filters,
        parts,
        channels,
        chunk,
        chunks,
        taps,
        shares,
        blocks,
        *dy.strides[1:3],
        *dw.strides[:3],
        tables.add(image.steps),
        tables.add(image.pixels),
        tables.add(runs(image.pixels, image.step)),
        image.step,
        tables.add(offsets((most,), dy.strides[2:3])),
        tables.add(y_offsets),
        tables.add(runs(y_offsets, dy.strides[5])),
        dy.strides[5],
        tables.add(offsets((chunk, *extents), dw.strides[2:])),
        int(in_line),
        pitch,
        sums,
        slots,
        slot,
        rows * pitch,
    )
    stages = [(multiply_share, wholes * shares), (total, wholes)]
    operations = 2 * groups * filters * channels * taps * prod(pixels)
    return Plan(dtype, stages, size, tables, slots + threads * slot, operations)
