"""Going through the lines of ``lines.py``: in runs of some pixels, of some vectors of groups.

Each kind of row of taps and length of run is a function of its own, whose innermost loop is nothing
but loads and multiply-adds: three rows of three taps at 4 pixels and a vector of groups take 36
cycles, where one function with masks for the ends of a line took 80.
"""

from .kernel import device, inline, named
from .lines import (
    AHEAD,
    AT,
    CHUNKS,
    COL,
    DILATION,
    DOWN,
    EXTENT,
    GROUPS,
    IMAGE,
    LINE,
    LINE_FIELDS,
    LINE_TABLE,
    PITCH,
    PIXELS,
    RESULT,
    ROW_FIELDS,
    ROW_TABLE,
    ROWS,
    SEEN,
    STEP,
    TAP,
    TAPS,
    VECTORS,
    Y_AHEAD,
    Y_COL,
    Y_ROW,
)
from .packing import inside
from .simd import lanes, load, load_if, pointer, prefetch, rolled, tile

RUNS = (4, 3, 1)  # pixels


def _runner(name, run, three, begin, add_taps, finish):
    # Makes the function for a run of this many pixels: for rows of three taps that are neighbours
    # and pixels of x that are `three` apart, or, if that is 0, for any.
    ask = _asker(run, three)
    # Counts are constants so that loops over them are unrolled for certain: as an argument, even a
    # literal one, they left pixels in memory.
    reach = (run - 1) * three + 3 if three else run
    inner = max(2, reach - 2)

    @device
    @named(name, run, three)
    def compute(x, size, table, line, at, some, y, panels):
        # Fields are read once: for all that the compiler knows, what is written lies where they do.
        width, groups, pitch = lanes(y), size[GROUPS], size[PITCH]
        rows, first_row = table[line + ROWS], table[line + ROW_TABLE]
        cols, dilation, extent = table[line + TAPS], table[line + DILATION], size[EXTENT]
        step, col, y_col = size[STEP], size[COL], size[Y_COL]
        ahead, y_ahead = size[AHEAD], size[Y_AHEAD]
        new = size[LINE]
        if rows:
            new += table[first_row + (rows - 1) * ROW_FIELDS + SEEN]
        first, last = 0, cols
        if run == 1 and not three:
            first, last = inside(at, dilation, extent, cols)
        values, seen = tile(y, 1, run), tile(y, 1, reach)
        for v in range(some[0], some[1]):
            group = min(v * width, groups - width)
            panel = pointer(panels, v * pitch)
            begin(values, panel, y, y_col, group)
            for row in range(first_row, first_row + rows * ROW_FIELDS, ROW_FIELDS):
                rolled()
                offset = table[row + SEEN] + group
                taps = pointer(panel, table[row + TAP] * width)
                if three:
                    for i in range(2):
                        seen[0, i] = load_if(pointer(x, i * col), offset, 0 <= at + i < extent)
                    for i in range(2, inner):
                        seen[0, i] = load(pointer(x, i * col), offset)
                    for i in range(inner, reach):
                        seen[0, i] = load_if(pointer(x, i * col), offset, 0 <= at + i < extent)
                    add_taps(values, seen, taps)
                else:
                    for s in range(first, last):
                        rolled()
                        for j in range(run):
                            pixel = pointer(x, j * step * col)
                            seen[0, j] = load(pixel, offset + s * dilation * col)
                        add_taps(values, seen, pointer(taps, s * width))
            finish(values, size, y, y_col, group)
            if ahead:
                ask(x, new, col, size[LINE], size[DOWN], group)
            if y_ahead:
                for j in range(run):
                    prefetch(pointer(y, j * y_col), size[Y_ROW] + group)

    return compute


def _chooser(name, run, any_row, three, strided):
    # Makes a function that calls one of the three for its first argument 0, 1 or 2.
    @inline
    @named(name, run)
    def take(kind, x, size, table, line, at, some, y, panels):
        if kind == 0:
            any_row(x, size, table, line, at, some, y, panels)
        elif kind == 1:
            three(x, size, table, line, at, some, y, panels)
        else:
            strided(x, size, table, line, at, some, y, panels)

    return take


def line_walker(name, begin_of, adder_of, finish_of):
    """Make a function that goes through a line in runs of some pixels.

    Parameters
    ----------
    name : str
        Of what is done.
    begin_of : callable
        ``begin_of(run)`` makes ``begin(values, panel, y, y_col, group)``, called first for each run
        of pixels and vector of groups: ``values`` is a tile of one vector a pixel, ``y + group``
        the run's first pixel in the result, ``panel`` the vector's part of ``panels``.
    adder_of : callable
        ``adder_of(run, count, step)`` makes ``add_taps(values, seen, taps)``, called for so many
        taps of a row: the panel's part for them begins at ``taps``, and pixel ``j`` of the run sees
        ``seen[0, j * step + s]`` with tap ``s``.
    finish_of : callable
        ``finish_of(run)`` makes ``finish(values, size, y, y_col, group)``, called last.
    """
    ends = {run: (begin_of(run), finish_of(run)) for run in RUNS}  # each compiled once

    def runners(three):
        count, step = (3, three) if three else (1, 1)
        return [
            _runner(name, run, three, begin, adder_of(run, count, step), finish)
            for run, (begin, finish) in ends.items()
        ]

    # For each length of run, by the kind of row.
    kinds = zip(RUNS, runners(0), runners(1), runners(2), strict=True)
    take_4, take_3, take_1 = [_chooser(name, *kind) for kind in kinds]

    @device
    @named(name)
    def walk(x, size, table, number, chunk, y, panels):
        line = size[LINE_TABLE] + number * LINE_FIELDS
        seen, result = pointer(x, table[line + IMAGE]), pointer(y, table[line + RESULT])
        first, pixels, step = table[line + AT], table[line + PIXELS], size[STEP]
        # Pixels from begin to end meet all taps, or all but some of three neighbours.
        reach = (table[line + TAPS] - 1) * table[line + DILATION]
        kind = step if table[line + TAPS] == 3 and reach == 2 and step <= 2 else 0
        slack = 2 if kind else 0
        begin = inside(first + slack, step, size[EXTENT], pixels)[0]
        end = inside(first + reach - slack, step, size[EXTENT], pixels)[1]
        vectors, chunks = size[VECTORS], size[CHUNKS]
        some = chunk * vectors // chunks, (chunk + 1) * vectors // chunks
        q = 0
        while q < pixels:
            at = first + q * step
            here, to = pointer(seen, q * step * size[COL]), pointer(result, q * size[Y_COL])
            left = end - q if begin <= q < end else 0
            arguments = here, size, table, line, at, some, to, panels
            # 6 and 9 pixels are threes: after fours, 2 or 1 would be left, to be taken one by one.
            if left >= 4 and left != 6 and left != 9:
                take_4(kind, *arguments)
                q += 4
            elif left >= 3:
                take_3(kind, *arguments)
                q += 3
            else:
                take_1(kind if left else 0, *arguments)
                q += 1

    return walk


def _asker(run, three):
    # Makes a function that asks for what a run of the next line is the first to see.
    count = run * max(three, 1)

    @inline
    def ask(x, new, col, line, down, group):
        for i in range(down):
            rolled()
            for j in range(count):
                prefetch(pointer(x, j * col), new + i * line + group)

    return ask
