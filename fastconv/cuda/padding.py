"""Padding that shows pixels of the image, and its adjoint: a thread for each element of the result.

    pad    padded[p] = x[pixel shown at p]
    fold   dx[h]     = sum of padded[p] over all positions p that show h

Arrays have groups as an axis of their own and three spatial axes; of each of these, nine numbers
say what its positions show: see ``fastconv.padding.segments``.
"""

from numba import cuda

from .kernel import kernel
from .reference import offset, unravel


@cuda.jit(device=True, inline="always")
def pixel_at(i, axis):
    """The pixel that position ``i`` of an axis shows."""
    if i < axis[0]:
        return axis[1] + i * axis[2]
    i -= axis[0]
    if i < axis[3]:
        return axis[4] + i * axis[5]
    return axis[7] + (i - axis[3]) * axis[8]


@cuda.jit(device=True, inline="always")
def positions(pixel, segment, axis):
    """The positions of one segment of an axis that show a pixel: the first, and the last and one
    more.
    """
    if segment == 0:
        start, length, first, step = 0, axis[0], axis[1], axis[2]
    elif segment == 1:
        start, length, first, step = axis[0], axis[3], axis[4], axis[5]
    else:
        start, length, first, step = axis[0] + axis[3], axis[6], axis[7], axis[8]
    if step == 0 and pixel == first:
        return start, start + length
    i = (pixel - first) * step
    if step != 0 and i >= 0 and i < length:
        return start + i, start + i + 1
    return start, start


# Pointers to x and its copy; strides of both; shape of the copy; segments.
@kernel("pp666999")
def pad(wide):
    """``padded[n,c,p] = x[n, c, pixel shown at p]``"""

    def pad_image(x, padded, xs, ps, shape, depth, height, width):
        elements = shape[0] * shape[1] * shape[2] * shape[3] * shape[4] * shape[5]
        for i in range(cuda.grid(1), elements, cuda.gridsize(1)):
            n, g, c, d, h, w = unravel(i, shape)
            at = offset(xs, n, g, c, pixel_at(d, depth), pixel_at(h, height), pixel_at(w, width))
            padded[offset(ps, n, g, c, d, h, w)] = x[at]

    return pad_image


# Pointers to the padded image and dx; strides of both; shape of dx; segments.
@kernel("pp666999")
def fold(wide):
    """``dx[n,c,h] = sum_p padded[n,c,p]`` over the positions p that show h"""

    def fold_image(padded, dx, ps, xs, shape, depth, height, width):
        elements = shape[0] * shape[1] * shape[2] * shape[3] * shape[4] * shape[5]
        for i in range(cuda.grid(1), elements, cuda.gridsize(1)):
            n, g, c, d, h, w = unravel(i, shape)
            total = wide(0)
            for of_d in range(3):
                first_d, last_d = positions(d, of_d, depth)
                for pd in range(first_d, last_d):
                    for of_h in range(3):
                        first_h, last_h = positions(h, of_h, height)
                        for ph in range(first_h, last_h):
                            for of_w in range(3):
                                first_w, last_w = positions(w, of_w, width)
                                for pw in range(first_w, last_w):
                                    total += wide(padded[offset(ps, n, g, c, pd, ph, pw)])
            dx[offset(xs, n, g, c, d, h, w)] = total

    return fold_image


# Pointers to the part and the sum; strides of both; their shape.
@kernel("pp666")
def add(wide):
    """``total[i] += part[i]``"""

    def add_part(part, total, ps, ts, shape):
        elements = shape[0] * shape[1] * shape[2] * shape[3] * shape[4] * shape[5]
        for i in range(cuda.grid(1), elements, cuda.gridsize(1)):
            i0, i1, i2, i3, i4, i5 = unravel(i, shape)
            at = offset(ts, i0, i1, i2, i3, i4, i5)
            total[at] = wide(total[at]) + wide(part[offset(ps, i0, i1, i2, i3, i4, i5)])

    return add_part
