"""Tiles multiplied in float32, by the multiply-add units of each thread."""

from numba import cuda
from numba.cuda import types

from ..plan.cuda import DEPTH, TILE
from .intrinsics import load4
from .tile import OWN, Product

HALF = TILE // 2


@cuda.jit(device=True, inline="always")
def _rounded(x):
    return x


@cuda.jit(device=True, inline="always")
def _panel(s, i):
    return s * TILE + i


@cuda.jit(device=True, inline="always")
def _vector(v):
    return 4 * v


@cuda.jit(device=True, inline="always")
def _put(tile, start, i, s, x0, x1, x2, x3):
    at = types.uint32(start + s * TILE + i)
    tile[at] = x0
    tile[at + TILE] = x1
    tile[at + 2 * TILE] = x2
    tile[at + 3 * TILE] = x3


@cuda.jit(device=True, inline="always")
def _place(thread):
    return thread // 16 * 4, thread % 16 * 4


@cuda.jit(device=True, inline="always")
def _own(first, i):
    return first + i % 4 + i // 4 * HALF


@cuda.jit(device=True, inline="always")
def _multiply(rows, cols, start, first, second, sums):
    a = cuda.local.array(OWN, types.float32)
    b = cuda.local.array(OWN, types.float32)
    # Single steps spend a fifth of their instructions on counting; four need more registers.
    for s in range(types.int32(0), types.int32(DEPTH), types.int32(2)):
        at = types.int32(start + s * TILE)
        _multiply_step(rows, cols, at + first, at + second, a, b, sums)
        _multiply_step(rows, cols, at + first + TILE, at + second + TILE, a, b, sums)


@cuda.jit(device=True, inline="always")
def _multiply_step(rows, cols, first, second, a, b, sums):
    # With each 16 loaded numbers, 64 multiply-adds.
    a[0], a[1], a[2], a[3] = load4(rows, first)
    a[4], a[5], a[6], a[7] = load4(rows, first + HALF)
    b[0], b[1], b[2], b[3] = load4(cols, second)
    b[4], b[5], b[6], b[7] = load4(cols, second + HALF)
    for i in range(OWN):
        for j in range(OWN):
            sums[i, j] += a[i] * b[j]


PRODUCT = Product(
    DEPTH * TILE, _rounded, _panel, _vector, _put, _put, _place, _own, _own, _multiply
)
