"""The gradient of the filters: a correlation of ``x`` with ``grad_output``.

    dw[k,c,r] = sum_n sum_p  dy[n,k,p] x[n, c, p*stride + r*dilation - before]

The micro-kernel with its roles exchanged: rows are channels and taps, steps are pixels, and a panel
holds a block of ``dy``, one filter ``k`` a lane. The sum over pixels is divided into *shares* whose
number depends on the problem alone, and which are added in order: the result does not depend on
the number of threads, and long sums lose less to rounding.
"""

from math import ceil, prod
from typing import Any

import numpy as np

from ..host import L2_BYTES, VECTOR_BITS, lanes_of
from .ahead import in_steps, is_beyond, lines_among
from .blocks import Ints, Table, Tables, block_shape, columns, odd_pitch, offsets, runs, vectors
from .engine import Engine
from .image import (
    BLOCK_FIELDS,
    BLOCK_TABLE,
    IMAGE_FIELDS,
    PIXELS,
    RESULT,
    ImageBlocks,
    first_seen,
    see_block,
)
from .kernel import Kernel, named
from .panels import pack_panel, unpack_panel
from .shares import TASKS, add_up
from .simd import lanes, pointer
from .stages import Plan
from .tile import ROWS, ROWS_OF, accumulate
from .views import Layout

# Pixels to a block. With each comes a row of the panel and a line of x, of which 6 numbers are
# used: where a row is a line, too, 128 of either fill half a first-level cache of 32 KiB. Of the
# time of 256 pixels 1x1 layers took 0.97. Wide vectors bear a panel of 256 x 64 floats, 64 KiB.
BLOCK_PIXELS = 256 if VECTOR_BITS == 512 else 128
# Sums for one panel that one task keeps: 1024 x 64 floats are 256 KiB. It takes as many panels as
# keep its sums in a cache, so that a block of x serves them all: with one, a 1x1 layer of 512
# filters read x 8 times from memory and took twice as long.
TASK_ROWS = 1024
SUMS_BYTES = 2**20
# Nor does it take more channels than such that a block of x fills so many bytes of the part of the
# second-level cache it may: all of it where panels of one line in a row pass over it, 1x1 layers of
# 512 and more channels at 7x7 took 0.7 to 0.8 of the time; half of it where they are wider, 1024
# and 2048 channels took 0.91 to 0.97 of it with channels last, 0.93 to 1.0 with channels first.
SEEN_BYTES = L2_BYTES // 2 if VECTOR_BITS == 512 else L2_BYTES
# Shares are made until there are TASKS tasks, each of some size, in bounded memory.
SHARE_OPERATIONS = 2_000_000
SHARES_BYTES = 16 * 2**20
# Filters that are neighbours in dy make panels of it as it lies: not packed, 1x1 layers of 16 to 96
# channels take 0.61 of the time, 64 to 256 0.87, 128 to 512 0.95. But rows of such a panel are far
# apart, fall out of the first-level cache, and are read again for every 6 rows of sums: 256 to 1024
# channels take 1.06. So it is done where filters, or channels and taps, are this few.
FEW = 128
# Pixels that begin a multiple of so many bytes apart fall into few sets of the caches, and are read
# again and again from beyond them; from a copy where they do not, if there are so many blocks of
# them. 1x1 layers of 512 and 1024 channels at 14x14 and 28x28 took 0.85 to 0.95 of the time with
# wide vectors, but 1.05 to 1.1 with 320, 576 and 960 channels, which need none, nor do 256 that
# were asked for in time: 1.04 to 1.09. Of 32 KiB in 8 ways, 128
# lines 256 bytes apart fill all ways of a quarter of the sets: with narrow vectors 64, 192 and 384
# channels took 0.64 to 0.81 of the time, 512 to 2048 at 7x7 0.72 to 0.89, 320 and 576 there 1.2.
CROWDED = ((2048, 8),) if VECTOR_BITS == 512 else ((1024, 4), (256, 8))
# Vectors that a task of ``add_shares`` adds up.
PIECE = 256

# Fields of `size` after those of the image.
(
    FILTERS,  # K/G
    CHANNELS,  # C/G
    CHUNK,  # channels to a task
    CHUNKS,
    TAPS,
    COLS,  # vectors in a row of a panel
    PANELS,  # panels to a group
    PARTS,  # tasks among which they are divided
    SHARES,
    BLOCKS,
    Y_GROUP,  # strides of dy and dw
    Y_FILTER,
    W_GROUP,
    W_FILTER,
    W_CHANNEL,
    X_PIXELS,  # where in `table`: offsets of pixels, of channels and taps, of dy, of dw; runs
    X_STEPS,
    Y_OFFSETS,
    Y_RUNS,
    Y_STEP,
    W_OFFSETS,
    W_RUNS,
    W_STEP,
    PIECES,
    SUMS,  # numbers in the sums of one task
    SLOTS,  # where in `work` the slots begin, how far apart they are, where in one the slab is
    SLOT,
    SLAB,
    IN_PLACE,  # whether panels are dy itself
    AT_ONCE,  # whether sums are written to dw and nowhere else
    ASKS_DY,  # whether it is the next block of dy that is asked for, not of x
    AHEAD,  # where in `table`: what each tile and each step ask for in the next block
    LINES,
) = range(IMAGE_FIELDS, IMAGE_FIELDS + 33)


def _kernel(asks: bool) -> Kernel:
    """The kernel that asks for the next block of ``x`` or ``dy``, or the one that does not."""

    @named(asks)
    def grad_share(task, slot, size, table, dy, x, unused, dw, work):
        """Sum one share of the pixels for some panels of filters and one chunk of channels."""
        cols, shares, blocks = size[COLS], size[SHARES], size[BLOCKS]
        width = lanes(work)
        row = cols * width
        rest, share = divmod(task, shares)
        rest, chunk = divmod(rest, size[CHUNKS])
        group, part = divmod(rest, size[PARTS])
        first_panel = part * size[PANELS] // size[PARTS]
        last_panel = (part + 1) * size[PANELS] // size[PARTS]
        channel = chunk * size[CHUNK]
        channels = min(size[CHUNK], size[CHANNELS] - channel)
        rows = channels * size[TAPS]
        panel = pointer(work, size[SLOTS] + slot * size[SLOT])
        slab = pointer(panel, size[SLAB])
        start, end = share * blocks // shares, (share + 1) * blocks // shares
        for number in range(start, end):
            block = size[BLOCK_TABLE] + number * BLOCK_FIELDS
            pixels = table[block + PIXELS]
            image = see_block(x, size, table, block, group, channel, channels, slab)
            following = size[BLOCK_TABLE] + min(number + 1, end - 1) * BLOCK_FIELDS
            for index in range(first_panel, last_panel):
                first = index * row
                gradients = pointer(dy, group * size[Y_GROUP] + first * size[Y_FILTER])
                seen = pointer(gradients, table[block + RESULT])
                asked = None
                if asks:
                    coming = pointer(gradients, table[following + RESULT])
                    if not size[ASKS_DY]:
                        coming = first_seen(x, size, table, following, group, channel)
                    asked = coming, size[AHEAD], size[LINES]
                values, row_pitch = panel, row
                if size[IN_PLACE]:
                    values, row_pitch = seen, size[Y_STEP]
                else:
                    pack_panel(
                        seen,
                        size[Y_FILTER],
                        size[FILTERS] - first,
                        table,
                        size[Y_OFFSETS],
                        size[Y_RUNS],
                        size[Y_STEP],
                        0,
                        pixels,
                        panel,
                        cols,
                    )
                whole = (group * size[PANELS] + index) * size[CHUNKS] + chunk
                sums, pitch = pointer(work, (whole * shares + share) * size[SUMS]), row
                if size[AT_ONCE]:
                    begin = group * size[W_GROUP] + first * size[W_FILTER]
                    sums = pointer(dw, begin + channel * size[W_CHANNEL])
                    pitch = size[W_CHANNEL]
                accumulate(
                    image,
                    table,
                    size[X_STEPS],
                    rows,
                    size[X_PIXELS],
                    pixels,
                    values,
                    row_pitch,
                    None,
                    None,
                    sums,
                    pitch,
                    number > start,
                    False,
                    cols,
                    False,
                    asked,
                )

    return Kernel(grad_share)


GRAD_SHARE = {asks: _kernel(asks) for asks in (False, True)}


@Kernel
def add_shares(task, slot, size, table, dy, x, unused, dw, work):
    """Add up one piece of the sums over all shares, in order, into the first."""
    width = lanes(work)
    whole, piece = divmod(task, size[PIECES])
    sums = pointer(work, whole * size[SHARES] * size[SUMS])
    first = piece * PIECE * width
    last = min(first + PIECE * width, size[SUMS])
    add_up(sums, first, last, size[SHARES], size[SUMS])


@Kernel
def unpack_grad(task, slot, size, table, dy, x, unused, dw, work):
    """Write the sums of one panel of filters and one chunk of channels to ``dw``."""
    cols = size[COLS]
    rest, chunk = divmod(task, size[CHUNKS])
    group, part = divmod(rest, size[PANELS])
    channel = chunk * size[CHUNK]
    channels = min(size[CHUNK], size[CHANNELS] - channel)
    first = part * cols * lanes(work)
    result = pointer(dw, group * size[W_GROUP] + first * size[W_FILTER] + channel * size[W_CHANNEL])
    unpack_panel(
        pointer(work, task * size[SHARES] * size[SUMS]),
        cols,
        channels * size[TAPS],
        result,
        size[W_FILTER],
        size[FILTERS] - first,
        table,
        size[W_OFFSETS],
        size[W_RUNS],
        size[W_STEP],
    )


def fills_more_swapped(shape: Ints, dtype: np.dtype[Any]) -> bool:
    """Whether lanes that are channels, and rows that are filters, have less to do.

    With 1x1 filters ``dy`` and ``x`` can change places, for the gradient transposed. 96 channels
    and 24 filters are 6 vectors by 24 rows then, none in vain, not 2 vectors by 96 rows: 0.7 of the
    time. Of the same work the one with fewer lanes took 0.9 to 1.0.
    """
    _, filters, channels, *_ = shape
    width = lanes_of(dtype)

    def work(lanes: int, rows: int) -> float:
        cols = columns(lanes, width, ROWS_OF)
        return vectors(lanes, width, cols) * ceil(rows / ROWS_OF[cols]) * ROWS_OF[cols]

    return (work(channels, filters), channels) < (work(filters, channels), filters)


def _lines_ahead(
    asked: Layout, pixels: Table, channels: int, rows_of_sums: int, height: int, itemsize: int
) -> tuple[Table, Table]:
    """What each row of sums and each pixel ask for, so that tiles share the block that comes next.

    ``pixels`` are their offsets in ``asked``, ``x`` or ``dy``, of which a block or a panel holds so
    many ``channels``.
    """
    rows, lines = offsets((channels,), asked.strides[2:3]), pixels
    if asked.strides[2] == 1:
        rows, lines = lines, rows
    share = ceil(len(rows) / ceil(rows_of_sums / height))
    first = np.arange(rows_of_sums) // height * share
    return (
        rows[np.minimum(first, len(rows) - 1)],
        in_steps(rows[:share], lines_among(lines, itemsize), len(pixels)),
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
    groups, filters, channels, *extents = dw.shape
    taps = prod(extents)
    pixels = (dy.shape[0], *dy.shape[3:])
    cols = columns(filters, width, ROWS_OF)
    row = cols * width
    panels = ceil(filters / row)
    most = min(TASK_ROWS // taps, SEEN_BYTES // (BLOCK_PIXELS * dtype.itemsize))
    chunks = ceil(channels / max(1, most))
    # Rows that follow one another read what lies together in x: the channels of a tap, if channels
    # are last there, and not the taps of a channel. Strided 3x3 layers took 0.77 to 0.87 of the
    # time. A shorter chunk at the end would not be the beginning of such rows.
    even = next(n for n in range(chunks, channels + 1) if channels % n == 0)
    by_tap = taps > 1 and x.strides[2] == 1 and even < 2 * chunks
    if by_tap:
        chunks = even
    chunk = ceil(channels / chunks)
    chunks = ceil(channels / chunk)
    sums = ceil(chunk * taps / ROWS) * ROWS * row

    block = block_shape(pixels, BLOCK_PIXELS)
    pitch, many = x.strides[5] * dtype.itemsize, prod(pixels) / BLOCK_PIXELS
    crowded = any(pitch % step == 0 and many >= least for step, least in CROWDED)
    copied = crowded and x.strides[2] == taps == prod(stride) == 1
    image = ImageBlocks(
        x, dy, tuple(extents), stride, before, dilation, chunk, block, width, copied
    )
    # Filters of more taps read each number of x several times and gain nothing from asking for it:
    # 3x3 layers took 0.97 to 1.04 of the time. They ask for dy: 64 filters of 3 channels, 224x224,
    # took 0.76 of it with channels last.
    asks_dy = taps > 1
    y_offsets = offsets(block, (dy.strides[0], *dy.strides[3:]))
    asked, seen, count = dy, y_offsets, min(row, filters)
    if not asks_dy:
        steps = np.multiply(x.strides[3:], stride).tolist()
        asked, seen, count = x, offsets(block, (x.strides[0], *steps)), chunk
    ahead = lines = np.empty(0, np.int64)
    asks = is_beyond(asked, dtype.itemsize, threads)
    if asks:
        ahead, lines = _lines_ahead(asked, seen, count, chunk * taps, ROWS_OF[cols], dtype.itemsize)
    blocks = len(image.blocks)
    wholes = groups * panels * chunks
    parts = ceil(panels / max(1, SUMS_BYTES // (sums * dtype.itemsize)))
    tasks = groups * parts * chunks
    operations = 2 * groups * filters * channels * taps * prod(pixels)
    shares = min(
        ceil(TASKS / tasks),
        ceil(operations / tasks / SHARE_OPERATIONS),
        max(1, SHARES_BYTES // (wholes * sums * dtype.itemsize)),
        blocks,
    )
    pieces = ceil(sums / (PIECE * width))

    tables = Tables()
    x_steps, w_offsets = image.steps, offsets((chunk, *extents), dw.strides[2:])
    w_step = dw.strides[5]
    if by_tap:
        order = np.arange(chunk * taps).reshape(chunk, taps).T.ravel()
        x_steps, w_offsets = x_steps[order], w_offsets[order]
        w_step = dw.strides[2]
    y_runs = runs(y_offsets, dy.strides[5])
    few = filters <= FEW or chunk * taps <= FEW
    in_place = few and dy.strides[2] == 1 and filters % row == 0 and len(y_runs) == 2
    # Sums of one share that lie as dw does are put there: 512 channels to 2048 of one image of 7x7
    # pixels took 0.72 of the time, 1x1 layers of 16 images 0.96 to 1.0.
    at_once = shares == taps == dw.strides[1] == 1 and filters % row == 0
    slots = 0 if at_once else wholes * shares * sums
    panel = prod(block) * row
    slot = odd_pitch(panel + image.slab + width, width)
    size = (
        *image.fields(tables),
        filters,
        channels,
        chunk,
        chunks,
        taps,
        cols,
        panels,
        parts,
        shares,
        blocks,
        *dy.strides[1:3],
        *dw.strides[:3],
        tables.add(image.pixels),
        tables.add(x_steps),
        tables.add(y_offsets),
        tables.add(y_runs),
        dy.strides[5],
        tables.add(w_offsets),
        tables.add(runs(w_offsets, w_step)),
        w_step,
        pieces,
        sums,
        slots,
        slot,
        panel,
        int(in_place),
        int(at_once),
        int(asks_dy),
        tables.add(ahead),
        tables.add(lines),
    )
    stages = [(GRAD_SHARE[asks], tasks * shares)]
    if not at_once:
        stages.append((unpack_grad, wholes))
    if shares > 1:
        stages.insert(1, (add_shares, wholes * pieces))
    return Plan(dtype, stages, size, tables, slots + threads * slot, operations)
