"""Correlation with a thread for each pixel of the result: for few filters to a group.

    y[k,p] = bias[k] + sum_c sum_r  x[c, p*stride + r*dilation - before] w[k,c,r]

Neighbouring threads read neighbouring pixels, and one number of the filters at a time.
"""

from math import prod
from typing import Any

from numba import cuda
from numba.cuda import types

from ..geometry import Ints
from .arrays import Operand, dtype_of, stream_of
from .kernel import blocks_for, kernel
from .reference import offset, unravel

# Pointers to x, filters, bias and y; strides of these but the bias; shapes of x and y; the first
# tap, the step to the next and their number along each axis; stride, before, dilation; the bias's
# stride and length, 0 for none; whether 0 takes the place of results below it.
PARAMETERS = "pppp66666333333iii"


@kernel(PARAMETERS)
def correlate_pixels(wide):
    """``y[n,k,p] = bias[k] + sum_c sum_r x[n, c, p*stride + r*dilation - before] w[k, c, r]``

    over the taps r = first, first + step, and so on.
    """

    def planar(
        x,
        weight,
        bias,
        y,
        xs,
        ws,
        ys,
        x_shape,
        y_shape,
        first,
        step,
        taps,
        stride,
        before,
        dilation,
        bias_step,
        biases,
        relu,
    ):
        C = x_shape[2]
        # Coordinates fit in 32 bits, which take half the instructions of 64.
        D, H, W = types.int32(x_shape[3]), types.int32(x_shape[4]), types.int32(x_shape[5])
        K = y_shape[2]
        elements = y_shape[0] * y_shape[1] * K * y_shape[3] * y_shape[4] * y_shape[5]
        column, column_of_w = dilation[2] * xs[5], step[2] * ws[5]
        for i in range(cuda.grid(1), elements, cuda.gridsize(1)):
            n, g, k, o, p, q = unravel(i, y_shape)
            front = types.int32(o * stride[0] - before[0])
            top = types.int32(p * stride[1] - before[1])
            left = types.int32(q * stride[2] - before[2])
            total = wide(bias[(g * K + k) * bias_step]) if biases else wide(0)
            for c in range(C):
                for t in range(types.int32(taps[0])):
                    d = types.int32(front + t * dilation[0])
                    if d < 0 or d >= D:
                        continue
                    for r in range(types.int32(taps[1])):
                        h = types.int32(top + r * dilation[1])
                        if h < 0 or h >= H:
                            continue
                        at = offset(xs, n, g, c, d, h, left)
                        at_w = offset(
                            ws, g, k, c, first[0] + t * step[0], first[1] + r * step[1], first[2]
                        )
                        w = left
                        for _ in range(types.int32(taps[2])):
                            if w >= 0 and w < W:
                                total += wide(x[at]) * wide(weight[at_w])
                            w = types.int32(w + dilation[2])
                            at += column
                            at_w += column_of_w
            if relu and total <= wide(0):
                total = wide(0)
            y[offset(ys, n, g, k, o, p, q)] = total

    return planar


def correlate(
    x: Operand,
    weight: Operand,
    bias: Operand,
    y: Operand,
    taps: tuple[range, ...],
    stride: Ints,
    before: Ints,
    dilation: Ints,
    relu: bool,
    like: Any,
) -> None:
    """Write the correlation of ``x`` with some taps of ``weight`` into ``y``: see ``gemm``."""
    correlate_pixels.launch(
        dtype_of(like),
        stream_of(like),
        blocks_for(prod(y.shape)),
        x.pointer,
        weight.pointer,
        bias.pointer,
        y.pointer,
        x.strides,
        weight.strides,
        y.strides,
        x.shape,
        y.shape,
        tuple([axis.start for axis in taps]),
        tuple([axis.step for axis in taps]),
        tuple([len(axis) for axis in taps]),
        stride,
        before,
        dilation,
        bias.strides[0],
        bias.shape[0],
        int(relu),
    )
