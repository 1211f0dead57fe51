"""Cutting a problem into blocks, and the offset tables that describe one block to the kernels."""

from collections.abc import Iterable
from math import ceil, prod

import numpy as np
from numpy.typing import NDArray

Ints = tuple[int, ...]
Table = NDArray[np.int64]


def offsets(shape: Ints, strides: Ints) -> Table:
    """Offset of every element of an array of this shape and these strides, in C order.

    >>> offsets((2, 3), (10, 1))
    array([ 0,  1,  2, 10, 11, 12])
    """
    table = np.zeros(1, np.int64)
    for extent, stride in zip(shape, strides, strict=True):
        table = (table[:, None] + np.arange(extent) * stride).ravel()
    return table


def runs(table: Table, step: int) -> Table:
    """Where runs of offsets ``step`` apart begin; closed by the length of the table.

    >>> runs(np.array([0, 1, 2, 10, 11, 12]), 1)
    array([0, 3, 6])
    """
    breaks = np.flatnonzero(np.diff(table) != step) + 1
    return np.array([0, *breaks, len(table)], np.int64)


def block_shape(extents: Ints, room: int) -> Ints:
    """Shape of equal blocks of at most about ``room`` elements.

    Only one axis is cut; those after it are whole and those before it have length 1. So a
    block cut short at the edge of the array is the beginning of a full one, and one table of
    offsets describes them all.

    >>> block_shape((16, 1, 56, 56), 250)
    (1, 1, 4, 56)
    >>> block_shape((16, 1, 7, 7), 250)
    (4, 1, 7, 7)
    """
    shape = [1] * len(extents)
    for axis in reversed(range(len(extents))):
        parts = ceil(extents[axis] / max(room, 1))
        shape[axis] = ceil(extents[axis] / parts)
        room //= extents[axis]
        if parts > 1:
            break
    return tuple(shape)


def line_block(extents: Ints, room: int, rows: int, threads: int) -> Ints | None:
    """Shape of blocks of a single line, at most ``room`` elements of it, or None for more lines.

    They hold whole tiles of ``rows``, and as many of them as let threads that take one block after
    the other end together.

    >>> line_block((1, 1, 1, 3136), 256, 6, 2)
    (1, 1, 1, 222)
    """
    *others, line = extents
    if prod(others) > 1:
        return None
    if line <= room:
        return extents

    def last_to_end(block: int) -> int:
        turns, rest = divmod(line // block, threads)
        return turns * block + (block if rest else ceil(line % block / rows) * rows)

    sizes = range(room - room % rows, room - room // 4, -rows)
    return (*others, min(sizes, key=last_to_end))


def corners(extents: Ints, block: Ints) -> Table:
    """First index of every block, one row each."""
    axes = [np.arange(0, n, b) for n, b in zip(extents, block, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(extents))


def vectors(channels: int, width: int, cols: int) -> float:
    """Vectors to work through for so many channels in panels of ``cols`` vectors, weighted.

    A tile one vector wide has too few accumulators to keep the processor busy: it measured 1.5
    times the time of wider ones, vector for vector.
    """
    return ceil(ceil(channels / width) / cols) * cols * (1.5 if cols == 1 else 1.0)


def columns(channels: int, width: int, choice: Iterable[int]) -> int:
    """Vectors to a row of a panel: the first number that makes the least work of these channels."""
    return min(choice, key=lambda cols: vectors(channels, width, cols))


def odd_pitch(pitch: int, width: int) -> int:
    """Round a distance up to an odd number of vectors.

    Walking an array in steps of a power of two hits the same few sets of a cache over and over.
    """
    return (ceil(pitch / width) | 1) * width


class Tables:
    """Offset tables joined into the one array that kernels receive."""

    def __init__(self) -> None:
        self._parts: list[Table] = []
        self._length = 0

    def add(self, table: Table) -> int:
        """Append a table; returns the index of its first entry."""
        start = self._length
        self._parts.append(table.ravel())
        self._length += table.size
        return start

    def joined(self) -> Table:
        return np.concatenate([np.empty(0, np.int64), *self._parts])
