"""Panels and other vectors of lanes: what arrays hold, transposed.

``pack_lanes``     lines of a vector's worth of channels, for kernels whose lanes are channels
``pack_lane_box``  a box of pixels of as many channels with its zero padding made real
``pack_panel``     rows of filters or gradients, for ``tile.accumulate``
``unpack_lanes``, ``unpack_panel``  the way back: finished sums into the result

Rows run over positions, columns over channels. Where positions are neighbours in memory, a
transpose in registers moves as many as a vector has lanes.
"""

from .kernel import device, inline, once
from .packing import AHEAD, MASKED, prefetch_lanes, run_of
from .simd import (
    element,
    lanes,
    load,
    load_first,
    pointer,
    prefetch,
    put,
    rolled,
    square_tile,
    store,
    store_even,
    store_first,
    transpose,
    zero,
)

# What is asked for early, as in packing.py: the vector NEXT in each line, with which depthwise
# layers were 1.25 times as fast (2 ahead, and with 4 once more 1.01); of positions whose channels
# lie together the one SOON after this, 1x1 weights of 96 to 24 channels 1.14 times.
NEXT = 4
SOON = 32

# Positions that are left after whole squares and moved one by one: of the nine taps of flipped 3x3
# filters, the last was another square; 512 of 512 channels, one image of 7x7, took 0.8 of the time.
FEW = 2


@inline
def load_square(source, first, distance, used, count, square):
    """``square[i, lane] = source[first + i + lane * distance]`` for i below ``count``.

    0 for larger ones and from lane ``used`` on, for which nothing is read.
    """
    for lane in range(lanes(source)):
        square[lane, 0] = zero(source)
        if lane < used:
            square[lane, 0] = load_first(source, first + lane * distance, count)
    transpose(square)


@device
def pack_lanes(source, step, distance, used, count, target, row):
    """``target[i * row + lane] = source[i * step + lane * distance]``, 0 from lane ``used`` on.

    For ``count`` values of i and one vector of lanes.
    """
    width = lanes(target)
    if distance == 1 and used == width:
        for i in range(count):
            store(target, i * row, load(source, i * step))
    elif distance == 1:
        for i in range(count):
            store(target, i * row, load_first(source, i * step, used))
    elif (step == 1 or step == -1) and count >= width and used == width:
        square = square_tile(target)
        rest = count % width
        whole = count - rest if rest <= FEW else count
        for i in range(0, whole, width):
            first = min(i, count - width)  # the last square overlaps: masks cost more
            start = first if step == 1 else 1 - first - width
            for k in range(width):
                prefetch(source, start + NEXT * width + k * distance)
                square[k, 0] = load(source, start + k * distance)
            transpose(square)
            for k in range(width):
                at = k if step == 1 else width - 1 - k
                store(target, (first + at) * row, square[k, 0])
        for i in range(whole, count):
            rolled()
            for lane in range(width):
                put(target, i * row + lane, element(source, i * step + lane * distance))
    elif step == 1 or step == -1:
        square = square_tile(target)
        for i in range(0, count, width):
            length = min(width, count - i)
            start = i if step == 1 else 1 - i - length
            load_square(source, start, distance, used, length, square)
            # Unrolled: an index that LLVM does not know would have the square in memory.
            for k in range(width):
                if k < length:
                    at = k if step == 1 else length - 1 - k
                    store(target, (i + at) * row, square[k, 0])
    else:
        for i in range(count):
            if used < width:
                store(target, i * row, zero(target))
            for lane in range(used):
                put(target, i * row + lane, element(source, i * step + lane * distance))


@device
def clear_lanes(target, count):
    """Zero ``count`` vectors."""
    width = lanes(target)
    for i in range(count):
        store(target, i * width, zero(target))


@device
def pack_lane_box(source, strides, extents, corner, box, spread, used, target):
    """Pack a box of pixels of one vector of channels, 0 outside the image.

    ``target[h, w, lane] = source[lane * strides[0] + y * strides[1] + x * strides[2]]`` where
    (y, x) * spread = corner + (h, w), and 0 for pixels between those of the image; for ``used``
    lanes. ``extents``, ``corner``, ``box`` and ``spread`` are (height, width).
    """
    width = lanes(target)
    before = max(-corner[1], 0)
    before = min(before + (-corner[1] - before) % spread[1], box[1])
    x = (corner[1] + before) // spread[1]
    count = max(min(extents[1] - x, (box[1] - before + spread[1] - 1) // spread[1]), 0)
    after = before + count
    for h in range(box[0]):
        line = pointer(target, h * box[1] * width)
        y, between = divmod(corner[0] + h, spread[0])
        if between or not 0 <= y < extents[0]:
            clear_lanes(line, box[1])
            continue
        if spread[1] > 1:
            clear_lanes(line, box[1])
        else:
            clear_lanes(line, before)
            clear_lanes(pointer(line, after * width), box[1] - after)
        start = pointer(source, y * strides[1] + x * strides[2])
        place = pointer(line, before * width)
        pack_lanes(start, strides[2], strides[0], used, count, place, spread[1] * width)


@device
def unpack_lanes(source, row, count, target, step, distance, used):
    """``target[i * step + lane * distance] = source[i * row + lane]`` for ``used`` lanes.

    For ``count`` values of i.
    """
    width = lanes(source)
    if distance == 1 and used == width:
        for i in range(count):
            store(target, i * step, load(source, i * row))
    elif distance == 1:
        for i in range(count):
            store_first(target, i * step, load(source, i * row), used)
    elif (step == 1 or (MASKED and step == 2)) and count >= width and used == width:
        square = square_tile(source)
        for i in range(0, count, width):
            first = min(i, count - width)
            for k in range(width):
                square[k, 0] = load(source, (first + k) * row)
            transpose(square)
            if step == 1:
                for lane in range(width):
                    store(target, first + lane * distance, square[lane, 0])
            else:  # a phase of a strided grad_input
                for lane in range(width):
                    store_even(target, 2 * first + lane * distance, square[lane, 0])
    elif step == 1:
        square = square_tile(source)
        for i in range(0, count, width):
            length = min(width, count - i)
            for k in range(length):
                square[k, 0] = load(source, (i + k) * row)
            transpose(square)
            for lane in range(used):
                store_first(target, i + lane * distance, square[lane, 0], length)
    else:
        for lane in range(used):
            for i in range(count):
                put(target, i * step + lane * distance, element(source, i * row + lane))


@device
def _near(table, begin, end, width):
    # How many offsets from index `begin` on lie within a vector, the least, and how far they reach.
    least = greatest = element(table, begin)
    i = begin + 1
    while i < end:
        offset = element(table, i)
        if max(greatest, offset) - min(least, offset) >= width:
            break
        least, greatest = min(least, offset), max(greatest, offset)
        i += 1
    return i - begin, least, greatest - least + 1


@device
def _pack_near(source, distance, table, begin, count, least, reach, target, row):
    # target[i * row + lane] = source[table[begin + i] + lane * distance], offsets from `least` on
    # and less than `reach` beyond, a vector at most.
    square = square_tile(target)
    load_square(source, least, distance, lanes(target), reach, square)
    for i in range(count):
        rolled()
        store(target, i * row, square[element(table, begin + i) - least, 0])


@once
def pack_panel(source, distance, valid, table, offsets, run, step, begin, end, target, cols):
    """``target[i, lane] = source[table[offsets + begin + i] + lane * distance]``.

    And 0 from lane ``valid`` on. Returns the run of the last position.

    Parameters
    ----------
    table : (n,) int64
        Holds offsets from index ``offsets``, and their runs of ``step``, of which ``run`` is that
        of ``begin`` or one before it.
    target : pointer to (end - begin, cols * lanes)
    """
    width = lanes(target)
    row = cols * width
    if distance == 1 and valid >= row:
        for i in range(begin, end):
            piece = pointer(source, element(table, offsets + i))
            coming = pointer(source, element(table, offsets + min(i + SOON, end - 1)))
            for first in range(0, row, width):
                prefetch(coming, first)
                store(target, (i - begin) * row + first, load(piece, first))
        return run
    first_run = last_run = run_of(table, run, begin)
    for first in range(0, row, width):
        used = min(max(valid - first, 0), width)
        base = pointer(source, first * distance)
        run, i = first_run, begin
        while i < end:
            run = run_of(table, run, i)
            length = min(element(table, run + 1), end) - i
            # The taps of a phase: every other one of a line. One transpose for all that lie within
            # a vector; 512 of 512 channels, stride 2, grad_input, took 0.90 of the time.
            close, least, reach = 1, 0, 1
            if used == width and distance != 1 and step != 1 and step != -1:
                close, least, reach = _near(table, offsets + i, offsets + end, width)
                length = close if close > 1 else length
            if length < 2 * width:  # not foreseen by pack_lanes; 3x3 filters: 0.9 of the time
                coming = element(table, offsets + min(i + AHEAD * length, end - 1))
                prefetch_lanes(pointer(base, coming), distance, used)
            place = pointer(target, (i - begin) * row + first)
            if close > 1:
                taps = offsets + i
                _pack_near(base, distance, table, taps, close, least, reach, place, row)
            else:
                start = pointer(base, element(table, offsets + i))
                pack_lanes(start, step, distance, used, length, place, row)
            i += length
        last_run = run
    return last_run


@once
def unpack_panel(source, cols, count, target, distance, valid, table, offsets, runs, step):
    """``target[table[offsets + i] + lane * distance] = source[i, lane]`` for ``valid`` lanes.

    Parameters
    ----------
    source : pointer to (count, cols * lanes)
    table : (n,) int64
        Holds ``count`` offsets from index ``offsets``, and their runs of ``step`` from ``runs``.
    """
    width = lanes(source)
    row = cols * width
    if distance == 1 and valid >= row:
        for i in range(count):
            place = pointer(target, element(table, offsets + i))
            for first in range(0, row, width):
                store(place, first, load(source, i * row + first))
        return
    for first in range(0, min(valid, row), width):
        used = min(valid - first, width)
        base = pointer(target, first * distance)
        run = runs
        i = 0
        while i < count:
            run += 1
            length = min(element(table, run), count) - i
            start = pointer(base, element(table, offsets + i))
            unpack_lanes(pointer(source, i * row + first), row, length, start, step, distance, used)
            i += length
