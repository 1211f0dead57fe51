"""Going through the lines of ``lines.py``: in runs of some pixels, of some vectors of groups.

Each kind of row of taps and length of run is a function of its own, whose innermost loop is nothing
but loads and multiply-adds: three rows of three taps at 4 pixels and a vector of groups take 36
cycles, where one function with masks for the ends of a line took 80.
"""

from .kernel import device, inline, named
from .lines import (
    AHEAD,
    ANY,
    AT,
    COL,
    DILATION,
    DOWN,
    EXTENT,
    FAR,
    GROUPS,
    IMAGE,
    KIND,
    LINE,
    LINE_FIELDS,
    LINE_TABLE,
    PAIRS,
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
    THREE,
    THREE_STRIDED,
    Y_AHEAD,
    Y_COL,
    Y_ROW,
)
from .packing import inside
from .simd import (
    is_aligned,
    lanes,
    load,
    load_or,
    pointer,
    prefetch,
    rolled,
    store,
    store_far,
    tile,
    zero,
)

RUNS = (4, 3, 1)  # pixels, or pairs


@inline
def load_or_zero(x, i, inside):
    """The vector there, or zeros for one outside of the image."""
    return load_or(x, i, inside, zero(x))


def writer_of(count):
    """Make a ``finish`` for ``line_walker`` that writes what there is for each pixel."""

    @inline
    def write(values, size, y, y_col, group):
        if size[FAR] and is_aligned(y):
            for j in range(count):
                store_far(y, j * y_col + group, values[0, j])
        else:
            for j in range(count):
                store(y, j * y_col + group, values[0, j])

    return write


@inline
def _ask(x, new, col, line, down, group, count):
    # Ask for the pixels that a run of the next line is the first to see.
    for i in range(down):
        rolled()
        for j in range(count):
            prefetch(pointer(x, j * col), new + i * line + group)


def _runner(name, run, kind, begin, add_taps, finish, load_edge):
    # Makes the function for a run of this many pixels, or pairs, and a kind of rows.
    apart = 2 if kind == THREE_STRIDED else 1
    # Counts are constants so that loops over them are unrolled for certain: as an argument, even a
    # literal one, they left pixels in memory.
    count = 2 * run if kind == PAIRS else run
    reach = (run - 1) * apart + (1, 3, 3, 2)[kind]
    inner = max(2, reach - 2)

    @device
    @named(name, run, kind)
    def compute(x, size, table, line, at, y, panels, first_vector, end_vector):
        # Fields are read once: for all that the compiler knows, what is written lies where they do.
        width, groups, pitch = lanes(y), size[GROUPS], size[PITCH]
        rows, first_row = table[line + ROWS], table[line + ROW_TABLE]
        cols, dilation, extent = table[line + TAPS], table[line + DILATION], size[EXTENT]
        step, col, y_col = size[STEP], size[COL], size[Y_COL] * run // count
        ahead, y_ahead = size[AHEAD], size[Y_AHEAD]
        new = size[LINE]
        if rows:
            new += table[first_row + (rows - 1) * ROW_FIELDS + SEEN]
        first, last = 0, cols
        if run == 1 and kind == ANY:
            first, last = inside(at, dilation, extent, cols)
        values, seen = tile(y, 1, count), tile(y, 1, reach)
        for v in range(first_vector, end_vector):
            group = min(v * width, groups - width)
            panel = pointer(panels, v * pitch)
            begin(values, panel, y, y_col, group)
            for row in range(first_row, first_row + rows * ROW_FIELDS, ROW_FIELDS):
                rolled()
                offset = table[row + SEEN] + group
                taps = pointer(panel, table[row + TAP] * width)
                if kind != ANY:
                    for i in range(2):
                        seen[0, i] = load_edge(pointer(x, i * col), offset, 0 <= at + i < extent)
                    for i in range(2, inner):
                        seen[0, i] = load(pointer(x, i * col), offset)
                    for i in range(inner, reach):
                        seen[0, i] = load_edge(pointer(x, i * col), offset, 0 <= at + i < extent)
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
                asked = run * (step if kind == ANY else apart)
                _ask(x, new, col, size[LINE], size[DOWN], group, asked)
            if y_ahead:
                for j in range(count):
                    prefetch(pointer(y, j * y_col), size[Y_ROW] + group)

    return compute


def _chooser(name, run, any_row, three, strided, pairs=None):
    # Makes a function that calls that of a kind of rows.
    @inline
    @named(name, run)
    def take(kind, x, size, table, line, at, y, panels, first, last):
        if kind == ANY:
            any_row(x, size, table, line, at, y, panels, first, last)
        elif kind == THREE:
            three(x, size, table, line, at, y, panels, first, last)
        else:
            strided(x, size, table, line, at, y, panels, first, last)

    if pairs is None:
        return take

    @inline
    @named(name, run, "pairs")
    def take_pairs(kind, x, size, table, line, at, y, panels, first, last):
        if kind == PAIRS:
            pairs(x, size, table, line, at, y, panels, first, last)
        else:
            take(kind, x, size, table, line, at, y, panels, first, last)

    return take_pairs


def line_walker(name, begin_of, adder_of, finish_of, pair_adder_of=None, load_edge=load_or_zero):
    """Make a function that goes through a line in runs of some pixels, for some vectors of groups.

    Parameters
    ----------
    name : str
        Of what is done.
    begin_of : callable
        ``begin_of(count)`` makes ``begin(values, panel, y, y_col, group)``, called first for each
        run of so many pixels and vector of groups: ``values`` is a tile of one vector a pixel,
        ``y + group`` the run's first pixel in the result, ``panel`` the vector's part of
        ``panels``.
    adder_of : callable
        ``adder_of(run, count, step)`` makes ``add_taps(values, seen, taps)``, called for so many
        taps of a row: the panel's part for them begins at ``taps``, and pixel ``j`` of the run sees
        ``seen[0, j * step + s]`` with tap ``s``.
    finish_of : callable
        ``finish_of(count)`` makes ``finish(values, size, y, y_col, group)``, called last.
    pair_adder_of : callable, optional
        ``pair_adder_of(run)`` makes ``add_taps`` for so many pairs, where they can occur. The
        pixels of pair ``j`` are ``2 * j``, which sees ``seen[0, j]`` with tap 1, and the next,
        which sees that with tap 0 and ``seen[0, j + 1]`` with tap 2; they lie in the order 1, 0, 2.
    load_edge : callable
        ``load_edge(x, i, inside)``: the vector there, or what stands for one outside of the image.
    """

    def taker(run):
        begin, finish = begin_of(run), finish_of(run)  # each compiled once
        adders = adder_of(run, 1, 1), adder_of(run, 3, 1), adder_of(run, 3, 2)
        kinds = [
            _runner(name, run, k, begin, add, finish, load_edge) for k, add in enumerate(adders)
        ]
        if pair_adder_of is not None:
            ends = begin_of(2 * run), pair_adder_of(run), finish_of(2 * run)
            kinds.append(_runner(name, run, PAIRS, *ends, load_edge))
        return _chooser(name, run, *kinds)

    take_4, take_3, take_1 = map(taker, RUNS)

    @device
    @named(name)
    def walk(x, size, table, number, y, panels, first_vector, end_vector):
        line = size[LINE_TABLE] + number * LINE_FIELDS
        seen, result = pointer(x, table[line + IMAGE]), pointer(y, table[line + RESULT])
        first, pixels, step = table[line + AT], table[line + PIXELS], size[STEP]
        # Pixels from begin to end meet all taps, or all but some of three neighbours.
        reach = (table[line + TAPS] - 1) * table[line + DILATION]
        kind = table[line + KIND]
        slack = 0 if kind == ANY else 2
        # Parts of eight cache lines at a time are too many to be written past the caches: four
        # pairs took 2 to 3.5 times as long as three.
        fours = kind != PAIRS or not size[FAR]
        begin = inside(first + slack, step, size[EXTENT], pixels)[0]
        end = inside(first + reach - slack, step, size[EXTENT], pixels)[1]
        q = 0
        while q < pixels:
            at = first + q * step
            here, to = pointer(seen, q * step * size[COL]), pointer(result, q * size[Y_COL])
            left = end - q if begin <= q < end else 0
            arguments = here, size, table, line, at, to, panels, first_vector, end_vector
            # 6 and 9 pixels are threes: after fours, 2 or 1 would be left, to be taken one by one.
            if fours and left >= 4 and left != 6 and left != 9:
                take_4(kind, *arguments)
                q += 4
            elif left >= 3:
                take_3(kind, *arguments)
                q += 3
            else:
                take_1(kind, *arguments)
                q += 1

    return walk
