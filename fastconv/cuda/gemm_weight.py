"""Gradient of the filters as a product of matrices, with sums in float32.

    dw[k, (c,r)] = sum_p  dy[k,p] x[c, p*stride + r*dilation - before]

Lines of pixels are shared out to several blocks for each tile of 128 filters by 128 channels and
taps, which could not keep a device busy otherwise; their sums are added up in order, so that the
result is the same bit by bit every time.
"""

from math import ceil, prod
from typing import Any

from numba import cuda
from numba.cuda import types

from ..geometry import Ints
from ..plan.cuda import DEPTH, THREADS, TILE
from .arrays import Operand, dtype_of, stream_of
from .kernel import kernel
from .shares import Shares
from .tile import OWN, Product

# Pointers to dy, x and work; strides and shapes of dy and x; taps, stride, before, dilation; number
# of shares.
SHARE = "ppw66663333i"


@kernel(SHARE, launch_bounds=THREADS)
def multiply_pixels(product, wide):
    """``work[share,g,k,(c,r)] = sum_p dy[n,g,k,p] x[n, g, c, p*stride + r*dilation - before]``"""
    size, rounded, put_row, put_col = (
        product.size,
        product.rounded,
        product.put_row,
        product.put_col,
    )
    place_of, row_of, col_of, multiply = product.place, product.row, product.col, product.multiply
    both = 2 * size

    def multiply_lines(
        dy, x, work, ys, xs, y_shape, x_shape, taps, stride, before, dilation, shares
    ):
        rows = cuda.shared.array(both, types.float32, alignment=16)
        cols = cuda.shared.array(both, types.float32, alignment=16)
        sums = cuda.local.array((OWN, OWN), types.float32)
        seen = cuda.local.array(4, types.float32)
        met = cuda.local.array(4, types.float32)
        for i in range(OWN):
            for j in range(OWN):
                sums[i, j] = types.float32(0)
        thread = cuda.threadIdx.x
        group, share = cuda.blockIdx.z // shares, cuda.blockIdx.z % shares
        N, G, K, O, P, Q = y_shape
        _, _, C, D, H, W = x_shape
        columns = C * taps[0] * taps[1] * taps[2]

        # Each thread reads 4 pixels of one filter's plane, and those that one channel's tap meets.
        lane, part = thread % TILE, types.int32(thread // TILE * 4)
        k = cuda.blockIdx.y * TILE + lane
        column = cuda.blockIdx.x * TILE + lane
        s, r, t = (
            column % taps[2],
            column // taps[2] % taps[1],
            column // (taps[2] * taps[1]) % taps[0],
        )
        c = column // (taps[2] * taps[1] * taps[0])
        left = types.int32(s * dilation[2] - before[2])
        top = types.int32(r * dilation[1] - before[1])
        front = types.int32(t * dilation[0] - before[0])
        plane = group * ys[1] + k * ys[2] + part * ys[5]
        image = group * xs[1] + c * xs[2] + (part * stride[2] + left) * xs[5]

        lines = N * O * P
        line = share * lines // shares
        steps = types.int32(((share + 1) * lines // shares - line) * ((Q + DEPTH - 1) // DEPTH))
        # All that is counted here fits in 32 bits, which take half the instructions of 64.
        length, across, next_x = types.int32(Q), types.int32(stride[2]), stride[2] * xs[5]
        o, n = types.int32(line // P % O), types.int32(line // (P * O))
        q, p = length, types.int32(line % P - 1)
        first, second = place_of(thread)
        from_y, from_x, buffer = plane, image, types.int32(0)
        rest, w, width = types.int32(0), types.int32(0), types.uint32(0)
        for step in range(types.int32(steps + 1)):
            if step < steps:
                if q >= length:
                    q, p = types.int32(0), types.int32(p + 1)
                    if p == types.int32(P):
                        p, o = types.int32(0), types.int32(o + 1)
                        if o == types.int32(O):
                            o, n = types.int32(0), types.int32(n + 1)
                    d = types.int32(o * types.int32(stride[0]) + front)
                    h = types.int32(p * types.int32(stride[1]) + top)
                    inside = d >= 0 and d < types.int32(D) and h >= 0 and h < types.int32(H)
                    from_y = plane + n * ys[0] + o * ys[3] + p * ys[4]
                    from_x = image + n * xs[0] + d * xs[3] + h * xs[4]
                    # Pixels still to come of a filter's line, and those there are of a channel's.
                    rest = types.int32(length - part) if k < K else types.int32(0)
                    width = types.uint32(W) if c < C and inside else types.uint32(0)
                    w = types.int32(part * across + left)
                for j in range(4):
                    seen[j], met[j] = types.float32(0), types.float32(0)
                    if rest > j:
                        seen[j] = types.float32(dy[from_y])
                    if types.uint32(w) < width:  # nor below zero
                        met[j] = types.float32(x[from_x])
                    w = types.int32(w + across)
                    from_y += ys[5]
                    from_x += next_x
                q, rest = types.int32(q + DEPTH), types.int32(rest - DEPTH)
                w = types.int32(w + (DEPTH - 4) * across)
                from_y += (DEPTH - 4) * ys[5]
                from_x += (DEPTH - 4) * next_x
            if step > 0:
                multiply(rows, cols, types.int32(size - buffer), first, second, sums)
            if step < steps:
                for j in range(4):
                    seen[j], met[j] = rounded(seen[j]), rounded(met[j])
                put_row(rows, buffer, lane, part, seen[0], seen[1], seen[2], seen[3])
                put_col(cols, buffer, lane, part, met[0], met[1], met[2], met[3])
            buffer = types.int32(size - buffer)
            cuda.syncthreads()

        for i in range(OWN):
            k = cuda.blockIdx.y * TILE + row_of(first, i)
            for j in range(OWN):
                column = cuda.blockIdx.x * TILE + col_of(second, j)
                if k < K and column < columns:
                    work[((share * G + group) * K + k) * columns + column] = sums[i, j]

    return multiply_lines


def grad_weight(
    product: Product,
    dy: Operand,
    x: Operand,
    dw: Operand,
    stride: Ints,
    before: Ints,
    dilation: Ints,
    like: Any,
) -> None:
    """Write the correlation of ``x`` with ``dy`` into ``dw``, as ``gemm.correlate`` does."""
    groups, filters, *across = dw.shape
    rows, columns = ceil(filters / TILE), ceil(prod(across) / TILE)
    shares = Shares(groups * rows * columns, dy, dw, like)
    multiply_pixels.of(product).launch(
        dtype_of(like),
        stream_of(like),
        (columns, rows, groups * shares.count),
        dy.pointer,
        x.pointer,
        shares.work.pointer,
        dy.strides,
        x.strides,
        dy.shape,
        x.shape,
        dw.shape[3:],
        stride,
        before,
        dilation,
        shares.count,
    )
    shares.add_up()
