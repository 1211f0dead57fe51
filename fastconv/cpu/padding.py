"""Padding that shows pixels of the image, and its adjoint, by one kernel.

    pad    padded[p] = x[pixel shown at p]
    fold   dx[h]     = sum of padded[p] over all positions p that show h

Both add up, for each element of the result, some elements of a source that are listed for it axis
by axis; ``pad`` has lists of one. Along the innermost axis most lists continue the one before: this
run of pixels is copied, or added, by vectors.
"""

from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..host import VECTOR_BITS
from .blocks import Ints, Table, Tables, block_shape, corners, offsets
from .driver import Plan
from .engine import Engine
from .kernel import Kernel, device
from .packing import copy_line
from .simd import element, lanes, load, load_first, pointer, put, store, store_first
from .views import Layout

Array = NDArray[Any]

# Numbers that a task writes, in 2 us or more.
TASK = 8192

# Vectors of channels below which, where channels are last, lines are made of pixels with all their
# channels: a line costs as much as the copying of a few vectors.
FEW = 4

# Operations of `Plan` for a number: what a core computes in the 0.4 ns that it takes to copy one.
OPERATIONS = 64

# Fields of `size`: where in `table`, for each of four axes, offsets in the result, beginnings of
# lists and what they list are; the same for the places of a line that are not in the run, and their
# number; where the run begins in result and source, its steps there, its length.
AXES, TO, STARTS, FROM = 0, 0, 1, 2
LINE, OTHERS = 12, 15
RUN_TO, RUN_FROM, TO_STEP, FROM_STEP, RUN_LENGTH, BLOCK_TABLE = range(16, 22)

# A block's row in the table: its first indices along the outer axes, and those after its last.
FIRST, LAST, BLOCK_FIELDS = 0, 4, 8


@device
def _add_line(source, size, table, line, begun):
    # The elements listed for a line, added to it if it is begun.
    to_step, from_step, length = size[TO_STEP], size[FROM_STEP], size[RUN_LENGTH]
    target, run = pointer(line, size[RUN_TO]), pointer(source, size[RUN_FROM])
    if not begun:
        copy_line(run, from_step, length, target, to_step)
    elif to_step == 1 and from_step == 1:
        width = lanes(line)
        whole = length - length % width
        for i in range(0, whole, width):
            store(target, i, load(target, i) + load(run, i))
        rest = length - whole
        if rest > 0:
            total = load_first(target, whole, rest) + load_first(run, whole, rest)
            store_first(target, whole, total, rest)
    else:
        for i in range(length):
            total = element(target, i * to_step) + element(run, i * from_step)
            put(target, i * to_step, total)
    for i in range(size[OTHERS]):
        to = element(table, size[LINE + TO] + i)
        first = size[LINE + FROM] + element(table, size[LINE + STARTS] + i)
        last = size[LINE + FROM] + element(table, size[LINE + STARTS] + i + 1)
        total = element(source, element(table, first))
        for j in range(first + 1, last):
            total += element(source, element(table, j))
        put(line, to, element(line, to) + total if begun else total)


@device
def _listed(size, table, axis, i):
    # Where in the table an axis's list for index i begins and ends.
    at = size[AXES + 3 * axis + STARTS] + i
    listed = size[AXES + 3 * axis + FROM]
    return listed + element(table, at), listed + element(table, at + 1)


@Kernel
def gather_block(task, slot, size, table, source, unused, not_used, out, work):
    """``out[i] = sum of source[j] over all j that are listed for i``, line by line."""
    block = size[BLOCK_TABLE] + task * BLOCK_FIELDS
    for i0 in range(table[block + FIRST], table[block + LAST]):
        list0 = _listed(size, table, 0, i0)
        at0 = element(table, size[AXES + TO] + i0)
        for i1 in range(table[block + FIRST + 1], table[block + LAST + 1]):
            list1 = _listed(size, table, 1, i1)
            at1 = at0 + element(table, size[AXES + 3 + TO] + i1)
            for i2 in range(table[block + FIRST + 2], table[block + LAST + 2]):
                list2 = _listed(size, table, 2, i2)
                at2 = at1 + element(table, size[AXES + 6 + TO] + i2)
                for i3 in range(table[block + FIRST + 3], table[block + LAST + 3]):
                    list3 = _listed(size, table, 3, i3)
                    line = pointer(out, at2 + element(table, size[AXES + 9 + TO] + i3))
                    begun = False
                    for j0 in range(list0[0], list0[1]):
                        from0 = element(table, j0)
                        for j1 in range(list1[0], list1[1]):
                            from1 = from0 + element(table, j1)
                            for j2 in range(list2[0], list2[1]):
                                from2 = from1 + element(table, j2)
                                for j3 in range(list3[0], list3[1]):
                                    seen = pointer(source, from2 + element(table, j3))
                                    _add_line(seen, size, table, line, begun)
                                    begun = True


class Axis(NamedTuple):
    """An axis as it is in memory: offsets of an image's pixels and of positions with the padding.

    ``shown`` is the pixel that each position shows.
    """

    image: Table
    padded: Table
    shown: Table

    def beside(self, inner: "Axis") -> "Axis":
        """This axis and the one inside it as one."""
        image, padded = (
            np.add.outer(*both).ravel()
            for both in ((self.image, inner.image), (self.padded, inner.padded))
        )
        shown = np.add.outer(self.shown * len(inner.image), inner.shown).ravel()
        return Axis(image, padded, shown)


class Lists(NamedTuple):
    """Offsets along an axis of a result, and those in the source that are listed for each: in
    ``source``, from one of ``starts`` to the next.
    """

    to: Table
    starts: Table
    source: Table

    def part(self, indices: Table) -> "Lists":
        """Those of some indices."""
        lengths = np.diff(self.starts)[indices]
        starts = np.cumsum(np.append(0, lengths))
        moved = np.repeat(self.starts[indices] - starts[:-1], lengths)
        return Lists(self.to[indices], starts, self.source[moved + np.arange(len(moved))])

    def run(self, to_step: int, from_step: int) -> tuple[int, int]:
        """First index and length of the longest stretch of lists of one that are so far apart."""
        single = np.diff(self.starts) == 1
        steps = np.diff(self.to), np.diff(self.source[self.starts[:-1]])
        joined = single[1:] & single[:-1] & (steps[0] == to_step) & (steps[1] == from_step)
        bounds = np.array([0, *np.flatnonzero(~joined) + 1, len(single)])
        longest = int(np.argmax(np.diff(bounds)))
        first, length = int(bounds[longest]), int(np.diff(bounds)[longest])
        return first, length if single[first] else 0


def _of_padding(axis: Axis) -> Lists:
    return Lists(axis.padded, np.arange(len(axis.shown) + 1), axis.image[axis.shown])


def _of_folding(axis: Axis) -> Lists:
    order = np.argsort(axis.shown, kind="stable")
    starts = np.cumsum(np.append(0, np.bincount(axis.shown)))
    return Lists(axis.image, starts, axis.padded[order])


def _axes(image: Layout, padded: Layout, segments: tuple[Ints, ...], width: int) -> list[Axis]:
    """Four axes and the one inside them, in the order of memory."""

    def axis(axes: slice, shown: Table | None = None) -> Axis:
        at, to = (offsets(x.shape[axes], x.strides[axes]) for x in (image, padded))
        return Axis(at, to, np.arange(len(at)) if shown is None else shown)

    batch, channels = axis(slice(0, 1)), axis(slice(1, 3))
    d, h, w = (axis(slice(i, i + 1), shown_by(numbers)) for i, numbers in enumerate(segments, 3))
    if padded.strides[5] == 1:
        return [batch, channels, d, h, w]
    if len(channels.image) >= FEW * width:
        return [batch, d, h, w, channels]
    one = np.zeros(1, np.int64)
    return [batch, Axis(one, one, one), d, h, w.beside(channels)]


def shown_by(numbers: Ints) -> Table:
    """The pixels that an axis shows, given its segments: see ``fastconv.padding.segments``."""
    each = zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
    return np.concatenate([first + step * np.arange(length) for length, first, step in each])


def _step(table: Table) -> int:
    return int(table[1] - table[0]) if len(table) > 1 else 1


def _plan(dtype: np.dtype[Any], outer: list[Lists], line: Lists, steps: tuple[int, int]) -> Plan:
    """Plan for the lists of four axes and of the one inside them, with its steps in the result and
    in the source.
    """
    tables = Tables()
    extents = tuple([len(axis.to) for axis in outer])
    block = block_shape(extents, TASK // len(line.to))
    first = corners(extents, block)
    blocks = tables.add(np.hstack([first, np.minimum(first + block, extents)]))
    start, length = line.run(*steps)
    others = line.part(np.delete(np.arange(len(line.to)), np.s_[start : start + length]))
    size = (
        *[tables.add(table) for axis in (*outer, others) for table in axis],
        len(others.to),
        int(line.to[start]),
        int(line.source[line.starts[start]]),
        *steps,
        length,
        blocks,
    )
    numbers = prod(extents) * len(line.to)
    return Plan(dtype, [(gather_block, len(first))], size, tables, 0, OPERATIONS * numbers)


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
    axes = _axes(x, padded, segments, VECTOR_BITS // 8 // dtype.itemsize)
    *outer, line = [_of_padding(axis) for axis in axes]
    return _plan(dtype, outer, line, (_step(axes[4].padded), _step(axes[4].image)))


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
    axes = _axes(dx, padded, segments, VECTOR_BITS // 8 // dtype.itemsize)
    *outer, line = [_of_folding(axis) for axis in axes]
    return _plan(dtype, outer, line, (_step(axes[4].image), _step(axes[4].padded)))


# The same where Numba compiles nothing (NUMBA_DISABLE_JIT).


def pad_plainly(x: Array, padded: Array, *segments: Ints) -> None:
    padded[...] = x[_places(segments)]


def fold_plainly(padded: Array, dx: Array, *segments: Ints) -> None:
    dx[...] = 0
    np.add.at(dx, _places(segments), padded)


def _places(segments: tuple[Ints, ...]) -> tuple[Any, ...]:
    d, h, w = (shown_by(numbers) for numbers in segments)
    return (..., d[:, None, None], h[:, None], w)
