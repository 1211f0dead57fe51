"""The loops over the windows of a box, for poolings and their gradients.

What happens at the taps of a window is said by one of two functions that are compiled into the
loops: ``tiles`` takes several windows, or several vectors of channels of one, that have the same
taps, by tables of offsets; ``large`` takes one vector of a window of too many taps for tables.

A *spot* is a window for both: where its tap 0 lies, the index of that pixel in the image, where the
result lies, and where the index of its largest number is kept. A *step* leads to another spot.
"""

from ..host import VECTOR_REGISTERS
from .kernel import device, inline
from .pool_blocks import BEFORE, DILATION, EXTENTS, INSIDE, KERNEL, SIZES, STRIDE
from .pool_boxes import offset
from .simd import element, pointer

# What is asked of windows: their means, their largest numbers, or these and where they are.
MEAN, LARGEST, PLACES = 0, 1, 2

# Windows that go through their taps together: within one, each comparison waits for that before.
UNITS = 4

# Vectors of a window that do, where there are so many side by side: with half a KiB of each pixel
# instead of a quarter, global means of 2048 channels took 0.8, their gradients 0.4 of the time.
WIDE = 8 if VECTOR_REGISTERS == 32 else UNITS


@device
def ahead(spot, step, count):
    """The spot so many steps ahead."""
    return (
        pointer(spot[0], count * step[0]),
        spot[1] + count * step[1],
        pointer(spot[2], count * step[2]),
        pointer(spot[3], count * step[3]),
    )


@device
def _span(size, table, axis, window, corner, extent):
    # Pixel of a window's tap 0; its first tap that lies in a box of the image, and the one after
    # the last.
    start, step = window * size[STRIDE + axis] - size[BEFORE + axis], size[DILATION + axis]
    at = size[INSIDE + axis] + 2 * window
    first, end = element(table, at), element(table, at + 1)
    if start + first * step < corner:
        first = (corner - start + step - 1) // step
    if start + (end - 1) * step >= corner + extent:
        end = (corner + extent - start + step - 1) // step
    return start, first, max(first, end)


@device
def _size_of(size, table, o, p, q):
    # By how much the sum of a window is divided.
    return (
        element(table, size[SIZES] + o)
        * element(table, size[SIZES + 1] + p)
        * element(table, size[SIZES + 2] + q)
    )


@inline
def walk(size, table, taps, windows, pixels, arrays, vectors, tiles, large, extra, kind):
    """Go through a box of windows, as far as they lie in a box of pixels.

    Parameters
    ----------
    taps : int
        Where in ``table`` the offsets of taps are.
    windows, pixels : (corner, extents)
    arrays : three of (pointer, pitches)
        Where pixel (0, 0, 0) of the image, the result of window (0, 0, 0) and the index of its
        largest number lie, or would lie if the arrays had them.
    vectors : int
        Of channels.
    tiles, large : function or None
        One of them. ``tiles(spot, along, across, count, of_window, units, wide, kind)`` does
        ``count`` tiles of ``units`` windows or, if ``wide``, vectors of one window: ``along`` is
        the step to the next tile, ``across`` that to the next window or vector in it, and
        ``of_window`` what all of them share, (spans, size, table, taps, divisor).
        ``large(spot, spans, size, divisor, pitches, extra, kind)`` does one vector of a window.
    extra
        Passed on to ``large``.
    kind : literal
        What is asked: ``MEAN``, ``LARGEST`` or ``PLACES``.
    """
    corner, counts = windows
    (image, pitches), (out, to), (found, to_found) = arrays
    cols = size[KERNEL + 2]
    depth = size[KERNEL] * size[KERNEL + 1] * cols
    window = size[STRIDE + 2] * pitches[2], size[STRIDE + 2], to[2], to_found[2]
    several = UNITS * window[0], UNITS * window[1], UNITS * window[2], UNITS * window[3]
    vector = pitches[3], 0, to[3], to_found[3]
    for o in range(corner[0], corner[0] + counts[0]):
        d, t0, t1 = _span(size, table, 0, o, pixels[0][0], pixels[1][0])
        for p in range(corner[1], corner[1] + counts[1]):
            h, r0, r1 = _span(size, table, 1, p, pixels[0][1], pixels[1][1])
            q = corner[2]
            while q < corner[2] + counts[2]:
                w, s0, s1 = _span(size, table, 2, q, pixels[0][2], pixels[1][2])
                spans, run = ((t0, t1), (r0, r1), (s0, s1)), 1
                divisor = _size_of(size, table, o, p, q) if kind == MEAN else 1
                spot = (
                    pointer(image, offset((d, h, w), pitches)),
                    (d * size[EXTENTS + 1] + h) * size[EXTENTS + 2] + w,
                    pointer(out, offset((o, p, q), to)),
                    pointer(found, offset((o, p, q), to_found)),
                )
                if large is not None:
                    for v in range(vectors):
                        large(ahead(spot, vector, v), spans, size, divisor, pitches, extra, kind)
                if tiles is not None:
                    if (t1 - t0) * (r1 - r0) * (s1 - s0) == depth:
                        # All taps are one line, and so are those of the windows that follow.
                        spans = (0, 1), (0, 1), (0, depth)
                        beyond = pixels[0][2] + pixels[1][2] - w - (cols - 1) * size[DILATION + 2]
                        run = min((beyond - 1) // size[STRIDE + 2] + 1, corner[2] + counts[2] - q)
                    of_window = spans, size, table, taps, divisor
                    v = 0
                    while v < vectors:
                        if v + WIDE <= vectors:
                            tiles(spot, window, vector, run, of_window, WIDE, True, kind)
                            units = WIDE
                        elif v + UNITS <= vectors:
                            tiles(spot, window, vector, run, of_window, UNITS, True, kind)
                            units = UNITS
                        else:
                            count, units = run // UNITS, 1
                            tiles(spot, several, window, count, of_window, UNITS, False, kind)
                            rest, count = ahead(spot, several, count), run - count * UNITS
                            tiles(rest, window, vector, count, of_window, 1, False, kind)
                        spot = ahead(spot, vector, units)
                        v += units
                q += run
