"""Lines of images whose groups are neighbours in memory, one channel each: channels last.

Kernels go through the result line by line (``line_walk.py``) and read the image where it lies. A
vector is some groups of one pixel; where they do not fill whole vectors, the last one overlaps the
one before. What a line sees is a list of rows of taps: those that lie in the padding are left out.

An image may be *spread*: ``spacing - 1`` zeros between its pixels turn the gradient of a strided
correlation into a correlation of stride 1. Every ``spacing``-th pixel of the result then meets the
same taps, its *phase*, and pixels of the image that are neighbours; a line is cut into its phases.
The two phases of three taps and spacing 2 are one line of *pairs*.
"""

from itertools import product
from math import ceil, gcd, prod
from typing import Any, NamedTuple

import numpy as np

from ..host import VECTOR_BITS, VECTOR_HALVES, lanes_of
from .blocks import Ints, Table, Tables, corners, offsets
from .far import is_far
from .simd import LINE_VECTORS
from .views import Layout

# Fields of `size` that describe the image; a kernel's own follow from IMAGE_FIELDS on. EXTENT, LINE
# and COL are the pixels of a line of x and the distances of its lines and pixels; DOWN and STEP are
# lines and pixels of x from one of the result to the next, Y_ROW and Y_COL the distances of these;
# PITCH is the distance of the taps of two vectors of groups; AHEAD and Y_AHEAD say whether to ask
# for the next line of x and of the result, FAR whether the result is written past the caches.
GROUPS, VECTORS, DEPTH, EXTENT, LINE, COL, DOWN, STEP, Y_ROW, Y_COL = range(10)
PITCH, AHEAD, Y_AHEAD, FAR, LINES, LINE_TABLE, IMAGE_FIELDS = range(10, 17)

# Fields of a line's row in the table: offset in x and coordinate of the pixel that its first pixel
# and the first of all taps meet, its pixels (or pairs), its offset in the result, taps in a row and
# their distance, what kind of row that is, the rows of taps that lie in the image, and the index of
# the first of these.
IMAGE, AT, PIXELS, RESULT, TAPS, DILATION, KIND, ROWS, ROW_TABLE, LINE_FIELDS = range(10)

# Kinds of rows: any; three taps that are neighbours, with stride 1 or 2; pairs.
ANY, THREE, THREE_STRIDED, PAIRS = range(4)

# Fields of a row of taps: offset in x, number of its first tap. With offsets that kernels compute,
# LLVM keeps an address for each pixel of a run in memory: 3.5 instructions to a multiply-add, 1.5
# without.
SEEN, TAP, ROW_FIELDS = range(3)

# Images and results together that are read and written as they come. Of larger ones, which lie in
# memory, the next line is asked for while one is computed: it halves the time of 32 groups of
# 112x112 pixels and would cost smaller ones a fifth. On a processor with narrow vectors 384 groups
# of 14x14, 9.2 MiB, took 0.6 of the time; 960 groups of 7x7, 5.7 MiB, 1.07.
CACHED_BYTES = (12 if VECTOR_BITS == 512 else 8) * 2**20

# Tasks for every thread.
EACH = 8

# Whether results may be ``far``: with narrow vectors 32 to 144 groups took 0.51 to 0.79 of the
# time, and with a 1x1 layer on the result 0.66 to 0.93; with wide ones that go through whole 0.72
# to 0.97 and 0.97 to 0.99, in two halves 0.92 to 0.96 by themselves.
FAR_RESULTS = not VECTOR_HALVES

# Pixels of a line at most: longer ones are cut, so that there is something to share out.
LONGEST = 512


def are_neighbours(x: Layout, w: Layout, y: Layout, width: int) -> bool:
    """Whether groups have one channel and one filter each, fill a vector, and lie side by side."""
    return w.shape[1:3] == (1, 1) and w.shape[0] >= width and x.strides[1] == y.strides[1] == 1


def goes_far(y: Layout, dtype: np.dtype[Any], depth: int) -> bool:
    """Whether a result of such sums is ``far``, and its cache lines are whole vectors of groups."""
    line = LINE_VECTORS * lanes_of(dtype)
    distances = y.shape[1], y.strides[0], *y.strides[3:]
    return FAR_RESULTS and all(d % line == 0 for d in distances) and is_far(y, dtype, depth)


class Phase(NamedTuple):
    """What so many pixels ``place, place + spacing, ...`` meet along one axis.

    These taps, of which the first meets pixel ``corner`` of x at the first of them, and the others
    pixels ``dilation`` apart.
    """

    place: int
    pixels: int
    taps: Ints
    corner: int
    dilation: int
    pairs: bool = False


def phases(extent: int, taps: int, before: int, dilation: int, spacing: int) -> list[Phase]:
    """The phases of an axis: tap r meets pixel (place + r*dilation - before) / spacing, if whole.

    >>> [phase.taps for phase in phases(6, taps=3, before=1, dilation=1, spacing=2)]
    [(1,), (0, 2)]
    """
    found = []
    for place in range(spacing):
        met = [r for r in range(taps) if (place + r * dilation - before) % spacing == 0]
        corner = (place + met[0] * dilation - before) // spacing if met else 0
        pixels = len(range(place, extent, spacing))
        found.append(Phase(place, pixels, tuple(met), corner, dilation // gcd(dilation, spacing)))
    return found


def paired(extent: int, before: int) -> list[Phase]:
    """The phases of three taps with spacing 2 as pairs, and what is left at both ends.

    A pixel that meets tap 1 and the next, that meets taps 0 and 2, see the same pixel of x; the
    latter sees the next one too.

    >>> [(phase.place, phase.pixels, phase.taps) for phase in paired(7, before=1)]
    [(0, 3, (1, 0, 2)), (6, 1, (1,))]
    """
    one, two = sorted(phases(extent, 3, before, 1, 2), key=lambda phase: len(phase.taps))
    pairs = (extent - one.place) // 2
    found = [Phase(one.place, pairs, (1, 0, 2), one.corner, 1, pairs=True)]
    if two.place == 0:
        found.append(two._replace(pixels=1))
    if one.pixels > pairs:
        found.append(one._replace(place=extent - 1, pixels=1, corner=one.corner + pairs))
    return found


class ImageLines:
    """Lines of the output pixels (N, O, P, Q), and what they see of ``x``.

    Parameters
    ----------
    tables : Tables
        To which those are added that ``fields`` refer to.
    x, w, y : Layout
        Of the image (N, G, 1, D, H, W), the filters (G, 1, 1, T, R, S) and the output pixels.
    stride, before, dilation, spacing : Ints
        Geometry along each spatial axis, of which stride or spacing is 1.
    pitch : int
        Vectors in ``work`` for each vector of groups: its taps, and what stands beside them.
    width : int
        Numbers in a vector.
    far : bool
        Whether the result is written past the caches.
    cached : int
        Bytes of image and result up to which the next line is not asked for.

    Attributes
    ----------
    count : int
        Of lines.
    taps : Table
        Offsets of the taps in a filter, phase by phase.
    operations : int
        Multiplications and additions, for all groups.
    fields : Ints
        The first IMAGE_FIELDS of ``size``.
    """

    def __init__(
        self,
        tables: Tables,
        x: Layout,
        w: Layout,
        y: Layout,
        stride: Ints,
        before: Ints,
        dilation: Ints,
        spacing: Ints,
        pitch: int,
        width: int,
        far: bool = False,
        cached: int = CACHED_BYTES,
    ) -> None:
        groups, taps = w.shape[0], w.shape[3:]
        offset = offsets(taps, w.strides[3:]).reshape(taps)
        lines, in_order, tap = [], [], 0
        planes, down, across = map(phases, y.shape[3:], taps, before, dilation, spacing)
        # Taps in a row: those of each phase are neighbours.
        order = [s for phase in across for s in phase.taps]
        if (taps[2], dilation[2], spacing[2]) == (3, 1, 2):
            across = paired(y.shape[5], before[2])
            order = list(across[0].taps)
        for plane, line in product(planes, down):
            for phase in across:
                first = tap + order.index(phase.taps[0]) if phase.taps else tap
                rows = _rows(tables, (plane, line), first, len(order), x, stride)
                lines.append(_lines((plane, line, phase), rows, x, y, stride, spacing))
            in_order.append(offset[np.ix_(plane.taps, line.taps, order)].ravel())
            tap += len(in_order[-1])
        self.taps = np.concatenate(in_order)
        table = np.concatenate(lines)
        # Phases of a line one after the other: they see the same pixels.
        table = table[np.argsort(table[:, RESULT], kind="stable")]
        self.count = len(table)
        self.operations = 2 * groups * int(table[:, [PIXELS, ROWS, TAPS]].prod(axis=1).sum())
        vectors, vector_bytes = ceil(groups / width), VECTOR_BITS // 8
        ahead = (prod(x.shape) + prod(y.shape)) * vector_bytes // width > cached
        self.fields: Ints = (
            groups,
            vectors,
            prod(taps),
            x.shape[5],
            *x.strides[4:],
            *stride[1:],
            y.strides[4],
            y.strides[5] * spacing[2],
            pitch * width,
            int(ahead),
            int(ahead and not far),
            int(far),
            self.count,
            tables.add(table),
        )


def line_tasks(lines: ImageLines, threads: int) -> int:
    """Tasks among which lines are divided."""
    return min(EACH * threads, lines.count)


def _rows(
    tables: Tables, axes: tuple[Phase, Phase], first: int, pitch: int, x: Layout, stride: Ints
) -> Table:
    """ROWS and ROW_TABLE of the lines (o, p) of a phase.

    Its first tap has this number, and those of the next row numbers ``pitch`` higher.
    """
    met = [
        [_inside(phase, at * step, extent) for at in range(phase.pixels)]
        for phase, step, extent in zip(axes, stride, x.shape[3:], strict=False)
    ]
    rows = len(axes[1].taps)
    known: dict[tuple[Ints, Ints], tuple[int, int]] = {}
    seen = []
    for planes, down in product(*met):
        if (planes, down) not in known:
            each = [
                (
                    t * axes[0].dilation * x.strides[3] + r * axes[1].dilation * x.strides[4],
                    first + (t * rows + r) * pitch,
                )
                for t, r in product(planes, down)
            ]
            known[planes, down] = len(each), tables.add(np.array(each, np.int64))
        seen.append(known[planes, down])
    return np.array(seen, np.int64).reshape(axes[0].pixels, axes[1].pixels, 2)


def _inside(phase: Phase, at: int, extent: int) -> Ints:
    """Which of a phase's taps lie in the image, at pixels ``at`` further than its first."""
    places = [phase.corner + at + i * phase.dilation for i in range(len(phase.taps))]
    return tuple([i for i, place in enumerate(places) if 0 <= place < extent])


def _lines(
    axes: tuple[Phase, ...], rows: Table, x: Layout, y: Layout, stride: Ints, spacing: Ints
) -> Table:
    """Rows of the table of lines for those of one phase."""
    pixels = y.shape[0], *(phase.pixels for phase in axes)
    piece = ceil(pixels[3] / max(ceil(pixels[3] / LONGEST), 1)) or 1
    first = corners(pixels, (1, 1, 1, piece))
    corner = first[:, 1:] * stride + [phase.corner for phase in axes]
    distances = [s * n for s, n in zip(y.strides[3:], spacing, strict=True)]
    lines: Table = np.empty((len(first), LINE_FIELDS), np.int64)
    lines[:, IMAGE] = first[:, 0] * x.strides[0] + corner @ np.array(x.strides[3:])
    lines[:, AT] = corner[:, 2]
    lines[:, PIXELS] = np.minimum(piece, pixels[3] - first[:, 3])
    lines[:, RESULT] = first @ np.array((y.strides[0], *distances))
    lines[:, RESULT] += np.dot([phase.place for phase in axes], y.strides[3:])
    lines[:, TAPS], lines[:, DILATION] = len(axes[2].taps), axes[2].dilation
    lines[:, KIND] = _kind(axes[2], stride[2])
    lines[:, ROWS:] = rows[first[:, 1], first[:, 2]]
    return lines


def _kind(phase: Phase, stride: int) -> int:
    if phase.pairs:
        return PAIRS
    neighbours = len(phase.taps) == 3 and phase.dilation == 1 and stride <= 2
    return (ANY, THREE, THREE_STRIDED)[stride if neighbours else 0]
