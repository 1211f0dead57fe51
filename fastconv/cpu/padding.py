"""Padding that shows pixels of the image, and its adjoint.

    pad    padded[p] = x[pixel shown at p]
    fold   dx[h]     = sum of padded[p] over all positions p that show h

One kernel goes through a result line by line. For each line, tables list the lines of the source
that it is made of: one of them to pad, all that show it to fold. Within a line the three segments
of an axis (``fastconv.padding``) are copied, or added, each in one go.
"""

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .blocks import Ints, Table, Tables, block_shape, corners
from .engine import Engine
from .kernel import Kernel, device
from .packing import copy_line
from .simd import element, lanes, load, load_first, pointer, put, store, store_first
from .stages import Plan
from .views import Layout

Array = NDArray[Any]

# Numbers that a task writes, in 2 us or more.
TASK = 8192

# Operations of `Plan` for a number: what a core computes in the 0.4 ns that it takes to move one,
# in lines of 50.
OPERATIONS = 64

# Fields of `size`: strides (n, c) of source and result; of planes and of lines, where in `table`
# their offsets in the result, the beginnings of their lists and what they list are; the segments of
# a line, how far apart pixels and their channels are in the image and in the padded one, and how
# many channels a pixel of a line has. Where channels are last these are all, and c is always 0.
FROM, TO, PLANES, LINES, SEGMENTS = 0, 2, 4, 7, 10
IMAGE, IMAGE_CHANNEL, PADDED, PADDED_CHANNEL, CHANNELS, FOLDS, BLOCK_TABLE = range(19, 26)

# A block's row in the table: its first indices (n, c, plane, line, pixel), those after its last.
FIRST, LAST, BLOCK_FIELDS = 0, 5, 10


@device
def _add_line(source, from_step, count, target, to_step):
    # target[i * to_step] += source[i * from_step]
    width = lanes(target)
    whole = count - count % width if from_step == to_step == 1 else 0
    for i in range(0, whole, width):
        store(target, i, load(target, i) + load(source, i))
    if 0 < whole < count:
        rest = count - whole
        total = load_first(target, whole, rest) + load_first(source, whole, rest)
        store_first(target, whole, total, rest)
    elif whole == 0:
        for i in range(count):
            put(target, i * to_step, element(target, i * to_step) + element(source, i * from_step))


@device
def _move(source, from_step, from_channel, pixels, target, to_step, to_channel, channels, begun):
    # Pixels to pixels, or added to them if the result is begun: pixel by pixel, or as one line.
    lines, count, from_, to = pixels, channels, from_channel, to_channel
    if channels == 1:
        lines, count, from_, to = 1, pixels, from_step, to_step
    elif from_step == to_step == channels and from_channel == to_channel == 1:
        lines, count = 1, pixels * channels
    for i in range(lines):
        seen, place = pointer(source, i * from_step), pointer(target, i * to_step)
        if begun:
            _add_line(seen, from_, count, place, to)
        else:
            copy_line(seen, from_, count, place, to)


@device
def _pad_line(x, size, padded, first, last):
    # Positions from `first` to `last` of a padded line.
    start = 0
    for segment in range(SEGMENTS, SEGMENTS + 9, 3):
        length, pixel, step = size[segment], size[segment + 1], size[segment + 2]
        begin, end = max(first, start), min(last, start + length)
        if begin < end:
            _move(
                pointer(x, (pixel + (begin - start) * step) * size[IMAGE]),
                step * size[IMAGE],
                size[IMAGE_CHANNEL],
                end - begin,
                pointer(padded, begin * size[PADDED]),
                size[PADDED],
                size[PADDED_CHANNEL],
                size[CHANNELS],
                False,
            )
        start += length


@device
def _fold_line(padded, size, dx, first, last, begun):
    # Pixels from `first` to `last`: those of the middle segment, then what the others show of them.
    before, extent = size[SEGMENTS], size[SEGMENTS + 3]
    _move(
        pointer(padded, (before + first) * size[PADDED]),
        size[PADDED],
        size[PADDED_CHANNEL],
        last - first,
        pointer(dx, first * size[IMAGE]),
        size[IMAGE],
        size[IMAGE_CHANNEL],
        size[CHANNELS],
        begun,
    )
    for segment in range(SEGMENTS, SEGMENTS + 9, 6):
        start = 0 if segment == SEGMENTS else before + extent
        length, pixel, step = size[segment], size[segment + 1], size[segment + 2]
        if step > 0:
            begin, end = max(first - pixel, 0), min(last - pixel, length)
        elif step < 0:
            begin, end = max(pixel - last + 1, 0), min(pixel - first + 1, length)
        else:
            begin, end = 0, length if first <= pixel < last else 0
        if begin < end:
            _move(
                pointer(padded, (start + begin) * size[PADDED]),
                size[PADDED],
                size[PADDED_CHANNEL],
                end - begin,
                pointer(dx, (pixel + begin * step) * size[IMAGE]),
                step * size[IMAGE],
                size[IMAGE_CHANNEL],
                size[CHANNELS],
                True,
            )


@device
def _listed(size, table, axis, i):
    # Of index i along an axis: its offset in the result, where its list begins and ends.
    starts, listed = size[axis + 1] + i, size[axis + 2]
    offset = element(table, size[axis] + i)
    return offset, listed + element(table, starts), listed + element(table, starts + 1)


@Kernel
def make_block(task, slot, size, table, source, unused, not_used, out, work):
    """Make a block of lines of padded images, or of images that are folded."""
    block = size[BLOCK_TABLE] + task * BLOCK_FIELDS
    first, last = table[block + FIRST + 4], table[block + LAST + 4]
    for n in range(table[block + FIRST], table[block + LAST]):
        for c in range(table[block + FIRST + 1], table[block + LAST + 1]):
            images = pointer(source, n * size[FROM] + c * size[FROM + 1])
            results = pointer(out, n * size[TO] + c * size[TO + 1])
            for d in range(table[block + FIRST + 2], table[block + LAST + 2]):
                to_d, begin_d, end_d = _listed(size, table, PLANES, d)
                for h in range(table[block + FIRST + 3], table[block + LAST + 3]):
                    to_h, begin_h, end_h = _listed(size, table, LINES, h)
                    line = pointer(results, to_d + to_h)
                    begun = False
                    for i in range(begin_d, end_d):
                        plane = pointer(images, element(table, i))
                        for j in range(begin_h, end_h):
                            seen = pointer(plane, element(table, j))
                            if size[FOLDS]:
                                _fold_line(seen, size, line, first, last, begun)
                            else:
                                _pad_line(seen, size, line, first, last)
                            begun = True


def shown_by(numbers: Ints) -> Table:
    """The pixels that an axis shows, given its segments."""
    each = zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
    return np.concatenate([first + step * np.arange(length) for length, first, step in each])


def _lists(numbers: Ints, from_stride: int, to_stride: int, folds: bool) -> tuple[Table, ...]:
    """Offsets in the result, beginnings of lists and what they list, along an axis."""
    shown = shown_by(numbers)
    if folds:
        sources, counts = np.argsort(shown, kind="stable"), np.bincount(shown)
    else:
        sources, counts = shown, np.ones(len(shown), np.int64)
    starts = np.cumsum(np.append(0, counts))
    return np.arange(len(counts)) * to_stride, starts, sources * from_stride


def _make_plan(
    dtype: np.dtype[Any],
    image: Layout,
    padded: Layout,
    segments: tuple[Ints, ...],
    folds: bool,
) -> Plan:
    source, result = (padded, image) if folds else (image, padded)
    batch, groups, channels, *extents = result.shape
    # Groups and their channels are one axis of an array.
    channels *= groups
    image_c, padded_c = (x.strides[2] if x.shape[2] > 1 else x.strides[1] for x in (image, padded))
    last = padded.strides[5] != 1
    outer = 1 if last else channels
    strides = (padded_c, image_c) if folds else (image_c, padded_c)
    tables = Tables()
    lists = [
        tables.add(table)
        for axis in (3, 4)
        for table in _lists(segments[axis - 3], source.strides[axis], result.strides[axis], folds)
    ]
    pixel = channels if last else 1
    shape = (batch, outer, *extents)
    block = block_shape(shape, TASK // pixel)
    first = corners(shape, block)
    size = (
        source.strides[0],
        strides[0],
        result.strides[0],
        strides[1],
        *lists,
        *segments[2],
        image.strides[5],
        image_c,
        padded.strides[5],
        padded_c,
        pixel,
        int(folds),
        tables.add(np.hstack([first, np.minimum(first + block, shape)])),
    )
    operations = OPERATIONS * prod(shape) * pixel
    return Plan(dtype, [(make_block, len(first))], size, tables, 0, operations)


@Engine
def pad(
    dtype: np.dtype[Any],
    threads: int,
    x: Layout,
    unused: Layout,
    padded: Layout,
    *segments: Ints,
) -> Plan:
    """Plan the copy of an image with its padding around it."""
    return _make_plan(dtype, x, padded, segments, folds=False)


@Engine
def fold(
    dtype: np.dtype[Any],
    threads: int,
    padded: Layout,
    unused: Layout,
    dx: Layout,
    *segments: Ints,
) -> Plan:
    """Plan the sum, for each pixel, over the positions that show it."""
    return _make_plan(dtype, dx, padded, segments, folds=True)


# The same by NumPy: where Numba compiles nothing (NUMBA_DISABLE_JIT), and for integers.


def pad_plainly(x: Array, padded: Array, *segments: Ints) -> None:
    padded[...] = x[_places(segments)]


def fold_plainly(padded: Array, dx: Array, *segments: Ints) -> None:
    dx[...] = 0
    np.add.at(dx, _places(segments), padded)


def _places(segments: tuple[Ints, ...]) -> tuple[Any, ...]:
    d, h, w = (shown_by(numbers) for numbers in segments)
    return (..., d[:, None, None], h[:, None], w)
