"""The formulas as literal loops on the device: a thread for each element of the result.

The twin of ``reference.py``: slow, plain, and what the other kernels are compared with. Arrays have
groups as an axis of their own and three spatial axes; shapes, strides and taps are named as there.
"""

from numba import cuda

from .kernel import kernel

# Pointers to x, weight, bias and y, or to what has their place in other maps; strides and shapes
# of all but the bias; stride, before and dilation; the bias's stride and length, 0 for none;
# whether 0 takes the place of results below it.
PARAMETERS = "pppp666666333iii"


@cuda.jit(device=True, inline="always")
def unravel(i, shape):
    """Indices of element ``i``, in C order, of an array of 6 axes."""
    i5 = i % shape[5]
    i //= shape[5]
    i4 = i % shape[4]
    i //= shape[4]
    i3 = i % shape[3]
    i //= shape[3]
    i2 = i % shape[2]
    i //= shape[2]
    return i // shape[1], i % shape[1], i2, i3, i4, i5


@cuda.jit(device=True, inline="always")
def offset(strides, i0, i1, i2, i3, i4, i5):
    """Where an element lies."""
    return (
        i0 * strides[0]
        + i1 * strides[1]
        + i2 * strides[2]
        + i3 * strides[3]
        + i4 * strides[4]
        + i5 * strides[5]
    )


@kernel(PARAMETERS)
def forward(wide):
    """``y[n,k,p] = bias[k] + sum_c sum_r x[n, c, p*stride + r*dilation - before] w[k,c,r]``"""

    def reference_forward(
        x,
        weight,
        bias,
        y,
        xs,
        ws,
        ys,
        x_shape,
        w_shape,
        y_shape,
        stride,
        before,
        dilation,
        bias_step,
        biases,
        relu,
    ):
        _, _, C, D, H, W = x_shape
        _, K, _, T, R, S = w_shape
        elements = y_shape[0] * y_shape[1] * y_shape[2] * y_shape[3] * y_shape[4] * y_shape[5]
        for i in range(cuda.grid(1), elements, cuda.gridsize(1)):
            n, g, k, o, p, q = unravel(i, y_shape)
            total = wide(bias[(g * K + k) * bias_step]) if biases else wide(0)
            for c in range(C):
                for t in range(T):
                    d = o * stride[0] + t * dilation[0] - before[0]
                    if d < 0 or d >= D:
                        continue
                    for r in range(R):
                        h = p * stride[1] + r * dilation[1] - before[1]
                        if h < 0 or h >= H:
                            continue
                        for s in range(S):
                            w = q * stride[2] + s * dilation[2] - before[2]
                            if w >= 0 and w < W:
                                seen = wide(x[offset(xs, n, g, c, d, h, w)])
                                total += seen * wide(weight[offset(ws, g, k, c, t, r, s)])
            if relu and total <= wide(0):
                total = wide(0)
            y[offset(ys, n, g, k, o, p, q)] = total

    return reference_forward


@kernel(PARAMETERS)
def grad_input(wide):
    """``dx[n,c,h] = bias[c] + sum_k sum_r dy[n, k, (h + before - r*dilation) / stride] w[k,c,r]``

    over whole quotients.
    """

    def reference_grad_input(
        dy,
        weight,
        bias,
        dx,
        ys,
        ws,
        xs,
        y_shape,
        w_shape,
        x_shape,
        stride,
        before,
        dilation,
        bias_step,
        biases,
        relu,
    ):
        _, _, K, O, P, Q = y_shape
        _, _, C, T, R, S = w_shape
        elements = x_shape[0] * x_shape[1] * x_shape[2] * x_shape[3] * x_shape[4] * x_shape[5]
        for i in range(cuda.grid(1), elements, cuda.gridsize(1)):
            n, g, c, d, h, w = unravel(i, x_shape)
            total = wide(bias[(g * C + c) * bias_step]) if biases else wide(0)
            for k in range(K):
                for t in range(T):
                    o = d + before[0] - t * dilation[0]
                    if o % stride[0] != 0 or o < 0 or o // stride[0] >= O:
                        continue
                    for r in range(R):
                        p = h + before[1] - r * dilation[1]
                        if p % stride[1] != 0 or p < 0 or p // stride[1] >= P:
                            continue
                        for s in range(S):
                            q = w + before[2] - s * dilation[2]
                            if q % stride[2] == 0 and q >= 0 and q // stride[2] < Q:
                                at = offset(
                                    ys, n, g, k, o // stride[0], p // stride[1], q // stride[2]
                                )
                                total += wide(dy[at]) * wide(weight[offset(ws, g, k, c, t, r, s)])
            if relu and total <= wide(0):
                total = wide(0)
            dx[offset(xs, n, g, c, d, h, w)] = total

    return reference_grad_input


@kernel(PARAMETERS)
def grad_weight(wide):
    """``dw[k,c,r] = sum_n sum_p dy[n,k,p] x[n, c, p*stride + r*dilation - before]``"""

    def reference_grad_weight(
        dy,
        x,
        unused,
        dw,
        ys,
        xs,
        ws,
        y_shape,
        x_shape,
        w_shape,
        stride,
        before,
        dilation,
        bias_step,
        biases,
        relu,
    ):
        N, _, _, O, P, Q = y_shape
        _, _, _, D, H, W = x_shape
        elements = w_shape[0] * w_shape[1] * w_shape[2] * w_shape[3] * w_shape[4] * w_shape[5]
        for i in range(cuda.grid(1), elements, cuda.gridsize(1)):
            g, k, c, t, r, s = unravel(i, w_shape)
            total = wide(0)
            for n in range(N):
                for o in range(O):
                    d = o * stride[0] + t * dilation[0] - before[0]
                    if d < 0 or d >= D:
                        continue
                    for p in range(P):
                        h = p * stride[1] + r * dilation[1] - before[1]
                        if h < 0 or h >= H:
                            continue
                        line = wide(0)  # added up by themselves, so that long sums lose less
                        for q in range(Q):
                            w = q * stride[2] + s * dilation[2] - before[2]
                            if w >= 0 and w < W:
                                seen = wide(x[offset(xs, n, g, c, d, h, w)])
                                line += wide(dy[offset(ys, n, g, k, o, p, q)]) * seen
                        total += line
            dw[offset(ws, g, k, c, t, r, s)] = total

    return reference_grad_weight


@kernel("pp66")
def grad_bias(wide):
    """``db[k] = sum_n sum_p dy[n,k,p]``"""

    def reference_grad_bias(dy, db, ys, y_shape):
        N, G, K, O, P, Q = y_shape
        for i in range(cuda.grid(1), G * K, cuda.gridsize(1)):
            total = wide(0)
            for n in range(N):
                for o in range(O):
                    for p in range(P):
                        line = wide(0)
                        for q in range(Q):
                            line += wide(dy[offset(ys, n, i // K, i % K, o, p, q)])
                        total += line
            db[i] = total

    return reference_grad_bias
