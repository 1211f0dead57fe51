"""Gradient of the filters with a block for each tap: for few filters and channels to a group.

    dw[k,c,r] = sum_p  dy[k,p] x[c, p*stride + r*dilation - before]

Each thread adds up every 256th pixel of a share of the lines, then half of the threads what the
other half has, and so on.
"""

from math import prod
from typing import Any

from numba import cuda
from numba.cuda import types

from ..geometry import Ints
from ..plan.cuda import THREADS
from .arrays import Operand, dtype_of, stream_of
from .kernel import kernel
from .reference import offset, unravel
from .shares import Shares

# Pointers to dy, x and work; strides and shapes of dy and x; shape of dw; stride, before, dilation;
# number of shares.
PARAMETERS = "ppw66666333i"


@kernel(PARAMETERS)
def multiply_planes(wide):
    """``work[share,g,k,c,r] = sum_p dy[n,g,k,p] x[n, g, c, p*stride + r*dilation - before]``"""

    def planar_weight(
        dy, x, work, ys, xs, y_shape, x_shape, w_shape, stride, before, dilation, shares
    ):
        sums = cuda.shared.array(THREADS, wide)
        N, _, _, O, P, Q = y_shape
        _, _, _, D, H, W = x_shape
        element, share = cuda.blockIdx.x // shares, cuda.blockIdx.x % shares
        g, k, c, t, r, s = unravel(element, w_shape)
        front, top = t * dilation[0] - before[0], r * dilation[1] - before[1]
        left = s * dilation[2] - before[2]
        thread = cuda.threadIdx.x
        lines = N * O * P
        start, end = share * lines // shares * Q, (share + 1) * lines // shares * Q
        # Of a share, pixels are counted in 32 bits: dividing takes a third of the instructions.
        line, length = types.int32(start // Q), types.int32(Q)
        total = wide(0)
        for pixel in range(thread, types.int32(end - start), THREADS):
            q, at = pixel % length, types.int32(line + pixel // length)
            p, o, n = at % P, at // P % O, at // (P * O)
            d, h, w = o * stride[0] + front, p * stride[1] + top, q * stride[2] + left
            if d >= 0 and d < D and h >= 0 and h < H and w >= 0 and w < W:
                seen = wide(x[offset(xs, n, g, c, d, h, w)])
                total += wide(dy[offset(ys, n, g, k, o, p, q)]) * seen
        sums[thread] = total
        cuda.syncthreads()
        half = THREADS // 2
        while half > 0:
            if thread < half:
                sums[thread] += sums[thread + half]
            cuda.syncthreads()
            half //= 2
        if thread == 0:
            elements = cuda.gridDim.x // shares
            work[share * elements + element] = sums[0]

    return planar_weight


def grad_weight(
    dy: Operand,
    x: Operand,
    dw: Operand,
    stride: Ints,
    before: Ints,
    dilation: Ints,
    like: Any,
) -> None:
    """Write the correlation of ``x`` with ``dy`` into ``dw``, as ``planar.correlate`` does."""
    elements = prod(dw.shape)
    shares = Shares(elements, dy, dw, like)
    multiply_planes.launch(
        dtype_of(like),
        stream_of(like),
        elements * shares.count,
        dy.pointer,
        x.pointer,
        shares.work.pointer,
        dy.strides,
        x.strides,
        dy.shape,
        x.shape,
        dw.shape,
        stride,
        before,
        dilation,
        shares.count,
    )
    shares.add_up()
