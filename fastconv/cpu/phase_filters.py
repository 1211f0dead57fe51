"""The filters of a strided gradient, packed for all its phases at once.

Each phase has some of the taps. Packed for one after the other, every filter would be read as often
as there are phases, whole cache lines for a few numbers of each. Panels are those that
``direct.pack_filters`` would make.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ..geometry import Phase
from ..host import lanes_of
from .blocks import Table, Tables, columns, offsets
from .kernel import Kernel
from .packing import AHEAD, prefetch_lanes
from .panels import load_square
from .simd import lanes, load_first, pointer, square_tile, store
from .stages import Plan
from .tile import ROWS_OF
from .views import Layout

# Tasks for every thread: panels are cut by channels of ``dy``.
TASKS = 4

# Fields of `size`.
(
    FILTERS,  # C/G: a lane each
    CHANNELS,  # K/G
    COLS,  # vectors in a row of a panel
    PANELS,  # panels to a group
    SHARES,  # tasks to a panel
    PHASES,
    CLUSTERS,  # of taps that lie within a vector
    W_GROUP,  # strides of w
    W_FILTER,
    W_CHANNEL,
    # Where in `table`:
    CLUSTER,  # the first tap of each cluster
    W_TAPS,  # offsets of taps
    ROW,  # for each tap, where in `work` the first panel has its row for the first channel,
    NEXT_ROW,  # how far it is from there to that of the next channel,
    NEXT_PANEL,  # and to that of the next panel
    BIASES,  # for each phase, where the first panel has its row of biases,
    NEXT_BIASES,  # and how far it is to that of the next panel
) = range(17)


@Kernel
def pack_phases(task, slot, size, table, dy, weight, bias, dx, work):
    """Pack some channels of one panel of every phase; the first also rows of biases."""
    width = lanes(work)
    row = size[COLS] * width
    panel, share = divmod(task, size[SHARES])
    group, part = divmod(panel, size[PANELS])
    first = part * row
    valid = size[FILTERS] - first
    if share == 0:
        biases = pointer(bias, group * size[FILTERS] + first)
        for phase in range(size[PHASES]):
            start = table[size[BIASES] + phase] + panel * table[size[NEXT_BIASES] + phase]
            for j in range(0, row, width):
                store(work, start + j, load_first(biases, j, min(max(valid - j, 0), width)))
    filters = pointer(weight, group * size[W_GROUP] + first * size[W_FILTER])
    begin = share * size[CHANNELS] // size[SHARES]
    for channel in range(begin, (share + 1) * size[CHANNELS] // size[SHARES]):
        for j in range(0, row, width):
            used = min(max(valid - j, 0), width)
            taps = pointer(filters, j * size[W_FILTER] + channel * size[W_CHANNEL])
            prefetch_lanes(pointer(taps, AHEAD * size[W_CHANNEL]), size[W_FILTER], used)
            for index in range(size[CLUSTERS]):
                tap, end = table[size[CLUSTER] + index], table[size[CLUSTER] + index + 1]
                least = table[size[W_TAPS] + tap]
                reach = table[size[W_TAPS] + end - 1] + 1 - least
                square = square_tile(work)
                load_square(taps, least, size[W_FILTER], used, reach, square)
                for i in range(tap, end):
                    start = table[size[ROW] + i] + panel * table[size[NEXT_PANEL] + i]
                    start += channel * table[size[NEXT_ROW] + i]
                    store(work, start + j, square[table[size[W_TAPS] + i] - least, 0])


def _clusters(taps: Table, width: int) -> Table:
    """Where clusters of offsets within a vector begin, and how many offsets there are.

    >>> _clusters(np.array([0, 1, 2, 8, 9, 10, 16, 17, 18]), 16)
    array([0, 6, 9])
    """
    first = [0]
    for i, offset in enumerate(taps.tolist()):
        if offset - taps[first[-1]] >= width:
            first.append(i)
    return np.array([*first, len(taps)])


def pack(
    dtype: np.dtype[Any], threads: int, w: Layout, phases: Sequence[tuple[Phase, int]]
) -> Plan | None:
    """Plan what packs the filters of phases, each with the place of its panels in ``work``.

    None where lines of filters are not transposed: those of neighbours in memory, or of taps that
    are none.
    """
    if w.strides[1] == 1 or w.strides[5] != 1:
        return None
    groups, filters, channels, *extents = w.shape
    width = lanes_of(dtype)
    cols = columns(filters, width, ROWS_OF)
    row = cols * width
    panels = -(-filters // row)
    numbers = np.arange(prod(extents)).reshape(extents)
    rows = np.zeros((3, prod(extents)), np.int64)
    biases = []
    for phase, start in phases:
        taps = numbers[phase.taps].ravel()
        panel = (channels * len(taps) + 1) * row
        biases.append((start, panel))
        rows[0, taps] = start + row * (1 + np.arange(len(taps)))
        rows[1, taps] = row * len(taps)
        rows[2, taps] = panel
    places = offsets(tuple(extents), w.strides[3:])
    order = np.argsort(places)
    met = order[rows[2, order] > 0]  # images smaller than the stride lack some phases
    first_taps = _clusters(places[met], width)
    shares = min(-(-TASKS * threads // (groups * panels)), channels)
    tables = Tables()
    size = (
        filters,
        channels,
        cols,
        panels,
        shares,
        len(phases),
        len(first_taps) - 1,
        *w.strides[:3],
        tables.add(first_taps),
        tables.add(places[met]),
        *[tables.add(numbers[met]) for numbers in rows],
        *[tables.add(np.array(numbers)) for numbers in zip(*biases, strict=True)],
    )
    return Plan(dtype, [(pack_phases, groups * panels * shares)], size, tables, 0, 0)
