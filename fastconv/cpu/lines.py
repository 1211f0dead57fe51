"""Lines of images whose groups are neighbours in memory, one channel each: channels last.

Kernels go through the result line by line, a run of pixels at a time, and read the image where it
lies. A vector is some groups of one pixel; where they do not fill whole vectors, the last one
overlaps the one before. Rows of taps that lie in the padding are left out; pixels beyond the ends
of a line count as zero.
"""

from math import ceil, prod

import numpy as np

from ..host import VECTOR_BITS
from .blocks import Ints, Table, Tables, corners, offsets
from .kernel import device, inline
from .packing import inside
from .simd import load, load_if, pointer, prefetch
from .views import Layout

# Pixels of a line that are computed together, and the pixels of x that three taps of them see at a
# stride of 2.
RUN = 8
MOST_TAPS = 3
SEEN = 2 * (RUN - 1) + MOST_TAPS

# Fields of `size` that describe the image; a kernel's own follow from IMAGE_FIELDS on. Triples are
# (d, h, w), strides those of x; DOWN and STEP are lines and pixels of x from one to the next,
# AHEAD says whether to ask for the next line.
GROUPS, VECTORS, TAPS, DILATION, EXTENTS, STRIDES = 0, 1, 2, 5, 8, 11
DOWN, STEP, AHEAD, LINES, LINE_TABLE, ROW_TABLE, IMAGE_FIELDS = range(14, 21)

# Fields of a line's row in the table: offset of its image in x, coordinates of the first tap of its
# first pixel, pixels, offset in the result.
IMAGE, CORNER, PIXELS, RESULT, LINE_FIELDS = 0, 1, 4, 5, 6

# Images and results together that are read and written as they come. Of larger ones, which lie in
# memory, the next line is asked for while one is computed: it halves the time of 32 groups of
# 112x112 pixels and would cost smaller ones a fifth.
CACHED_BYTES = 12 * 2**20

# Pixels of a line at most: longer ones are cut, so that there is something to share out.
LONGEST = 512


def are_neighbours(x: Layout, w: Layout, y: Layout, width: int) -> bool:
    """Whether groups have one channel and one filter each, fill a vector, and lie side by side."""
    return w.shape[1:3] == (1, 1) and w.shape[0] >= width and x.strides[1] == y.strides[1] == 1


class ImageLines:
    """Lines of the output pixels (N, O, P, Q), and what they see of ``x``.

    Parameters
    ----------
    x, w, y : Layout
        Of the image (N, G, 1, D, H, W), the filters (G, 1, 1, T, R, S) and the output pixels.
    stride, before, dilation : Ints
        Geometry along each spatial axis.
    width : int
        Numbers in a vector.
    """

    def __init__(
        self,
        x: Layout,
        w: Layout,
        y: Layout,
        stride: Ints,
        before: Ints,
        dilation: Ints,
        width: int,
    ) -> None:
        self.vectors = ceil(w.shape[0] / width)
        pixels = (y.shape[0], *y.shape[3:])
        piece = ceil(pixels[3] / ceil(pixels[3] / LONGEST))
        first = corners(pixels, (1, 1, 1, piece))
        self.lines: Table = np.empty((len(first), LINE_FIELDS), np.int64)
        self.lines[:, IMAGE] = first[:, 0] * x.strides[0]
        self.lines[:, CORNER : CORNER + 3] = first[:, 1:] * stride - before
        self.lines[:, PIXELS] = np.minimum(piece, pixels[3] - first[:, 3])
        self.lines[:, RESULT] = first @ np.array((y.strides[0], *y.strides[3:]))
        taps, extents, strides = w.shape[3:], x.shape[3:], x.strides[3:]
        # From a table: computed, offsets of rows had LLVM keep an address for each pixel of a run
        # in memory, 3.5 instead of 1.5 instructions to a multiply-add.
        self.rows = offsets(taps[:2], (dilation[0] * strides[0], dilation[1] * strides[1]))
        self._fields = (
            w.shape[0],
            self.vectors,
            *taps,
            *dilation,
            *extents,
            *strides,
            *stride[1:],
            int((prod(x.shape) + prod(y.shape)) * VECTOR_BITS // 8 // width > CACHED_BYTES),
        )

    def fields(self, tables: Tables) -> Ints:
        """The first IMAGE_FIELDS of ``size``; adds the tables that they refer to."""
        lines, rows = tables.add(self.lines), tables.add(self.rows)
        return (*self._fields, len(self.lines), lines, rows)


@device
def first_pixel(size, table, line):
    """Offset in x of the first tap of a line's first pixel."""
    at = table[line + IMAGE]
    for axis in range(3):
        at += table[line + CORNER + axis] * size[STRIDES + axis]
    return at


@device
def taps_inside(size, table, line, axis):
    """The range of taps of a line along an axis, 0 or 1, that lie in the image."""
    at = table[line + CORNER + axis]
    return inside(at, size[DILATION + axis], size[EXTENTS + axis], size[TAPS + axis])


@inline
def ask_ahead(x, offset, row, rows, col, cols):
    """Ask for ``cols`` pixels of ``rows`` lines of x from ``offset`` on, a vector of each."""
    for i in range(rows):
        for j in range(cols):
            prefetch(x, offset + i * row + j * col)


def pixel_loader(count, edge):
    """A function that loads ``count`` pixels of a line, or with ``edge`` those of them that exist.

    ``load_pixels(x, offset, col, at, extent, seen)`` is ``seen[0, i] = x[offset + i * col]`` for
    pixel ``at + i``, zero beyond the ends of a line. The count is a constant so that loops over it
    are unrolled for certain: as an argument, even a literal one, it left pixels in memory.
    """

    @inline
    def load_pixels(x, offset, col, at, extent, seen):
        for i in range(count):
            if edge:
                seen[0, i] = load_if(pointer(x, i * col), offset, 0 <= at + i < extent)
            else:
                seen[0, i] = load(pointer(x, i * col), offset)

    return load_pixels
