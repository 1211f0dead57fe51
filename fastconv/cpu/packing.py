"""Packing: everything about a convolution that is not arithmetic.

``pack_image``   a block of the image with its zero padding made real
``pack_panel``   rows of filters or gradients, one vector lane each, for ``tile.accumulate``
``unpack_panel`` the way back: finished sums into the result

A panel holds the transpose of what arrays hold: its rows run over positions, its columns over
channels. Positions are listed as offsets in a table, cut into *runs* of neighbours in memory (see
``blocks.runs``); each run of at most ``lanes`` positions is moved by one transpose in registers.
"""

from .kernel import device
from .simd import (
    element,
    lanes,
    load,
    load_first,
    pointer,
    put,
    square_tile,
    store,
    store_first,
    transpose,
    zero,
)


@device
def _copy_row(source, stride, count, target):
    """``target[i] = source[i * stride]``."""
    width = lanes(target)
    if stride == 1:
        whole = count - count % width
        for i in range(0, whole, width):
            store(target, i, load(source, i))
        store_first(target, whole, load_first(source, whole, count - whole), count - whole)
    else:
        for i in range(count):
            put(target, i, element(source, i * stride))


@device
def _clear(target, count):
    """``target[:count] = 0``."""
    width = lanes(target)
    for i in range(0, count, width):
        store_first(target, i, zero(target), count - i)


@device
def _pack_line(source, stride, first, extent, target, count):
    """``target[i] = source[(first + i) * stride]`` where ``0 <= first + i < extent``, else 0."""
    before = min(max(-first, 0), count)
    after = max(min(extent - first, count), before)
    _clear(target, before)
    start = first + before
    _copy_row(pointer(source, start * stride), stride, after - before, pointer(target, before))
    _clear(pointer(target, after), count - after)


@device
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
    target : pointer to (images, channels, *box), each channel ``pitch[1]`` elements, each image
        ``pitch[0]`` and each plane and line ``pitch[2]`` and ``pitch[3]``
    """
    for n in range(images):
        for c in range(channels):
            for d in range(box[0]):
                z = corner[0] + d
                for h in range(box[1]):
                    y = corner[1] + h
                    line = pointer(
                        target, n * pitch[0] + c * pitch[1] + d * pitch[2] + h * pitch[3]
                    )
                    if 0 <= z < extents[0] and 0 <= y < extents[1]:
                        offset = n * strides[0] + c * strides[1] + z * strides[2] + y * strides[3]
                        inside = pointer(source, offset)
                        _pack_line(inside, strides[4], corner[2], extents[2], line, box[2])
                    else:
                        _clear(line, box[2])


@device
def pack_panel(source, distance, valid, table, offsets, runs, count, target, cols):
    """``target[i, lane] = source[table[offsets + i] + lane * distance]``, 0 from lane ``valid`` on.

    Parameters
    ----------
    table : (n,) int64
        Holds ``count`` offsets from index ``offsets``, and their runs from index ``runs``.
    target : pointer to (count, cols * lanes)
    """
    width = lanes(target)
    row = cols * width
    square = square_tile(target)
    for first in range(0, row, width):
        used = min(max(valid - first, 0), width)
        base = pointer(source, first * distance)
        if used == 0 or distance == 1:
            for i in range(count):
                store(target, i * row + first, load_first(base, element(table, offsets + i), used))
            continue
        run = runs
        i = 0
        while i < count:
            run += 1
            length = min(element(table, run), count) - i
            start = element(table, offsets + i)
            for lane in range(width):
                if lane < used:
                    square[lane, 0] = load_first(base, start + lane * distance, length)
                else:
                    square[lane, 0] = zero(target)
            transpose(square)
            for k in range(length):
                store(target, (i + k) * row + first, square[k, 0])
            i += length


@device
def unpack_panel(source, cols, count, target, distance, valid, table, offsets, runs):
    """``target[table[offsets + i] + lane * distance] = source[i, lane]`` for ``valid`` lanes.

    Parameters
    ----------
    source : pointer to (count, cols * lanes)
    table : (n,) int64
        Holds ``count`` offsets from index ``offsets``, and their runs from index ``runs``.
    """
    width = lanes(source)
    row = cols * width
    square = square_tile(source)
    for first in range(0, min(valid, row), width):
        used = min(valid - first, width)
        base = pointer(target, first * distance)
        if distance == 1:
            for i in range(count):
                value = load(source, i * row + first)
                store_first(base, element(table, offsets + i), value, used)
            continue
        run = runs
        i = 0
        while i < count:
            run += 1
            length = min(element(table, run), count) - i
            start = element(table, offsets + i)
            for k in range(length):
                square[k, 0] = load(source, (i + k) * row + first)
            transpose(square)
            for lane in range(used):
                store_first(base, start + lane * distance, square[lane, 0], length)
            i += length
