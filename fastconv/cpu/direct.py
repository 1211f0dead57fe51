"""Correlation with packed filters: the engine of ``forward`` and ``grad_input``.

    y[n,k,p] = bias[k] + sum_c sum_r  x[n, c, p*stride + r*dilation - before] w[k,c,r]

where ``x`` is zero outside and p and r run over all spatial axes. The filters are packed into
panels first, a lane for each ``k``; then every task takes a block of output pixels through them:
see the block of ``x``, accumulate, unpack the sums into ``y``.
"""

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..host import L2_BYTES, VECTOR_BITS
from . import driver
from .blocks import Ints, Tables, block_shape, columns, offsets, runs, spread
from .image import BLOCK_FIELDS, BLOCK_TABLE, IMAGE_FIELDS, PIXELS, RESULT, ImageBlocks, see_block
from .kernel import Kernel
from .packing import pack_panel, unpack_panel
from .simd import lanes, load, load_first, pointer, store
from .tile import MAX_COLS, ROWS, accumulate
from .views import aligned, layout

# Fields of `size` after those of the image.
(
    FILTERS,  # K/G
    CHANNELS,  # C/G
    DEPTH,  # steps of the reduction, C/G * T * R * S
    COLS,  # vectors in a row of a panel
    PANELS,  # panels to a group
    SHARES,  # tasks among which the panels of one block are divided
    BLOCKS,
    W_GROUP,  # strides of w and y
    W_FILTER,
    Y_GROUP,
    Y_FILTER,
    W_OFFSETS,  # where in `table`: offsets of w, their runs, offsets of pixels, of steps, of y
    W_RUNS,
    W_STEP,
    X_PIXELS,
    X_STEPS,
    Y_OFFSETS,
    Y_RUNS,
    Y_STEP,
    SLOTS,  # where in `work` the slots begin, how far apart they are, where in one the slab is
    SLOT,
    SLAB,
) = range(IMAGE_FIELDS, IMAGE_FIELDS + 22)


@Kernel
def pack_filters(task, slot, size, table, x, weight, bias, y, work):
    """Pack one panel: a row of biases, then one for each channel and tap; a lane is a filter."""
    cols, depth = size[COLS], size[DEPTH]
    group, part = divmod(task, size[PANELS])
    row = cols * lanes(work)
    first = part * row
    valid = min(row, size[FILTERS] - first)
    panel = pointer(work, task * (depth + 1) * row)
    biases = pointer(bias, group * size[FILTERS] + first)
    for j in range(0, row, lanes(work)):
        store(panel, j, load_first(biases, j, max(valid - j, 0)))
    filters = pointer(weight, group * size[W_GROUP] + first * size[W_FILTER])
    pack_panel(
        filters,
        size[W_FILTER],
        valid,
        table,
        size[W_OFFSETS],
        size[W_RUNS],
        size[W_STEP],
        depth,
        pointer(panel, row),
        cols,
    )


@Kernel
def correlate_block(task, slot, size, table, x, weight, bias, y, work):
    """Take one block of output pixels through its share of one group's filters."""
    cols, depth, panels = size[COLS], size[DEPTH], size[PANELS]
    width = lanes(work)
    row = cols * width
    rest, block = divmod(task, size[BLOCKS])
    group, share = divmod(rest, size[SHARES])
    block = size[BLOCK_TABLE] + block * BLOCK_FIELDS
    pixels = table[block + PIXELS]
    sums = pointer(work, size[SLOTS] + slot * size[SLOT])
    slab = pointer(sums, size[SLAB])
    image = see_block(x, size, table, block, group, 0, size[CHANNELS], slab)
    for part in range(share * panels // size[SHARES], (share + 1) * panels // size[SHARES]):
        panel = pointer(work, (group * panels + part) * (depth + 1) * row)
        for i in range(pixels):
            for j in range(0, row, width):
                store(sums, i * row + j, load(panel, j))
        steps = pointer(panel, row)
        accumulate(
            image,
            table,
            size[X_PIXELS],
            pixels,
            size[X_STEPS],
            depth,
            steps,
            None,
            sums,
            row,
            True,
            cols,
        )
        first = part * row
        result = pointer(y, group * size[Y_GROUP] + first * size[Y_FILTER] + table[block + RESULT])
        valid = size[FILTERS] - first
        unpack_panel(
            sums,
            cols,
            pixels,
            result,
            size[Y_FILTER],
            valid,
            table,
            size[Y_OFFSETS],
            size[Y_RUNS],
            size[Y_STEP],
        )


class _Plan:
    """All that a correlation needs apart from the arrays themselves."""

    def __init__(
        self,
        x_layout: tuple[Ints, Ints],
        w_layout: tuple[Ints, Ints],
        y_layout: tuple[Ints, Ints],
        stride: Ints,
        before: Ints,
        dilation: Ints,
        dtype: np.dtype[Any],
        threads: int,
    ) -> None:
        x, w, y = (layout(*each, dtype.itemsize) for each in (x_layout, w_layout, y_layout))
        width = VECTOR_BITS // 8 // dtype.itemsize
        groups, filters, channels, *taps = w.shape
        depth = channels * prod(taps)
        pixels = (y.shape[0], *y.shape[3:])
        cols = columns(filters, width, MAX_COLS)
        row = cols * width
        panels = -(-filters // row)

        # A block's sums and its part of x share the second-level cache with the panels; and
        # there should be a few blocks for every thread.
        for room in (512, 256, 128, 64):
            block = block_shape(pixels, room)
            image = ImageBlocks(x, y, tuple(taps), stride, before, dilation, channels, block, width)
            sums = -(-prod(block) // ROWS) * ROWS * row
            cached = (sums + image.slab) * dtype.itemsize <= L2_BYTES // 2
            if cached and groups * len(image.blocks) >= 4 * threads:
                break
        blocks = len(image.blocks)
        shares = min(panels, -(-4 * threads // (groups * blocks)))

        tables = Tables()
        w_offsets = offsets((channels, *taps), w.strides[2:])
        y_offsets = offsets(block, (y.strides[0], *y.strides[3:]))
        block_table = tables.add(image.blocks)
        slots = groups * panels * (depth + 1) * row
        slot = spread(sums + image.slab + width, width)
        self.size = np.array(
            (
                *image.fields(block_table),
                filters,
                channels,
                depth,
                cols,
                panels,
                shares,
                blocks,
                *w.strides[:2],
                *y.strides[1:3],
                tables.add(w_offsets),
                tables.add(runs(w_offsets, w.strides[5])),
                w.strides[5],
                tables.add(image.pixels),
                tables.add(image.steps),
                tables.add(y_offsets),
                tables.add(runs(y_offsets, y.strides[5])),
                y.strides[5],
                slots,
                slot,
                sums,
            ),
            np.int64,
        )
        self.table = tables.joined()
        self.stages = np.array(
            [
                (pack_filters.address(dtype), groups * panels),
                (correlate_block.address(dtype), groups * blocks * shares),
            ],
            np.int64,
        )
        self.work = slots + threads * slot
        self.operations = 2 * groups * filters * depth * prod(pixels)
        self.no_bias = np.zeros(groups * filters, dtype)


_plan = lru_cache(maxsize=256)(_Plan)


def plan_for(
    x: NDArray[Any],
    weight: NDArray[Any],
    y: NDArray[Any],
    stride: Ints,
    before: Ints,
    dilation: Ints,
) -> _Plan:
    """The plan of this call, made when arrays of these shapes and strides are first seen."""
    keys = (x.shape, x.strides), (weight.shape, weight.strides), (y.shape, y.strides)
    return _plan(*keys, stride, before, dilation, y.dtype, driver.threads())


def correlate(
    x: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    y: NDArray[Any],
    stride: Ints,
    before: Ints,
    dilation: Ints,
) -> None:
    """Write the correlation of ``x`` with ``weight``, plus ``bias``, into ``y``.

    Parameters
    ----------
    x : (N, G, C/G, D, H, W)
    weight : (G, K/G, C/G, T, R, S)
    bias : (K,) contiguous, or None for zeros
    y : (N, G, K/G, O, P, Q)
        Its extents say how many windows there are; those that reach past ``x`` see zeros.
    stride, before, dilation : (d, h, w)
        ``before`` is the zero padding ahead of each axis, negative to crop.

    All arrays have one dtype and any strides; none is empty.
    """
    x, weight = aligned(x), aligned(weight)
    plan = plan_for(x, weight, y, stride, before, dilation)
    driver.run(plan, x, weight, plan.no_bias if bias is None else bias, y)
