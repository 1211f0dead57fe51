"""Sums that are shared out to several blocks, and added up in order: the same bits every time."""

from math import prod
from typing import Any

from numba import cuda

from ..plan.cuda import shares_of
from .arrays import Operand, dtype_of, empty_like, operand, stream_of
from .kernel import blocks_for, kernel, wide_dtype
from .reference import offset, unravel


# Pointers to work and dw; dw's strides and shape; shares.
@kernel("wp66i")
def add_shares(wide):
    """``dw[g,k,c,r] = sum_share work[share,g,k,c,r]``"""

    def add(work, dw, ws, w_shape, shares):
        G, K, C, T, R, S = w_shape
        elements = G * K * C * T * R * S
        for i in range(cuda.grid(1), elements, cuda.gridsize(1)):
            total = wide(0)
            for share in range(shares):
                total += work[share * elements + i]
            g, k, c, t, r, s = unravel(i, w_shape)
            dw[offset(ws, g, k, c, t, r, s)] = total

    return add


class Shares:
    """Room for the sums of ``count`` shares of all lines (n, o, p) of ``dy``.

    Parameters
    ----------
    blocks : int
        Of one share.
    dy, dw : Operand
        (N, G, K/G, O, P, Q), (G, K/G, C/G, T, R, S)
    like
        The caller's array whose library, dtype and stream serve for everything.

    Attributes
    ----------
    count : int
    work : Operand
        (count, *dw.shape), to be written.
    """

    def __init__(self, blocks: int, dy: Operand, dw: Operand, like: Any) -> None:
        self.count = shares_of(blocks, prod((dy.shape[0], *dy.shape[3:5])))
        self._dw, self._like = dw, like
        elements = self.count * prod(dw.shape)
        self.work = operand(empty_like(like, (elements,), wide_dtype(dtype_of(like))))

    def add_up(self) -> None:
        """Write the sums over all shares into ``dw``."""
        add_shares.launch(
            dtype_of(self._like),
            stream_of(self._like),
            blocks_for(prod(self._dw.shape)),
            self.work.pointer,
            self._dw.pointer,
            self._dw.strides,
            self._dw.shape,
            self.count,
        )
