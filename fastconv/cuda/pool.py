"""Pooling and its gradients: a thread for each number of the result.

    y[n,c,p]  = max_r x[n, c, p*stride + r*dilation - before],  or their sum, divided by the size
    dx[n,c,h] = sum over windows p that see pixel h of

        dy[n,c,p] where h is the place of the largest number,  or  dy[n,c,p] / size of the window

Neighbouring threads take neighbours in memory: pixels or, with channels last, channels. Arrays have
channels as their groups and three spatial axes, as in ``reference.py``.
"""

import math
from math import prod
from typing import Any

from numba import cuda
from numba.cuda import types

from ..geometry import ConvGeometry
from .arrays import Operand, dtype_of, stream_of
from .kernel import Kernel, blocks_for, kernel
from .reference import offset, unravel


@cuda.jit(device=True, inline="always")
def number_of(shape):
    """Numbers in an array."""
    return shape[0] * shape[1] * shape[2] * shape[3] * shape[4] * shape[5]


@cuda.jit(device=True, inline="always")
def split(i, shape, last):
    """Image, channel and pixel of thread ``i``; whether channels come last is a literal."""
    if last:
        n, d, h, w, c, _ = unravel(i, (shape[0], shape[3], shape[4], shape[5], shape[1], 1))
    else:
        n, c, _, d, h, w = unravel(i, shape)
    return n, c, d, h, w


@cuda.jit(device=True, inline="always")
def pixels_of(start, axis, extent, after, kernel, padded):
    """Pixels of a window that count for a mean, along one axis."""
    if padded:
        return min(start + kernel[axis], extent + after[axis]) - start
    return min(start + kernel[axis], extent) - max(start, 0)


@cuda.jit(device=True, inline="always")
def windows_around(pixel, axis, windows, stride, before, reach):
    """The first window that reaches over a pixel, and the one after the last."""
    place = pixel + before[axis]
    first = max((place - reach + stride[axis]) // stride[axis], 0)
    return first, min(place // stride[axis] + 1, windows)


# Pointers to x, y and indices; their strides; shapes of x and y; kernel, stride, before and
# dilation; whether y and indices are wanted.
@kernel("ppl666663333ii")
def max_windows(last, wide):
    """``y[n,c,p] = max_r x[n, c, p*stride + r*dilation - before]``, and which pixel that is."""

    least = -math.inf if wide in (types.float32, types.float64) else wide.minval

    def max_pool(
        x,
        y,
        found,
        xs,
        ys,
        fs,
        x_shape,
        y_shape,
        kernel,
        stride,
        before,
        dilation,
        valued,
        indexed,
    ):
        _, _, _, D, H, W = x_shape
        for i in range(cuda.grid(1), number_of(y_shape), cuda.gridsize(1)):
            n, c, o, p, q = split(i, y_shape, last)
            best, where = wide(least), -1
            for t in range(kernel[0]):
                d = o * stride[0] + t * dilation[0] - before[0]
                if d < 0 or d >= D:
                    continue
                for r in range(kernel[1]):
                    h = p * stride[1] + r * dilation[1] - before[1]
                    if h < 0 or h >= H:
                        continue
                    for s in range(kernel[2]):
                        w = q * stride[2] + s * dilation[2] - before[2]
                        if w < 0 or w >= W:
                            continue
                        number = wide(x[offset(xs, n, c, 0, d, h, w)])
                        # Or it is the first NaN.
                        if where < 0 or number > best or (number != number and best == best):
                            best, where = number, (d * H + h) * W + w
            if valued:
                y[offset(ys, n, c, 0, o, p, q)] = best
            if indexed:
                found[offset(fs, n, c, 0, o, p, q)] = where

    return max_pool


# Pointers to indices, dy and dx; their strides; shapes of y and x; kernel, stride, before and
# dilation.
@kernel("lpp666663333")
def max_gradient(last, wide):
    """``dx[n,c,h] = sum of dy[n,c,p]`` over the windows whose largest number is pixel h."""

    def max_pool_gradient(
        found, dy, dx, fs, ys, xs, y_shape, x_shape, kernel, stride, before, dilation
    ):
        _, _, _, O, P, Q = y_shape
        _, _, _, _, H, W = x_shape
        depth = (kernel[0] - 1) * dilation[0] + 1
        height = (kernel[1] - 1) * dilation[1] + 1
        width = (kernel[2] - 1) * dilation[2] + 1
        for i in range(cuda.grid(1), number_of(x_shape), cuda.gridsize(1)):
            n, c, d, h, w = split(i, x_shape, last)
            here, total = (d * H + h) * W + w, wide(0)
            o0, o1 = windows_around(d, 0, O, stride, before, depth)
            p0, p1 = windows_around(h, 1, P, stride, before, height)
            q0, q1 = windows_around(w, 2, Q, stride, before, width)
            for o in range(o0, o1):
                for p in range(p0, p1):
                    for q in range(q0, q1):
                        if found[offset(fs, n, c, 0, o, p, q)] == here:
                            total += wide(dy[offset(ys, n, c, 0, o, p, q)])
            dx[offset(xs, n, c, 0, d, h, w)] = total

    return max_pool_gradient


# Pointers to x and y; their strides and shapes; kernel, stride, before and after; whether pixels of
# the padding count.
@kernel("pp66663333i")
def mean_windows(last, wide):
    """``y[n,c,p] = sum_r x[n, c, p*stride + r - before] / size``"""

    def avg_pool(x, y, xs, ys, x_shape, y_shape, kernel, stride, before, after, padded):
        _, _, _, D, H, W = x_shape
        for i in range(cuda.grid(1), number_of(y_shape), cuda.gridsize(1)):
            n, c, o, p, q = split(i, y_shape, last)
            front = o * stride[0] - before[0]
            top = p * stride[1] - before[1]
            left = q * stride[2] - before[2]
            total = wide(0)
            for d in range(max(front, 0), min(front + kernel[0], D)):
                for h in range(max(top, 0), min(top + kernel[1], H)):
                    line = wide(0)  # added up by themselves, so that long sums lose less
                    for w in range(max(left, 0), min(left + kernel[2], W)):
                        line += wide(x[offset(xs, n, c, 0, d, h, w)])
                    total += line
            size = (
                pixels_of(front, 0, D, after, kernel, padded)
                * pixels_of(top, 1, H, after, kernel, padded)
                * pixels_of(left, 2, W, after, kernel, padded)
            )
            y[offset(ys, n, c, 0, o, p, q)] = total / wide(size)

    return avg_pool


# The same of dy and dx, y and x.
@kernel("pp66663333i")
def mean_gradient(last, wide):
    """``dx[n,c,h] = sum of dy[n,c,p] / size`` over the windows that see pixel h."""

    def avg_pool_gradient(dy, dx, ys, xs, y_shape, x_shape, kernel, stride, before, after, padded):
        _, _, _, O, P, Q = y_shape
        _, _, _, D, H, W = x_shape
        for i in range(cuda.grid(1), number_of(x_shape), cuda.gridsize(1)):
            n, c, d, h, w = split(i, x_shape, last)
            o0, o1 = windows_around(d, 0, O, stride, before, kernel[0])
            p0, p1 = windows_around(h, 1, P, stride, before, kernel[1])
            q0, q1 = windows_around(w, 2, Q, stride, before, kernel[2])
            total = wide(0)
            for o in range(o0, o1):
                planes = pixels_of(o * stride[0] - before[0], 0, D, after, kernel, padded)
                for p in range(p0, p1):
                    lines = pixels_of(p * stride[1] - before[1], 1, H, after, kernel, padded)
                    for q in range(q0, q1):
                        line = pixels_of(q * stride[2] - before[2], 2, W, after, kernel, padded)
                        share = wide(dy[offset(ys, n, c, 0, o, p, q)])
                        total += share / wide(planes * lines * line)
            dx[offset(xs, n, c, 0, d, h, w)] = total

    return avg_pool_gradient


def _launch(kernel: Kernel, result: Operand, like: Any, *arguments: Any) -> None:
    last = result.strides[1] == 1
    threads = blocks_for(prod(result.shape))
    kernel.of(last).launch(dtype_of(like), stream_of(like), threads, *arguments)


def max_pool(x: Operand, y: Operand, found: Operand | None, g: ConvGeometry, like: Any) -> None:
    """Write the largest numbers of windows into ``y``, and their indices into ``found``."""
    _find(x, y, found, g, like, valued=True)


def _find(
    x: Operand, y: Operand, found: Operand | None, g: ConvGeometry, like: Any, valued: bool
) -> None:
    indices = y if found is None else found  # which are not touched
    _launch(
        max_windows,
        y,
        like,
        *(x.pointer, y.pointer, indices.pointer, x.strides, y.strides, indices.strides),
        *(x.shape, y.shape, g.kernel, g.stride, g.before, g.dilation),
        *(int(valued), int(found is not None)),
    )


def max_pool_grad_input(
    dy: Operand, x: Operand, dx: Operand, found: Operand, g: ConvGeometry, like: Any
) -> None:
    """Write the gradient into ``dx``; ``found`` has room for the indices of all windows."""
    _find(x, dy, found, g, like, valued=False)
    _launch(
        max_gradient,
        dx,
        like,
        *(found.pointer, dy.pointer, dx.pointer, found.strides, dy.strides, dx.strides),
        *(dy.shape, dx.shape, g.kernel, g.stride, g.before, g.dilation),
    )


def avg_pool(x: Operand, y: Operand, g: ConvGeometry, padded: bool, like: Any) -> None:
    """Write the means of windows into ``y``."""
    _launch(
        mean_windows,
        y,
        like,
        *(x.pointer, y.pointer, x.strides, y.strides, x.shape, y.shape),
        *(g.kernel, g.stride, g.before, g.after, int(padded)),
    )


def avg_pool_grad_input(dy: Operand, dx: Operand, g: ConvGeometry, padded: bool, like: Any) -> None:
    """Write the gradient of the means into ``dx``."""
    _launch(
        mean_gradient,
        dx,
        like,
        *(dy.pointer, dx.pointer, dy.strides, dx.strides, dy.shape, dx.shape),
        *(g.kernel, g.stride, g.before, g.after, int(padded)),
    )
