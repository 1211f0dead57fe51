"""Pooling: the largest number of every window, or the mean.

    y[n,c,p] = max_r  x[n, c, p*stride + r*dilation - before]

and the same with a sum, divided by the size of the window; pixels outside have no part in either. A
task takes a block of windows of a group of channels: it copies what they see, unless that lies in
memory as vectors do, goes through the taps of each window, and copies the results out.
"""

from math import prod
from typing import Any

import numpy as np
from numba import types

from ..host import lanes_of
from .blocks import Ints, Tables, odd_pitch
from .engine import Engine
from .kernel import Kernel, device, inline, named
from .lane_choice import (
    carried,
    carry,
    divide,
    larger,
    largest,
    lowest,
    moved,
    put_carried,
)
from .panels import pack_lanes
from .pool_blocks import (
    BLOCK_FIELDS,
    COPY_TAPS,
    DILATION,
    EXTENTS,
    IMAGE,
    INDICES,
    KERNEL,
    OF_IMAGE,
    OF_RESULT,
    ONES,
    PIECE,
    RESULT,
    TAPS,
    PoolBlocks,
    Windows,
    in_strips,
)
from .pool_boxes import (
    box_of,
    channels_at,
    copy_pitches,
    found_at,
    is_near,
    offset,
    own_pitches,
    pack_box,
    packed_pitches,
    part_of,
    unpack_box,
)
from .pool_lines import divisor_of, largest_in_lines, mean_of_lines, plan_lines
from .pool_walk import LARGEST, MEAN, PLACES, WIDE, walk
from .pool_whole import mean_of_image, plan_whole
from .simd import element, lanes, load, pointer, pointer_to, prefetch, put, store, tile, zero
from .stages import Plan
from .views import Layout, lanes_merged

# Windows by which reading is foreseen where channels lie side by side: layers larger than the
# caches took 0.7 of the time. Foreseeing the next vectors of a lone window gained nothing there,
# and cost up to a quarter where the caches hold them.
NEXT = 8

indices_at = pointer_to(types.int64)

# Fields of `size` after those of the blocks: in a slot of `work`, where results and indices of a
# block are; where the slots begin, and their length; whether nothing but indices is wanted, all of
# them in `work`; whether indices are wanted as an array, its strides (n, g, d, h, w), and by how
# much they grow from one strip to the next, of so many.
PACKED, FOUND, SLOTS, SLOT, ONLY_INDICES, INDEXED, TO_INDICES = (BLOCK_FIELDS + i for i in range(7))
STRIPS, SPAN = BLOCK_FIELDS + 11, BLOCK_FIELDS + 12


@inline
def go_through(x, index, acc, along, across, left, of_window, units, wide, kind):
    """Add up what one tile of windows sees, or find the largest numbers and where these are.

    Sums or largest numbers go to ``acc[0]``; to ``acc[1]``, relative to ``index``, the places.
    ``left`` tiles are left, this one included.
    """
    spans, size, table, taps, _ = of_window
    (t0, t1), (r0, r1), (s0, s1) = spans
    rows, cols, indices = size[KERNEL + 1], size[KERNEL + 2], size[INDICES]
    first, empty = 0, t0 == t1 or r0 == r1 or s0 == s1
    if not empty:
        first = element(table, indices + (t0 * rows + r0) * cols + s0)
    if wide and left > NEXT:
        for s in range(s0, s1):
            for j in range(units):
                prefetch(x, element(table, taps + s) + NEXT * along + j * across)
    for j in range(units):
        acc[0, j] = zero(x) if kind == MEAN else lowest(x)
        acc[1, j] = carry(x, -1 - index if empty else first)
    for t in range(t0, t1):
        for r in range(r0, r1):
            row = (t * rows + r) * cols
            for piece in range(row + s0, row + s1, PIECE):
                if kind == MEAN:
                    for j in range(units):
                        acc[1, j] = zero(x)
                for s in range(piece, min(piece + PIECE, row + s1)):
                    pixel = pointer(x, element(table, taps + s))
                    here = carry(x, element(table, indices + s))
                    for j in range(units):
                        number = load(pixel, j * across)
                        if kind == MEAN:
                            acc[1, j] = acc[1, j] + number
                        elif kind == LARGEST:
                            acc[0, j] = largest(number, acc[0, j])
                        else:
                            acc[1, j] = larger(number, acc[0, j], here, acc[1, j])
                            acc[0, j] = larger(number, acc[0, j], number, acc[0, j])
                if kind == MEAN:
                    for j in range(units):
                        acc[0, j] = acc[0, j] + acc[1, j]


@inline
def _tiles(spot, along, across, count, of_window, units, wide, kind):
    # See pool_walk.walk.
    acc, divisor = tile(spot[0], 2, WIDE), of_window[4]
    for i in range(count):
        x, index = pointer(spot[0], i * along[0]), spot[1] + i * along[1]
        go_through(x, index, acc, along[0], across[0], count - i, of_window, units, wide, kind)
        y, found = pointer(spot[2], i * along[2]), pointer(spot[3], i * along[3])
        for j in range(units):
            if kind == MEAN:
                store(y, j * across[2], divide(acc[0, j], divisor))
            else:
                store(y, j * across[2], acc[0, j])
            if kind == PLACES:
                store(found, j * across[3], moved(acc[1, j], index + j * across[1]))


@inline
def _large(spot, spans, size, divisor, pitches, extra, kind):
    # The same for one vector of a large window. Its lines are packed piece by piece, unless they
    # are vectors.
    room, used, near = extra
    width = lanes(room)
    (t0, t1), (r0, r1), (s0, s1) = spans
    step = size[DILATION + 2]
    best, found = zero(room) if kind == MEAN else lowest(room), carry(room, -1)
    for t in range(t0, t1):
        d = t * size[DILATION]
        for r in range(r0, r1):
            h = r * size[DILATION + 1]
            for piece in range(s0, s1, PIECE):
                w = piece * step
                index = spot[1] + (d * size[EXTENTS + 1] + h) * size[EXTENTS + 2] + w
                if t == t0 and r == r0 and piece == s0:
                    found = carry(room, index)
                line, pitch = pointer(spot[0], offset((d, h, w), pitches)), step * pitches[2]
                count = min(s1 - piece, PIECE)
                if not near:
                    pack_lanes(line, pitch, size[IMAGE + 1], used, count, room, width)
                    line, pitch = room, width
                part = zero(room)
                for s in range(count):
                    number = load(line, s * pitch)
                    if kind == MEAN:
                        part = part + number
                    elif kind == LARGEST:
                        best = largest(number, best)
                    else:
                        here = carry(room, index + s * step)
                        found = larger(number, best, here, found)
                        best = larger(number, best, number, best)
                if kind == MEAN:
                    best = best + part
    store(spot[2], 0, divide(best, divisor) if kind == MEAN else best)
    if kind == PLACES:
        store(spot[3], 0, found)


def _kernel(kind: int, far: bool) -> Kernel:
    """The kernel for one kind of pooling, of large windows or of others."""

    @named(kind, far)
    def pool_block(task, slot, size, table, x, indices, bias, y, work):
        """Take one block of windows of a group of channels."""
        width = lanes(work)
        n, first, used, block = part_of(task, size, table)
        room = pointer(work, size[SLOTS] + slot * size[SLOT])
        x, y = channels_at(x, size, IMAGE, n, first), channels_at(y, size, RESULT, n, first)
        windows, pixels = box_of(table, block + OF_RESULT), box_of(table, block + OF_IMAGE)
        near = is_near(size, IMAGE, used, width)
        own, taps = own_pitches(size, IMAGE, width), size[TAPS]
        seen, pitches = x, own
        if not near and not far:
            pitches, taps = copy_pitches(size, width), size[COPY_TAPS]
            pack_box(x, own, size[IMAGE + 1], pixels, used, room, pitches)
            seen = pointer(room, -offset(pixels[0], pitches))
        packed = packed_pitches(windows[1], width)
        results, found = pointer(room, size[PACKED]), pointer(room, size[FOUND])
        corner = offset(windows[0], packed)
        to_y, to_found = (pointer(results, -corner), packed), (pointer(found, -corner), packed)
        only_indices, full = size[ONLY_INDICES] == 1, used % width == 0
        if is_near(size, RESULT, used, width) and not only_indices:
            to_y = y, own_pitches(size, RESULT, width)
        if only_indices and full:
            to_found = found_at(work, size, n, first, used)
        arrays, vectors = ((seen, pitches), to_y, to_found), (used + width - 1) // width
        extra = room, used, near
        # By name: a function in the closure would be another one to the cache in every process.
        if far:
            walk(size, table, taps, windows, pixels, arrays, vectors, None, _large, extra, kind)
        else:
            walk(size, table, taps, windows, pixels, arrays, vectors, _tiles, None, (), kind)
        if only_indices:
            if not full:
                kept, to = found_at(work, size, n, first, used)
                unpack_box(found, packed, windows, used, kept, to, 1)
        elif not is_near(size, RESULT, used, width):
            to = own_pitches(size, RESULT, width)
            unpack_box(results, packed, windows, used, y, to, size[RESULT + 1])
        if kind == PLACES and size[INDEXED]:
            _write_indices(found, size, windows, n, first, used, indices_at(indices))

    return Kernel(pool_block)


BLOCK = {
    (kind, far): _kernel(kind, far) for kind in (MEAN, LARGEST, PLACES) for far in (False, True)
}


@device
def _write_indices(found, size, windows, n, first, used, indices):
    width = lanes(found)
    corner, (planes, lines, line) = windows
    vector = planes * lines * line * width
    near = size[TO_INDICES + 1] == 1 and used % width == 0 and size[STRIPS] == 1
    for c in range(0, used, width if near else 1):
        source = pointer(found, c // width * vector + c % width)
        more = (first + c) % size[STRIPS] * size[SPAN]
        for d in range(planes):
            for h in range(lines):
                to = (
                    n * size[TO_INDICES]
                    + (first + c) * size[TO_INDICES + 1]
                    + (corner[0] + d) * size[TO_INDICES + 2]
                    + (corner[1] + h) * size[TO_INDICES + 3]
                    + corner[2] * size[TO_INDICES + 4]
                )
                for w in range(line):
                    here, to_w = ((d * lines + h) * line + w) * width, to + w * size[TO_INDICES + 4]
                    if near:
                        put_carried(indices, to_w, load(source, here))
                    else:
                        index = carried(element(source, here))
                        put(indices, to_w, index + more if index >= 0 else -1)


@Engine
def max_pool(
    dtype: np.dtype[Any],
    threads: int,
    x: Layout,
    indices: Layout,
    y: Layout,
    kernel: Ints,
    stride: Ints,
    before: Ints,
    dilation: Ints,
) -> Plan:
    """Plan max pooling.

    ``indices`` is an array of 64-bit integers in the guise of the dtype, of the shape of ``y``, or
    empty if they are not wanted.
    """
    width = lanes_of(dtype)
    indexed = indices.shape == y.shape
    x, *results = lanes_merged(x, y, *[indices] * indexed)
    windows = Windows(x.shape[3:], y.shape[3:], kernel, stride, before, dilation)
    plan = None if indexed else plan_lines(dtype, threads, largest_in_lines, x, results[0], windows)
    if plan is not None:
        return plan
    windows, [x], results, strips = in_strips(windows, width, [x], results)
    blocks = PoolBlocks(x, results[0], windows, dtype, threads)
    tables = Tables()
    packed = odd_pitch(blocks.pixels, width)
    found = packed + odd_pitch(blocks.windows * blocks.vectors, width)
    slot = found + odd_pitch(blocks.windows * blocks.vectors, width)
    steps = [stride * dtype.itemsize // 8 for stride in results[-1].strides]
    size = (
        *blocks.fields(tables),
        *(packed, found, 0, slot, 0, int(indexed), *steps[:2], *steps[3:]),
        *(strips, prod(windows.extents)),
    )
    stages = [(BLOCK[PLACES if indexed else LARGEST, blocks.far], blocks.tasks)]
    return Plan(dtype, stages, size, tables, threads * slot, blocks.operations)


@Engine
def avg_pool(
    dtype: np.dtype[Any],
    threads: int,
    x: Layout,
    unused: Layout,
    y: Layout,
    kernel: Ints,
    stride: Ints,
    before: Ints,
    after: Ints,
    padded: Ints,
) -> Plan:
    """Plan average pooling; whether the padding counts is ``padded``, (1,) or (0,)."""
    width = lanes_of(dtype)
    x, y = lanes_merged(x, y)
    windows = Windows(x.shape[3:], y.shape[3:], kernel, stride, before, ONES)
    plan = plan_whole(dtype, threads, mean_of_image, x, y, windows)
    if plan is None:
        divisor = divisor_of(windows.sizes(after, bool(padded[0])))
        plan = plan_lines(dtype, threads, mean_of_lines, x, y, windows, divisor)
    if plan is not None:
        return plan
    windows, [x], [y], _ = in_strips(windows, width, [x], [y])
    blocks = PoolBlocks(x, y, windows, dtype, threads)
    tables = Tables()
    packed = odd_pitch(blocks.pixels, width)
    slot = packed + odd_pitch(blocks.windows, width)
    fields = blocks.fields(tables, windows.sizes(after, bool(padded[0])))
    stages = [(BLOCK[MEAN, blocks.far], blocks.tasks)]
    size = (*fields, packed, 0, 0, slot, 0)
    return Plan(dtype, stages, size, tables, threads * slot, blocks.operations)
