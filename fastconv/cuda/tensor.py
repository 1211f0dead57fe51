"""Tiles multiplied by tensor cores, in TF32: float32 with 10 bits of fraction instead of 23.

A warp of 32 threads has 64 x 32 of the tile's sums. One instruction, ``mma``, adds 16 x 8 x 8
products, of which thread ``4*g + t`` holds

    a[g, t], a[8+g, t], a[g, t+4], a[8+g, t+4]          of 16 rows and 8 products in a sum
    b[t, g], b[t+4, g]                                  of 8 columns
    c[g, 2t], c[g, 2t+1], c[8+g, 2t], c[8+g, 2t+1]      of the sums

(PTX ISA, "Matrix multiply-accumulate operation using mma instruction", m16n8k8). What of the tile
is meant by row g or product t is free, so these are chosen such that a thread finds the four
numbers of ``a`` next to each other, and those of ``b`` of two instructions: product t is number 2t
of a sum and product t+4 the next, rows g and 8+g are neighbours, and so are the columns g of two
instructions. Loaded so, they lie in the registers that the instruction wants, where 66 moves to 16
instructions were needed otherwise.

For float32 that is to lose little, each number is cut in two of TF32, large and small: of the four
products small times small is left out (H. Ootomo and R. Yokota, arXiv:2203.03341).
"""

from numba import cuda
from numba.cuda import types

from ..plan.cuda import DEPTH, TILE
from .intrinsics import load4, mma, tf32
from .tile import Product

# From the numbers of one t to those of the next: 8 banks of shared memory further, so that no two
# threads of a quarter of a warp meet in one.
PITCH = 2 * TILE + 8
SIZE = 4 * PITCH

assert DEPTH == 8


@cuda.jit(device=True, inline="always")
def _whole(x):
    return x


@cuda.jit(device=True, inline="always")
def _panel(s, i):
    return s // 2 * (2 * TILE) + i // 2 * 4 + s % 2 * 2 + i % 2


@cuda.jit(device=True, inline="always")
def _vector(v):
    return v // (TILE // 2) * PITCH + v % (TILE // 2) * 4


@cuda.jit(device=True, inline="always")
def _put_row(rows, start, i, s, x0, x1, x2, x3):
    at = types.uint32(start + s // 2 * PITCH + i // 2 * 4 + i % 2)
    rows[at] = x0
    rows[at + 2] = x1
    rows[at + PITCH] = x2
    rows[at + PITCH + 2] = x3


@cuda.jit(device=True, inline="always")
def _put_col(cols, start, j, s, x0, x1, x2, x3):
    at = types.uint32(start + s // 2 * PITCH + 2 * j)
    cols[at] = x0
    cols[at + 1] = x1
    cols[at + PITCH] = x2
    cols[at + PITCH + 1] = x3


@cuda.jit(device=True, inline="always")
def _place(thread):
    lane, warp = thread % 32, thread // 32
    return warp % 2 * 64 + lane // 4 * 2, warp // 2 * 32 + lane % 4 * 4


@cuda.jit(device=True, inline="always")
def _row(first, i):
    return first + i // 2 * 16 + i % 2


@cuda.jit(device=True, inline="always")
def _col(second, j):
    return second + j // 4 * 16 + j % 4


@cuda.jit(device=True, inline="always")
def _load(rows, cols, start, first, second, a, b):
    """What a thread holds of the operands of 4 x 4 instructions."""
    lane = types.int32(cuda.threadIdx.x % 32)
    at = start + lane % 4 * PITCH
    for i in range(4):
        a[i, 0], a[i, 1], a[i, 2], a[i, 3] = load4(rows, at + 2 * (first + 16 * i))
    at += 2 * (second - lane % 4 * 4 + lane // 4 * 2)
    b[0, 0], b[0, 1], b[1, 0], b[1, 1] = load4(cols, at)
    b[2, 0], b[2, 1], b[3, 0], b[3, 1] = load4(cols, at + 32)


@cuda.jit(device=True, inline="always")
def _add(sums, i, j, a0, a1, a2, a3, b0, b1):
    top, bottom, left, right = 2 * i, 2 * i + 1, j // 2 * 4 + j % 2, j // 2 * 4 + j % 2 + 2
    c0, c1, c2, c3 = mma(
        sums[top, left],
        sums[top, right],
        sums[bottom, left],
        sums[bottom, right],
        a0,
        a1,
        a2,
        a3,
        b0,
        b1,
    )
    sums[top, left], sums[top, right], sums[bottom, left], sums[bottom, right] = c0, c1, c2, c3


@cuda.jit(device=True, inline="always")
def _multiply_rounded(rows, cols, start, first, second, sums):
    a = cuda.local.array((4, 4), types.float32)
    b = cuda.local.array((4, 2), types.float32)
    _load(rows, cols, start, first, second, a, b)
    for i in range(4):
        for j in range(4):
            _add(sums, i, j, a[i, 0], a[i, 1], a[i, 2], a[i, 3], b[j, 0], b[j, 1])


@cuda.jit(device=True, inline="always")
def _multiply_in_parts(rows, cols, start, first, second, sums):
    a = cuda.local.array((4, 4), types.float32)
    b = cuda.local.array((4, 2), types.float32)
    small = cuda.local.array(4, types.float32)
    _load(rows, cols, start, first, second, a, b)
    for i in range(4):
        a0, a1, a2, a3 = tf32(a[i, 0]), tf32(a[i, 1]), tf32(a[i, 2]), tf32(a[i, 3])
        small[0], small[1] = tf32(a[i, 0] - a0), tf32(a[i, 1] - a1)
        small[2], small[3] = tf32(a[i, 2] - a2), tf32(a[i, 3] - a3)
        for j in range(4):
            b0, b1 = tf32(b[j, 0]), tf32(b[j, 1])
            _add(sums, i, j, small[0], small[1], small[2], small[3], b0, b1)
            _add(sums, i, j, a0, a1, a2, a3, tf32(b[j, 0] - b0), tf32(b[j, 1] - b1))
            _add(sums, i, j, a0, a1, a2, a3, b0, b1)


_LAYOUT = (_panel, _vector, _put_row, _put_col, _place, _row, _col)

TF32 = Product(SIZE, tf32, *_LAYOUT, _multiply_rounded)
TF32_THRICE = Product(SIZE, _whole, *_LAYOUT, _multiply_in_parts)
