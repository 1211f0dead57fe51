"""What no tap reaches: the bias of its channel in every pixel.

    y[n,k,p] = bias[k]

A correlation with no taps at all. What some taps reach is written over it afterwards.
"""

from math import ceil, prod
from typing import Any

import numpy as np

from .blocks import Tables, offsets
from .elementwise import OPERATIONS, PIECE
from .engine import Engine
from .kernel import Kernel
from .simd import (
    broadcast,
    element,
    lanes,
    load,
    load_first,
    pointer,
    put,
    store,
    store_first,
    where_positive,
)
from .stages import Plan
from .views import Layout, flat

# Fields of `size`.
(
    FILTERS,  # K/G
    PIXELS,  # of a line
    SHARES,  # tasks to a line: its pixels are divided if channels are neighbours, else those are
    LINES,  # in `table`: offsets of lines
    LINE_COUNT,
    Y_GROUP,  # strides
    Y_FILTER,
    Y_COL,
    RELU,
) = range(9)


@Kernel
def fill_share(task, slot, size, table, x, weight, bias, y, work):
    """Fill one share of a line of pixels in one group."""
    width, shares, filters, pixels = lanes(y), size[SHARES], size[FILTERS], size[PIXELS]
    rest, share = divmod(task, shares)
    group, line = divmod(rest, size[LINE_COUNT])
    result = pointer(y, group * size[Y_GROUP] + element(table, size[LINES] + line))
    biases = pointer(bias, group * filters)
    if size[Y_FILTER] == 1:
        whole = filters - filters % width
        for i in range(share * pixels // shares, (share + 1) * pixels // shares):
            pixel = pointer(result, i * size[Y_COL])
            for k in range(0, whole, width):
                value = load(biases, k)
                store(pixel, k, where_positive(value, value) if size[RELU] else value)
            if whole < filters:
                value = load_first(biases, whole, filters - whole)
                value = where_positive(value, value) if size[RELU] else value
                store_first(pixel, whole, value, filters - whole)
        return
    whole = pixels - pixels % width if size[Y_COL] == 1 else 0
    for k in range(share * filters // shares, (share + 1) * filters // shares):
        value = broadcast(biases, k)
        value = where_positive(value, value) if size[RELU] else value
        channel = pointer(result, k * size[Y_FILTER])
        for i in range(0, whole, width):
            store(channel, i, value)
        number = element(biases, k)
        number = 0.0 if size[RELU] and number <= 0 else number
        for i in range(whole, pixels):
            put(channel, i * size[Y_COL], number)


@Engine
def correlate(
    dtype: np.dtype[Any], threads: int, x: Layout, w: Layout, y: Layout, relu: bool = False
) -> Plan:
    """Plan to fill ``y``; of the other two nothing is read."""
    (y,) = flat(y)
    batch, groups, filters, *lines, pixels = y.shape
    shares = max(1, min(ceil(filters * pixels / PIECE), pixels if y.strides[2] == 1 else filters))
    tables = Tables()
    table = tables.add(offsets((batch, *lines), (y.strides[0], *y.strides[3:5])))
    count = batch * prod(lines)
    size = (filters, pixels, shares, table, count, *y.strides[1:3], y.strides[5], int(relu))
    stages = [(fill_share, groups * count * shares)]
    return Plan(dtype, stages, size, tables, 0, OPERATIONS * prod(y.shape), groups * filters)
