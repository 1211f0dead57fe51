"""Loops that do nothing but multiply and add, or nothing but move memory."""

import numpy as np
from numba import njit, prange

from ..cpu.kernel import device, inline
from ..cpu.simd import broadcast, fma, lanes, store, tile
from ..host import VECTOR_REGISTERS

# Independent chains of multiply-adds: two units times four cycles of latency need 8, and a quarter
# of the registers stay free.
CHAINS = 3 * VECTOR_REGISTERS // 4


@inline
def _chains(x, steps, out, slot, chains):
    # out[slot, j] = steps * x[0]**2
    acc = tile(out, 1, chains)
    factor = broadcast(x, 0)
    for _ in range(steps):
        for j in range(chains):
            acc[0, j] = fma(factor, factor, acc[0, j])
    for j in range(chains):
        store(out, (slot * chains + j) * lanes(out), acc[0, j])


# A function of its own: inside the parallel loop the accumulators would stay in memory.
@device
def _multiply_adds(x, steps, out, slot):
    _chains(x, steps, out, slot, CHAINS)


@njit(parallel=True)
def multiply_adds(x, steps, threads, out):
    """``steps`` multiply-adds of ``CHAINS`` vectors on each thread."""
    for slot in prange(threads):
        _multiply_adds(x, steps, out, slot)


@njit(parallel=True, fastmath=True)
def triad(a, b, c):
    """``a = b + c / 2``"""
    for i in prange(a.size):
        a[i] = b[i] + np.float32(0.5) * c[i]


@njit(parallel=True)
def copy(a, b):
    """``a = b``"""
    for i in prange(a.size):
        a[i] = b[i]
