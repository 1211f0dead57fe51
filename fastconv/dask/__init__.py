"""The Dask backend: what ``cpu`` offers, on lazy arrays made of chunks.

    forward(x, weight, bias, geometry, out, algorithm)
    grad_input(grad_output, weight, bias, geometry, out, algorithm)
    grad_weight(grad_output, x, geometry, out, algorithm)
    grad_bias(grad_output, shape, channels_last)

Each lays out a graph of tasks that call the CPU backend: one for each block of the result or, where
that is a sum over pixels, one for each block of ``grad_output`` and a tree of additions in a fixed
order. A task computes on the thread that Dask runs it on, and on no other.

Images may be cut along the batch and along space: ``slabs.py`` says what of them a block needs,
``images.py`` from which chunks it comes. NumPy's arrays are taken for chunks. Where channels are
last, tasks see their chunks with that axis moved. Lazy arrays cannot be written to: the maps return
another than ``out``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.core import flatten
from dask.task_spec import List, Task, TaskRef
from numpy.typing import NDArray

from ..cpu import choose as choose
from ..dtypes import DTYPES, check_dtypes
from ..geometry import ConvGeometry, Ints
from ..maps import run_forward, run_grad_input
from . import tasks
from .images import (
    EdgesFrom,
    Graph,
    Images,
    Lazy,
    chunk_key,
    drop_axes,
    lazy,
    lazy_array,
    sizes_of,
    with_channels,
)
from .slabs import Block, blocks_of_pixels, blocks_of_windows, pixel_edges, window_edges

Array = NDArray[Any]

# Terms that one task adds up. More would meet on one machine at a time, fewer make more steps one
# after the other.
TOGETHER = 4


def check(arrays: dict[str, Any]) -> None:
    """See that the arrays, of which one at least is Dask's, can be served together.

    Raises
    ------
    TypeError
        If an array is neither NumPy's nor made of such, or the dtypes are unsupported or differ.
    ValueError
        If an array has chunks of unknown sizes.
    """
    for name, array in arrays.items():
        kind = array._meta if isinstance(array, da.Array) else array
        if not isinstance(kind, np.ndarray) or isinstance(kind, np.ma.MaskedArray):
            made_of = "" if kind is array else "a Dask array of "
            raise TypeError(
                f"{name} must be a Dask array of NumPy's, or a NumPy array beside one, got"
                f" {made_of}{type(kind).__module__}.{type(kind).__qualname__}"
            )
        if np.isnan(array.shape).any():
            raise ValueError(
                f"{name} must have chunks of known sizes, got shape {array.shape}:"
                f" {name}.compute_chunk_sizes() finds them out"
            )
    dtypes = {name: array.dtype for name, array in arrays.items()}
    check_dtypes(dtypes, DTYPES, "beside Dask arrays")


def result_like(x: Lazy, shape: Ints, out: Any, inputs: tuple[Lazy | None, ...]) -> Lazy:
    """Lazy zeros of this shape and ``x``'s dtype: the result for an empty batch.

    Raises
    ------
    TypeError
        If there is an ``out``.
    """
    if out is not None:
        raise TypeError(
            "out must be None beside Dask arrays, whose results are lazy, got"
            f" {type(out).__module__}.{type(out).__qualname__}"
        )
    return da.zeros(shape, dtype=x.dtype, chunks=-1)


def kept_size(x: Lazy) -> int:
    """There are no images with pixels around them.

    Raises
    ------
    ValueError
        Always.
    """
    raise ValueError(
        'padding_mode must be "zeros" beside Dask arrays; dask.array.pad makes other padding'
    )


def forward(
    x: Lazy,
    weight: Lazy,
    bias: Lazy | None,
    geometry: ConvGeometry,
    out: Lazy,
    algorithm: str,
    relu: bool = False,
) -> Lazy:
    """Correlate ``x`` with ``weight``: blocks of windows take slabs of images."""
    how = run_forward, window_edges, blocks_of_windows
    return _correlate(*how, x, weight, bias, geometry, out, algorithm, relu)


def grad_input(
    grad_output: Lazy,
    weight: Lazy,
    bias: Lazy | None,
    geometry: ConvGeometry,
    out: Lazy,
    algorithm: str,
    relu: bool = False,
) -> Lazy:
    """Correlate ``grad_output`` with the flipped filters: blocks of pixels take slabs of it."""
    how = run_grad_input, pixel_edges, blocks_of_pixels
    return _correlate(*how, grad_output, weight, bias, geometry, out, algorithm, relu)


def _correlate(
    run: Callable[..., Array],
    edges_from: EdgesFrom,
    blocks: Callable[[ConvGeometry, Sequence[Ints]], Iterator[Block]],
    x: Lazy,
    weight: Lazy,
    bias: Lazy | None,
    geometry: ConvGeometry,
    out: Lazy,
    algorithm: str,
    relu: bool,
) -> Lazy:
    """The lazy array whose blocks ``run`` computes of slabs of ``x``."""
    ndim = weight.ndim - 2
    if geometry.channels_last:
        moved, g = _channels_first((x, out), ndim), replace(geometry, channels_last=False)
        how = run, edges_from, blocks
        result = _correlate(*how, moved[0], weight, bias, g, moved[1], algorithm, relu)
        return da.moveaxis(result, -1 - ndim, -1)
    images = Images(x, ndim)
    parameters = [lazy(array).rechunk(-1) for array in (weight, bias) if array is not None]
    references = [TaskRef(chunk_key(array, (0,) * array.ndim)) for array in parameters]
    edges = images.edges_from(edges_from, geometry)
    channels = (out.shape[-1 - ndim],)
    chunks = with_channels(drop_axes([sizes_of(axis) for axis in edges], ndim), channels)
    sources = images.array, *parameters
    name = _name(run.__name__, sources, geometry, edges, algorithm, relu)
    graph: Graph = {}
    for place, _, slab, part in blocks(geometry, edges):
        index = with_channels(drop_axes(place, ndim), 0)
        shape = tuple([sizes[i] for sizes, i in zip(chunks, index, strict=True)])
        arguments = images.take(slab, name), *references
        key = (name, *index)
        graph[key] = Task(key, tasks.correlated, run, part, shape, algorithm, relu, *arguments)
    graph |= images.halos(name)
    whole = lazy_array(graph, name, chunks, out.dtype, sources)
    return whole if out.ndim == ndim + 2 else whole[0]


def grad_weight(
    grad_output: Lazy, x: Lazy, geometry: ConvGeometry, out: Lazy, algorithm: str
) -> Lazy:
    """Correlate ``x`` with ``grad_output``: a sum over blocks of the one that is Dask's."""
    ndim, g = out.ndim - 2, replace(geometry, channels_last=False)
    if geometry.channels_last:
        grad_output, x = _channels_first((grad_output, x), ndim)
        return grad_weight(grad_output, x, g, out, algorithm)
    windows, images = (Images(array, ndim) for array in (grad_output, x))
    if geometry.batch == 0:
        return out
    edges = windows.edges
    if not isinstance(grad_output, da.Array):
        edges = images.edges_from(window_edges, geometry)
    sources = windows.array, images.array
    name = _name("run_grad_weight", sources, geometry, edges, algorithm)
    terms = [
        (
            tasks.grad_weight,
            part,
            out.shape,
            algorithm,
            windows.take(block, name),
            images.take(slab, name),
        )
        for _, block, slab, part in blocks_of_windows(geometry, edges)
    ]
    graph = windows.halos(name) | images.halos(name)
    return _sum(terms, graph, name, out.shape, out.dtype, sources)


def grad_weight_per_sample(
    grad_output: Lazy, x: Lazy, geometry: ConvGeometry, out: Lazy, algorithm: str
) -> None:
    """There is none.

    Raises
    ------
    ValueError
        Always.
    """
    raise ValueError("per_sample must be False beside Dask arrays")


def grad_bias(grad_output: Lazy, shape: Ints, channels_last: bool) -> Lazy:
    """Sum ``grad_output`` by channel; of this shape (N, K, *spatial), but for the caller's order
    of axes and a missing batch.
    """
    ndim = len(shape) - 2
    if channels_last:
        (grad_output,) = _channels_first((grad_output,), ndim)
    array = Images(grad_output, ndim).array
    terms = [(tasks.grad_bias, TaskRef(key)) for key in flatten(array.__dask_keys__())]
    name = _name("run_grad_bias", (array,))
    return _sum(terms, {}, name, shape[1:2], array.dtype, (array,))


def mask(a: Lazy, y: Lazy) -> Lazy:
    """``a``, but zero where ``y`` is zero or below."""
    return da.where(lazy(y) <= 0, a.dtype.type(0), a)


def side_by_side(a: Lazy, b: Lazy, axis: int, groups: int) -> Lazy:
    """There are no gradients of gradients.

    Raises
    ------
    TypeError
        Always.
    """
    raise TypeError("gradients of gradients need arrays of NumPy or on a CUDA device, not Dask's")


def spread_bias(bias: Lazy, shape: Ints, ndim: int, channels_last: bool) -> Lazy:
    """The same."""
    return side_by_side(bias, bias, 0, 1)


def _channels_first(images: Sequence[Lazy], ndim: int) -> list[Lazy]:
    """Images (N, *spatial, C) as (N, C, *spatial); arrays of NumPy stay such."""
    move = [da.moveaxis if isinstance(image, da.Array) else np.moveaxis for image in images]
    return [m(image, -1, -1 - ndim) for m, image in zip(move, images, strict=True)]


def _sum(
    terms: list[tuple[Any, ...]],
    graph: Graph,
    name: str,
    shape: Ints,
    dtype: np.dtype[Any],
    sources: Sequence[Lazy],
) -> Lazy:
    """The lazy array, one chunk, that is the sum of the tasks ``(function, *arguments)``."""
    level = 0
    while len(terms) > 1:
        keys = [(f"{name}-{level}", i) for i in range(len(terms))]
        graph.update({key: Task(key, *term) for key, term in zip(keys, terms, strict=True)})
        groups = [keys[i : i + TOGETHER] for i in range(0, len(keys), TOGETHER)]
        terms = [(tasks.added, List(*map(TaskRef, group))) for group in groups]
        level += 1
    key = (name, *[0] * len(shape))
    graph[key] = Task(key, *terms[0])
    return lazy_array(graph, name, tuple([(extent,) for extent in shape]), dtype, sources)


def _name(function: str, sources: Sequence[Lazy], *options: Any) -> str:
    """A name that is the same for the same call: Dask then computes both once."""
    token = tokenize([array.name for array in sources], *options)
    return f"{function.removeprefix('run_')}-{token}"
