"""The micro-kernel of ``direct``, ``gemm`` and ``winograd``: products are summed in ``accumulate``.

    out[i, :] += sum_s  x[rows[i] + steps[s]] * panel[s, :]

One number of ``x`` times one row of ``panel`` at a time. ``x`` is never unfolded: its element for
output row ``i`` and reduction step ``s`` sits at the sum of two offsets, so filter size, stride,
dilation and the number of axes all vanish into two tables. The same loop serves all three maps:

===========  =====================  =====================  =================
map          row i                  step s                 lane of the panel
===========  =====================  =====================  =================
forward      output pixel           channel and tap        output channel
grad_input   input pixel            filter and tap         input channel
grad_weight  channel and tap        output pixel           filter
===========  =====================  =====================  =================
"""

from ..host import L1_BYTES, VECTOR_BITS, VECTOR_HALVES, VECTOR_REGISTERS
from .kernel import device, inline
from .simd import (
    LINE_VECTORS,
    broadcast,
    element,
    fma,
    is_aligned,
    lanes,
    load,
    opaque,
    pointer,
    pointers,
    prefetch_nearby,
    rolled,
    store,
    store_far,
    tile,
    where_positive,
    zero,
)

# Rows of a tile by its vectors across, the better tiles first. Registers: an accumulator for each
# vector of each row, the vectors of the panel and one broadcast. 6 x 4 fills 29 of 32, 6 x 2 and
# 4 x 3 fill 15 and 16 of 16; with two multiply-adds a cycle of 4 cycles' latency, 8 accumulators
# are the least that keeps both units busy. 24 filters of 8 lanes took 0.62 of the time of 6 x 2,
# which computes 32.
ROWS_OF = {4: 6, 3: 6, 2: 6, 1: 6} if VECTOR_REGISTERS == 32 else {2: 6, 3: 4, 1: 6}
BEST_COLS, MAX_COLS = next(iter(ROWS_OF)), max(ROWS_OF)
ROWS = ROWS_OF[BEST_COLS]
ROWS_OF_THREE = ROWS_OF[3]

# Bytes to a step up to which a panel is narrow: it passes over a block three or four times as often
# as one of four vectors of 512 bits, and where the block is read from then matters.
NARROW_BYTES = 96

# Steps taken at a time: that part of the panel stays in the first-level cache while every row
# passes over it. Two thirds of 48 KiB (128 steps of 4 AVX-512 vectors) measured best. Panels of
# fewer vectors take as many, for how wide the panel of a pixel is may depend on the number of
# threads, and how its sum is cut must not. A processor that takes as long again over its
# multiply-adds has the time to read panels from the second-level cache, and sums are less often
# read and written: 58 maps of 1x1 and strided layers took 0.98 of the time of 85 or 128 steps.
STEPS = 256 if VECTOR_HALVES else 2 * L1_BYTES // 3 // (BEST_COLS * VECTOR_BITS // 8)


@inline
def _step(factors, starts, s, row, acc, height, cols):
    _, table, _, _, steps, _, panel, row_pitch = factors
    for j in range(cols):
        row[0, j] = load(panel, s * row_pitch + j * lanes(panel))
    # Without `opaque` the broadcasts of two steps are made at once, which need more than 16
    # registers: 11 went to the stack and back, and 1x1 layers took 1.7 times as long.
    step = opaque(element(table, steps + s))
    for i in range(height):
        value = broadcast(starts[i, 0], step)
        for j in range(cols):
            acc[i, j] = fma(value, row[0, j], acc[i, j])


@inline
def _accumulate_rows(factors, asked, down, across, sums, height, cols, far):
    # x[rows[i] + steps[s]] for so many rows; those past the last one repeat it and are not written.
    x, table, rows, last_row, _, depth, _, _ = factors
    out, pitch, first, add, relu = sums
    width = lanes(out)
    acc = tile(out, ROWS, MAX_COLS)
    row = tile(out, 1, MAX_COLS)
    # Pointers, not offsets: LLVM would add up `x` and the step first, an instruction more for each.
    starts = pointers(x, ROWS)
    for i in range(height):
        starts[i, 0] = pointer(x, element(table, min(rows + i, last_row)))
        for j in range(cols):
            begin = zero(out)
            if down is not None and not add:
                begin = broadcast(down, first + min(i, last_row - rows))
            if across is not None and not add:
                begin = load(across, j * width)
            acc[i, j] = begin
    # One step after the other, two to a round: 45 instructions, one to a round took 25 each. Large
    # layers took 0.96 of the time, for another program on the same core wants its share of them.
    # Asking stands between the steps: before both, LLVM loads the numbers of both at once, and sums
    # go to the stack and back, 2.5 times the time.
    for s in range(0, depth - 1, 2):
        _step(factors, starts, s, row, acc, height, cols)
        if asked is not None:
            place, lines = asked
            prefetch_nearby(place, element(table, lines + s))
        _step(factors, starts, s + 1, row, acc, height, cols)
    for s in range(depth // 2 * 2, depth):
        _step(factors, starts, s, row, acc, height, cols)
    # Putting 0 for what is below it costs nothing here. As a pass over each task's block, in cache,
    # it took 1.07 times the time, over the whole result 1.8 times: 1x1, 64 channels, 56x56 pixels.
    for i in range(height):
        if rows + i <= last_row:
            for j in range(cols):
                place = i * pitch + j * width
                total = load(out, place) + acc[i, j] if add else acc[i, j]
                total = where_positive(total, total) if relu else total
                if far:
                    store_far(out, place, total)
                else:
                    store(out, place, total)


@inline
def _accumulate_columns(factors, asked, down, across, sums, cols, far):
    # The literals unroll the loops over a tile; `far` is one, too. What no panel needs is not
    # compiled.
    if MAX_COLS >= 4 and cols == 4:
        _accumulate_rows(factors, asked, down, across, sums, ROWS, 4, far)
    elif cols == 3:
        _accumulate_rows(factors, asked, down, across, sums, ROWS_OF_THREE, 3, far)
    elif cols == 2:
        _accumulate_rows(factors, asked, down, across, sums, ROWS, 2, far)
    else:
        _accumulate_rows(factors, asked, down, across, sums, ROWS, 1, far)


@device
def _ask_for_part(panel, size, part, parts):
    # Neighbours that the processor does foresee, but only up to the end of a page.
    for i in range(part * size // parts, (part + 1) * size // parts, LINE_VECTORS * lanes(panel)):
        rolled()
        prefetch_nearby(panel, i)


@device
def accumulate(
    x,
    table,
    rows,
    count,
    steps,
    depth,
    panel,
    row_pitch,
    down,
    across,
    out,
    pitch,
    add,
    relu,
    cols,
    streamed=False,
    asked=None,
):
    """``out[i, :] (+)= sum_s x[table[rows + i] + table[steps + s]] * panel[s, :]``.

    Parameters
    ----------
    x : pointer
        The image; every offset counts from here.
    table : (n,) int64
        Holds ``count`` row offsets from index ``rows`` and ``depth`` step offsets from ``steps``.
    panel : pointer to (depth, cols * lanes), rows ``row_pitch`` numbers apart
        One row per step.
    down : pointer to (count,), or None
        What the sums of each row begin with, unless they are added to ``out``.
    across : pointer to (cols * lanes,), or None
        The same for each column; not both.
    out : pointer to (count, cols * lanes), rows ``pitch`` numbers apart
        Sums of at most ``STEPS`` products are added to it at a time, which also keeps the
        rounding error of long reductions low.
    add : bool
        Whether to add to what ``out`` holds or to replace it.
    relu : bool
        Whether to put 0 for what is below it in the end.
    cols : int
        Vectors in a row of ``panel`` and ``out``, 1 to MAX_COLS.
    streamed : bool
        Whether to ask for the rows of ``panel`` that are taken next, as many as now and right
        behind them, while those of ``x`` pass over these: panels come from beyond the second-level
        cache one after the other. 3x3 layers of 256 and 512 channels took 0.89 to 0.97 of the time.
    asked : (pointer, int, int), or None
        What is asked for on the way, ``(place, ahead, lines)``: with row ``i``, the first of its
        tile, and every other step ``s`` the cache line of
        ``place[table[ahead + i] + table[lines + s]]``. See ``ahead.py``.
    """
    height = ROWS_OF_THREE if cols == 3 else ROWS
    for first in range(0, depth, STEPS):
        span = min(STEPS, depth - first)
        part = pointer(panel, first * row_pitch)
        more, end = add or first > 0, relu and first + STEPS >= depth
        tiles, follows = (count + height - 1) // height, span * row_pitch
        for i in range(0, count, height):
            factors = x, table, rows + i, rows + count - 1, steps + first, span, part, row_pitch
            if streamed:
                _ask_for_part(pointer(part, follows), follows, i // height, tiles)
            sums = pointer(out, i * pitch), pitch, i, more, end
            if asked is not None:
                place, ahead, lines = asked
                line = pointer(place, element(table, ahead + i)), lines + first
                _accumulate_columns(factors, line, down, across, sums, cols, False)
            else:
                _accumulate_columns(factors, None, down, across, sums, cols, False)


@inline
def fills_lines(out, length, pitch):
    """Whether rows of so many numbers, ``pitch`` apart from ``out`` on, are whole cache lines."""
    line = LINE_VECTORS * lanes(out)
    return length % line == 0 and pitch % line == 0 and is_aligned(out)


@device
def accumulate_far(
    x, table, rows, count, steps, depth, panel, row_pitch, down, across, out, pitch, relu, cols
):
    """The same for at most ``STEPS`` products, written past the caches.

    Rows of ``out`` are whole cache lines, see ``fills_lines``. It is a function of its own because
    in one with ``accumulate`` the compiler orders the instructions of both loops otherwise: 1x1
    layers of 64 to 512 channels took 1.03 to 1.06 times the time.
    """
    height = ROWS_OF_THREE if cols == 3 else ROWS
    for i in range(0, count, height):
        factors = x, table, rows + i, rows + count - 1, steps, depth, panel, row_pitch
        sums = pointer(out, i * pitch), pitch, i, False, relu
        _accumulate_columns(factors, None, down, across, sums, cols, True)
