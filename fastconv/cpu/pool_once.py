"""The gradient of max pooling where each pixel is in one window, with channels last.

A window then finds its largest number, as in ``pool.py``, and writes all its pixels in one go: dy
where that was, 0 elsewhere. Nothing is cleared or kept in between.
"""

from typing import Any

import numpy as np

from ..host import lanes_of
from .blocks import Tables
from .kernel import Kernel, inline
from .lane_choice import carry, where_same
from .pool import go_through
from .pool_blocks import (
    BEFORE,
    IMAGE,
    INDICES,
    KERNEL,
    OF_IMAGE,
    OF_RESULT,
    RESULT,
    STRIDE,
    TAPS,
    PoolBlocks,
    Windows,
)
from .pool_boxes import box_of, channels_at, offset, own_pitches, part_of
from .pool_walk import PLACES, WIDE, walk
from .simd import element, lanes, load, pointer, store, tile
from .stages import Plan
from .views import Layout


@inline
def _tiles(spot, along, across, count, of_window, units, wide, kind):
    # See pool_walk.walk; the last pointer of a spot is to tap 0 in dx.
    spans, size, table, taps, _ = of_window
    (t0, t1), (r0, r1), (s0, s1) = spans
    acc = tile(spot[0], 2, WIDE)
    for i in range(count):
        x, index, left = pointer(spot[0], i * along[0]), spot[1] + i * along[1], count - i
        go_through(x, index, acc, along[0], across[0], left, of_window, units, wide, kind)
        dy, dx = pointer(spot[2], i * along[2]), pointer(spot[3], i * along[3])
        for j in range(units):
            acc[0, j] = load(dy, j * across[2])
        for t in range(t0, t1):
            for r in range(r0, r1):
                row = (t * size[KERNEL + 1] + r) * size[KERNEL + 2]
                for s in range(row + s0, row + s1):
                    pixel = pointer(dx, element(table, taps + s))
                    here = carry(dx, element(table, size[INDICES] + s))
                    for j in range(units):
                        store(pixel, j * across[3], where_same(acc[1, j], here, acc[0, j]))


@Kernel
def max_gradient_once(task, slot, size, table, x, dy, bias, dx, work):
    """Take one block of windows of some vectors of channels; dx is laid out as x is."""
    width = lanes(work)
    n, first, used, block = part_of(task, size, table)
    x, dx = channels_at(x, size, IMAGE, n, first), channels_at(dx, size, IMAGE, n, first)
    dy = channels_at(dy, size, RESULT, n, first)
    windows, pixels = box_of(table, block + OF_RESULT), box_of(table, block + OF_IMAGE)
    own = own_pitches(size, IMAGE, width)
    to_dx = size[STRIDE] * own[0], size[STRIDE + 1] * own[1], size[STRIDE + 2] * own[2], width
    before = size[BEFORE], size[BEFORE + 1], size[BEFORE + 2]
    to_dy = own_pitches(size, RESULT, width)
    arrays = (x, own), (dy, to_dy), (pointer(dx, -offset(before, own)), to_dx)
    taps, vectors = size[TAPS], used // width
    walk(size, table, taps, windows, pixels, arrays, vectors, _tiles, None, (), PLACES)


def plan_once(
    dtype: np.dtype[Any], threads: int, x: Layout, dy: Layout, dx: Layout, windows: Windows
) -> Plan | None:
    """The plan, if this is how the gradient can be had."""
    width = lanes_of(dtype)
    near = x.strides[1] == dy.strides[1] == 1 and x.shape[1] % width == 0
    if not (windows.once and near and x.strides == dx.strides):
        return None
    blocks = PoolBlocks(x, dy, windows, dtype, threads)
    if blocks.far:
        return None
    tables = Tables()
    size = blocks.fields(tables)
    stages = [(max_gradient_once, blocks.tasks)]
    return Plan(dtype, stages, size, tables, 0, 2 * blocks.operations)
