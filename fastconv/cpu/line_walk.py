"""Going through the lines of ``lines.py``: in runs of some pixels, all groups of each.

Each kind of row of taps and length of run is a function of its own, whose innermost loop is nothing
but loads and multiply-adds: three rows of three taps at 4 pixels and a vector of groups take 36
cycles, where one function with masks for the ends of a line took 80.
"""

from .kernel import device, inline
from .lines import (
    AT,
    CHUNK,
    COL,
    DILATION,
    EXTENT,
    IMAGE,
    LINE_FIELDS,
    LINE_TABLE,
    PIXELS,
    RESULT,
    STEP,
    TAPS,
    VECTORS,
    Y_COL,
)
from .packing import inside
from .simd import load, load_if, pointer, prefetch, rolled


def line_walker(runner):
    """Make a function that goes through a line of the result in runs of 4, 2 and 1 pixels.

    ``runner(count, step)`` makes the one that computes such a run: for rows of three taps that are
    neighbours and pixels of x that are ``step`` apart, or, if it is 0, for any. It gets x from the
    pixel on that the first pixel and tap meet, ``size``, ``table``, the index of the line's row,
    that pixel's coordinate, the range of vectors, the first pixel of y, and ``panels``.
    """
    any_4, any_2, any_1 = (runner(count, 0) for count in (4, 2, 1))
    three_4, three_2, three_1 = (runner(count, 1) for count in (4, 2, 1))
    strided_4, strided_2, strided_1 = (runner(count, 2) for count in (4, 2, 1))

    @device
    def walk(x, size, table, number, y, panels):
        line = size[LINE_TABLE] + number * LINE_FIELDS
        seen, result = pointer(x, table[line + IMAGE]), pointer(y, table[line + RESULT])
        first, pixels, step = table[line + AT], table[line + PIXELS], size[STEP]
        # Pixels from begin to end meet all taps, or all but some of three neighbours.
        reach = (table[line + TAPS] - 1) * table[line + DILATION]
        three = table[line + TAPS] == 3 and reach == 2 and step <= 2
        slack = 2 if three else 0
        begin = inside(first + slack, step, size[EXTENT], pixels)[0]
        end = inside(first + reach - slack, step, size[EXTENT], pixels)[1]
        v = 0
        while v < size[VECTORS]:
            some = v, min(v + size[CHUNK], size[VECTORS])
            v = some[1]
            q = 0
            while q < pixels:
                at = first + q * step
                here, to = pointer(seen, q * step * size[COL]), pointer(result, q * size[Y_COL])
                left = end - q if begin <= q < end else 0
                if left >= 4:
                    if not three:
                        any_4(here, size, table, line, at, some, to, panels)
                    elif step == 1:
                        three_4(here, size, table, line, at, some, to, panels)
                    else:
                        strided_4(here, size, table, line, at, some, to, panels)
                    q += 4
                elif left >= 2:
                    if not three:
                        any_2(here, size, table, line, at, some, to, panels)
                    elif step == 1:
                        three_2(here, size, table, line, at, some, to, panels)
                    else:
                        strided_2(here, size, table, line, at, some, to, panels)
                    q += 2
                else:
                    if left == 0 or not three:
                        any_1(here, size, table, line, at, some, to, panels)
                    elif step == 1:
                        three_1(here, size, table, line, at, some, to, panels)
                    else:
                        strided_1(here, size, table, line, at, some, to, panels)
                    q += 1

    return walk


def asker(run, three):
    """Make a function that asks for what a run of the next line is the first to see, and for y."""
    count = run * max(three, 1)

    @inline
    def ask(x, new, col, line, down, y, below, y_col, group):
        for i in range(down):
            rolled()
            for j in range(count):
                prefetch(pointer(x, j * col), new + i * line + group)
        for j in range(run):
            prefetch(pointer(y, j * y_col), below + group)

    return ask


def pixel_loader(run, step):
    """Make a function that loads what three taps see at ``run`` pixels that are ``step`` apart.

    ``load_pixels(x, offset, col, at, extent, seen)`` is ``seen[0, i] = x[offset + i * col]`` for
    pixel ``at + i`` of ``extent``; the first and the last two may not exist, and are 0 then. Counts
    are constants so that loops over them are unrolled for certain: as an argument, even a literal
    one, they left pixels in memory.
    """
    count = (run - 1) * step + 3
    last = max(2, count - 2)

    @inline
    def load_pixels(x, offset, col, at, extent, seen):
        for i in range(2):
            seen[0, i] = load_if(pointer(x, i * col), offset, 0 <= at + i < extent)
        for i in range(2, last):
            seen[0, i] = load(pointer(x, i * col), offset)
        for i in range(last, count):
            seen[0, i] = load_if(pointer(x, i * col), offset, 0 <= at + i < extent)

    return load_pixels
