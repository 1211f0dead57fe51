"""Gradients of poolings: every window hands dy to the pixels that it was made of.

    dx[n,c,h] = sum over windows p that see pixel h of

        dy[n,c,p] where h is the place of the largest number,   or  dy[n,c,p] / size of the window

A task owns a block of pixels of a group of channels: it sets them to zero and goes through the
windows that see them, in order, so that a pixel is the same sum however images are cut into blocks.
Where the largest numbers are is found in a first stage, by the kernel of ``pool.py``, unless
``pool_once.py`` can do both at once.
"""

from math import prod
from typing import Any

import numpy as np

from ..host import lanes_of
from .blocks import Ints, Tables, odd_pitch
from .engine import Engine
from .kernel import Kernel, device, inline, named
from .lane_choice import carry, divide, moved, where_same
from .panels import clear_lanes
from .pool import BLOCK, FOUND, INDEXED, PACKED, SLOT, SLOTS
from .pool_blocks import (
    COPY_TAPS,
    DILATION,
    EXTENTS,
    IMAGE,
    INDICES,
    KERNEL,
    OF_IMAGE,
    OF_RESULT,
    ONCE,
    ONES,
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
from .pool_lines import divisor_of, mean_of_lines, plan_lines
from .pool_once import plan_once
from .pool_walk import MEAN, PLACES, WIDE, ahead, walk
from .pool_whole import gradient_of_image, plan_whole
from .simd import element, lanes, load, pointer, store, tile
from .stages import Plan
from .views import Layout, lanes_merged

# Where the fields of the second stage begin, if there are two: after those of the first, which
# wants no indices as an array.
SECOND = INDEXED + 1


@inline
def _take(spot, across, divisor, shares, units, kind):
    # What windows, or vectors of one, have to give, and to which of their taps.
    for j in range(units):
        dy = load(spot[2], j * across[2])
        shares[0, j] = divide(dy, divisor) if kind == MEAN else dy
        if kind != MEAN:
            index = spot[1] + j * across[1]
            shares[1, j] = moved(load(spot[3], j * across[3]), -index)


@inline
def _tiles(spot, along, across, count, of_window, units, wide, kind):
    # See pool_walk.walk. A tile goes backwards through its taps: a pixel of several of its windows
    # gets the first one's share first, as it does if they are in several tiles.
    spans, size, table, taps, divisor = of_window
    (t0, t1), (r0, r1), (s0, s1) = spans
    shares, once = tile(spot[0], 2, WIDE), size[ONCE] == 1
    for i in range(count):
        here = ahead(spot, along, i)
        _take(here, across, divisor, shares, units, kind)
        for t in range(t1 - 1, t0 - 1, -1):
            for r in range(r1 - 1, r0 - 1, -1):
                row = (t * size[KERNEL + 1] + r) * size[KERNEL + 2]
                for s in range(row + s1 - 1, row + s0 - 1, -1):
                    dx = pointer(here[0], element(table, taps + s))
                    tap = carry(dx, element(table, size[INDICES] + s))
                    for j in range(units):
                        share = shares[0, j]
                        if kind != MEAN:
                            share = where_same(shares[1, j], tap, share)
                        if not once:
                            share = load(dx, j * across[0]) + share
                        store(dx, j * across[0], share)


@inline
def _large(spot, spans, size, divisor, pitches, extra, kind):
    # The same for one vector of a large window.
    (t0, t1), (r0, r1), (s0, s1) = spans
    shares = tile(spot[0], 2, 1)
    _take(spot, (0, 0, 0, 0), divisor, shares, 1, kind)
    for t in range(t0, t1):
        d = t * size[DILATION]
        for r in range(r0, r1):
            h = r * size[DILATION + 1]
            for s in range(s0, s1):
                w = s * size[DILATION + 2]
                dx, share = pointer(spot[0], offset((d, h, w), pitches)), shares[0, 0]
                if kind != MEAN:
                    tap = carry(dx, (d * size[EXTENTS + 1] + h) * size[EXTENTS + 2] + w)
                    share = where_same(shares[1, 0], tap, share)
                store(dx, 0, load(dx, 0) + share)


@device
def _clear(dx, pitches, extents, vectors):
    planes, lines, line = extents
    for d in range(planes):
        for h in range(lines):
            if pitches[2] == vectors * lanes(dx):
                clear_lanes(pointer(dx, offset((d, h, 0), pitches)), line * vectors)
            else:
                for w in range(line):
                    clear_lanes(pointer(dx, offset((d, h, w), pitches)), vectors)


def _kernel(kind: int, far: bool) -> Kernel:
    """The kernel for means or for the largest numbers, of large windows or of others."""

    @named(kind, far)
    def pool_gradient_block(task, slot, size, table, x, dy, bias, dx, work):
        """Take one block of pixels of a group of channels."""
        if kind != MEAN:
            size = pointer(size, SECOND)
        width = lanes(work)
        n, first, used, block = part_of(task, size, table)
        room = pointer(work, size[SLOTS] + slot * size[SLOT])
        dy, dx = channels_at(dy, size, RESULT, n, first), channels_at(dx, size, IMAGE, n, first)
        windows, pixels = box_of(table, block + OF_RESULT), box_of(table, block + OF_IMAGE)
        vectors = (used + width - 1) // width
        packed = packed_pitches(windows[1], width)
        corner = offset(windows[0], packed)
        to_dy = dy, own_pitches(size, RESULT, width)
        if not is_near(size, RESULT, used, width):
            copy = pointer(room, size[PACKED])
            pack_box(dy, to_dy[1], size[RESULT + 1], windows, used, copy, packed)
            to_dy = pointer(copy, -corner), packed
        to_found = found_at(work, size, n, first, used)
        if kind != MEAN and used % width > 0:
            copy = pointer(room, size[FOUND])
            pack_box(to_found[0], to_found[1], 1, windows, used, copy, packed)
            to_found = pointer(copy, -corner), packed
        near, own = is_near(size, IMAGE, used, width), own_pitches(size, IMAGE, width)
        pitches, taps, image = own, size[TAPS], dx
        if not near:
            pitches, taps = copy_pitches(size, width), size[COPY_TAPS]
            image = pointer(room, -offset(pixels[0], pitches))
        if far or size[ONCE] == 0:
            _clear(pointer(image, offset(pixels[0], pitches)), pitches, pixels[1], vectors)
        arrays = (image, pitches), to_dy, to_found
        if far:  # as in pool.py
            walk(size, table, taps, windows, pixels, arrays, vectors, None, _large, (), kind)
        else:
            walk(size, table, taps, windows, pixels, arrays, vectors, _tiles, None, (), kind)
        if not near:
            unpack_box(room, pitches, pixels, used, dx, own, size[IMAGE + 1])

    return Kernel(pool_gradient_block)


GRADIENT = {(kind, far): _kernel(kind, far) for kind in (MEAN, PLACES) for far in (False, True)}


@Engine
def max_pool_grad_input(
    dtype: np.dtype[Any],
    threads: int,
    x: Layout,
    dy: Layout,
    dx: Layout,
    kernel: Ints,
    stride: Ints,
    before: Ints,
    dilation: Ints,
) -> Plan:
    """Plan the gradient of max pooling."""
    width = lanes_of(dtype)
    x, dx, dy = lanes_merged(x, dx, dy)
    windows = Windows(x.shape[3:], dy.shape[3:], kernel, stride, before, dilation)
    windows, [x, dx], [dy], _ = in_strips(windows, width, [x, dx], [dy])
    plan = plan_once(dtype, threads, x, dy, dx, windows)
    if plan is not None:
        return plan
    find = PoolBlocks(x, dy, windows, dtype, threads)
    blocks = PoolBlocks(dx, dy, windows, dtype, threads, by_pixels=True)
    tables = Tables()
    # Indices go to where all are kept by way of a slot, if their vector is not full.
    results, packed = odd_pitch(find.pixels, width), odd_pitch(blocks.pixels, width)
    found = results + odd_pitch(find.windows * find.vectors, width)
    indices = packed + odd_pitch(blocks.windows, width)
    slot = max(found + odd_pitch(find.windows, width), indices + odd_pitch(blocks.windows, width))
    slots = odd_pitch(prod(dy.shape[:2]) * prod(windows.outputs), width)
    size = (
        *find.fields(tables),
        *(results, found, slots, slot, 1, 0),
        *blocks.fields(tables),
        *(packed, indices, slots, slot),
    )
    stages = [(BLOCK[PLACES, find.far], find.tasks), (GRADIENT[PLACES, blocks.far], blocks.tasks)]
    operations = find.operations + blocks.operations
    return Plan(dtype, stages, size, tables, slots + threads * slot, operations)


@Engine
def avg_pool_grad_input(
    dtype: np.dtype[Any],
    threads: int,
    unused: Layout,
    dy: Layout,
    dx: Layout,
    kernel: Ints,
    stride: Ints,
    before: Ints,
    after: Ints,
    padded: Ints,
) -> Plan:
    """Plan the gradient of average pooling; ``padded`` is that of ``avg_pool``."""
    width = lanes_of(dtype)
    dx, dy = lanes_merged(dx, dy)
    windows = Windows(dx.shape[3:], dy.shape[3:], kernel, stride, before, ONES)
    plan = plan_whole(dtype, threads, gradient_of_image, dx, dy, windows)
    # Where each pixel is in one window, blocks write that at once: 0.4 of the time of lines.
    if plan is None and not windows.once:
        divisor, seeing = divisor_of(windows.sizes(after, bool(padded[0]))), windows.transposed
        plan = plan_lines(dtype, threads, mean_of_lines, dy, dx, seeing, divisor, stride)
    if plan is not None:
        return plan
    windows, [dx], [dy], _ = in_strips(windows, width, [dx], [dy])
    blocks = PoolBlocks(dx, dy, windows, dtype, threads, by_pixels=True)
    tables = Tables()
    packed = odd_pitch(blocks.pixels, width)
    slot = packed + odd_pitch(blocks.windows, width)
    fields = blocks.fields(tables, windows.sizes(after, bool(padded[0])))
    stages = [(GRADIENT[MEAN, blocks.far], blocks.tasks)]
    size = (*fields, packed, 0, 0, slot)
    return Plan(dtype, stages, size, tables, threads * slot, blocks.operations)
