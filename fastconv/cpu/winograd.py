"""Winograd's algorithm for 3x3 filters of stride 1: ``forward`` and, flipped, ``grad_input``.

A quarter of the multiplications of the definition, see ``transforms.py``. The image is cut into 6x6
tiles that overlap by 2; at each of the 36 points, what is left is a product of two matrices,

    out[point][tile, k] = sum_c  image[point][tile, c] filters[point][c, k]

which is the micro-kernel once more: rows are tiles, steps channels, lanes filters. Tiles of several
rows and images make up a block, so that small images leave no row of the product empty.

The T planes of a Tx3x3 filter are as many filters of one plane: for each of them the image's
channels count once more. A *slice* is a channel of one plane.
"""

from math import ceil
from typing import Any

import numpy as np

from ..host import L2_BYTES, L3_BYTES, lanes_of
from .blocks import Ints, Table, Tables, columns, odd_pitch, offsets
from .engine import Engine
from .kernel import Kernel, device, once
from .packing import AHEAD, prefetch_lanes
from .panels import pack_lane_box, pack_lanes, unpack_lanes
from .simd import element, lanes, load_first, pointer, store, zero
from .stages import Plan
from .tile import NARROW_BYTES, ROWS, ROWS_OF, STEPS, accumulate
from .transforms import OUTPUTS, POINTS, TAPS, four_outputs, image, three_taps, transform
from .views import Layout

# Fields of a line of tiles in the table: offsets in x and y, first plane, row and column of the
# image it sees, tiles in it, pixels of the result it gives down and across.
X_BASE, Y_BASE, FRONT, TOP, LEFT, TILES, DOWN, ACROSS, LINE_FIELDS = range(9)

# Slices whose filters one task transforms.
FILTER_CHUNK = 16

# Blocks up to which tasks take the filters to the points themselves, some slices at a time that
# stay near, rather than read four times their bytes from beyond the second-level cache. One block:
# 512 channels at 7x7, 16 images, took 0.66 to 0.77 of the time, 256 at 14x14, one image, 0.57 to
# 0.99; two: 0.67 to 0.97; four: 1.16.
OWN_BLOCKS = 2

# Fields of `size`.
(
    FILTERS,  # K/G
    CHANNELS,  # C/G
    PLANES,  # of a filter, T
    POINT_PITCH,  # numbers from a panel's filters at one point to those at the next
    COLS,  # vectors in a row of a panel
    PANELS,  # panels to a group
    SHARES,  # tasks among which the panels of one block are divided
    TOGETHER,  # panels that pass over a block at one point before the next
    BLOCKS,
    BLOCK_LINES,
    LINES,
    LENGTH,  # extents of x
    HEIGHT,
    WIDTH,
    X_GROUP,  # strides
    X_CHANNEL,
    X_PLANE,
    X_ROW,
    X_COL,
    W_GROUP,
    W_FILTER,
    W_CHANNEL,
    W_PLANE,
    W_ROW,
    W_COL,
    Y_GROUP,
    Y_FILTER,
    Y_ROW,
    Y_COL,
    LINE_TABLE,  # where in `table`: lines, offsets of tiles, of channels
    TILE_OFFSETS,
    STEP_OFFSETS,
    SEEN_PITCH,  # numbers from the tiles at one point, or their products, to those at the next
    SUMS_PITCH,
    RELU,
    SLOTS,  # where in `work` the slots begin, how far apart they are, and what one holds
    SLOT,
    SUMS,
    LINE,
    OWN,  # where in a slot a task takes a panel to the points; 0 if a stage did that for all
    SPAN,  # slices of them at a time
    STREAMED,  # whether they come from beyond the second-level cache
) = range(42)


@once
def see_lines(
    source,
    strides,
    extents,
    table,
    lines,
    first,
    last,
    channels,
    planes,
    buffer,
    seen,
    tiles,
    strip,
    pitch,
):
    """Take what lines ``first`` to ``last`` of tiles see of the image to the points: B' x B.

    To ``seen`` with ``pitch`` numbers from point to point and ``strip`` from one vector of channels
    to the next, all those of a plane before those of the next. The table lists the lines from index
    ``lines``, and from ``tiles`` where each tile lies. Strides are (c, d, h, w), extents (d, h, w).
    Returns how many tiles there are.
    """
    width = lanes(buffer)
    vectors = (channels + width - 1) // width
    place = tiles
    for number in range(first, last):
        line = lines + number * LINE_FIELDS
        across = table[line + TILES] * OUTPUTS + TAPS - 1
        end = place + table[line + TILES]
        for t in range(planes):
            z = table[line + FRONT] + t
            plane = pointer(source, table[line + X_BASE] + t * strides[1])
            for v in range(vectors):
                target = pointer(seen, (t * vectors + v) * strip)
                if not 0 <= z < extents[0]:
                    for tile in range(place, end):
                        for point in range(POINTS * POINTS):
                            store(target, element(table, tile) + point * pitch, zero(buffer))
                    continue
                pack_lane_box(
                    pointer(plane, v * width * strides[0]),
                    (strides[0], strides[2], strides[3]),
                    (extents[1], extents[2]),
                    (table[line + TOP], table[line + LEFT]),
                    (POINTS, across),
                    (1, 1),
                    min(channels - v * width, width),
                    buffer,
                )
                for tile in range(place, end):
                    transform(
                        image,
                        POINTS,
                        POINTS,
                        pointer(buffer, (tile - place) * OUTPUTS * width),
                        across * width,
                        width,
                        zero(buffer),
                        False,
                        pointer(target, element(table, tile)),
                        POINTS * pitch,
                        pitch,
                    )
        place = end
    return place - tiles


@device
def transform_slices(size, weight, group, index, begin, end, taps, panel, pitch):
    """Take slices ``begin`` to ``end`` of one panel of filters to the points: G w G'.

    They begin at ``panel``, with ``pitch`` numbers from point to point; ``taps`` is for 9 vectors.
    """
    width = lanes(taps)
    row = size[COLS] * width
    for j in range(0, row, width):
        filter_ = index * row + j
        used = min(max(size[FILTERS] - filter_, 0), width)
        for number in range(begin, end):
            t, c = divmod(number, size[CHANNELS])
            plane = pointer(weight, t * size[W_PLANE] + c * size[W_CHANNEL])
            source = pointer(plane, group * size[W_GROUP] + filter_ * size[W_FILTER])
            prefetch_lanes(pointer(source, AHEAD * size[W_CHANNEL]), size[W_FILTER], used)
            # Of most filters, also flipped ones, all taps are one line.
            one = size[W_ROW] == TAPS * size[W_COL]
            rows, length = (1, TAPS * TAPS) if one else (TAPS, TAPS)
            for r in range(rows):
                line = pointer(source, r * size[W_ROW])
                target = pointer(taps, r * TAPS * width)
                pack_lanes(line, size[W_COL], size[W_FILTER], used, length, target, width)
            transform(
                three_taps,
                TAPS,
                POINTS,
                taps,
                TAPS * width,
                width,
                zero(taps),
                False,
                pointer(panel, (number - begin) * row + j),
                POINTS * pitch,
                pitch,
            )


@Kernel
def transform_filters(task, slot, size, table, x, weight, bias, y, work):
    """Take some slices of one panel of filters to the points, for all blocks."""
    row = size[COLS] * lanes(work)
    slices = size[PLANES] * size[CHANNELS]
    chunks = (slices + FILTER_CHUNK - 1) // FILTER_CHUNK
    part, chunk = divmod(task, chunks)
    group, index = divmod(part, size[PANELS])
    pitch = size[POINT_PITCH]
    begin = chunk * FILTER_CHUNK
    end = min(begin + FILTER_CHUNK, slices)
    panel = pointer(work, part * POINTS * POINTS * pitch + begin * row)
    taps = pointer(work, size[SLOTS] + slot * size[SLOT])
    transform_slices(size, weight, group, index, begin, end, taps, panel, pitch)


@once
def take_back(size, table, group, part, together, first, last, sums, bias, buffer, y):
    """Take ``together`` panels of sums, from ``part`` on, back from the points: A' sums A + bias.

    The sums are those of all tiles of lines ``first`` to ``last``, the result is written to ``y``.
    """
    width = lanes(buffer)
    row = size[COLS] * width
    pitch = size[SUMS_PITCH]
    for j in range(0, together * row, width):
        filter_ = part * row + j
        used = min(size[FILTERS] - filter_, width)
        if used <= 0:
            break
        products = pointer(sums, j // row * POINTS * POINTS * pitch + j % row)
        biases = load_first(bias, group * size[FILTERS] + filter_, used)
        result = pointer(y, group * size[Y_GROUP] + filter_ * size[Y_FILTER])
        tile = 0
        for number in range(first, last):
            line = size[LINE_TABLE] + number * LINE_FIELDS
            across = table[line + TILES] * OUTPUTS * width
            for t in range(table[line + TILES]):
                transform(
                    four_outputs,
                    POINTS,
                    OUTPUTS,
                    pointer(products, (tile + t) * row),
                    POINTS * pitch,
                    pitch,
                    biases,
                    size[RELU] > 0,
                    pointer(buffer, t * OUTPUTS * width),
                    across,
                    width,
                )
            tile += table[line + TILES]
            for i in range(table[line + DOWN]):
                unpack_lanes(
                    pointer(buffer, i * across),
                    width,
                    table[line + ACROSS],
                    pointer(result, table[line + Y_BASE] + i * size[Y_ROW]),
                    size[Y_COL],
                    size[Y_FILTER],
                    used,
                )


@Kernel
def winograd_block(task, slot, size, table, x, weight, bias, y, work):
    """Take a block of lines of tiles through its share of one group's filters."""
    cols, panels = size[COLS], size[PANELS]
    width = lanes(work)
    row = cols * width
    rest, block = divmod(task, size[BLOCKS])
    group, share = divmod(rest, size[SHARES])
    first_line = block * size[BLOCK_LINES]
    last_line = min(first_line + size[BLOCK_LINES], size[LINES])
    points, point_pitch = POINTS * POINTS, size[POINT_PITCH]
    plane, sums_plane = size[SEEN_PITCH], size[SUMS_PITCH]
    seen = pointer(work, size[SLOTS] + slot * size[SLOT])
    sums = pointer(seen, size[SUMS])
    line_buffer = pointer(seen, size[LINE])

    strides = size[X_CHANNEL], size[X_PLANE], size[X_ROW], size[X_COL]
    extents = size[LENGTH], size[HEIGHT], size[WIDTH]
    channels, planes = size[CHANNELS], size[PLANES]
    tiles = see_lines(
        pointer(x, group * size[X_GROUP]),
        strides,
        extents,
        table,
        size[LINE_TABLE],
        first_line,
        last_line,
        channels,
        planes,
        line_buffer,
        seen,
        size[TILE_OFFSETS],
        ROWS * width,
        plane,
    )

    own, depth = size[OWN] > 0, planes * channels
    last = (share + 1) * panels // size[SHARES]
    for part in range(share * panels // size[SHARES], last, size[TOGETHER]):
        together = min(size[TOGETHER], last - part)
        first_panel = pointer(work, (group * panels + part) * points * point_pitch)
        if own:
            first_panel = pointer(seen, size[OWN])
        for begin in range(0, depth, size[SPAN]):
            end = min(begin + size[SPAN], depth)
            if own:
                transform_slices(
                    size, weight, group, part, begin, end, line_buffer, first_panel, point_pitch
                )
            for point in range(points):
                for i in range(together):
                    accumulate(
                        pointer(seen, point * plane),
                        table,
                        size[TILE_OFFSETS],
                        tiles,
                        size[STEP_OFFSETS] + begin,
                        end - begin,
                        pointer(first_panel, (i * points + point) * point_pitch),
                        row,
                        None,
                        None,
                        pointer(sums, (i * points + point) * sums_plane),
                        row,
                        begin > 0,
                        False,
                        cols,
                        size[STREAMED] > 0,
                    )
        take_back(
            size, table, group, part, together, first_line, last_line, sums, bias, line_buffer, y
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
    rows[:, X_BASE] = n * x.strides[0] + (o - before[0]) * x.strides[3]
    rows[:, Y_BASE] = n * y.strides[0] + o * y.strides[3] + p * y.strides[4] + q * y.strides[5]
    rows[:, FRONT] = o - before[0]
    rows[:, TOP] = p - before[1]
    rows[:, LEFT] = q - before[2]
    rows[:, TILES] = np.minimum(per_line, tiles - t)
    rows[:, DOWN] = np.minimum(OUTPUTS, down - p)
    rows[:, ACROSS] = np.minimum(rows[:, TILES] * OUTPUTS, across - q)
    return rows


def slices(channels: int, planes: int, strip: int, width: int) -> Table:
    """Offsets of the slices of one tile, as ``see_lines`` leaves them at a point."""
    vectors = ceil(channels / width)
    table = offsets((planes, vectors, width), (vectors * strip, strip, 1))
    return table.reshape(planes, -1)[:, :channels].ravel()


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
    """Plan a correlation with Tx3x3 filters, of stride and dilation 1."""
    width = lanes_of(dtype)
    groups, filters, channels, planes = w.shape[:4]
    pixels = (y.shape[0], *y.shape[3:])
    whole = ceil(channels / width) * width
    depth = planes * whole
    cols = columns(filters, width, ROWS_OF)
    row = cols * width
    panels = ceil(filters / row)
    points = POINTS * POINTS

    # An odd number of vectors from point to point: a filter's 36 points would share one set of each
    # cache otherwise, with 512 channels. 24 maps took 0.97 of the time; with tiles and products
    # so as well, 24 maps 0.96.
    pitch = odd_pitch(depth * row, width)

    # The transformed tiles of a block and their products fill the second-level cache. But
    # where the filters do not fit there as well, every block reads them from further away:
    # 66 tiles make it 32 operations to a byte, and 16 would have taken 1.5 times as long. Of
    # filters that come from memory, 132 tiles took 0.83 to 0.9 of the time of 66.
    filters_bytes = groups * panels * points * pitch * dtype.itemsize
    room = L2_BYTES // (points * (depth + row) * dtype.itemsize)
    fewest = 4 if filters_bytes <= L2_BYTES else 22 if filters_bytes > L3_BYTES // 2 else 11
    most = max(room // ROWS, fewest) * ROWS
    lines = tile_lines(pixels, x, y, before, most)
    per_line = int(lines[:, TILES].max())

    # As many blocks as threads share evenly, unless that leaves them half empty, or as give every
    # thread some panels. Tasks that divide panels each transform the image, so there are no more of
    # them than threads: with twice as many 512 channels at 7x7 took 1.15 times as long.
    blocks = ceil(len(lines) / max(1, most // per_line))
    even = ceil(blocks / threads) * threads
    if even * most // 2 <= len(lines) * per_line:
        blocks = even
    blocks = min(max(blocks, ceil(threads / (groups * panels))), len(lines))
    block_lines = ceil(len(lines) / blocks)
    blocks = ceil(len(lines) / block_lines)
    shares = min(panels, ceil(threads / (groups * blocks)))
    tiles = ceil(block_lines * per_line / ROWS) * ROWS

    tables = Tables()
    line_table = tables.add(lines)
    seen_pitch, sums_pitch = odd_pitch(tiles * depth, width), odd_pitch(tiles * row, width)
    seen = points * seen_pitch
    # Narrow panels read a block's tiles so often that those of one point should stay in a cache
    # while all panels pass over them, as long as the products take no more room than the tiles:
    # 28 maps took 0.95 of the time, layers of 256 and 512 channels 0.7 to 0.98.
    narrow = row * dtype.itemsize <= NARROW_BYTES
    own, span = blocks <= OWN_BLOCKS, planes * channels
    together = min(ceil(panels / shares), max(depth // row, 1)) if narrow and not own else 1
    if own:
        span = min(span, STEPS)  # as `accumulate` cuts sums: results are the same to the bit
        pitch = odd_pitch(span * row, width)
    slots = 0 if own else groups * panels * points * pitch
    sums = together * points * sums_pitch
    line_buffer = POINTS * (per_line * OUTPUTS + TAPS - 1) * width
    used = seen + sums + line_buffer
    slot = odd_pitch(used + own * points * pitch, width)
    size = (
        filters,
        channels,
        planes,
        pitch,
        cols,
        panels,
        shares,
        together,
        blocks,
        block_lines,
        len(lines),
        *x.shape[3:],
        *x.strides[1:],
        *w.strides,
        *y.strides[1:3],
        *y.strides[4:],
        line_table,
        # The rows of one pass are neighbours, and one channel's follow another's: read in the order
        # of memory, which the processor foresees. With all tiles of a vector of channels together
        # 256 and 512 channels took 1.18 times as long.
        tables.add(offsets((tiles // ROWS, ROWS), (ROWS * depth, width))),
        tables.add(slices(channels, planes, ROWS * width, width)),
        seen_pitch,
        sums_pitch,
        int(relu),
        slots,
        slot,
        seen,
        seen + sums,
        used if own else 0,
        span,
        int(not own and filters_bytes // groups > L2_BYTES),
    )
    stages = [(winograd_block, groups * blocks * shares)]
    if not own:
        chunks = ceil(planes * channels / FILTER_CHUNK)
        stages.insert(0, (transform_filters, groups * panels * chunks))
    tiles_in_all = int(lines[:, TILES].sum())
    operations = 2 * groups * points * tiles_in_all * planes * channels * filters
    return Plan(dtype, stages, size, tables, slots + threads * slot, operations, groups * filters)
