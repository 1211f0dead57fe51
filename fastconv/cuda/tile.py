"""A block's share of a product of matrices: 128 x 128 sums, 8 x 8 in the registers of each thread.

    sums[i, j] += sum_s  rows[s, i] * cols[s, j]

Tiles of DEPTH rows of both operands lie in shared memory, twice, so that the next ones are fetched
while these are multiplied: see ``implicit_gemm.py`` and ``split_k.py``.
"""

from numba import cuda
from numba.cuda import types

from .intrinsics import load4

# 256 threads of 64 sums: with each 16 loaded numbers, a step makes 64 multiply-adds.
TILE, DEPTH, OWN = 128, 8, 8
BUFFER = DEPTH * TILE  # elements of one operand's tile
BUFFERS = 2 * BUFFER


@cuda.jit(device=True, inline="always")
def multiply(rows, cols, start, first, second, sums):
    """Add the products of two tiles to a thread's sums.

    The thread's rows are 4 from ``first`` and 4 from half a tile later, its columns likewise from
    ``second``; ``start`` is where the tiles begin in the arrays.
    """
    a = cuda.local.array(OWN, types.float32)
    b = cuda.local.array(OWN, types.float32)
    # Single steps spend a fifth of their instructions on counting; four need more registers.
    for s in range(0, DEPTH, 2):
        at = start + s * TILE
        _multiply_step(rows, cols, at + first, at + second, a, b, sums)
        _multiply_step(rows, cols, at + first + TILE, at + second + TILE, a, b, sums)


@cuda.jit(device=True, inline="always")
def _multiply_step(rows, cols, first, second, a, b, sums):
    a[0], a[1], a[2], a[3] = load4(rows, first)
    a[4], a[5], a[6], a[7] = load4(rows, first + TILE // 2)
    b[0], b[1], b[2], b[3] = load4(cols, second)
    b[4], b[5], b[6], b[7] = load4(cols, second + TILE // 2)
    for i in range(OWN):
        for j in range(OWN):
            sums[i, j] += a[i] * b[j]


@cuda.jit(device=True, inline="always")
def own(first, i):
    """Which row or column of the tile a thread's number ``i`` is."""
    return first + i % 4 + i // 4 * (TILE // 2)
