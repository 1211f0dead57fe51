"""Packing without transposing: lines of an image stay lines.

``copy_line``     numbers of any step, to any step
``pack_image``    a block of the image with its zero padding made real
``pack_pixels``   the same where channels are neighbours
``gather_lines``  pieces of lines, listed in a table, one after another, ``gather_panels`` where
                  they are whole rows of panels; ``scatter_lines``, the way back

Positions are listed as offsets in a table, cut into *runs* of equal steps in memory (see
``blocks.runs``).
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
    store,
    store_even,
    store_first,
    zero,
)

# Images beyond the caches are read in short pieces of many channels, which the processor does not
# foresee. Asking early, for the piece of the channel AHEAD of this one, made a strided 3x3 layer of
# 128 channels 1.2 times as fast.
AHEAD = 4

# Whether storing some lanes of a vector is as fast as storing all. With AVX2 it is not, least of
# all on AMD's processors. With a whole vector that ends where a line does, and single zeros at the
# ends of padded lines, gradients with respect to images of 1 to 6 channels took 0.74 to 0.95 of the
# time; with single numbers where every other one is written, strided 3x3 and 7x7 ones 0.86 to 0.95.
MASKED = VECTOR_BITS == 512


@inline
def prefetch_lanes(source, distance, used):
    """Ask for what ``used`` lanes of a vector, ``distance`` numbers apart, begin with.

    And for what lies half a vector further on, most often in the same cache lines: asked for once,
    filters of 512 channels took 1.02 to 1.05 times the time, flipped or not.
    """
    for lane in range(used):
        prefetch(source, lane * distance)
        prefetch(source, lane * distance + lanes(source) // 2)


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
