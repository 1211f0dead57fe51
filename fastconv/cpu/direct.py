"""Correlation with packed filters: the engine of ``forward`` and ``grad_input``.

    y[n,k,p] = bias[k] + sum_c sum_r  x[n, c, p*stride + r*dilation - before] w[k,c,r]

where ``x`` is zero outside and p and r run over all spatial axes. The filters are packed into
panels first, a lane for each ``k``; then every task takes a block of output pixels through them:
see the block of ``x``, accumulate, unpack the sums into ``y``; where filters are neighbours in
``y``, the sums are written there at once. Tasks of a single block pack the panels themselves.
"""

from itertools import product
from math import prod
from typing import Any

import numpy as np

from ..host import L2_BYTES, L3_BYTES, lanes_of
from .ahead import AHEAD, in_steps, is_beyond, lines_among
from .blocks import Ints, Table, Tables, block_shape, columns, line_block, odd_pitch, offsets, runs
from .engine import Engine
from .far import is_far
from .image import BLOCK_FIELDS, BLOCK_TABLE, IMAGE_FIELDS, PIXELS, RESULT, ImageBlocks, see_block
from .kernel import Kernel, named, once
from .panels import pack_panel, unpack_panel
from .simd import element, lanes, load_first, pointer, store
from .stages import Plan
from .tile import NARROW_BYTES, ROWS, ROWS_OF, STEPS, accumulate, accumulate_far, fills_lines
from .views import Layout, flat_if_pointwise

# Pixels to a block that are not divided further to fit into a cache. Strided 3x3 layers of
# ResNet-50 took 0.92 to 1.0 of the time of blocks of 64 pixels that fill a quarter of the cache.
FEW_PIXELS = 256
# Where panels are narrow, or blocks lie in x itself, a block should lie in a cache with all its
# channels. Narrow: 58 maps of 1x1 and strided layers took 0.97 of the time, those of 512 and more
# channels 0.81 to 0.96; in x: 34 maps 0.98, forward with 1024 and 2048 channels 0.85 to 0.95. Then
# blocks read the filters more often, which must come from a cache as well: with 8 MiB of them 1.08.
FEWEST_PIXELS = 64
FILTER_BYTES = L3_BYTES // 8
# Panels of a block that need not be copied to be seen are divided into so many tasks for every
# thread, if these are not too small: a thread that another program holds up leaves more to the
# rest. Where there were 4 tasks, 1x1 layers of 512 to 2048 channels at 7x7 took 0.92 to 0.99 of
# the time with channels last, 0.94 to 1.09 with channels first; mean of 80 maps 0.987. One image
# of 56x56, 64 channels to 256, took 1.03 to 1.07 with tasks of 3 million operations.
MOST_TASKS = 16
TASK_OPERATIONS = 10_000_000

# Fields of `size` after those of the image.
(
    FILTERS,  # K/G
    CHANNELS,  # C/G
    DEPTH,  # steps of the reduction, C/G * T * R * S
    COLS,  # vectors in a row of a panel
    PANELS,  # panels to a group
    SHARES,  # tasks among which the panels of one block are divided
    BLOCKS,
    W_GROUP,  # strides of w and y
    W_FILTER,
    Y_GROUP,
    Y_FILTER,
    W_OFFSETS,  # where in `table`: offsets of w, their runs, offsets of pixels, of steps, of y
    W_RUNS,
    W_STEP,
    X_PIXELS,
    X_STEPS,
    Y_OFFSETS,
    Y_RUNS,
    Y_STEP,
    IN_PLACE,  # whether whole panels of sums are written to y at once
    RELU,
    AHEAD_PIXELS,  # where in `table`: what pixels and steps ask for, and steps the second time
    AHEAD_STEPS,
    NOTHING,
    STREAMED,  # whether packed panels come from beyond the second-level cache
    SLOTS,  # where in `work` the slots begin, how far apart they are, where in one the slab is
    SLOT,
    SLAB,
    PANEL,  # where behind the slab a task packs its own panels, STEPS at a time
) = range(IMAGE_FIELDS, IMAGE_FIELDS + 29)


@once
def _pack_part(size, table, weight, bias, group, part, run, begin, end, panel):
    """Pack a row of biases and some channels and taps of one panel; a lane is a filter.

    ``run`` and what is returned are runs of taps: see ``pack_panel``.
    """
    cols = size[COLS]
    row = cols * lanes(panel)
    first = part * row
    valid = min(row, size[FILTERS] - first)
    biases = pointer(bias, group * size[FILTERS] + first)
    for j in range(0, row, lanes(panel)):
        store(panel, j, load_first(biases, j, max(valid - j, 0)))
    filters = pointer(weight, group * size[W_GROUP] + first * size[W_FILTER])
    return pack_panel(
        filters,
        size[W_FILTER],
        valid,
        table,
        size[W_OFFSETS],
        run,
        size[W_STEP],
        begin,
        end,
        pointer(panel, row),
        cols,
    )


@Kernel
def pack_filters(task, slot, size, table, x, weight, bias, y, work):
    """Pack one panel; ``phase_filters.py`` lays out its panels like this."""
    group, part = divmod(task, size[PANELS])
    panel = pointer(work, task * (size[DEPTH] + 1) * size[COLS] * lanes(work))
    _pack_part(size, table, weight, bias, group, part, size[W_RUNS], 0, size[DEPTH], panel)


def _kernel(own: bool, far: bool, asks: bool) -> Kernel:
    """The kernel whose tasks pack their ``own`` panels, or the one that finds them packed.

    What only the other needs would take a tenth of the time to compile. Either is made for results
    that are written past the caches (``far``) or for others, and asks for what comes next or not.
    """

    @named(own, far, asks)
    def correlate_block(task, slot, size, table, x, weight, bias, y, work):
        """Take one block of output pixels through its share of one group's filters."""
        cols, depth, panels = size[COLS], size[DEPTH], size[PANELS]
        width = lanes(work)
        row = cols * width
        rest, block = divmod(task, size[BLOCKS])
        group, share = divmod(rest, size[SHARES])
        block = size[BLOCK_TABLE] + block * BLOCK_FIELDS
        pixels = table[block + PIXELS]
        sums = pointer(work, size[SLOTS] + slot * size[SLOT])
        slab = pointer(sums, size[SLAB])
        image = see_block(x, size, table, block, group, 0, size[CHANNELS], slab)
        first_part = share * panels // size[SHARES]
        end_part = (share + 1) * panels // size[SHARES]
        for part in range(first_part, end_part):
            panel = pointer(slab, size[PANEL])
            if not own:
                panel = pointer(work, (group * panels + part) * (depth + 1) * row)
            first = part * row
            result = pointer(
                y, group * size[Y_GROUP] + first * size[Y_FILTER] + table[block + RESULT]
            )
            valid = size[FILTERS] - first
            in_place = size[IN_PLACE] > 0 and valid >= row
            w_run = size[W_RUNS]
            for begin in range(0, depth, STEPS):
                end = min(begin + STEPS, depth)
                steps = pointer(panel, (1 + begin) * row)
                if own:
                    steps = pointer(panel, row)
                    w_run = _pack_part(
                        size, table, weight, bias, group, part, w_run, begin, end, panel
                    )
                span, relu = end - begin, size[RELU] > 0 and end == depth
                coming, lines = image, size[NOTHING]
                if asks and not own and part == first_part:  # the others find x in a cache
                    lines = size[AHEAD_STEPS] + begin
                if asks and own:
                    following = end if end < depth else 0
                    next_part = part if end < depth else min(part + 1, end_part - 1)
                    coming = pointer(
                        weight, group * size[W_GROUP] + next_part * row * size[W_FILTER]
                    )
                    lines = size[AHEAD_STEPS] + following
                run, i = size[Y_RUNS], 0
                while i < pixels:
                    length, place, pitch = pixels, sums, row
                    if in_place:
                        run += 1
                        length = min(element(table, run), pixels) - i
                        place = pointer(result, element(table, size[Y_OFFSETS] + i))
                        pitch = size[Y_STEP]
                    start = size[X_PIXELS] + i
                    factors = image, table, start, length, size[X_STEPS] + begin, span, steps, row
                    if far and in_place and fills_lines(place, row, pitch):
                        accumulate_far(*factors, None, panel, place, pitch, relu, cols)
                    else:
                        add, asked = begin > 0, None
                        if asks:
                            asked = coming, size[AHEAD_PIXELS] + i, lines
                        accumulate(
                            *factors,
                            None,
                            panel,
                            place,
                            pitch,
                            add,
                            relu,
                            cols,
                            size[STREAMED] > 0,
                            asked,
                        )
                    i += length
            if not in_place:
                unpack_panel(
                    sums,
                    cols,
                    pixels,
                    result,
                    size[Y_FILTER],
                    valid,
                    table,
                    size[Y_OFFSETS],
                    size[Y_RUNS],
                    size[Y_STEP],
                )

    return Kernel(correlate_block)


CORRELATE_BLOCK = {case: _kernel(*case) for case in product((False, True), repeat=3)}


def _writes_in_place(y: Layout, runs: Table) -> bool:
    """Whether sums go to ``y`` and nowhere else: filters are neighbours there, and pixels lie in
    runs so long that few rows of the micro-kernel are lost to their ends.
    """
    lengths = np.diff(runs)
    rows = int((-(-lengths // ROWS) * ROWS).sum())
    return y.strides[2] == 1 and rows <= 1.1 * int(lengths.sum())


def _lines_ahead(image: ImageBlocks, height: int, itemsize: int) -> Table:
    """What to ask for with each step: the channels of a tile that is taken later."""
    rows = image.pixels[:height]
    parts = [
        in_steps(rows, lines_among(steps, itemsize), len(steps))
        for steps in np.split(image.steps, range(STEPS, len(image.steps), STEPS))
    ]
    return np.concatenate(parts)


def _filters_ahead(
    w: Layout, w_offsets: Table, pixels: int, row: int, height: int, itemsize: int
) -> tuple[Table, Table]:
    """What pixels and steps ask for of the filters that are packed next, STEPS at a time.

    Each tile asks for the steps of some filters of a panel, or for all filters of some channels,
    whichever lie farther apart; for so many that all are asked for.
    """
    each, across = prod(w.shape[3:]), offsets((min(row, w.shape[1]),), w.strides[1:2])
    far_apart = abs(w.strides[1]) > abs(w.strides[2])
    distance = w.strides[1 if far_apart else 2]
    count = len(across) if far_apart else STEPS // each + 1
    tile = np.arange(pixels) // height
    share = -(-count // (int(tile[-1]) + 1))
    rows = np.arange(share) * distance
    if far_apart:
        steps = np.split(w_offsets, range(STEPS, len(w_offsets), STEPS))
        parts = [in_steps(rows, lines_among(some, itemsize), STEPS) for some in steps]
    else:
        # The same of every channel, from where that begins.
        lines = lines_among((w_offsets[:each, None] + across).ravel(), itemsize) - w_offsets[0]
        firsts = w_offsets[np.arange(0, len(w_offsets), STEPS) // each * each]
        parts = [first + in_steps(rows, lines, STEPS) for first in firsts]
    return np.minimum(tile * share, max(count - share, 0)) * distance, np.concatenate(parts)


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
    width = lanes_of(dtype)
    groups, filters, channels, *taps = w.shape
    x, y = flat_if_pointwise(x, y, taps, stride, before)
    depth = channels * prod(taps)
    pixels = (y.shape[0], *y.shape[3:])
    cols = columns(filters, width, ROWS_OF)
    row = cols * width
    panels = -(-filters // row)

    # A block's sums and its part of x share the second-level cache with the panels; and blocks,
    # or panels of one, should make a few tasks for every thread. For more no block is made so
    # small that rows of the micro-kernel are lost to its end: 49 pixels are 9 tiles of 6 rows. 1x1
    # layers at 7x7 took 0.94 to 0.98 of the time of a few blocks for every thread. Nor is the one
    # block cut whose panels threads share evenly: one image of 14x14 pixels and 256 channels, 3x3,
    # took 0.8 to 0.9 of the time of two.
    filters_bytes = prod(w.shape) * dtype.itemsize
    cached, narrow = filters_bytes <= FILTER_BYTES, row * dtype.itemsize <= NARROW_BYTES
    for room in (512, 256, 128, 64):
        block = line_block(pixels, room, ROWS, threads) or block_shape(pixels, room)
        image = ImageBlocks(x, y, tuple(taps), stride, before, dilation, channels, block, width)
        sums = -(-prod(block) // ROWS) * ROWS * row
        seen = image.slab if image.padded or not cached else prod(block) * channels
        fits = (sums + seen) * dtype.itemsize <= L2_BYTES
        fewest = FEWEST_PIXELS if cached and (narrow or not image.padded) else FEW_PIXELS
        blocks = len(image.blocks)
        tasks = groups * blocks * panels
        even = blocks == 1 and tasks % threads == 0 and tasks >= 2 * threads
        if (fits or room <= fewest) and (tasks >= 4 * threads or even):
            break
    operations = 2 * groups * filters * depth * prod(pixels)
    whole = groups * blocks  # tasks of all panels
    shares = -(-4 * threads // whole)
    if not image.padded:
        shares = max(shares, min(MOST_TASKS * threads, operations // TASK_OPERATIONS) // whole)
    shares = min(shares, panels)

    tables = Tables()
    in_pixels = not image.padded and prod(taps) == x.strides[2] == 1
    # The one block that there is passes over each panel once: its tasks pack them, some steps at a
    # time that stay in the first-level cache. One image of 7x7 pixels and 512 channels, 3x3 and
    # 1x1, took 0.55 to 0.7 of the time of packing all panels before.
    own = blocks == 1
    # Of more taps than are packed at a time most could not be asked for.
    asked, may_ask = (w, prod(taps) <= STEPS) if own else (x, in_pixels)
    asks = may_ask and is_beyond(asked, dtype.itemsize, threads)
    w_offsets = offsets((channels, *taps), w.strides[2:])
    ahead_pixels = ahead_steps = nothing = np.empty(0, np.int64)
    if asks and own:
        ahead_pixels, ahead_steps = _filters_ahead(
            w, w_offsets, prod(pixels), row, ROWS_OF[cols], dtype.itemsize
        )
    elif asks:
        ahead_pixels = np.append(image.pixels[AHEAD:], [image.pixels[-1]] * AHEAD)
        ahead_steps = _lines_ahead(image, ROWS_OF[cols], dtype.itemsize)
        nothing = np.zeros_like(ahead_steps[:STEPS])
    y_offsets = offsets(block, (y.strides[0], *y.strides[3:]))
    y_runs = runs(y_offsets, y.strides[5])
    slots = 0 if own else groups * panels * (depth + 1) * row
    panel = odd_pitch(image.slab + width, width)
    slot = odd_pitch(sums + panel + (min(depth, STEPS) + 1) * row * own, width)
    size = (
        *image.fields(tables),
        filters,
        channels,
        depth,
        cols,
        panels,
        shares,
        blocks,
        *w.strides[:2],
        *y.strides[1:3],
        tables.add(w_offsets),
        tables.add(runs(w_offsets, w.strides[5])),
        w.strides[5],
        tables.add(image.pixels),
        tables.add(image.steps),
        tables.add(y_offsets),
        tables.add(y_runs),
        y.strides[5],
        int(_writes_in_place(y, y_runs)),
        int(relu),
        tables.add(ahead_pixels),
        tables.add(ahead_steps),
        tables.add(nothing),
        int(not own and filters_bytes // groups > L2_BYTES // 2),
        slots,
        slot,
        sums,
        panel,
    )
    stages = [(CORRELATE_BLOCK[own, is_far(y, dtype, depth), asks], groups * blocks * shares)]
    if not own:
        stages.insert(0, (pack_filters, groups * panels))
    return Plan(dtype, stages, size, tables, slots + threads * slot, operations, groups * filters)
