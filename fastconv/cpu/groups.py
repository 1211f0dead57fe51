"""Copies of an image for kernels whose lanes are groups: one vector of groups at a time.

A block is some lines of one plane of one image's output pixels; its copy holds the planes that its
windows meet, padding made real:

    copy[c, t, h, w, lane]

An image may be *spread*: ``spread - 1`` zeros between its pixels turn the gradient of a strided
correlation into a correlation of stride 1.
"""

from math import ceil

import numpy as np

from ..host import L2_BYTES, VECTOR_BITS
from .blocks import Ints, Table, Tables, offsets
from .kernel import device
from .panels import clear_lanes, pack_lane_box, pack_lanes, pack_panel
from .simd import (
    element,
    lanes,
    load,
    load_first,
    pointer,
    square_tile,
    store,
    transpose,
    zero,
)
from .views import Layout

# Fields of `size` that describe the copy; a kernel's own follow from COPY_FIELDS on. Triples are
# (d, h, w), strides (g, c, d, h, w).
GROUPS, CHANNELS, TAPS, EXTENTS, SPREAD, DILATION = 0, 1, 2, 3, 6, 9
X_STRIDES, BOX_WIDTH, PLANE, PLACES, BLOCK_TABLE, COPY_FIELDS = 10, 15, 16, 17, 18, 19

# Fields of a block's row in the table: offset of its image in x, first coordinates of its first
# window, height of its copy, its lines of output pixels, offset of its first pixel in y.
IMAGE, CORNER, HEIGHT, LINES, RESULT, BLOCK_FIELDS = 0, 1, 4, 5, 6, 7


class GroupCopy:
    """Blocks of output pixels (N, O, P, Q), and the layout of the copies that they see.

    Parameters
    ----------
    x, y : Layout
        Of the image (N, G, C, D, H, W) and the output pixels (N, G, K, O, P, Q).
    taps, stride, before, dilation : Ints
        Filter extents and geometry along each spatial axis, of the spread image.
    spread : Ints
        One more than the zeros between the pixels of the image, along each axis.
    vector : int
        Numbers in a vector.
    """

    def __init__(
        self,
        x: Layout,
        y: Layout,
        taps: Ints,
        stride: Ints,
        before: Ints,
        dilation: Ints,
        spread: Ints,
        vector: int,
    ) -> None:
        groups, channels = x.shape[1:3]
        batch, planes, lines, self.line = y.shape[0], *y.shape[3:]
        reach = [(r - 1) * d + 1 for r, d in zip(taps, dilation, strict=True)]
        width = (self.line - 1) * stride[2] + reach[2]
        # A copy and its results share the second-level cache with what they are made of; lines
        # seen twice, by one block and the next, are packed twice.
        room = L2_BYTES // 4 // (VECTOR_BITS // 8 * channels * taps[0] * width)
        most = max((room - reach[1]) // stride[1] + 1, 1)
        self.lines = ceil(lines / ceil(lines / most))
        height = (self.lines - 1) * stride[1] + reach[1]
        plane = height * width
        self.vectors = channels * taps[0] * plane
        self.steps = offsets(
            (channels, *taps),
            (taps[0] * plane, plane, dilation[1] * width, dilation[2]),
        )
        self._fields = (
            groups,
            channels,
            taps[0],
            *x.shape[3:],
            *spread,
            dilation[0],
            *x.strides[1:],
            width,
            plane,
        )
        # Lines shorter than a vector that follow one another are transposed several at a time;
        # this is where their pixels go. None of them may lie outside the box.
        short = x.strides[5] == 1 and x.strides[4] == x.shape[5] < vector
        whole = 0 <= before[2] < width - (x.shape[5] - 1) * spread[2]
        places = offsets(x.shape[4:], (spread[1] * width, spread[2]))
        self._places = places if short and whole else None
        first = np.stack(
            np.meshgrid(
                *map(np.arange, (batch, planes)), np.arange(0, lines, self.lines), indexing="ij"
            ),
            axis=-1,
        ).reshape(-1, 3)
        self.blocks: Table = np.empty((len(first), BLOCK_FIELDS), np.int64)
        self.blocks[:, IMAGE] = first[:, 0] * x.strides[0]
        self.blocks[:, CORNER] = first[:, 1] * stride[0] - before[0]
        self.blocks[:, CORNER + 1] = first[:, 2] * stride[1] - before[1]
        self.blocks[:, CORNER + 2] = -before[2]
        self.blocks[:, LINES] = np.minimum(self.lines, lines - first[:, 2])
        self.blocks[:, HEIGHT] = (self.blocks[:, LINES] - 1) * stride[1] + reach[1]
        self.blocks[:, RESULT] = first @ np.array((y.strides[0], *y.strides[3:5]))

    def fields(self, tables: Tables) -> Ints:
        """The first COPY_FIELDS of ``size``; adds the tables that they refer to."""
        places = -1 if self._places is None else tables.add(self._places)
        return (*self._fields, places, tables.add(self.blocks))


@device
def pack_group_filter(
    weight, distance, bias, bias_distance, used, table, offsets, runs, step, depth, panel
):
    """Pack one filter of each of ``used`` groups: biases, then a vector for each channel and tap.

    Groups are ``distance`` apart in ``weight`` and ``bias_distance`` in ``bias``; ``depth`` offsets
    in a filter are in ``table`` from ``offsets`` on, their runs of ``step`` from ``runs`` on.
    """
    width = lanes(panel)
    pack_lanes(bias, 0, bias_distance, used, 1, panel, width)
    taps = pointer(panel, width)
    pack_panel(weight, distance, used, table, offsets, runs, step, 0, depth, taps, 1)


@device
def copy_groups(x, size, table, block, first, used, target):
    """Copy what a block sees of ``used`` groups from ``first`` on; ``block`` is its row's index."""
    width = lanes(target)
    strides = size[X_STRIDES], size[X_STRIDES + 3], size[X_STRIDES + 4]
    extents = size[EXTENTS + 1], size[EXTENTS + 2]
    corner = table[block + CORNER + 1], table[block + CORNER + 2]
    box = table[block + HEIGHT], size[BOX_WIDTH]
    spread = size[SPREAD + 1], size[SPREAD + 2]
    for c in range(size[CHANNELS]):
        for t in range(size[TAPS]):
            plane = pointer(target, (c * size[TAPS] + t) * size[PLANE] * width)
            z, between = divmod(table[block + CORNER] + t * size[DILATION], size[SPREAD])
            if between or not 0 <= z < size[EXTENTS]:
                clear_lanes(plane, box[0] * box[1])
                continue
            source = pointer(
                x,
                table[block + IMAGE]
                + first * size[X_STRIDES]
                + c * size[X_STRIDES + 1]
                + z * size[X_STRIDES + 2],
            )
            if size[PLACES] >= 0:
                clear_lanes(plane, box[0] * box[1])
                top, bottom = _seen(corner[0], box[0], spread[0], extents[0])
                place = pointer(plane, -(corner[0] * box[1] + corner[1]) * width)
                begin, end = top * extents[1], bottom * extents[1]
                _scatter_pixels(source, strides[0], used, begin, end, table, size[PLACES], place)
            else:
                pack_lane_box(source, strides, extents, corner, box, spread, used, plane)


@device
def _scatter_pixels(source, distance, used, begin, end, table, places, target):
    # target[table[places + i], lane] = source[i + lane * distance] for begin <= i < end.
    width = lanes(target)
    square = square_tile(target)
    length = min(end - begin, width)
    for i in range(begin, end, width):
        first = min(i, end - length)  # the last square overlaps the one before
        for lane in range(width):
            if length == width and used == width:
                square[lane, 0] = load(source, first + lane * distance)
            elif lane < used:
                square[lane, 0] = load_first(source, first + lane * distance, length)
            else:
                square[lane, 0] = zero(target)
        transpose(square)
        for k in range(length):
            store(target, element(table, places + first + k) * width, square[k, 0])


@device
def _seen(corner, box, spread, extent):
    """The range of pixels of a spread image that lie in a box, along one axis."""
    start = max((corner + spread - 1) // spread, 0)
    return start, max(min((corner + box - 1) // spread + 1, extent), start)
