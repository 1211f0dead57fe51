"""Gradient of the filters as a product of matrices, in float32.

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
from .arrays import Operand, dtype_of, empty_like, operand, stream_of
from .kernel import THREADS, blocks_for, kernel
from .tile import BUFFER, BUFFERS, DEPTH, OWN, TILE, multiply, own

# Shares are made until there are this many blocks: a few for each multiprocessor.
BLOCKS = 512

# Pointers to dy, x and work; strides and shapes of dy and x; taps, stride, before, dilation; number
# of shares.
SHARE = "ppp66663333i"
# Pointers to work and dw; dw's strides and shape; shares.
TOTAL = "pp66i"


@kernel(SHARE, launch_bounds=THREADS)
def multiply_pixels(wide):
    """``work[share,g,k,(c,r)] = sum_p dy[n,g,k,p] x[n, g, c, p*stride + r*dilation - before]``"""

    def multiply_lines(
        dy, x, work, ys, xs, y_shape, x_shape, taps, stride, before, dilation, shares
    ):
        rows = cuda.shared.array(BUFFERS, types.float32, alignment=16)
        cols = cuda.shared.array(BUFFERS, types.float32, alignment=16)
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
        filter_exists, channel_exists = k < K, c < C

        line_length, width, across = types.int32(Q), types.int32(W), types.int32(stride[2])
        lines = N * O * P
        line = share * lines // shares
        steps = types.int32(((share + 1) * lines // shares - line) * ((Q + DEPTH - 1) // DEPTH))
        o, n = types.int32(line // P % O), types.int32(line // (P * O))
        q, p = line_length, types.int32(line % P - 1)
        first, second = thread // 16 * 4, thread % 16 * 4
        from_y, from_x, inside = plane, image, False
        for step in range(steps + 1):
            buffer = step % 2 * BUFFER
            if step < steps:
                if q >= line_length:
                    q, p = types.int32(0), types.int32(p + 1)
                    if p == P:
                        p, o = types.int32(0), types.int32(o + 1)
                        if o == O:
                            o, n = types.int32(0), types.int32(n + 1)
                    d, h = o * stride[0] + front, p * stride[1] + top
                    inside = channel_exists and d >= 0 and d < D and h >= 0 and h < H
                    from_y = plane + n * ys[0] + o * ys[3] + p * ys[4]
                    from_x = image + n * xs[0] + d * xs[3] + h * xs[4]
                for j in range(4):
                    seen[j], met[j] = types.float32(0), types.float32(0)
                    pixel = types.int32(q + part + j)
                    w = types.int32(pixel * across + left)
                    if filter_exists and pixel < line_length:
                        seen[j] = dy[from_y + j * ys[5]]
                    if inside and w >= 0 and w < width:
                        met[j] = x[from_x + j * stride[2] * xs[5]]
                q = types.int32(q + DEPTH)
                from_y += DEPTH * ys[5]
                from_x += DEPTH * stride[2] * xs[5]
            if step > 0:
                multiply(rows, cols, BUFFER - buffer, first, second, sums)
            if step < steps:
                for j in range(4):
                    rows[types.uint32(buffer + (part + j) * TILE + lane)] = seen[j]
                    cols[types.uint32(buffer + (part + j) * TILE + lane)] = met[j]
            cuda.syncthreads()

        for i in range(OWN):
            k = cuda.blockIdx.y * TILE + own(first, i)
            for j in range(OWN):
                column = cuda.blockIdx.x * TILE + own(second, j)
                if k < K and column < columns:
                    work[((share * G + group) * K + k) * columns + column] = sums[i, j]

    return multiply_lines


@kernel(TOTAL)
def add_shares(wide):
    """``dw[g,k,c,r] = sum_share work[share,g,k,(c,r)]``"""

    def add(work, dw, ws, w_shape, shares):
        G, K, C, T, R, S = w_shape
        elements = G * K * C * T * R * S
        for i in range(cuda.grid(1), elements, cuda.gridsize(1)):
            total = wide(0)
            for share in range(shares):
                total += work[share * elements + i]
            s, r, t = i % S, i // S % R, i // (S * R) % T
            c, k, g = i // (S * R * T) % C, i // (S * R * T * C) % K, i // (S * R * T * C * K)
            place = g * ws[0] + k * ws[1] + c * ws[2] + t * ws[3] + r * ws[4] + s * ws[5]
            dw[place] = total

    return add


def grad_weight(
    dy: Operand,
    x: Operand,
    dw: Operand,
    stride: Ints,
    before: Ints,
    dilation: Ints,
    like: Any,
) -> None:
    """Write the correlation of ``x`` with ``dy`` into ``dw``, as ``gemm.correlate`` does."""
    dtype, stream = dtype_of(like), stream_of(like)
    groups, filters, *across = dw.shape
    rows, columns = ceil(filters / TILE), ceil(prod(across) / TILE)
    lines = prod((dy.shape[0], *dy.shape[3:5]))
    shares = max(1, min(lines, BLOCKS // (groups * rows * columns)))
    work = operand(empty_like(like, (shares * prod(dw.shape),)))
    multiply_pixels.launch(
        dtype,
        stream,
        (columns, rows, groups * shares),
        dy.pointer,
        x.pointer,
        work.pointer,
        dy.strides,
        x.strides,
        dy.shape,
        x.shape,
        dw.shape[3:],
        stride,
        before,
        dilation,
        shares,
    )
    add_shares.launch(
        dtype,
        stream,
        blocks_for(prod(dw.shape)),
        work.pointer,
        dw.pointer,
        dw.strides,
        dw.shape,
        shares,
    )
