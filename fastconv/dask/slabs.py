"""Convolutions block by block: which part of the images a block of the result needs, or the other
way round.

An axis of pixels and an axis of windows are cut at ``edges``, which begin with 0 and end with the
extent. A block of one side takes a *slab* of the other: the pixels that its windows see, or the
windows that see its pixels. Both together are a convolution with a geometry of its own, the zeros
ahead of it chosen so that pixels and windows meet as they do in the whole; where that is negative,
the first windows begin inside the slab.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise, product
from typing import NamedTuple

from ..geometry import ConvGeometry, Ints

Range = tuple[int, int]  # first, and the one after the last
Ranges = tuple[Range, ...]  # along the batch and the three spatial axes


class Block(NamedTuple):
    """A block of one side, the slab of the other that it needs, and their geometry."""

    place: Ints
    block: Ranges
    slab: Ranges
    geometry: ConvGeometry


def window_edges(g: ConvGeometry, axis: int, edges: Sequence[int]) -> Ints:
    """Where windows are cut if pixels are cut at ``edges``: by the pixel in a window's middle.

    So blocks reach equally far into their neighbours on both sides, and where windows are as many
    as pixels both are cut alike.
    """
    ahead = g.before[axis] - _middle(g, axis)
    return _inside([-(-(edge + ahead) // g.stride[axis]) for edge in edges], g.output[axis])


def pixel_edges(g: ConvGeometry, axis: int, edges: Sequence[int]) -> Ints:
    """Where pixels are cut if windows are cut at ``edges``; ``window_edges`` leads back."""
    ahead = g.before[axis] - _middle(g, axis)
    return _inside([edge * g.stride[axis] - ahead for edge in edges], g.input[axis])


def _middle(g: ConvGeometry, axis: int) -> int:
    return (g.kernel[axis] - 1) * g.dilation[axis] // 2


def _inside(edges: Sequence[int], extent: int) -> Ints:
    return tuple(sorted({0, extent, *[edge for edge in edges[1:-1] if 0 < edge < extent]}))


def blocks_of_windows(g: ConvGeometry, edges: Sequence[Ints]) -> Iterator[Block]:
    """Blocks of results with slabs of images; ``edges`` of the batch and the spatial axes."""
    for place, block in _grid(edges):
        slab = block[0], *[_pixels(g, axis, *block[axis + 1]) for axis in range(3)]
        yield Block(place, block, slab, _part(g, slab, block))


def blocks_of_pixels(g: ConvGeometry, edges: Sequence[Ints]) -> Iterator[Block]:
    """Blocks of images with slabs of results; ``edges`` of the batch and the spatial axes."""
    for place, block in _grid(edges):
        slab = block[0], *[_windows(g, axis, *block[axis + 1]) for axis in range(3)]
        yield Block(place, block, slab, _part(g, block, slab))


def _grid(edges: Sequence[Ints]) -> Iterator[tuple[Ints, Ranges]]:
    for cells in product(*[enumerate(pairwise(axis)) for axis in edges]):
        place, block = zip(*cells, strict=True)
        yield place, block


def _pixels(g: ConvGeometry, axis: int, first: int, last: int) -> Range:
    """The pixels that windows see."""
    start = first * g.stride[axis] - g.before[axis]
    reach = (last - 1 - first) * g.stride[axis] + (g.kernel[axis] - 1) * g.dilation[axis] + 1
    return _some(start, start + reach, g.input[axis])


def _windows(g: ConvGeometry, axis: int, first: int, last: int) -> Range:
    """The windows that see pixels."""
    first, last = first + g.before[axis], last - 1 + g.before[axis]
    start = -(-(first - (g.kernel[axis] - 1) * g.dilation[axis]) // g.stride[axis])
    return _some(start, last // g.stride[axis] + 1, g.output[axis])


def _some(first: int, last: int, extent: int) -> Range:
    """The range cut to the extent, never empty: a pixel too many changes nothing."""
    first = min(max(first, 0), extent - 1)
    return first, min(max(last, first + 1), extent)


def _part(g: ConvGeometry, pixels: Ranges, windows: Ranges) -> ConvGeometry:
    """The geometry between some pixels and some windows of the same images."""
    spatial = tuple(zip(g.before, g.stride, pixels[1:], windows[1:], strict=True))
    before = tuple([b + pixel[0] - window[0] * s for b, s, pixel, window in spatial])
    inputs, outputs = (tuple([last - first for first, last in r[1:]]) for r in (pixels, windows))
    axes = zip(inputs, outputs, g.kernel, g.stride, before, g.dilation, strict=True)
    after = tuple([(p - 1) * s + (r - 1) * d + 1 - b - n for n, p, r, s, b, d in axes])
    return replace(
        g,
        batch=pixels[0][1] - pixels[0][0],
        input=inputs,
        output=outputs,
        before=before,
        after=after,
    )
