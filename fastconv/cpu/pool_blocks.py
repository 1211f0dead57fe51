"""What poolings and their gradients share: windows, blocks, and vectors of channels.

Window p of an image has its tap r at pixel ``p*stride + r*dilation - before``, along every axis.
Channels have nothing in common, so that a vector holds one pixel of 16 of them, as in
``depthwise.py``. Where they lie side by side in memory (channels last) vectors are read and written
in place; otherwise 16 channels of a box of pixels or windows are transposed on the way in or out.
"""

from collections.abc import Sequence
from math import ceil, prod
from typing import Any, NamedTuple

import numpy as np

from ..host import L2_BYTES, lanes_of
from .blocks import Ints, Table, Tables, block_shape, corners, offsets
from .views import Layout

# Fields of `size`; a kernel's own follow from BLOCK_FIELDS on. Triples are (d, h, w).
GROUPS, BLOCKS = 0, 1  # of channels, of pixels or windows
EXTENTS, OUTPUTS, KERNEL, STRIDE, BEFORE, DILATION = 2, 5, 8, 11, 14, 17
BOX = 20  # the largest of pixels
CHANNELS = 23
IMAGE, RESULT, NEAR = 24, 30, 5  # strides (n, g, d, h, w), and whether channels lie side by side
ONCE = 36  # whether each pixel is in one window
# Where in `table`: along each axis, taps of windows that lie inside, and how many pixels count for
# a mean; of all taps, offsets in the image, offsets in a copy and differences of their indices;
# first channels of groups; blocks.
INSIDE, SIZES, TAPS, COPY_TAPS, INDICES, GROUP_TABLE, BLOCK_TABLE = 37, 40, 43, 44, 45, 46, 47
BLOCK_FIELDS = 48

# Fields of a block's row in the table: corner (d, h, w) and extents of its windows, of its pixels.
OF_RESULT, OF_IMAGE, ROW = 0, 6, 12

# Vectors side by side in memory that are taken at a time, at most: 1 KiB.
MOST = 16

# Taps of the largest windows that have tables.
MOST_TAPS = 4096

# Pixels of a line that are packed at a time where windows are larger, and numbers that are added up
# before they join a sum of such sums.
PIECE = 512

# Operations that moving a number counts as, when it is asked whether a job is small.
MOVE = 16

ONES = (1, 1, 1)

NONE: Table = np.empty(0, np.int64)


class Windows(NamedTuple):
    """Where windows lie in images, all (d, h, w)."""

    extents: Ints
    outputs: Ints
    kernel: Ints
    stride: Ints
    before: Ints
    dilation: Ints

    def inside(self) -> list[Table]:
        """Along each axis, for each window, its first tap inside the image and the one after."""
        tables = []
        for extent, outputs, taps, stride, before, dilation in zip(*self, strict=True):
            start = np.arange(outputs) * stride - before
            first = np.maximum(-(start // dilation), 0)
            last = np.minimum(-((start - extent) // dilation), taps)
            tables.append(np.stack([first, np.maximum(last, first)], axis=1))
        return tables

    def sizes(self, after: Ints, padded: bool) -> list[Table]:
        """Along each axis, how many pixels windows have; those of the padding may count."""
        tables = []
        axes = zip(*self[:5], after, strict=True)
        for extent, outputs, taps, stride, before, behind in axes:
            start = np.arange(outputs) * stride - before
            if padded:
                tables.append(np.minimum(start + taps, extent + behind) - start)
            else:
                tables.append(np.minimum(start + taps, extent) - np.maximum(start, 0))
        return tables

    def _reach(self) -> Table:
        reach: Table = (np.array(self.kernel) - 1) * np.array(self.dilation) + 1
        return reach

    @property
    def transposed(self) -> "Windows":
        """The windows of ``outputs`` that pixels see, with ``stride - 1`` zeros between them."""
        before = (self._reach() - 1 - self.before).tolist()
        return Windows(self.outputs, self.extents, self.kernel, ONES, tuple(before), self.dilation)

    @property
    def once(self) -> bool:
        """Whether each pixel is in exactly one window: none overlap, or leave a pixel out."""
        return all(
            (taps == stride or outputs == 1)
            and (taps == 1 or dilation == 1)
            and (outputs - 1) * stride + taps - before >= extent
            for extent, outputs, taps, stride, before, dilation in zip(*self, strict=True)
        )

    @property
    def largest(self) -> int:
        """Pixels of the largest box that a window sees."""
        return int(np.minimum(self._reach(), self.extents).prod())

    def seen(self, first: Table, count: Table) -> tuple[Table, Table]:
        """Corners and extents of the boxes of pixels that boxes of windows see."""
        start = first * self.stride - self.before
        end = start + (count - 1) * self.stride + self._reach()
        start = np.clip(start, 0, self.extents)
        return start, np.clip(end, start, self.extents) - start

    def seeing(self, first: Table, count: Table) -> tuple[Table, Table]:
        """Corners and extents of the boxes of windows that see boxes of pixels."""
        start = -((self._reach() - 1 - self.before - first) // self.stride)
        end = (first + count - 1 + self.before) // self.stride + 1
        start = np.clip(start, 0, self.outputs)
        return start, np.clip(end, start, self.outputs) - start


def in_strips(
    windows: Windows, width: int, images: Sequence[Layout], results: Sequence[Layout]
) -> tuple[Windows, list[Layout], list[Layout], int]:
    """Take strips of images for channels, where there are fewer of these than lanes in a vector.

    That can be where the windows divide an image among them, with no padding, overlap or rest.
    Returns what is left of a window's and an array's extents, and the number of strips.
    """
    axis = next((i for i in range(3) if windows.extents[i] > 1), 2)
    channels, outputs, stride = images[0].shape[1], windows.outputs[axis], windows.stride[axis]
    divided = (
        windows.before[axis] == 0
        and (windows.kernel[axis] - 1) * windows.dilation[axis] < stride
        and outputs * stride == windows.extents[axis]
    )
    in_line = all(
        shape[1] == 1 or strides[1] == shape[3 + axis] * strides[3 + axis]
        for shape, strides in (*images, *results)
    )
    if channels >= width or not (divided and in_line):
        return windows, [*images], [*results], 1

    def used(count: int) -> float:
        return channels * count / ceil(channels * count / width)

    # Of those that leave the fewest lanes empty, the smallest number.
    count = max([n for n in range(1, 4 * width) if outputs % n == 0], key=used)

    def cut(extents: Ints) -> Ints:
        return (*extents[:axis], extents[axis] // count, *extents[axis + 1 :])

    def strips_of(layout: Layout) -> Layout:
        shape, strides = layout
        extents = cut(shape[3:])
        step = extents[axis] * strides[3 + axis]
        return Layout((shape[0], channels * count, 1, *extents), (strides[0], step, *strides[2:]))

    rest = windows._replace(extents=cut(windows.extents), outputs=cut(windows.outputs))
    return rest, [*map(strips_of, images)], [*map(strips_of, results)], count


class PoolBlocks:
    """Blocks of windows or of pixels, and groups of channels: a task takes one of each.

    Parameters
    ----------
    image, result : Layout
        (N, G, 1, D, H, W) and (N, G, 1, O, P, Q), of which G are the lanes.
    windows : Windows
    dtype
        Of the numbers.
    threads : int
        Each of which should have a few tasks.
    by_pixels : bool
        Whether blocks are boxes of pixels, with all windows that see them, or of windows.
    """

    def __init__(
        self,
        image: Layout,
        result: Layout,
        windows: Windows,
        dtype: np.dtype[Any],
        threads: int,
        by_pixels: bool = False,
    ) -> None:
        width = lanes_of(dtype)
        batch, channels = image.shape[:2]
        near = [layout.strides[1] == 1 for layout in (image, result)]
        room = L2_BYTES // 2 // (width * dtype.itemsize)
        taps = prod(windows.kernel)
        self.far = taps > MOST_TAPS or (not by_pixels and windows.largest >= room)
        whole = channels // width
        parts = ceil(whole / MOST) if all(near) else whole
        # Blocks may be as the threads have it: windows are whole, and pixels add theirs in order.
        while True:
            groups = _groups(channels, width, parts)
            self.vectors = ceil(np.diff(groups).max() / width)
            blocks = _blocks(windows, room // self.vectors, by_pixels)
            self.tasks = batch * (len(groups) - 1) * len(blocks)
            if self.tasks >= 4 * threads or parts == whole:
                break
            parts = min(2 * parts, whole)
        box = tuple(map(int, blocks[:, OF_IMAGE + 3 : OF_IMAGE + 6].max(axis=0)))
        self.pixels = (PIECE if self.far and not by_pixels else prod(box)) * width
        self.windows = int(blocks[:, OF_RESULT + 3 : OF_RESULT + 6].prod(axis=1).max()) * width
        outputs = batch * channels * prod(windows.outputs)
        self.operations = MOVE * (prod(image.shape) + outputs) + taps * outputs
        self._fields = (
            len(groups) - 1,
            len(blocks),
            *windows.extents,
            *windows.outputs,
            *windows.kernel,
            *windows.stride,
            *windows.before,
            *windows.dilation,
            *box,
            channels,
            *image.strides[:2],
            *image.strides[3:],
            int(near[0]),
            *result.strides[:2],
            *result.strides[3:],
            int(near[1]),
            int(windows.once),
        )
        self._inside = windows.inside()
        self._tables = [*self._taps(image, windows, box, width), groups, blocks]

    def _taps(self, image: Layout, windows: Windows, box: Ints, width: int) -> list[Table]:
        """Offsets of taps in the image and in a copy of a box, and differences of their places."""
        if self.far:
            return [NONE] * 3
        copied = box[1] * box[2] * width, box[2] * width, width
        places = windows.extents[1] * windows.extents[2], windows.extents[2], 1
        return [
            offsets(
                windows.kernel,
                tuple([d * pitch for d, pitch in zip(windows.dilation, pitches, strict=True)]),
            )
            for pitches in (image.strides[3:], copied, places)
        ]

    def fields(self, tables: Tables, sizes: Sequence[Table] = (NONE,) * 3) -> Ints:
        """The first BLOCK_FIELDS of ``size``; adds the tables that they refer to.

        ``sizes`` are those of the windows, by ``Windows.sizes``, where there are means.
        """
        parts = [*self._inside, *sizes, *self._tables]
        return (*self._fields, *[tables.add(table) for table in parts])


def _groups(channels: int, width: int, parts: int) -> Table:
    """Where groups of channels begin: whole vectors, in so many parts, and what is left over."""
    whole = channels // width
    bounds = [i * whole // parts * width for i in range(parts)] + [whole * width, channels]
    return np.unique(np.array([0, *bounds], np.int64))


def _blocks(windows: Windows, room: int, by_pixels: bool) -> Table:
    """Rows of blocks that have at most ``room`` pixels and windows together, if that can be."""
    extents, other = windows.outputs, windows.seen
    if by_pixels:
        extents, other = windows.extents, windows.seeing
    count = prod(extents)
    while True:
        block = block_shape(extents, count)
        first = corners(extents, block)
        counts = np.minimum(block, np.array(extents) - first)
        seen, numbers = other(first, counts)
        count = prod(block)
        if count == 1 or count + int(numbers.prod(axis=1).max()) <= room:
            break
        count //= 2
    own = np.hstack([first, counts])
    others = np.hstack([seen, numbers])
    return np.hstack([others, own] if by_pixels else [own, others])
