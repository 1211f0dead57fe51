"""The image side of a convolution: blocks of output pixels and the part of ``x`` that they see.

A kernel addresses ``x`` by two offsets, one of the pixel and one of the channel and tap. They count
from the block's first window: in ``x`` itself if no window reaches into the padding, otherwise in a
padded copy of the block that is small enough to stay in the cache.
"""

from math import prod

import numpy as np

from .blocks import Ints, Table, Tables, corners, odd_pitch, offsets
from .kernel import inline, once
from .packing import pack_image, pack_pixels
from .simd import element, pointer
from .views import Layout

# Fields of `size` that describe the image; a kernel's own follow from IMAGE_FIELDS on.
PADDED, X_GROUP, X_STRIDES, EXTENTS, PITCH, BLOCK_TABLE, IMAGE_FIELDS = 0, 1, 2, 7, 10, 15, 16

# Fields of a block's row in the table.
PIXELS, WINDOW, IMAGE, IMAGES, CORNER, BOX, RESULT, BLOCK_FIELDS = 0, 1, 2, 3, 4, 7, 10, 11


class ImageBlocks:
    """Blocks of the output pixels (N, O, P, Q) of a convolution, and what they see of ``x``.

    Parameters
    ----------
    x, y : Layout
        Of the image (N, G, C, D, H, W) and the output pixels (N, G, K, O, P, Q).
    taps, stride, before, dilation : Ints
        Filter extents and geometry along each spatial axis.
    channels : int
        Channels that are packed at a time.
    block : Ints
        Block shape (N, O, P, Q), as ``blocks.block_shape`` makes it.
    width : int
        Numbers in a vector.
    copied : bool
        Whether to copy what blocks see also where no padding calls for it.

    Attributes
    ----------
    padded : bool
        Whether blocks are seen in a copy, of ``slab`` numbers.
    pixels, steps : Table
        Offsets of a block's pixels, and of channels and taps.
    step : int
        From one pixel of a line to the next.
    blocks : Table
        BLOCK_FIELDS of each.
    """

    def __init__(
        self,
        x: Layout,
        y: Layout,
        taps: Ints,
        stride: Ints,
        before: Ints,
        dilation: Ints,
        channels: int,
        block: Ints,
        width: int,
        copied: bool = False,
    ) -> None:
        extents = x.shape[3:]
        pixels = (y.shape[0], *y.shape[3:])
        reach = [(r - 1) * d + 1 for r, d in zip(taps, dilation, strict=True)]
        self.padded = copied or any(
            b > 0 or (p - 1) * s + r - b > n
            for b, p, s, r, n in zip(before, pixels[1:], stride, reach, extents, strict=True)
        )
        box = [(p - 1) * s + r for p, s, r in zip(block[1:], stride, reach, strict=True)]
        pitch = _pitch(channels, box, x.strides[2] == 1, width)
        self.slab = block[0] * pitch[0] if self.padded else 0

        x_strides = (x.strides[0], *x.strides[2:])
        seen = pitch if self.padded else x_strides
        self.pixels = offsets(block, (seen[0], *np.multiply(seen[2:], stride).tolist()))
        self.step = seen[4] * stride[2]
        self.steps = offsets(
            (channels, *taps), (seen[1], *np.multiply(seen[2:], dilation).tolist())
        )
        self.blocks = self._rows(x_strides, y, pixels, stride, before, reach, block)
        self._fields = (int(self.padded), x.strides[1], *x_strides, *extents, *pitch)

    @staticmethod
    def _rows(
        x_strides: Ints,
        y: Layout,
        pixels: Ints,
        stride: Ints,
        before: Ints,
        reach: list[int],
        block: Ints,
    ) -> Table:
        first = corners(pixels, block)
        counts = np.minimum(block, np.array(pixels) - first)
        corner = first[:, 1:] * stride - before
        rows = np.empty((len(first), BLOCK_FIELDS), np.int64)
        rows[:, PIXELS] = counts.prod(axis=1)
        rows[:, IMAGE] = first[:, 0] * x_strides[0]
        rows[:, WINDOW] = rows[:, IMAGE] + corner @ np.array(x_strides[2:])
        rows[:, IMAGES] = counts[:, 0]
        rows[:, CORNER : CORNER + 3] = corner
        rows[:, BOX : BOX + 3] = (counts[:, 1:] - 1) * stride + reach
        rows[:, RESULT] = first @ np.array((y.strides[0], *y.strides[3:]))
        return rows

    def fields(self, tables: Tables) -> Ints:
        """The first IMAGE_FIELDS of ``size``; adds the blocks' rows to the tables."""
        return (*self._fields, tables.add(self.blocks))


def _pitch(channels: int, box: list[int], channels_last: bool, width: int) -> Ints:
    """Strides (n, c, d, h, w) of a packed block, its channels neighbours where they are in x."""
    if channels_last:
        pixel = channels if channels < width else odd_pitch(channels, width)
        image = odd_pitch(prod(box) * pixel, width)
        return (image, 1, box[1] * box[2] * pixel, box[2] * pixel, pixel)
    channel = odd_pitch(prod(box), width)
    return (channels * channel, channel, box[1] * box[2], box[2], 1)


@inline
def first_seen(x, size, table, block, group, channel):
    """Pointer to the first number of ``x`` that a block's first window sees, or would if padded."""
    first = pointer(x, group * size[X_GROUP] + channel * size[X_STRIDES + 1])
    return pointer(first, element(table, block + WINDOW))


@once
def see_block(x, size, table, block, group, channel, channels, slab):
    """Pointer from which the offsets of a block count, after packing it into ``slab`` if needed.

    ``block`` is the index of its row in ``table``, ``channel`` the first of ``channels`` in its
    group.
    """
    if not size[PADDED]:
        return first_seen(x, size, table, block, group, channel)
    first = pointer(x, group * size[X_GROUP] + channel * size[X_STRIDES + 1])
    source = pointer(first, table[block + IMAGE])
    strides = (
        size[X_STRIDES],
        size[X_STRIDES + 1],
        size[X_STRIDES + 2],
        size[X_STRIDES + 3],
        size[X_STRIDES + 4],
    )
    extents = size[EXTENTS], size[EXTENTS + 1], size[EXTENTS + 2]
    corner = table[block + CORNER], table[block + CORNER + 1], table[block + CORNER + 2]
    images = table[block + IMAGES]
    box = table[block + BOX], table[block + BOX + 1], table[block + BOX + 2]
    pitch = size[PITCH], size[PITCH + 1], size[PITCH + 2], size[PITCH + 3], size[PITCH + 4]
    if size[PITCH + 1] == 1:
        pack_pixels(source, strides, extents, corner, images, channels, box, slab, pitch)
    else:
        pack_image(source, strides, extents, corner, images, channels, box, slab, pitch)
    return slab
