"""Correlation as a product of matrices, filters by columns of the image.

    y[k,p] = bias[k] + sum_s  w[k,s] column[s,p]        column[s,p] = x[pixels[p] + steps[s]]

where s runs over channels and taps. The columns are never unfolded as a whole: a task packs those
of as many output pixels as a panel has lanes, and takes all filters through them. It is ``direct``
with the roles of filters and pixels exchanged: nothing is transposed but 1x1 filters whose channels
lie far apart, and where a panel's pixels are neighbours in ``y``, the sums are written there and
nowhere else.
"""

from math import ceil, prod
from typing import Any

import numpy as np

from ..host import L2_BYTES, lanes_of
from .blocks import Ints, Tables, block_shape, columns, odd_pitch, offsets, runs
from .engine import Engine
from .far import is_far
from .image import BLOCK_FIELDS, BLOCK_TABLE, IMAGE_FIELDS, PIXELS, RESULT, ImageBlocks, see_block
from .kernel import Kernel, named
from .packing import gather_lines, gather_panels, run_of, scatter_lines
from .panels import pack_panel
from .simd import LINE_VECTORS, element, lanes, pointer
from .stages import Plan
from .tile import ROWS, ROWS_OF, accumulate, accumulate_far, fills_lines
from .views import Layout, flat_if_pointwise

# Filters that pass over a panel at a time. Where sums of more than ``tile.STEPS`` products are
# added up piece by piece, this many keep them in the first-level cache: with 24, a sum of 1024 took
# 1.2 times as long.
CHUNK = 8 * ROWS

# Panels packed at once, as far as they fit into the second-level cache: pieces of 64 pixels of a
# channel come from memory at 13 GB/s, pieces of 128 and more at 25.
TOGETHER = 8

# Fields of `size` after those of the image.
(
    FILTERS,  # K/G
    CHANNELS,  # C/G
    DEPTH,  # steps of the reduction, C/G * T * R * S
    COLS,  # vectors in a row of a panel
    PANELS,  # panels that are packed at once
    SHARES,  # tasks among which the filters of one block are divided
    BLOCKS,
    W_GROUP,  # strides of w and y
    W_CHANNEL,
    Y_GROUP,
    Y_FILTER,
    W_OFFSETS,  # where in `table`: offsets of filters in w, and their runs
    W_RUNS,
    W_STEP,
    PIECES,  # of the packed filters, none if they are read in w; how far apart they are
    PIECE,
    W_ROWS,  # where in `table`: offsets of filters, of channels and taps, of pixels; runs of pixels
    W_STEPS,
    X_STEPS,
    X_PIXELS,
    X_RUNS,
    X_STEP,
    Y_PIXELS,
    Y_RUNS,
    Y_STEP,
    RELU,
    SLOTS,  # where in `work` the slots begin, how far apart they are, where in one the sums are
    SLOT,
    SUMS,
    SLAB,
) = range(IMAGE_FIELDS, IMAGE_FIELDS + 30)


@Kernel
def pack_filters(task, slot, size, table, x, weight, bias, y, work):
    """Pack some channels of all filters, as many as fit into a cache line, a filter to each."""
    group, piece = divmod(task, size[PIECES])
    first = piece * LINE_VECTORS * lanes(work)
    pack_panel(
        pointer(weight, group * size[W_GROUP] + first * size[W_CHANNEL]),
        size[W_CHANNEL],
        size[DEPTH] - first,
        table,
        size[W_OFFSETS],
        size[W_RUNS],
        size[W_STEP],
        0,
        size[FILTERS],
        pointer(work, task * size[PIECE]),
        LINE_VECTORS,
    )


def _kernel(far: bool) -> Kernel:
    """The kernel for results that are written past the caches, or for others."""

    @named(far)
    def multiply_block(task, slot, size, table, x, weight, bias, y, work):
        """Take one block of output pixels through its share of one group's filters."""
        depth, filters, shares = size[DEPTH], size[FILTERS], size[SHARES]
        width = lanes(work)
        row = size[COLS] * width
        rest, block = divmod(task, size[BLOCKS])
        group, share = divmod(rest, shares)
        block = size[BLOCK_TABLE] + block * BLOCK_FIELDS
        pixels = table[block + PIXELS]
        memory = pointer(work, size[SLOTS] + slot * size[SLOT])
        sums = pointer(memory, size[SUMS])
        slab = pointer(memory, size[SLAB])
        image = see_block(x, size, table, block, group, 0, size[CHANNELS], slab)
        first, last = share * filters // shares, (share + 1) * filters // shares
        source = pointer(weight, group * size[W_GROUP])
        if size[PIECES] > 0:
            source = pointer(work, group * size[PIECES] * size[PIECE])
        result = pointer(y, group * size[Y_GROUP] + table[block + RESULT])
        x_run, y_run = size[X_RUNS], size[Y_RUNS]
        packed = ready = 0  # the pixels from one to the other are in panels
        for begin in range(0, pixels, row):
            end = min(begin + row, pixels)
            vectors = (end - begin + width - 1) // width
            pitch = vectors * width
            if begin >= ready:
                packed = begin
                x_run = run_of(table, x_run, begin)
                in_run = min(element(table, x_run + 1), pixels) - begin
                panels = min(in_run // row, size[PANELS])
                if panels > 1:
                    line = pointer(image, element(table, size[X_PIXELS] + begin))
                    gather_panels(line, table, size[X_STEPS], depth, panels, memory, row)
                    ready = begin + panels * row
                else:
                    x_run = gather_lines(
                        image,
                        table,
                        size[X_STEPS],
                        depth,
                        size[X_PIXELS],
                        x_run,
                        size[X_STEP],
                        begin,
                        end,
                        memory,
                        pitch,
                    )
                    ready = end
            panel = pointer(memory, (begin - packed) * depth)
            y_run = run_of(table, y_run, begin)
            in_line = size[Y_STEP] == 1 and begin + pitch <= min(element(table, y_run + 1), pixels)
            place = pointer(result, element(table, size[Y_PIXELS] + begin))
            for k in range(first, last, CHUNK):
                count = min(CHUNK, last - k)
                lines, pitch_y = pointer(place, k * size[Y_FILTER]), size[Y_FILTER]
                relu = size[RELU] > 0
                factors = source, table, size[W_ROWS] + k, count, size[W_STEPS], depth, panel, pitch
                biases = pointer(bias, group * filters + k)
                if in_line:
                    if far and fills_lines(lines, pitch, pitch_y):
                        accumulate_far(*factors, biases, None, lines, pitch_y, relu, vectors)
                    else:
                        accumulate(*factors, biases, None, lines, pitch_y, False, relu, vectors)
                else:
                    accumulate(*factors, biases, None, sums, pitch, False, relu, vectors)
                    scatter_lines(
                        sums,
                        pitch,
                        count,
                        table,
                        size[Y_PIXELS],
                        y_run,
                        size[Y_STEP],
                        begin,
                        end,
                        pointer(result, k * size[Y_FILTER]),
                        size[Y_FILTER],
                    )

    return Kernel(multiply_block)


MULTIPLY_BLOCK = {far: _kernel(far) for far in (False, True)}


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
    x, y = flat_if_pointwise(x, y, w.shape[3:], stride, before)
    width = lanes_of(dtype)
    groups, filters, channels, *taps = w.shape
    depth = channels * prod(taps)
    pixels = (y.shape[0], *y.shape[3:])
    cols = columns(prod(pixels), width, ROWS_OF)
    row = cols * width

    # A block's part of x shares the second-level cache with the panel and the filters; and
    # there should be a few blocks for every thread.
    for panels in (16, 8, 4, 2, 1):
        block = block_shape(pixels, panels * row)
        if block[3] < pixels[3]:
            block = (*block[:3], ceil(block[3] / row) * row)
        image = ImageBlocks(x, y, tuple(taps), stride, before, dilation, channels, block, width)
        cached = image.slab * dtype.itemsize <= L2_BYTES // 2
        if cached and groups * len(image.blocks) >= 4 * threads:
            break
    blocks = len(image.blocks)
    shares = min(ceil(filters / CHUNK), ceil(4 * threads / (groups * blocks)))

    tables = Tables()
    # Filters that are neighbours, their channels cache lines apart, as those of grad_input: packed,
    # 1x1 layers with 1024 channels took 0.6 to 0.7 of the time, with 64 to 512 0.8 to 1.0.
    line = LINE_VECTORS * width
    apart = abs(w.strides[2]) >= max(line, abs(w.strides[1]) + 1)
    w_offsets = offsets((filters,), w.strides[1:2])
    w_rows, w_steps = w_offsets, offsets((channels, *taps), w.strides[2:])
    pieces = piece = 0
    if prod(taps) == 1 and apart and channels >= line:
        pieces, piece = ceil(channels / line), (filters | 1) * line
        w_rows, w_steps = offsets((filters,), (line,)), offsets((pieces, line), (piece, 1))
    y_offsets = offsets(block, (y.strides[0], *y.strides[3:]))
    panel = depth * row
    together = 1
    if image.step == 1 and not image.padded:
        together = max(1, min(TOGETHER, L2_BYTES // max(panel * dtype.itemsize, 1)))
    packed = together * panel
    sums = CHUNK * row
    slots = groups * pieces * piece
    slot = odd_pitch(packed + sums + image.slab + width, width)
    size = (
        *image.fields(tables),
        filters,
        channels,
        depth,
        cols,
        together,
        shares,
        blocks,
        w.strides[0],
        w.strides[2],
        *y.strides[1:3],
        tables.add(w_offsets),
        tables.add(runs(w_offsets, w.strides[1])),
        w.strides[1],
        pieces,
        piece,
        tables.add(w_rows),
        tables.add(w_steps),
        tables.add(image.steps),
        tables.add(image.pixels),
        tables.add(runs(image.pixels, image.step)),
        image.step,
        tables.add(y_offsets),
        tables.add(runs(y_offsets, y.strides[5])),
        y.strides[5],
        int(relu),
        slots,
        slot,
        packed,
        packed + sums,
    )
    stages = [(MULTIPLY_BLOCK[is_far(y, dtype, depth)], groups * blocks * shares)]
    if pieces > 0:
        stages.insert(0, (pack_filters, groups * pieces))
    operations = 2 * groups * filters * depth * prod(pixels)
    return Plan(dtype, stages, size, tables, slots + threads * slot, operations, groups * filters)
