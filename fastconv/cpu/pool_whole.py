"""Means of whole images with their channels last, and their gradient.

    y[n,c] = sum_p  x[n,p,c] / pixels          dx[n,p,c] = dy[n,c] / pixels

A task goes through the pixels of an image in the order of memory: it adds their channels, some
pixels at a time, to sums that stay in the first-level cache, or copies what lies there to each.
"""

from math import prod
from typing import Any

import numpy as np

from ..host import L1_BYTES, VECTOR_BITS, lanes_of
from .blocks import Tables, offsets
from .kernel import Kernel
from .lane_choice import divide
from .pool_blocks import PIECE, Windows
from .simd import element, lanes, load, pointer, store, zero
from .stages import Plan
from .views import Layout

# Pixels that join the sums at a time.
TOGETHER = 4

# Fields of `size`: channels, their vectors, parts these are divided into, pixels and where their
# offsets are in `table`, distances of images and of means, distance of slots in `work`.
CHANNELS, VECTORS, PARTS, PIXELS, OFFSETS, IMAGE, MEANS, SLOT = range(8)


@Kernel
def mean_of_image(task, slot, size, table, x, unused, bias, y, work):
    """Take some channels of an image."""
    n, part = divmod(task, size[PARTS])
    vectors, pixels, width = size[VECTORS], size[PIXELS], lanes(y)
    begin, end = part * vectors // size[PARTS], (part + 1) * vectors // size[PARTS]
    last = size[CHANNELS] - width  # where the last vector begins, which the one before may overlap
    source, sums = pointer(x, n * size[IMAGE]), pointer(work, slot * size[SLOT])
    for v in range(begin, end):
        store(sums, v * width, zero(y))
    for p in range(0, pixels // TOGETHER * TOGETHER, TOGETHER):
        a = pointer(source, element(table, size[OFFSETS] + p))
        b = pointer(source, element(table, size[OFFSETS] + p + 1))
        c = pointer(source, element(table, size[OFFSETS] + p + 2))
        d = pointer(source, element(table, size[OFFSETS] + p + 3))
        for v in range(begin, end):
            i = min(v * width, last)
            total = (load(a, i) + load(b, i)) + (load(c, i) + load(d, i))
            store(sums, v * width, load(sums, v * width) + total)
    for p in range(pixels // TOGETHER * TOGETHER, pixels):
        pixel = pointer(source, element(table, size[OFFSETS] + p))
        for v in range(begin, end):
            total = load(sums, v * width) + load(pixel, min(v * width, last))
            store(sums, v * width, total)
    for v in range(begin, end):
        place = n * size[MEANS] + min(v * width, last)
        store(y, place, divide(load(sums, v * width), pixels))


@Kernel
def gradient_of_image(task, slot, size, table, dy, unused, bias, dx, work):
    """Write some channels of an image."""
    n, part = divmod(task, size[PARTS])
    vectors, pixels, width = size[VECTORS], size[PIXELS], lanes(dx)
    begin, end = part * vectors // size[PARTS], (part + 1) * vectors // size[PARTS]
    last = size[CHANNELS] - width
    source, shares = pointer(dy, n * size[MEANS]), pointer(work, slot * size[SLOT])
    for v in range(begin, end):
        store(shares, v * width, divide(load(source, min(v * width, last)), pixels))
    for p in range(pixels):
        pixel = pointer(dx, n * size[IMAGE] + element(table, size[OFFSETS] + p))
        for v in range(begin, end):
            store(pixel, min(v * width, last), load(shares, v * width))


def plan_whole(
    dtype: np.dtype[Any],
    threads: int,
    kernel: Kernel,
    image: Layout,
    means: Layout,
    windows: Windows,
) -> Plan | None:
    """Plan means or their gradient; None if windows are not images of up to PIECE pixels."""
    width = lanes_of(dtype)
    batch, channels = image.shape[:2]
    pixels = prod(windows.extents)
    near = image.strides[1] == means.strides[1] == 1 and channels >= width
    whole = windows.kernel == windows.extents and windows.before == (0, 0, 0)
    if not near or not whole or prod(windows.outputs) > 1 or pixels > PIECE:
        return None
    tables = Tables()
    vectors = -(-channels // width)
    parts = max(-(-4 * threads // batch), -(-vectors * VECTOR_BITS // 8 // (L1_BYTES // 2)))
    parts = min(parts, vectors)
    slot = (vectors + 1) * width
    places = tables.add(offsets(windows.extents, image.strides[3:]))
    distances = image.strides[0], means.strides[0], slot
    size = (channels, vectors, parts, pixels, places, *distances)
    operations = batch * channels * pixels
    return Plan(dtype, [(kernel, batch * parts)], size, tables, threads * slot, operations)
