"""Images in chunks, and how a slab that crosses chunks is put together of pieces of them.

Pieces of less than half a chunk are cut out where the chunk lies, all of one chunk by one task:
only the halo travels to another machine, and the chunk is kept for nobody. A larger piece comes as
the chunk, to be cut by the task that uses it.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from math import prod
from operator import getitem
from typing import Any, TypeVar

import dask.array as da
import numpy as np
from dask.highlevelgraph import HighLevelGraph
from dask.task_spec import List, Task, TaskRef

from ..geometry import ConvGeometry, Ints
from . import tasks
from .slabs import Range, Ranges

T = TypeVar("T")

Lazy = Any  # an array of Dask, which has no types, or one of NumPy beside it
Graph = dict[Any, Task]
EdgesFrom = Callable[[ConvGeometry, int, Sequence[int]], Ints]
Piece = tuple[int, Range, int]  # along an axis: which chunk, the part of it, its length


def lazy(array: Lazy) -> Lazy:
    """An array of NumPy as one chunk; a copy, for the caller may go on to change it."""
    if isinstance(array, da.Array):
        return array
    return da.from_array(np.asarray(array), chunks=-1)


def lazy_array(
    graph: Graph,
    name: str,
    chunks: tuple[Ints, ...],
    dtype: np.dtype[Any],
    sources: Sequence[Lazy],
) -> Lazy:
    """The lazy array whose chunks are the tasks ``(name, i, j...)`` of a graph."""
    layers = HighLevelGraph.from_collections(name, graph, dependencies=sources)
    return da.Array(layers, name, chunks, meta=np.empty((0,) * len(chunks), dtype))


def chunk_key(array: Lazy, index: Sequence[int]) -> tuple[Any, ...]:
    """The key of a chunk in the graph."""
    return (array.name, *index)


def sizes_of(edges: Ints) -> Ints:
    """The lengths of what lies between edges."""
    return tuple([last - first for first, last in pairwise(edges)])


def drop_axes(axes: Sequence[T], ndim: int) -> tuple[T, ...]:
    """Of the batch and three spatial axes, the batch and the last ``ndim``."""
    return axes[0], *axes[4 - ndim :]


def with_channels(axes: Sequence[T], channels: T) -> tuple[T, ...]:
    """The batch, the channels and the spatial axes."""
    return axes[0], channels, *axes[1:]


class Images:
    """Images or results (N, C, *spatial): ``edges`` of their chunks along N and three axes.

    Raises
    ------
    ValueError
        If the channels are cut.
    """

    def __init__(self, array: Lazy, ndim: int) -> None:
        axis = array.ndim - ndim - 1
        if isinstance(array, da.Array) and array.numblocks[axis] > 1:
            raise ValueError(
                "x and grad_output must have their channels in one chunk, got an array of shape"
                f" {array.shape} in chunks {array.chunks}: .rechunk({{{axis}: -1}}) joins them"
            )
        self.array = lazy(array) if axis else lazy(array)[None]
        self._ndim = ndim
        batch, (self._channels,), *spatial = self.array.chunks
        self._sizes = (batch, *[(1,)] * (3 - ndim), *spatial)
        self._starts = [(0, *accumulate(sizes)) for sizes in self._sizes]
        # Chunks may be empty, blocks may not.
        self.edges = [tuple(sorted(set(starts))) for starts in self._starts]
        # Of which chunks which pieces are cut out: their places in what the task returns.
        self._halos: dict[Ints, dict[Ranges, int]] = {}

    def edges_from(self, function: EdgesFrom, geometry: ConvGeometry) -> list[Ints]:
        """The edges of what is computed of these, the spatial ones given by a function."""
        spatial = [function(geometry, axis, edges) for axis, edges in enumerate(self.edges[1:])]
        return [self.edges[0], *spatial]

    def take(self, slab: Ranges, name: str) -> Any:
        """A slab as an argument of a task: a chunk or a part of one, or lists for ``np.block``.

        The task is one of those that make the array ``name``, and so are those of ``halos``.
        """
        pieces = [self._pieces(axis, *extent) for axis, extent in enumerate(slab)]
        channels = (0, (0, self._channels), self._channels)
        axes = with_channels(drop_axes(pieces, self._ndim), [channels])
        if max(map(len, axes)) == 1:
            return self._piece([axis[0] for axis in axes], name)
        return self._nested(axes, [], name)

    def _pieces(self, axis: int, first: int, last: int) -> list[Piece]:
        starts, sizes = self._starts[axis], self._sizes[axis]
        chunk = bisect_right(starts, first) - 1
        pieces = []
        while chunk < len(sizes) and starts[chunk] < last:
            part = max(first - starts[chunk], 0), min(last - starts[chunk], sizes[chunk])
            if part[0] < part[1]:
                pieces.append((chunk, part, sizes[chunk]))
            chunk += 1
        return pieces

    def _nested(self, axes: Sequence[list[Piece]], chosen: list[Piece], name: str) -> Any:
        if not axes:
            return self._piece(chosen, name)
        return List(*[self._nested(axes[1:], [*chosen, piece], name) for piece in axes[0]])

    def _piece(self, axes: list[Piece], name: str) -> Any:
        index, parts, sizes = zip(*axes, strict=True)
        chunk = TaskRef(chunk_key(self.array, index))
        taken, whole = prod([last - first for first, last in parts]), prod(sizes)
        if taken == whole:
            return chunk
        if 2 * taken >= whole:
            return Task(None, getitem, chunk, _slices(parts))
        places = self._halos.setdefault(index, {})
        place = places.setdefault(parts, len(places))
        return Task(None, getitem, TaskRef(self._halo_key(index, name)), place)

    def halos(self, name: str) -> Graph:
        """The tasks that cut out what was taken, in small pieces, of chunks."""
        graph: Graph = {}
        for index, places in self._halos.items():
            key, chunk = self._halo_key(index, name), TaskRef(chunk_key(self.array, index))
            graph[key] = Task(key, tasks.cut_out, chunk, [*map(_slices, places)])
        return graph

    def _halo_key(self, index: Ints, name: str) -> tuple[Any, ...]:
        return (f"{name}-halo-{self.array.name}", *index)


def _slices(parts: Ranges) -> tuple[slice, ...]:
    return tuple([slice(*part) for part in parts])
