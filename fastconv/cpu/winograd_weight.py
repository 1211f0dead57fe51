"""Winograd's algorithm for the gradient of 3x3 filters of stride 1.

The correlation of a tile of x with a tile of dy, 3x3 results of 4x4 taps, takes as many products as
a tile of the forward map, and meets the same points (``transforms.py``): summed over tiles,

    dw = A' [sum_tile (G dy G') * (B' x B)] A

is at each point a product of two matrices, out[c, k] = sum_tile image[tile, c] taps[tile, k]: the
micro-kernel with channels as rows, tiles as steps and filters as lanes. Of Tx3x3 filters each plane
has rows of its own. The sum is divided into *shares*, whose number depends on the problem alone and
which are added in order.
"""

from math import ceil
from typing import Any

import numpy as np

from ..host import L2_BYTES, lanes_of
from .blocks import Ints, Tables, columns, odd_pitch, offsets
from .engine import Engine
from .kernel import Kernel
from .panels import pack_lane_box, unpack_lanes
from .simd import lanes, load, pointer, store, zero
from .stages import Plan
from .tile import ROWS, ROWS_OF, accumulate
from .transforms import OUTPUTS, POINTS, TAPS, four_taps, three_outputs, transform
from .views import Layout
from .winograd import (
    ACROSS,
    DOWN,
    LINE_FIELDS,
    TILES,
    Y_BASE,
    see_lines,
    slices,
    tile_lines,
)

# Shares are made until they and as many parts as SUMS_BYTES ask for make TASKS, in bounded memory.
TASKS = 8
SUMS_BYTES = 4 * 2**20
SHARES_BYTES = 48 * 2**20
# Filters whose products take as long as taking the image to the points, roughly.
TRANSFORM = 64
# Slices that one task of the last stage takes back from the points.
CHUNK = 16

# Fields of `size`.
(
    FILTERS,  # K/G
    CHANNELS,  # C/G
    PLANES,  # of a filter, T
    COLS,  # vectors in a row of a panel
    PANELS,  # panels to a group
    PARTS,  # tasks among which they are divided
    SHARES,
    LINES,
    BLOCK_LINES,
    BLOCK_TILES,
    SEEN_PITCH,  # numbers from a block's tiles of x, or of dy, at one point to those at the next
    TAPS_PITCH,
    LENGTH,  # extents of x
    HEIGHT,
    WIDTH,
    X_GROUP,  # strides
    X_CHANNEL,
    X_PLANE,
    X_ROW,
    X_COL,
    Y_GROUP,
    Y_FILTER,
    Y_ROW,
    Y_COL,
    W_GROUP,
    W_FILTER,
    W_CHANNEL,
    W_PLANE,
    W_ROW,
    W_COL,
    LINE_TABLE,  # where in `table`: lines, offsets of tiles, of channels
    TILE_OFFSETS,
    SLICE_OFFSETS,
    SUMS,  # numbers in the sums of one panel
    SLOTS,  # where in `work` the slots begin, how far apart they are, and what one holds
    SLOT,
    TAPS_AT,
    LINE,
) = range(38)


@Kernel
def winograd_share(task, slot, size, table, dy, x, unused, dw, work):
    """Sum one share of the lines of tiles, for some panels of filters, at the points."""
    cols, panels, shares = size[COLS], size[PANELS], size[SHARES]
    width = lanes(work)
    row = cols * width
    rest, share = divmod(task, shares)
    group, part = divmod(rest, size[PARTS])
    first_panel = part * panels // size[PARTS]
    last_panel = (part + 1) * panels // size[PARTS]
    points = POINTS * POINTS
    strip = size[BLOCK_TILES] * width
    plane, taps_plane = size[SEEN_PITCH], size[TAPS_PITCH]
    sums_plane = size[SUMS] // points
    seen = pointer(work, size[SLOTS] + slot * size[SLOT])
    taps = pointer(seen, size[TAPS_AT])
    line_buffer = pointer(seen, size[LINE])

    start, end = share * size[LINES] // shares, (share + 1) * size[LINES] // shares
    strides = size[X_CHANNEL], size[X_PLANE], size[X_ROW], size[X_COL]
    extents = size[LENGTH], size[HEIGHT], size[WIDTH]
    channels, planes = size[CHANNELS], size[PLANES]
    for begin in range(start, end, size[BLOCK_LINES]):
        stop = min(begin + size[BLOCK_LINES], end)
        tiles = see_lines(
            pointer(x, group * size[X_GROUP]),
            strides,
            extents,
            table,
            size[LINE_TABLE],
            begin,
            stop,
            channels,
            planes,
            line_buffer,
            seen,
            size[TILE_OFFSETS],
            strip,
            plane,
        )

        for panel in range(first_panel, last_panel):
            first = 0
            for number in range(begin, stop):
                line = size[LINE_TABLE] + number * LINE_FIELDS
                across = table[line + TILES] * OUTPUTS
                source = pointer(dy, group * size[Y_GROUP] + table[line + Y_BASE])
                for j in range(0, row, width):
                    filter_ = panel * row + j
                    pack_lane_box(
                        pointer(source, filter_ * size[Y_FILTER]),
                        (size[Y_FILTER], size[Y_ROW], size[Y_COL]),
                        (table[line + DOWN], table[line + ACROSS]),
                        (0, 0),
                        (OUTPUTS, across),
                        (1, 1),
                        min(max(size[FILTERS] - filter_, 0), width),
                        line_buffer,
                    )
                    for t in range(table[line + TILES]):
                        transform(
                            four_taps,
                            OUTPUTS,
                            POINTS,
                            pointer(line_buffer, t * OUTPUTS * width),
                            across * width,
                            width,
                            zero(work),
                            False,
                            pointer(taps, (first + t) * row + j),
                            POINTS * taps_plane,
                            taps_plane,
                        )
                first += table[line + TILES]
            sums = pointer(work, ((group * panels + panel) * shares + share) * size[SUMS])
            for point in range(points):
                accumulate(
                    pointer(seen, point * plane),
                    table,
                    size[SLICE_OFFSETS],
                    planes * channels,
                    size[TILE_OFFSETS],
                    tiles,
                    pointer(taps, point * taps_plane),
                    row,
                    None,
                    None,
                    pointer(sums, point * sums_plane),
                    row,
                    begin > start,
                    False,
                    cols,
                )


@Kernel
def winograd_total(task, slot, size, table, dy, x, unused, dw, work):
    """Add up the shares of some slices of one panel, in order, and take them back to ``dw``."""
    cols, shares = size[COLS], size[SHARES]
    width = lanes(work)
    row = cols * width
    every = size[PLANES] * size[CHANNELS]
    chunks = (every + CHUNK - 1) // CHUNK
    whole, chunk = divmod(task, chunks)
    group, panel = divmod(whole, size[PANELS])
    points = POINTS * POINTS
    sums_plane = size[SUMS] // points
    sums = pointer(work, whole * shares * size[SUMS])
    totals = pointer(work, size[SLOTS] + slot * size[SLOT])
    taps = pointer(totals, points * width)
    for j in range(0, row, width):
        filter_ = panel * row + j
        used = min(size[FILTERS] - filter_, width)
        if used <= 0:
            break
        for number in range(chunk * CHUNK, min((chunk + 1) * CHUNK, every)):
            for point in range(points):
                place = point * sums_plane + number * row + j
                total = load(sums, place)
                for share in range(1, shares):
                    total = total + load(sums, place + share * size[SUMS])
                store(totals, point * width, total)
            transform(
                three_outputs,
                POINTS,
                TAPS,
                totals,
                POINTS * width,
                width,
                zero(work),
                False,
                taps,
                TAPS * width,
                width,
            )
            t, c = divmod(number, size[CHANNELS])
            plane = pointer(dw, t * size[W_PLANE] + c * size[W_CHANNEL])
            result = pointer(plane, group * size[W_GROUP] + filter_ * size[W_FILTER])
            one = size[W_ROW] == TAPS * size[W_COL]
            rows, length = (1, TAPS * TAPS) if one else (TAPS, TAPS)
            for r in range(rows):
                line = pointer(taps, r * TAPS * width)
                to = pointer(result, r * size[W_ROW])
                unpack_lanes(line, width, length, to, size[W_COL], size[W_FILTER], used)


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
    """Plan a gradient of Tx3x3 filters, of stride and dilation 1."""
    width = lanes_of(dtype)
    groups, filters, channels, planes = dw.shape[:4]
    pixels = (dy.shape[0], *dy.shape[3:])
    depth = planes * ceil(channels / width) * width
    cols = columns(filters, width, ROWS_OF)
    row = cols * width
    panels = ceil(filters / row)
    points = POINTS * POINTS
    # An odd number of vectors from point to point, as in winograd.py: 0.85 to 0.98 of the time.
    sums = points * odd_pitch(ceil(planes * channels / ROWS) * ROWS * row, width)

    # The transformed tiles of a block fill the second-level cache; but where the sums do not
    # fit there, more tiles must make it worth reading and writing them.
    room = L2_BYTES // (points * (depth + row) * dtype.itemsize)
    most = max(room, 24 if sums * dtype.itemsize <= L2_BYTES else 96)
    lines = tile_lines(pixels, x, dy, before, most)
    per_line = int(lines[:, TILES].max())
    block_lines = max(1, most // per_line)
    tiles = block_lines * per_line
    small_parts = ceil(panels / max(1, SUMS_BYTES // (sums * dtype.itemsize)))
    blocks = ceil(len(lines) / block_lines)
    if groups * panels == 1:
        # An even number, if there are as many lines, for two threads: 64 filters of 64 channels,
        # one image of 14x14 or 28x28, took 0.6 to 0.75 of the time, two of 56x56 0.86.
        blocks = min(blocks + blocks % 2, len(lines))
    shares = min(
        ceil(TASKS / (groups * small_parts)),
        max(1, SHARES_BYTES // (groups * panels * sums * dtype.itemsize)),
        blocks,
    )

    # Tasks that divide panels each transform the image, so there are no more than keep the threads
    # busy. Were there more, so that a task had few sums, 512 channels took 1.2 to 1.45 times as
    # long.
    def work(parts: int) -> int:
        turns = ceil(groups * parts * shares / threads)
        return turns * (TRANSFORM + ceil(panels / parts) * row)

    parts = min(range(1, panels + 1), key=work)

    tables = Tables()
    line_table = tables.add(lines)
    slots = groups * panels * shares * sums
    seen_pitch, taps_pitch = odd_pitch(tiles * depth, width), odd_pitch(tiles * row, width)
    seen, taps = points * seen_pitch, points * taps_pitch
    line_buffer = POINTS * (per_line * OUTPUTS + TAPS - 1) * width
    slot = odd_pitch(seen + taps + line_buffer + points * width, width)
    size = (
        filters,
        channels,
        planes,
        cols,
        panels,
        parts,
        shares,
        len(lines),
        block_lines,
        tiles,
        seen_pitch,
        taps_pitch,
        *x.shape[3:],
        *x.strides[1:],
        *dy.strides[1:3],
        *dy.strides[4:],
        *dw.strides,
        line_table,
        tables.add(offsets((tiles,), (width,))),
        tables.add(slices(channels, planes, tiles * width, width)),
        sums,
        slots,
        slot,
        seen,
        seen + taps,
    )
    stages = [
        (winograd_share, groups * parts * shares),
        (winograd_total, groups * panels * ceil(planes * channels / CHUNK)),
    ]
    operations = 2 * groups * points * int(lines[:, TILES].sum()) * planes * channels * filters
    return Plan(dtype, stages, size, tables, slots + threads * slot, operations)
