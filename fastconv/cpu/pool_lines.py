"""Pooling of images with their channels last, line by line: depthwise layers without filters.

    y[n,p,c] = max_r  x[n, p*stride + r*dilation - before, c]

the same with a mean, and the gradient of that, for which every pixel adds up what ``dy`` holds for
the windows that see it. Lines are those of ``lines.py``: a run of windows loads a pixel once for
all that see it. Means are taken where all windows have as many pixels that count.
"""

from math import prod
from typing import Any

import numpy as np

from ..host import lanes_of
from .blocks import Ints, Table, Tables
from .kernel import Kernel, inline
from .lane_choice import divide, largest, lowest
from .line_walk import line_walker, writer_of
from .lines import (
    IMAGE_FIELDS,
    LINES,
    VECTORS,
    ImageLines,
    are_neighbours,
    goes_far,
    line_tasks,
)
from .pool_blocks import ONES, PIECE, Windows
from .simd import load_or, zero
from .stages import Plan
from .views import Layout

# Fields of `size` after those of the lines: what sums are divided by.
TASKS, DIVISOR = IMAGE_FIELDS, IMAGE_FIELDS + 1


@inline
def _or_lowest(x, i, condition):
    return load_or(x, i, condition, lowest(x))


def _begin_with(value):
    def begin_of(count):
        @inline
        def begin(values, panel, y, y_col, group):
            for j in range(count):
                values[0, j] = value(y)

        return begin

    return begin_of


def _largest_of(run, count, step):
    @inline
    def take(values, seen, taps):
        for s in range(count):
            for j in range(run):
                values[0, j] = largest(seen[0, j * step + s], values[0, j])

    return take


def _adder(run, count, step):
    @inline
    def add(values, seen, taps):
        for j in range(run):
            total = seen[0, j * step]
            for s in range(1, count):
                total = total + seen[0, j * step + s]
            values[0, j] = values[0, j] + total

    return add


def _pair_adder(run):
    @inline
    def add(values, seen, taps):
        for j in range(run):
            values[0, 2 * j] = values[0, 2 * j] + seen[0, j]
            values[0, 2 * j + 1] = values[0, 2 * j + 1] + (seen[0, j] + seen[0, j + 1])

    return add


def _divide_and_write(count):
    write = writer_of(count)

    @inline
    def finish(values, size, y, y_col, group):
        for j in range(count):
            values[0, j] = divide(values[0, j], size[DIVISOR])
        write(values, size, y, y_col, group)

    return finish


_largest_in_line = line_walker(
    "largest", _begin_with(lowest), _largest_of, writer_of, load_edge=_or_lowest
)
_mean_of_line = line_walker("mean", _begin_with(zero), _adder, _divide_and_write, _pair_adder)


@Kernel
def largest_in_lines(task, slot, size, table, x, unused, bias, y, work):
    """Take some lines of the result."""
    tasks, lines = size[TASKS], size[LINES]
    for number in range(task * lines // tasks, (task + 1) * lines // tasks):
        _largest_in_line(x, size, table, number, y, x, 0, size[VECTORS])


@Kernel
def mean_of_lines(task, slot, size, table, x, dy, bias, y, work):
    """Take some lines of the result; ``x`` is ``dy`` of a gradient."""
    tasks, lines = size[TASKS], size[LINES]
    for number in range(task * lines // tasks, (task + 1) * lines // tasks):
        _mean_of_line(x, size, table, number, y, x, 0, size[VECTORS])


def divisor_of(sizes: list[Table]) -> int:
    """Pixels that count in every window, or 0 if there are not as many in all."""
    counts = [np.unique(size) for size in sizes]
    return prod(int(count[0]) for count in counts) if all(len(c) == 1 for c in counts) else 0


def plan_lines(
    dtype: np.dtype[Any],
    threads: int,
    kernel: Kernel,
    x: Layout,
    y: Layout,
    windows: Windows,
    divisor: int = 1,
    spacing: Ints = ONES,
) -> Plan | None:
    """Plan what takes ``x`` to ``y`` line by line; None if it cannot be, or would not be faster.

    ``windows`` are those of ``y`` on ``x``, with ``spacing - 1`` zeros between the pixels of that.
    """
    width = lanes_of(dtype)
    taps = prod(windows.kernel)
    filters = Layout((x.shape[1], 1, 1, *windows.kernel), (0,) * 6)
    near = are_neighbours(x, filters, y, width)
    if not (near and divisor) or taps > PIECE or y.shape[5] == 1:
        return None
    tables = Tables()
    how = windows.stride, windows.before, windows.dilation
    far = goes_far(y, dtype, taps)
    lines = ImageLines(tables, x, filters, y, *how, spacing, 0, width, far)
    tasks = line_tasks(lines, threads)
    size = (*lines.fields, tasks, divisor)
    return Plan(dtype, [(kernel, tasks)], size, tables, 0, lines.operations)
