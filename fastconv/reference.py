"""The three maps as literal loops: read these first.

A convolution layer correlates an image ``x`` with a filter ``w``:

    y[p] = sum_r  x[p*stride + r*dilation - before] w[r]

If ``dy`` is the gradient of a loss with respect to ``y``, the chain rule gives its gradients with
respect to ``x`` and ``w``:

    dx[h] = sum_r  dy[(h + before - r*dilation) / stride] w[r]     where that is a whole number
    dw[r] = sum_p  dy[p] x[p*stride + r*dilation - before]

The third line is again a correlation, of ``x`` with ``dy``. So is the second: with stride 1,
putting ``r = R-1 - r'`` into it gives the first line, a correlation of ``dy`` with the *flipped*
filter ``w[R-1 - r']`` and with ``before' = (R-1)*dilation - before``.

Below, the same with all axes: image n, group g, its filters k and channels c, pixels (d, h, w) of
x and (o, p, q) of y, taps (t, r, s). Outside their extents x and dy are zero, and these zeros take
part in the sums. ``algorithm="reference"`` selects these functions, and under
``NUMBA_DISABLE_JIT=1`` a debugger steps through them.
"""

from typing import Any

from numba import njit, types

from .caching import PerDtype


def _compiled(*ndims: int) -> Any:
    """Compile a map on demand: arrays of ``ndims`` axes, three triples of integers, the result."""

    def signature(scalar: types.Type) -> Any:
        arrays = [types.Array(scalar, ndim, "C", readonly=True) for ndim in ndims]
        triples = [types.UniTuple(types.int64, 3)] * 3
        return types.void(*arrays, *triples, types.Array(scalar, 6, "C"))

    return lambda function: PerDtype(function, signature, nogil=True)


@njit
def pixel(x, n, g, c, d, h, w):
    """``x[n, g, c, d, h, w]``, zero outside the image."""
    D, H, W = x.shape[3:]
    if 0 <= d < D and 0 <= h < H and 0 <= w < W:
        return x[n, g, c, d, h, w]
    return x.dtype.type(0)


@_compiled(6, 6, 1)
def forward(x, weight, bias, stride, before, dilation, y):
    """``y[n,k,p] = bias[k] + sum_c sum_r x[n, c, p*stride + r*dilation - before] w[k,c,r]``."""
    N, G, K, O, P, Q = y.shape
    C, (T, R, S) = weight.shape[2], weight.shape[3:]
    for n in range(N):
        for g in range(G):
            for k in range(K):
                for o in range(O):
                    for p in range(P):
                        for q in range(Q):
                            total = bias[g * K + k]
                            for c in range(C):
                                for t in range(T):
                                    d = o * stride[0] + t * dilation[0] - before[0]
                                    for r in range(R):
                                        h = p * stride[1] + r * dilation[1] - before[1]
                                        for s in range(S):
                                            w = q * stride[2] + s * dilation[2] - before[2]
                                            total += (
                                                pixel(x, n, g, c, d, h, w)
                                                * weight[g, k, c, t, r, s]
                                            )
                            y[n, g, k, o, p, q] = total


@_compiled(6, 6, 1)
def grad_input(dy, weight, bias, stride, before, dilation, dx):
    """``dx[n,c,h] = bias[c] + sum_k sum_r dy[n, k, (h + before - r*dilation) / stride] w[k,c,r]``.

    Terms whose quotient is not whole are left out. The bias is that of a transposed convolution.
    """
    N, G, C, D, H, W = dx.shape
    K, (T, R, S) = weight.shape[1], weight.shape[3:]
    for n in range(N):
        for g in range(G):
            for c in range(C):
                for d in range(D):
                    for h in range(H):
                        for w in range(W):
                            total = bias[g * C + c]
                            for k in range(K):
                                for t in range(T):
                                    o = d + before[0] - t * dilation[0]
                                    for r in range(R):
                                        p = h + before[1] - r * dilation[1]
                                        for s in range(S):
                                            q = w + before[2] - s * dilation[2]
                                            if (
                                                o % stride[0] == 0
                                                and p % stride[1] == 0
                                                and q % stride[2] == 0
                                            ):
                                                total += (
                                                    pixel(
                                                        dy,
                                                        n,
                                                        g,
                                                        k,
                                                        o // stride[0],
                                                        p // stride[1],
                                                        q // stride[2],
                                                    )
                                                    * weight[g, k, c, t, r, s]
                                                )
                            dx[n, g, c, d, h, w] = total


@_compiled(6, 6)
def grad_weight(dy, x, stride, before, dilation, dw):
    """``dw[k,c,r] = sum_n sum_p dy[n,k,p] x[n, c, p*stride + r*dilation - before]``."""
    G, K, C, T, R, S = dw.shape
    N, (O, P, Q) = dy.shape[0], dy.shape[3:]
    for g in range(G):
        for k in range(K):
            for c in range(C):
                for t in range(T):
                    for r in range(R):
                        for s in range(S):
                            total = dw.dtype.type(0)
                            for n in range(N):
                                for o in range(O):
                                    d = o * stride[0] + t * dilation[0] - before[0]
                                    for p in range(P):
                                        h = p * stride[1] + r * dilation[1] - before[1]
                                        for q in range(Q):
                                            w = q * stride[2] + s * dilation[2] - before[2]
                                            total += dy[n, g, k, o, p, q] * pixel(
                                                x, n, g, c, d, h, w
                                            )
                            dw[g, k, c, t, r, s] = total
