"""Winograd's algorithm for 3x3 filters of stride 1: ``forward`` and, flipped, ``grad_input``.

A quarter of the multiplications of the definition, see ``transforms.py``. The image is cut into 6x6
tiles that overlap by 2; at each of the 36 points, what is left is a product of two matrices,

    out[point][tile, k] = sum_c  image[point][tile, c] filters[point][c, k]

which is the micro-kernel once more: rows are tiles, steps channels, lanes filters. Tiles of several
rows and images make up a block, so that small images leave no row of the product empty.
"""

from math import ceil
from typing import Any

import numpy as np

from ..host import L2_BYTES, VECTOR_BITS
from .blocks import Ints, Table, Tables, columns, offsets, spread
from .driver import Plan
from .engine import Engine
from .kernel import Kernel, device
from .packing import pack_lane_box, pack_lanes, unpack_lanes
from .simd import lanes, load_first, pointer, zero
from .tile import MAX_COLS, ROWS, accumulate
from .transforms import OUTPUTS, POINTS, TAPS, four_outputs, image, three_taps, transform
from .views import Layout

# Fields of a line of tiles in the table: offsets in x and y, first row and column of the image it
# sees, tiles in it, pixels of the result it gives down and across.
X_BASE, Y_BASE, TOP, LEFT, TILES, DOWN, ACROSS, LINE_FIELDS = range(8)

# Channels whose filters one task transforms.
FILTER_CHUNK = 16

# Fields of `size`.
(
    FILTERS,  # K/G
    CHANNELS,  # C/G
    DEPTH,  # channels rounded up to vectors
    COLS,  # vectors in a row of a panel
    PANELS,  # panels to a group
    SHARES,  # tasks among which the panels of one block are divided
    BLOCKS,
    BLOCK_LINES,
    LINES,
    HEIGHT,
    WIDTH,
    X_GROUP,  # strides
    X_CHANNEL,
    X_ROW,
    X_COL,
    W_GROUP,
    W_FILTER,
    W_CHANNEL,
    W_ROW,
    W_COL,
    Y_GROUP,
    Y_FILTER,
    Y_ROW,
    Y_COL,
    LINE_TABLE,  # where in `table`: lines, offsets of tiles, of channels
    TILE_OFFSETS,
    STEP_OFFSETS,
    BLOCK_TILES,
    SLOTS,  # where in `work` the slots begin, how far apart they are, and what one holds
    SLOT,
    SUMS,
    LINE,
) = range(32)


@device
def see_line(source, strides, extents, table, line, channels, buffer, seen, strip, plane):
    """Take what one line of tiles sees of the image to the points: B' x B.

    ``seen[point, channel // width, tile, channel % width]`` with ``plane`` numbers from point to
    point and ``strip`` from one vector of channels to the next; strides are (c, h, w).
    """
    width = lanes(buffer)
    across = table[line + TILES] * OUTPUTS + TAPS - 1
    first = pointer(source, table[line + X_BASE])
    for channel in range(0, channels, width):
        pack_lane_box(
            pointer(first, channel * strides[0]),
            strides,
            extents,
            (table[line + TOP], table[line + LEFT]),
            (POINTS, across),
            (1, 1),
            min(channels - channel, width),
            buffer,
        )
        for t in range(table[line + TILES]):
            transform(
                image,
                POINTS,
                POINTS,
                pointer(buffer, t * OUTPUTS * width),
                across * width,
                width,
                zero(buffer),
                pointer(seen, channel // width * strip + t * width),
                POINTS * plane,
                plane,
            )


@Kernel
def transform_filters(task, slot, size, table, x, weight, bias, y, work):
    """Take some channels of one panel of filters to the points: G w G'."""
    cols, depth = size[COLS], size[DEPTH]
    width = lanes(work)
    row = cols * width
    chunks = (size[CHANNELS] + FILTER_CHUNK - 1) // FILTER_CHUNK
    part, chunk = divmod(task, chunks)
    group, number = divmod(part, size[PANELS])
    panel = pointer(work, part * POINTS * POINTS * depth * row)
    taps = pointer(work, size[SLOTS] + slot * size[SLOT])
    for j in range(0, row, width):
        filter_ = number * row + j
        used = min(max(size[FILTERS] - filter_, 0), width)
        for c in range(chunk * FILTER_CHUNK, min((chunk + 1) * FILTER_CHUNK, size[CHANNELS])):
            source = pointer(
                weight,
                group * size[W_GROUP] + filter_ * size[W_FILTER] + c * size[W_CHANNEL],
            )
            if size[W_ROW] == TAPS * size[W_COL]:  # also of a flipped filter
                pack_lanes(source, size[W_COL], size[W_FILTER], used, TAPS * TAPS, taps, width)
            else:
                for r in range(TAPS):
                    line = pointer(source, r * size[W_ROW])
                    target = pointer(taps, r * TAPS * width)
                    pack_lanes(line, size[W_COL], size[W_FILTER], used, TAPS, target, width)
            transform(
                three_taps,
                TAPS,
                POINTS,
                taps,
                TAPS * width,
                width,
                zero(work),
                pointer(panel, c * row + j),
                POINTS * depth * row,
                depth * row,
            )


@Kernel
def winograd_block(task, slot, size, table, x, weight, bias, y, work):
    """Take a block of lines of tiles through its share of one group's filters."""
    cols, depth, panels = size[COLS], size[DEPTH], size[PANELS]
    width = lanes(work)
    row = cols * width
    rest, block = divmod(task, size[BLOCKS])
    group, share = divmod(rest, size[SHARES])
    begin = block * size[BLOCK_LINES]
    end = min(begin + size[BLOCK_LINES], size[LINES])
    points = POINTS * POINTS
    strip = size[BLOCK_TILES] * width  # one vector of channels of all tiles, at one point
    plane = size[BLOCK_TILES] * depth  # all channels, at one point ...
    sums_plane = size[BLOCK_TILES] * row  # ... and in the products
    seen = pointer(work, size[SLOTS] + slot * size[SLOT])
    sums = pointer(seen, size[SUMS])
    line_buffer = pointer(seen, size[LINE])

    tiles = 0
    strides = size[X_CHANNEL], size[X_ROW], size[X_COL]
    extents = size[HEIGHT], size[WIDTH]
    for number in range(begin, end):
        line = size[LINE_TABLE] + number * LINE_FIELDS
        first_tile = pointer(seen, tiles * width)
        source = pointer(x, group * size[X_GROUP])
        channels = size[CHANNELS]
        see_line(
            source, strides, extents, table, line, channels, line_buffer, first_tile, strip, plane
        )
        tiles += table[line + TILES]

    for part in range(share * panels // size[SHARES], (share + 1) * panels // size[SHARES]):
        panel = pointer(work, (group * panels + part) * points * depth * row)
        for point in range(points):
            accumulate(
                pointer(seen, point * plane),
                table,
                size[TILE_OFFSETS],
                tiles,
                size[STEP_OFFSETS],
                size[CHANNELS],
                pointer(panel, point * depth * row),
                None,
                None,
                pointer(sums, point * sums_plane),
                row,
                False,
                cols,
            )
        for j in range(0, row, width):
            filter_ = part * row + j
            used = min(size[FILTERS] - filter_, width)
            if used <= 0:
                break
            first = 0
            biases = load_first(bias, group * size[FILTERS] + filter_, used)
            for number in range(begin, end):
                line = size[LINE_TABLE] + number * LINE_FIELDS
                pitch = table[line + TILES] * OUTPUTS * width
                for t in range(table[line + TILES]):
                    transform(
                        four_outputs,
                        POINTS,
                        OUTPUTS,
                        pointer(sums, (first + t) * row + j),
                        POINTS * sums_plane,
                        sums_plane,
                        biases,
                        pointer(line_buffer, t * OUTPUTS * width),
                        pitch,
                        width,
                    )
                first += table[line + TILES]
                result = pointer(
                    y, group * size[Y_GROUP] + filter_ * size[Y_FILTER] + table[line + Y_BASE]
                )
                for i in range(table[line + DOWN]):
                    unpack_lanes(
                        pointer(line_buffer, i * pitch),
                        width,
                        table[line + ACROSS],
                        pointer(result, i * size[Y_ROW]),
                        size[Y_COL],
                        size[Y_FILTER],
                        used,
                    )


def tile_lines(pixels: Ints, x: Layout, y: Layout, before: Ints, most: int) -> Table:
    """Lines of at most ``most`` tiles that cover the output pixels (N, O, P, Q): a row each."""
    batch, planes, down, across = pixels
    tiles = ceil(across / OUTPUTS)
    per_line = ceil(tiles / ceil(tiles / most))
    starts = [range(batch), range(planes), range(0, down, OUTPUTS), range(0, tiles, per_line)]
    n, o, p, t = (axis.ravel() for axis in np.meshgrid(*starts, indexing="ij"))
    q = t * OUTPUTS
    rows = np.empty((len(n), LINE_FIELDS), np.int64)
    rows[:, X_BASE] = n * x.strides[0] + o * x.strides[3]
    rows[:, Y_BASE] = n * y.strides[0] + o * y.strides[3] + p * y.strides[4] + q * y.strides[5]
    rows[:, TOP] = p - before[1]
    rows[:, LEFT] = q - before[2]
    rows[:, TILES] = np.minimum(per_line, tiles - t)
    rows[:, DOWN] = np.minimum(OUTPUTS, down - p)
    rows[:, ACROSS] = np.minimum(rows[:, TILES] * OUTPUTS, across - q)
    return rows


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
) -> Plan:
    """Plan a correlation with 1x3x3 filters, of stride and dilation 1."""
    width = VECTOR_BITS // 8 // dtype.itemsize
    groups, filters, channels = w.shape[:3]
    pixels = (y.shape[0], *y.shape[3:])
    depth = ceil(channels / width) * width
    cols = columns(filters, width, MAX_COLS)
    row = cols * width
    panels = ceil(filters / row)
    points = POINTS * POINTS

    # The transformed tiles of a block and their products fill the second-level cache. But
    # where the filters do not fit there as well, every block reads them from further away:
    # 66 tiles make it 32 operations to a byte, and 16 would have taken 1.5 times as long.
    filters_bytes = groups * panels * points * depth * row * dtype.itemsize
    room = L2_BYTES // (points * (depth + row) * dtype.itemsize)
    most = max(room // ROWS, 4 if filters_bytes <= L2_BYTES else 11) * ROWS
    lines = tile_lines(pixels, x, y, before, most)
    per_line = int(lines[:, TILES].max())
    block_lines = max(1, most // per_line)
    tasks = 2 * threads
    if groups * panels * ceil(len(lines) / block_lines) < tasks:
        block_lines = min(block_lines, ceil(len(lines) * groups * panels / tasks))
    blocks = ceil(len(lines) / block_lines)
    shares = min(panels, ceil(tasks / (groups * blocks)))
    tiles = ceil(block_lines * per_line / ROWS) * ROWS

    tables = Tables()
    line_table = tables.add(lines)
    slots = groups * panels * points * depth * row
    seen = points * tiles * depth
    sums = points * tiles * row
    line_buffer = POINTS * (per_line * OUTPUTS + TAPS - 1) * width
    slot = spread(seen + sums + line_buffer, width)
    size = (
        filters,
        channels,
        depth,
        cols,
        panels,
        shares,
        blocks,
        block_lines,
        len(lines),
        *x.shape[4:],
        *x.strides[1:3],
        *x.strides[4:],
        *w.strides[:3],
        *w.strides[4:],
        *y.strides[1:3],
        *y.strides[4:],
        line_table,
        tables.add(offsets((tiles,), (width,))),
        tables.add(offsets((depth // width, width), (tiles * width, 1))),
        tiles,
        slots,
        slot,
        seen,
        seen + sums,
    )
    chunks = ceil(channels / FILTER_CHUNK)
    stages = [
        (transform_filters, groups * panels * chunks),
        (winograd_block, groups * blocks * shares),
    ]
    tiles_in_all = int(lines[:, TILES].sum())
    operations = 2 * groups * points * tiles_in_all * channels * filters
    return Plan(dtype, stages, size, tables, slots + threads * slot, operations, groups * filters)
