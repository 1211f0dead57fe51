"""Copies of an image for kernels whose lanes are groups: one vector of groups at a time.

A block is some lines of one plane of one image's output pixels; its copy holds the planes that its
windows meet, padding made real:

    copy[c, t, h, w, lane]

An image may be *spread*: ``spread - 1`` zeros between its pixels turn the gradient of a strided
correlation into a correlation of stride 1.
"""

from math import ceil, prod

import numpy as np

from ..host import L2_BYTES
from .blocks import Ints, Table, offsets
from .kernel import device
from .packing import clear_lanes, pack_lane_box, pack_lanes
from .simd import lanes, load, pointer, store
from .views import Layout

# Fields of `size` that describe the copy; a kernel's own follow from COPY_FIELDS on. Triples are
# (d, h, w), strides (g, c, d, h, w).
GROUPS, CHANNELS, TAPS, EXTENTS, SPREAD, DILATION = 0, 1, 2, 3, 6, 9
X_STRIDES, BOX_WIDTH, PLANE, DENSE, BLOCK_TABLE, COPY_FIELDS = 10, 15, 16, 17, 18, 19

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
    vector, itemsize : int
        Bytes in a vector and in a number.
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
        itemsize: int,
    ) -> None:
        groups, channels = x.shape[1:3]
        batch, planes, lines, self.line = y.shape[0], *y.shape[3:]
        reach = [(r - 1) * d + 1 for r, d in zip(taps, dilation, strict=True)]
        width = (self.line - 1) * stride[2] + reach[2]
        # A copy and its results share the second-level cache with what they are made of; lines
        # seen twice, by one block and the next, are packed twice.
        room = L2_BYTES // 4 // (vector * channels * taps[0] * width)
        most = max((room - reach[1]) // stride[1] + 1, 1)
        self.lines = ceil(lines / ceil(lines / most))
        height = (self.lines - 1) * stride[1] + reach[1]
        plane = height * width
        # Lines shorter than a vector are transposed several at a time, into room after the copy.
        dense = x.strides[5] == 1 and x.strides[4] == x.shape[5] < vector // itemsize
        self.vectors = channels * taps[0] * plane + dense * prod(x.shape[4:])
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
            int(dense) * channels * taps[0] * plane,
        )
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

    def fields(self, block_table: int) -> Ints:
        """The first COPY_FIELDS of ``size``, given where the blocks' rows begin in the table."""
        return (*self._fields, block_table)


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
            if size[DENSE]:
                dense = pointer(target, size[DENSE] * width)
                _copy_short_lines(source, strides, extents, corner, box, spread, used, dense, plane)
            else:
                pack_lane_box(source, strides, extents, corner, box, spread, used, plane)


@device
def _copy_short_lines(source, strides, extents, corner, box, spread, used, dense, target):
    # As pack_lane_box, where the image's lines follow one another: ``dense`` is room for them.
    width = lanes(target)
    clear_lanes(target, box[0] * box[1])
    top, bottom = _seen(corner[0], box[0], spread[0], extents[0])
    left, right = _seen(corner[1], box[1], spread[1], extents[1])
    start = pointer(source, top * strides[1])
    pack_lanes(start, 1, strides[0], used, (bottom - top) * extents[1], dense, width)
    for y in range(top, bottom):
        line = pointer(target, (y * spread[0] - corner[0]) * box[1] * width)
        seen = pointer(dense, (y - top) * extents[1] * width)
        for x in range(left, right):
            store(line, (x * spread[1] - corner[1]) * width, load(seen, x * width))


@device
def _seen(corner, box, spread, extent):
    """The range of pixels of a spread image that lie in a box, along one axis."""
    start = max((corner + spread - 1) // spread, 0)
    return start, max(min((corner + box - 1) // spread + 1, extent), start)
