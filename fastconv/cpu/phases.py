"""Copies of an image for kernels whose lanes are pixels: padding made real, strides undone.

For a stride s along an axis, the copy is split into s *phases*, each holding every s-th pixel, so
that the pixels that one tap meets are neighbours: output pixel (o, p, q) and tap (t, r, s) meet at

    o*stride*plane + p*line + q  +  offset of the tap

A block's pixels are thus counted through line after line, a few at the end of each line being part
of no window; with narrow images a vector spans several lines.
"""

import numpy as np

from ..host import L2_BYTES
from .blocks import Ints, Table, Tables, block_shape, corners
from .kernel import device
from .packing import clear, inside, pack_line
from .simd import lanes, load, pointer, rolled, square_tile, store, transpose
from .views import Layout

# Fields of `size` that describe the copy; a kernel's own follow from COPY_FIELDS on. Stride, reach
# (from the first to the last tap, and one more) and extents are (d, h, w), strides (n, c, d, h, w).
CHANNELS, STRIDE, REACH, EXTENTS, X_GROUP, X_STRIDES = 0, 1, 4, 7, 10, 11
CHANNEL_PITCH, PLANE_PITCH, ROW_PHASE_PITCH, COL_PHASE_PITCH, LINE_PITCH = range(16, 21)
BLOCK_TABLE, COPY_FIELDS = 21, 22

# Fields of a block's row in the table: offset of its image in x, first coordinates of its first
# window, extents in output pixels, offset of its first pixel in y.
IMAGE, CORNER, COUNTS, RESULT, BLOCK_FIELDS = 0, 1, 4, 7, 8


class PhaseCopy:
    """Blocks of output pixels (N, O, P, Q), and the layout of the copies that they see.

    Parameters
    ----------
    x, y : Layout
        Of the image (N, G, C, D, H, W) and the output pixels (N, G, K, O, P, Q).
    taps, stride, before, dilation : Ints
        Filter extents and geometry along each spatial axis.
    block : Ints
        Block shape (1, O, P, Q), as ``blocks.block_shape`` makes it; kept as an attribute.
    """

    def __init__(
        self,
        x: Layout,
        y: Layout,
        taps: Ints,
        stride: Ints,
        before: Ints,
        dilation: Ints,
        block: Ints,
    ) -> None:
        self.block = block
        channels = x.shape[2]
        # A single window has no next one; phases as many as its stride would take all memory.
        stride = tuple([s if n > 1 else 1 for s, n in zip(stride, y.shape[3:], strict=True)])
        reach = [(r - 1) * d + 1 for r, d in zip(taps, dilation, strict=True)]
        planes = (block[1] - 1) * stride[0] + reach[0]
        lines = block[2] + (reach[1] - 1) // stride[1]
        self.line = block[3] + (reach[2] - 1) // stride[2]
        col_phase = lines * self.line
        row_phase = stride[2] * col_phase
        plane = stride[1] * row_phase
        self.size = channels * planes * plane
        self.steps = self._steps(channels, taps, stride, dilation, planes * plane, plane)
        self._fields = (
            channels,
            *stride,
            *reach,
            *x.shape[3:],
            x.strides[1],
            x.strides[0],
            *x.strides[2:],
            planes * plane,
            plane,
            row_phase,
            col_phase,
            self.line,
        )
        self.blocks = self._rows(x, y, stride, before, block)

    def _steps(
        self, channels: int, taps: Ints, stride: Ints, dilation: Ints, channel: int, plane: int
    ) -> Table:
        c, t, r, s = np.ix_(*map(np.arange, (channels, *taps)))
        d, h, w = t * dilation[0], r * dilation[1], s * dilation[2]
        row_phase = plane // stride[1]
        col_phase = row_phase // stride[2]
        down = h % stride[1] * row_phase + h // stride[1] * self.line
        across = w % stride[2] * col_phase + w // stride[2]
        return np.asarray(c * channel + d * plane + down + across, np.int64).ravel()

    @staticmethod
    def _rows(x: Layout, y: Layout, stride: Ints, before: Ints, block: Ints) -> Table:
        pixels = (y.shape[0], *y.shape[3:])
        first = corners(pixels, block)
        rows = np.empty((len(first), BLOCK_FIELDS), np.int64)
        rows[:, IMAGE] = first[:, 0] * x.strides[0]
        rows[:, CORNER : CORNER + 3] = first[:, 1:] * stride - before
        rows[:, COUNTS : COUNTS + 3] = np.minimum(block[1:], np.array(pixels[1:]) - first[:, 1:])
        rows[:, RESULT] = first @ np.array((y.strides[0], *y.strides[3:]))
        return rows

    def fields(self, tables: Tables) -> Ints:
        """The first COPY_FIELDS of ``size``; adds the blocks' rows to the tables."""
        return (*self._fields, tables.add(self.blocks))


def cached_copy(
    x: Layout,
    y: Layout,
    taps: Ints,
    stride: Ints,
    before: Ints,
    dilation: Ints,
    itemsize: int,
    least: int,
    each: int = 1,
) -> PhaseCopy:
    """The copy of the largest blocks that leaves room in the second-level cache.

    It shares that with what it is made of and what becomes of it. There should be ``least`` blocks
    of all groups together; ``each`` is how many pixels are computed for one of ``y``.
    """
    for room in (65536, 32768, 16384, 8192, 4096, 2048, 1024):
        block = block_shape((1, *y.shape[3:]), room // each)
        copy = PhaseCopy(x, y, taps, stride, before, dilation, block)
        cached = copy.size * itemsize <= L2_BYTES // 2
        if cached and x.shape[1] * len(copy.blocks) >= least:
            break
    return copy


@device
def _pack_lines(source, stride, first, step, start, stop, target, pitch, count):
    # pack_line for as many channels as a vector has lanes, side by side in `source`.
    width = lanes(target)
    if stop - start < width:
        for c in range(width):
            rolled()
            from_, line = pointer(source, c), pointer(target, c * pitch)
            pack_line(from_, stride, first, step, start, stop, line, count)
        return
    for c in range(width):
        rolled()
        clear(pointer(target, c * pitch), start)
        clear(pointer(target, c * pitch + stop), count - stop)
    square = square_tile(target)
    for i in range(start, stop, width):
        pixel = min(i, stop - width)
        for k in range(width):
            square[k, 0] = load(source, (first + (pixel + k) * step) * stride)
        transpose(square)
        for c in range(width):
            store(target, c * pitch + pixel, square[c, 0])


@device
def copy_phases(x, size, table, block, group, target):
    """Copy what a block sees of a group's channels; ``block`` is the index of its row."""
    source = pointer(x, group * size[X_GROUP] + table[block + IMAGE])
    corner = table[block + CORNER], table[block + CORNER + 1], table[block + CORNER + 2]
    planes = (table[block + COUNTS] - 1) * size[STRIDE] + size[REACH]
    lines = (table[block + COUNTS + 1] - 1) * size[STRIDE + 1] + size[REACH + 1]
    step = size[STRIDE + 2]
    pixels = table[block + COUNTS + 2] + (size[REACH + 2] - 1) // step
    # Channels that are neighbours are transposed, as many at a time as a vector has lanes.
    neighbours = size[X_STRIDES + 1] == 1 and size[CHANNELS] >= lanes(target)
    together = lanes(target) if neighbours else 1
    for phase in range(step):
        first = corner[2] + phase
        start, stop = inside(first, step, size[EXTENTS + 2], pixels)
        for index in range((size[CHANNELS] + together - 1) // together):
            c = min(index * together, size[CHANNELS] - together)
            for d in range(planes):
                z = corner[0] + d
                for row_phase in range(size[STRIDE + 1]):
                    line = pointer(
                        target,
                        c * size[CHANNEL_PITCH]
                        + d * size[PLANE_PITCH]
                        + row_phase * size[ROW_PHASE_PITCH]
                        + phase * size[COL_PHASE_PITCH],
                    )
                    for h in range(row_phase, lines, size[STRIDE + 1]):
                        y = corner[1] + h
                        if 0 <= z < size[EXTENTS] and 0 <= y < size[EXTENTS + 1]:
                            offset = (
                                c * size[X_STRIDES + 1]
                                + z * size[X_STRIDES + 2]
                                + y * size[X_STRIDES + 3]
                            )
                            stride, from_ = size[X_STRIDES + 4], pointer(source, offset)
                            if together == 1:
                                pack_line(from_, stride, first, step, start, stop, line, pixels)
                            else:
                                pitch = size[CHANNEL_PITCH]
                                _pack_lines(
                                    from_, stride, first, step, start, stop, line, pitch, pixels
                                )
                        else:
                            for channel in range(together):
                                clear(pointer(line, channel * size[CHANNEL_PITCH]), pixels)
                        line = pointer(line, size[LINE_PITCH])
