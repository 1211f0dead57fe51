"""What one would write without a deep learning framework: SciPy's filters, im2col in NumPy."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .contestant import Array, Call, Contestant, Operands
from .suites import FLOAT_BYTES, Layer

MAX_UNFOLDED_BYTES = 2**30


class SciPy(Contestant):
    """Single-channel images: ``scipy.signal`` (direct or by FFT) and ``scipy.ndimage``."""

    peer = "scipy"

    def __init__(self, threads: int, way: str) -> None:
        self._signal = import_module("scipy.signal")
        self._ndimage = import_module("scipy.ndimage")
        self._fft = import_module("scipy.fft")
        self._threads = threads
        self._way = way
        self.name = f"scipy {way}"

    @contextmanager
    def active(self) -> Iterator[None]:
        with self._fft.set_workers(self._threads):
            yield

    def supports(self, layer: Layer, map_name: str) -> bool:
        single = layer.x_shape[:2] == (1, 1) and layer.weight_shape[0] == 1
        dense = set(layer.stride + layer.dilation) == {1}
        taps = layer.weight_shape[2:]
        same = all(2 * p == r - 1 for p, r in zip(layer.padding, taps, strict=True))
        return map_name == "forward" and single and dense and same

    def prepare(self, layer: Layer, map_name: str, operands: Operands) -> Call:
        x, weight = operands.x[0, 0], operands.weight[0, 0]
        if self._way == "ndimage":
            ndimage = self._ndimage
            return lambda: ndimage.correlate(x, weight, mode="constant")
        if self._way == "oaconvolve":
            oaconvolve, flipped = self._signal.oaconvolve, np.flip(weight)
            return lambda: oaconvolve(x, flipped, mode="same")
        correlate = self._signal.correlate  # it chooses between the sums and an FFT
        return lambda: correlate(x, weight, mode="same")

    def to_numpy(self, result: Any, layer: Layer, map_name: str) -> Array:
        return np.asarray(result)[None, None]


class NumPyIm2col(Contestant):
    """Every window copied to a column of a matrix, the rest left to ``matmul``."""

    name = peer = "numpy"
    settle = 0.05  # OpenBLAS keeps its threads spinning for 2^26 cycles, 26 ms at 2.6 GHz

    def __init__(self, threads: int) -> None:
        self._threads = threads

    @contextmanager
    def active(self) -> Iterator[None]:
        if find_spec("threadpoolctl") is None:  # without it: as many threads as NumPy likes
            yield
            return
        with import_module("threadpoolctl").threadpool_limits(self._threads, user_api="blas"):
            yield

    def supports(self, layer: Layer, map_name: str) -> bool:
        g = layer.geometry
        pixels = layer.x_shape[0] * prod(g.output)
        return pixels * g.in_channels * prod(g.kernel) * FLOAT_BYTES <= MAX_UNFOLDED_BYTES

    def prepare(self, layer: Layer, map_name: str, operands: Operands) -> Call:
        g = layer.geometry
        x = operands.x
        weight = operands.weight.reshape(g.groups, g.out_channels // g.groups, -1)
        dy = operands.dy.reshape(*g.y_shape[:3], -1)
        if map_name == "forward":
            return lambda: (weight @ im2col(x, layer)).reshape(layer.y_shape)
        if map_name == "grad_input":
            transposed = weight.swapaxes(1, 2)
            return lambda: col2im(transposed @ dy, layer)

        def grad_weight() -> Array:
            # The sum runs over the batch as well: one product of matrices for each group.
            rows = np.moveaxis(dy, 0, 2).reshape(*g.y_shape[1:3], -1)
            columns = im2col(x, layer, batch_last=True)
            return np.asarray((rows @ columns.swapaxes(1, 2)).reshape(layer.weight_shape))

        return grad_weight


def _taps(layer: Layer) -> Iterator[tuple[slice, ...]]:
    """For each tap, where it meets the padded image."""
    axes = [
        [slice(r * d, r * d + (n - 1) * s + 1, s) for r in range(taps)]
        for taps, d, n, s in zip(
            layer.weight_shape[2:], layer.dilation, layer.y_shape[2:], layer.stride, strict=True
        )
    ]
    yield from product(*axes)


def im2col(x: Array, layer: Layer, batch_last: bool = False) -> Array:
    """Windows of ``x`` as columns.

    Of shape (N, G, channels and taps of a group, pixels), or with ``batch_last`` of
    (G, channels and taps of a group, images and pixels).
    """
    ndim = layer.ndim
    padded = x
    if any(layer.padding):
        padded = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in layer.padding)])
    reach = [(r - 1) * d + 1 for r, d in zip(layer.weight_shape[2:], layer.dilation, strict=True)]
    axes = tuple(range(2, 2 + ndim))
    windows = sliding_window_view(padded, reach, axis=axes)
    steps = [slice(None, None, s) for s in layer.stride + layer.dilation]
    windows = windows[:, :, *steps]
    columns = np.moveaxis(windows, range(2 + ndim, 2 + 2 * ndim), axes)
    rows = layer.weight_shape[1] * prod(layer.weight_shape[2:])
    if batch_last:
        columns = np.moveaxis(columns, 0, 1 + ndim)
        return np.ascontiguousarray(columns).reshape(layer.groups, rows, -1)
    return np.ascontiguousarray(columns).reshape(x.shape[0], layer.groups, rows, -1)


def col2im(columns: Array, layer: Layer) -> Array:
    """Adjoint of ``im2col``: adds every column back where its window was."""
    padded = [n + 2 * p for n, p in zip(layer.x_shape[2:], layer.padding, strict=True)]
    image = np.zeros((*layer.x_shape[:2], *padded), columns.dtype)
    taps = prod(layer.weight_shape[2:])
    parts = columns.reshape(*layer.x_shape[:2], taps, *layer.y_shape[2:])
    for tap, place in enumerate(_taps(layer)):
        image[:, :, *place] += parts[:, :, tap]
    inside = [slice(p, p + n) for n, p in zip(layer.x_shape[2:], layer.padding, strict=True)]
    return image[:, :, *inside]
