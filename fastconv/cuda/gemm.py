"""Correlation as a product of matrices, filters by columns of the image, with sums in float32.

    y[k,p] = bias[k] + sum_s  panel[s,k] column[s,p]

where s runs over taps and, within each, channels. The columns are never unfolded: every thread
reads the pixels that its column sees, tap by tap. A block computes 128 filters at 128 pixels.
"""

from math import ceil, prod
from typing import Any

from numba import cuda
from numba.cuda import types

from ..geometry import Ints
from ..plan.cuda import DEPTH, THREADS, TILE, panel_elements
from .arrays import Operand, dtype_of, empty_like, operand, stream_of
from .intrinsics import load4, store4
from .kernel import blocks_for, kernel
from .reference import offset
from .tile import OWN, Product

# Pointers to the filters and to the panel made of them; the filters' strides and shape; the first
# tap and the step to the next along each axis.
PACK = "pw6633"
# Pointers to panel, x, bias and y; strides and shapes of x and y; taps, stride, before, dilation;
# the bias's stride and length, 0 for none; whether 0 takes the place of results below it.
CORRELATE = "wppp66663333iii"


@kernel(PACK)
def pack_filters(product, wide):
    """``panel[g, tap, c, k] = w[g, k, c, first + tap * step]``, 0 beyond the last c and k.

    Tiles of DEPTH channels and TILE filters follow each other, each in the order that ``product``
    wants.
    """
    place, rounded = product.panel, product.rounded

    def pack(weight, panel, ws, w_shape, first, step):
        G, K, C, T, R, S = w_shape
        across, down = (K + TILE - 1) // TILE, (C + DEPTH - 1) // DEPTH
        elements = G * T * R * S * down * across * DEPTH * TILE
        for i in range(cuda.grid(1), elements, cuda.gridsize(1)):
            inner, tile = i % (DEPTH * TILE), i // (DEPTH * TILE)
            c, k = (
                tile // across % down * DEPTH + inner // TILE,
                tile % across * TILE + inner % TILE,
            )
            tap = tile // (across * down)
            s = first[2] + tap % S * step[2]
            r = first[1] + tap // S % R * step[1]
            t = first[0] + tap // (S * R) % T * step[0]
            g = tap // (S * R * T)
            value = wide(0)
            if k < K and c < C:
                value = wide(weight[offset(ws, g, k, c, t, r, s)])
            panel[i - inner + place(inner // TILE, inner % TILE)] = rounded(value)

    return pack


@kernel(CORRELATE, launch_bounds=THREADS)
def multiply_filters(product, wide):
    """``y[n,k,p] = bias[k] + sum_c sum_r x[n, c, p*stride + r*dilation - before] panel[r,c,k]``"""
    size, rounded, vector, put_col = product.size, product.rounded, product.vector, product.put_col
    place_of, row_of, col_of, multiply = product.place, product.row, product.col, product.multiply
    both = 2 * size

    def multiply_panel(
        panel,
        x,
        bias,
        y,
        xs,
        ys,
        x_shape,
        y_shape,
        taps,
        stride,
        before,
        dilation,
        bias_step,
        biases,
        relu,
    ):
        rows = cuda.shared.array(both, types.float32, alignment=16)
        cols = cuda.shared.array(both, types.float32, alignment=16)
        sums = cuda.local.array((OWN, OWN), types.float32)
        places = cuda.shared.array(TILE, types.int64)
        starts = cuda.local.array(OWN, types.float32)
        seen = cuda.local.array(4, types.float32)
        for i in range(OWN):
            for j in range(OWN):
                sums[i, j] = types.float32(0)
        thread, group = cuda.threadIdx.x, cuda.blockIdx.z
        N, _, C, D, H, W = x_shape
        _, _, K, O, P, Q = y_shape

        # Each thread reads 4 channels of one pixel, and 4 numbers of the panel.
        column, part = thread % TILE, types.int32(thread // TILE * 4)
        pixel = cuda.blockIdx.x * TILE + column
        q, p, o, n = pixel % Q, pixel // Q % P, pixel // (Q * P) % O, pixel // (Q * P * O)
        left = types.int32(q * stride[2] - before[2])
        top = types.int32(p * stride[1] - before[1])
        front = types.int32(o * stride[0] - before[0])
        image = n * xs[0] + group * xs[1] + part * xs[2]
        places[column] = n * ys[0] + group * ys[1] + o * ys[3] + p * ys[4] + q * ys[5]
        depth = (C + DEPTH - 1) // DEPTH * DEPTH
        steps = types.int32(taps[0] * taps[1] * taps[2] * (depth // DEPTH))
        block = (group * steps * cuda.gridDim.y + cuda.blockIdx.y) * DEPTH * TILE + thread * 4

        first, second = place_of(thread)
        # All that is counted here fits in 32 bits, which take half the instructions of 64.
        channels, width = types.int32(C), types.int32(W)
        planes, lines = types.int32(D), types.int32(H)
        count_r, count_s = types.int32(taps[1]), types.int32(taps[2])
        down, along, across = (
            types.int32(dilation[0]),
            types.int32(dilation[1]),
            types.int32(dilation[2]),
        )
        c, t, r, s = channels, types.int32(0), types.int32(0), types.int32(-1)
        at, rest, buffer = image, types.int32(0), types.int32(0)
        for step in range(types.int32(steps + 1)):
            if step < steps:
                if c >= channels:
                    c, s = types.int32(0), types.int32(s + 1)
                    if s == count_s:
                        s, r = types.int32(0), types.int32(r + 1)
                        if r == count_r:
                            r, t = types.int32(0), types.int32(t + 1)
                    d = types.int32(front + t * down)
                    h = types.int32(top + r * along)
                    w = types.int32(left + s * across)
                    inside = d >= 0 and d < planes and h >= 0 and h < lines and w >= 0 and w < width
                    # Channels that are still to come of a pixel that exists.
                    rest = types.int32(channels - part) if n < N and inside else types.int32(0)
                    at = image + d * xs[3] + h * xs[4] + w * xs[5]
                for j in range(4):
                    seen[j] = types.float32(0)
                    if rest > j:
                        seen[j] = types.float32(x[at + j * xs[2]])
                w0, w1, w2, w3 = load4(panel, block)
                c, rest = types.int32(c + DEPTH), types.int32(rest - DEPTH)
                at += DEPTH * xs[2]
                block += cuda.gridDim.y * DEPTH * TILE
            if step > 0:
                multiply(rows, cols, types.int32(size - buffer), first, second, sums)
            if step < steps:
                for j in range(4):
                    seen[j] = rounded(seen[j])
                put_col(cols, buffer, column, part, seen[0], seen[1], seen[2], seen[3])
                store4(rows, buffer + vector(thread), w0, w1, w2, w3)
            buffer = types.int32(size - buffer)
            cuda.syncthreads()

        for i in range(OWN):
            k = cuda.blockIdx.y * TILE + row_of(first, i)
            starts[i] = types.float32(0)
            if biases and k < K:
                starts[i] = types.float32(bias[(group * K + k) * bias_step])
        for j in range(OWN):
            place = places[col_of(second, j)]
            pixel = cuda.blockIdx.x * TILE + col_of(second, j)
            for i in range(OWN):
                k = cuda.blockIdx.y * TILE + row_of(first, i)
                if pixel < N * O * P * Q and k < K:
                    total = starts[i] + sums[i, j]
                    if relu and total <= types.float32(0):
                        total = types.float32(0)
                    y[place + k * ys[2]] = total

    return multiply_panel


def correlate(
    product: Product,
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
    """Write the correlation of ``x`` with some taps of ``weight`` into ``y``.

    Parameters
    ----------
    product
        How tiles are multiplied.
    x, weight, y : Operand
        (N, G, C/G, D, H, W), (G, K/G, C/G, T, R, S), (N, G, K/G, O, P, Q)
    bias : Operand
        (K,), or (0,) for none.
    taps : 3 ranges
        The taps along each axis, in the order in which they meet pixels; none along some axis
        leaves the bias alone.
    stride, before, dilation, relu
        As for ``cpu.engine``.
    like
        The caller's array whose library, dtype and stream serve for everything.
    """
    dtype, stream = dtype_of(like), stream_of(like)
    groups, filters, channels = weight.shape[:3]
    counts = tuple([len(axis) for axis in taps])
    elements = panel_elements(groups, filters, channels, prod(counts))
    panel = operand(empty_like(like, (max(elements, 1),), "float32"))
    pack_filters.of(product).launch(
        dtype,
        stream,
        blocks_for(elements),
        weight.pointer,
        panel.pointer,
        weight.strides,
        (groups, filters, channels, *counts),
        tuple([axis.start for axis in taps]),
        tuple([axis.step for axis in taps]),
    )
    pixels = y.shape[0] * prod(y.shape[3:])
    multiply_filters.of(product).launch(
        dtype,
        stream,
        (ceil(pixels / TILE), ceil(filters / TILE), groups),
        panel.pointer,
        x.pointer,
        bias.pointer,
        y.pointer,
        x.strides,
        y.strides,
        x.shape,
        y.shape,
        counts,
        stride,
        before,
        dilation,
        bias.strides[0],
        bias.shape[0],
        int(relu),
    )
