"""Packing: everything about a convolution that is not arithmetic.

``pack_image``   a block of the image with its zero padding made real
``pack_pixels``  the same where channels are neighbours
``pack_panel``   rows of filters or gradients, one vector lane each, for ``tile.accumulate``
``unpack_panel`` the way back: finished sums into the result

A panel holds the transpose of what arrays hold: its rows run over positions, its columns over
channels. Positions are listed as offsets in a table, cut into *runs* of equal steps in memory (see
``blocks.runs``); where the step is 1, a transpose in registers moves as many positions as lanes.
"""

from ..host import VECTOR_BITS
from .kernel import device, inline, once
from .simd import (
    element,
    lanes,
    load,
    load_even,
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

# Images beyond the caches are read in short pieces of many channels, which the processor does not
# foresee. Asking early, for the piece of the channel AHEAD of this one or for the vector NEXT in
# each line, made a strided 3x3 layer of 128 channels 1.2 times as fast, depthwise ones 1.25 times.
# Of pixels whose channels lie together, SOON ahead: 1x1 weights of 96 to 24 channels 1.14 times.
AHEAD = 4
NEXT = 2
SOON = 32

# Positions that are left after whole squares and moved one by one: of the nine taps of flipped 3x3
# filters, the last was another square; 512 of 512 channels, one image of 7x7, took 0.8 of the time.
FEW = 2

# Whether storing some lanes of a vector is as fast as storing all. With AVX2 it is not, least of
# all on AMD's processors. With a whole vector that ends where a line does, and single zeros at the
# ends of padded lines, gradients with respect to images of 1 to 6 channels took 0.74 to 0.95 of the
# time; with single numbers where every other one is written, strided 3x3 and 7x7 ones 0.86 to 0.95.
MASKED = VECTOR_BITS == 512


@inline
def _copy_rest(source, target, whole, count):
    # target[i] = source[i] for whole <= i < count, where all before them has been copied.
    if 0 < whole < count:
        last = count - lanes(target)
        store(target, last, load(source, last))
    elif whole < count:  # an empty mask is no cheaper than a full one
        store_first(target, 0, load_first(source, 0, count), count)


@device
def copy_line(source, stride, count, target, to_stride):
    """``target[i * to_stride] = source[i * stride]``."""
    width = lanes(target)
    if stride == 1 and to_stride == 1:
        whole = count - count % width
        for i in range(0, whole, width):
            store(target, i, load(source, i))
        _copy_rest(source, target, whole, count)
    else:
        start = 0
        if stride == 2 and to_stride == 1:
            # Not the last vector: it would be read past its end.
            start = max(count - 1, 0) // width * width
            for i in range(0, start, width):
                store(target, i, load_even(source, 2 * i))
        elif MASKED and stride == 1 and to_stride == 2:
            start = count // width * width
            for i in range(0, start, width):
                store_even(target, 2 * i, load(source, i))
        for i in range(start, count):
            put(target, i * to_stride, element(source, i * stride))


@device
def clear(target, count):
    """``target[:count] = 0``."""
    width = lanes(target)
    whole = count - count % width
    for i in range(0, whole, width):
        store(target, i, zero(target))
    if MASKED:
        if whole < count:
            store_first(target, whole, zero(target), count - whole)
    else:
        for i in range(whole, count):
            rolled()
            put(target, i, 0.0)


@device
def inside(first, step, extent, count):
    """The range of i below ``count`` for which ``0 <= first + i * step < extent``."""
    start = min(max((step - 1 - first) // step, 0), count)
    return start, max(min((extent - first + step - 1) // step, count), start)


@device
def pack_line(source, stride, first, step, start, stop, target, count):
    """``target[i] = source[(first + i * step) * stride]`` for start <= i < stop, else 0."""
    clear(target, start)
    begin = pointer(source, (first + start * step) * stride)
    copy_line(begin, step * stride, stop - start, pointer(target, start), 1)
    clear(pointer(target, stop), count - stop)


@once
def pack_image(source, strides, extents, corner, images, channels, box, target, pitch):
    """Copy a box of an image, which may stick out of it on any side, zero outside.

    Parameters
    ----------
    source : pointer
        First element of the first image's first channel.
    strides : (n, c, d, h, w)
        Distances in ``source``, in elements.
    extents, corner, box : (d, h, w)
        Size of the image, first coordinate of the box in it, size of the box.
    target : pointer to (images, channels, *box), of strides ``pitch``, the last 1; less than a
        vector is written past a line, which the next one covers
    """
    width = lanes(target)
    start, stop = inside(corner[2], 1, extents[2], box[2])
    whole = (stop - start) // width * width
    for n in range(images):
        for c in range(channels):
            for d in range(box[0]):
                z = corner[0] + d
                for h in range(box[1]):
                    y = corner[1] + h
                    line = pointer(
                        target, n * pitch[0] + c * pitch[1] + d * pitch[2] + h * pitch[3]
                    )
                    if not (0 <= z < extents[0] and 0 <= y < extents[1]):
                        for i in range(0, box[2], width):
                            store(line, i, zero(target))
                        continue
                    offset = n * strides[0] + c * strides[1] + z * strides[2] + y * strides[3]
                    first = pointer(source, offset + (corner[2] + start) * strides[4])
                    if strides[4] != 1:
                        clear(line, box[2])
                        copy_line(first, strides[4], stop - start, pointer(line, start), 1)
                        continue
                    for i in range(0, start, width):
                        store(line, i, zero(target))
                    for i in range(0, whole, width):
                        prefetch(first, AHEAD * strides[1] + i)
                        store(line, start + i, load(first, i))
                    end = start + whole
                    if end < stop:
                        store(line, end, load_first(first, whole, stop - end))
                        end += width
                    for i in range(end, box[2], width):
                        store(line, i, zero(target))


@once
def pack_pixels(source, strides, extents, corner, images, channels, box, target, pitch):
    """Like ``pack_image``, for strides of 1 along the channels of ``source`` and ``target``."""
    width = lanes(target)
    start, stop = inside(corner[2], 1, extents[2], box[2])
    whole = channels - channels % width
    for n in range(images):
        for d in range(box[0]):
            z = corner[0] + d
            for h in range(box[1]):
                y = corner[1] + h
                line = pointer(target, n * pitch[0] + d * pitch[2] + h * pitch[3])
                if not (0 <= z < extents[0] and 0 <= y < extents[1]):
                    clear(line, box[2] * pitch[4])
                    continue
                clear(line, start * pitch[4])
                clear(pointer(line, stop * pitch[4]), (box[2] - stop) * pitch[4])
                offset = n * strides[0] + z * strides[2] + y * strides[3]
                first = pointer(source, offset + (corner[2] + start) * strides[4])
                place = pointer(line, start * pitch[4])
                if strides[4] == channels and pitch[4] == channels:
                    copy_line(first, 1, (stop - start) * channels, place, 1)
                    continue
                for w in range(stop - start):
                    for c in range(0, whole, width):
                        store(place, w * pitch[4] + c, load(first, w * strides[4] + c))
                    pixel = pointer(first, w * strides[4])
                    _copy_rest(pixel, pointer(place, w * pitch[4]), whole, channels)


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
            for lane in range(width):
                if lane < used:
                    square[lane, 0] = load_first(source, start + lane * distance, length)
                else:
                    square[lane, 0] = zero(target)
            transpose(square)
            for k in range(length):
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
def run_of(table, run, i):
    """The run, at ``run`` or later in the table, that position ``i`` belongs to."""
    while element(table, run + 1) <= i:
        run += 1
    return run


@device
def gather_lines(source, table, rows, count, offsets, run, step, begin, end, target, pitch):
    """``target[i * pitch + p] = source[table[rows + i] + table[offsets + begin + p]]``.

    For ``count`` rows of ``end - begin`` positions, whose runs of ``step`` are listed from ``run``
    on; returns the run of the last one.
    """
    width = lanes(target)
    at = begin
    while at < end:
        run = run_of(table, run, at)
        length = min(element(table, run + 1), end) - at
        line = pointer(source, element(table, offsets + at))
        place = pointer(target, at - begin)
        whole = length - length % width
        for i in range(count):
            row = element(table, rows + i)
            if step == 1:
                coming = element(table, rows + min(i + AHEAD, count - 1))
                for j in range(0, whole, width):
                    prefetch(line, coming + j)
                    store(place, i * pitch + j, load(line, row + j))
                _copy_rest(pointer(line, row), pointer(place, i * pitch), whole, length)
            else:
                copy_line(pointer(line, row), step, length, pointer(place, i * pitch), 1)
        at += length
    return run


@device
def gather_panels(line, table, rows, count, panels, target, row):
    """``target[p, i, j] = line[table[rows + i] + p * row + j]``, for ``row`` positions j a panel.

    All panels get a row before any gets the next one: pieces of memory as long as may be.
    """
    width = lanes(target)
    for i in range(count):
        piece = pointer(line, element(table, rows + i))
        coming = pointer(line, element(table, rows + min(i + AHEAD, count - 1)))
        place = pointer(target, i * row)
        for p in range(panels):
            for j in range(0, row, width):
                prefetch(coming, p * row + j)
                store(place, p * row * count + j, load(piece, p * row + j))


@device
def scatter_lines(source, pitch, count, table, offsets, run, step, begin, end, target, distance):
    """``target[i * distance + table[offsets + begin + p]] = source[i * pitch + p]``.

    The way back from ``gather_lines``, for rows ``distance`` apart.
    """
    width = lanes(source)
    at = begin
    while at < end:
        run = run_of(table, run, at)
        length = min(element(table, run + 1), end) - at
        line = pointer(source, at - begin)
        place = pointer(target, element(table, offsets + at))
        whole = length - length % width
        for i in range(count):
            if step == 1:
                for j in range(0, whole, width):
                    store(place, i * distance + j, load(line, i * pitch + j))
                _copy_rest(pointer(line, i * pitch), pointer(place, i * distance), whole, length)
            else:
                copy_line(pointer(line, i * pitch), 1, length, pointer(place, i * distance), step)
        at += length


@device
def _near(table, begin, end, width):
    # How many offsets from index `begin` on lie within a vector, and the least of them.
    least = greatest = element(table, begin)
    for i in range(begin + 1, end):
        offset = element(table, i)
        if max(greatest, offset) - min(least, offset) >= width:
            return i - begin, least
        least, greatest = min(least, offset), max(greatest, offset)
    return end - begin, least


@device
def _pack_near(source, distance, table, begin, count, least, target, row):
    # target[i * row + lane] = source[table[begin + i] + lane * distance], offsets from `least` on
    # and within a vector.
    width = lanes(target)
    reach = 1
    for i in range(count):
        reach = max(reach, element(table, begin + i) - least + 1)
    square = square_tile(target)
    for lane in range(width):
        square[lane, 0] = load_first(source, least + lane * distance, reach)
    transpose(square)
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
            near, least = 1, 0
            if used == width and distance != 1 and step != 1 and step != -1:
                near, least = _near(table, offsets + i, offsets + end, width)
                length = near if near > 1 else length
            if length < 2 * width:  # not foreseen by pack_lanes; 3x3 filters: 0.9 of the time
                coming = element(table, offsets + min(i + AHEAD * length, end - 1))
                for lane in range(0, used, max(width // max(abs(distance), 1), 1)):
                    prefetch(base, coming + lane * distance)
            place = pointer(target, (i - begin) * row + first)
            if near > 1:
                _pack_near(base, distance, table, offsets + i, near, least, place, row)
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
