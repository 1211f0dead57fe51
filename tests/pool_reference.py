"""The oracle for poolings: plain NumPy in float64, independent of the package.

Every window is gathered whole, from an image padded far enough, beside which a mask says what is no
padding and an array which pixel is which.
"""

import itertools

import numpy as np

from .reference import tuple_of


class Windows:
    """Where the windows of images of these extents lie, padding included."""

    def __init__(self, extents, kernel, stride=None, padding=0, dilation=1, ceil_mode=False):
        ndim = len(extents)
        self.extents, self.kernel = extents, tuple_of(kernel, ndim)
        stride = self.kernel if stride is None else tuple_of(stride, ndim)
        self.dilation = tuple_of(dilation, ndim)
        pairs = [padding] * ndim if isinstance(padding, int) else padding
        self.pairs = [(p, p) if isinstance(p, int) else p for p in pairs]
        self.starts = []
        for n, k, s, (before, after), d in zip(
            extents, self.kernel, stride, self.pairs, self.dilation, strict=True
        ):
            last = before + n + after - ((k - 1) * d + 1)
            if ceil_mode:
                # As many as cover everything, but none that starts behind the image.
                last = min(last + s - 1, before + n - 1)
            self.starts.append(np.arange(0, last + 1, s))

    @property
    def shape(self):
        return tuple(map(len, self.starts))

    def padded(self, images, fill):
        # To the far end of the last window, or of the padding.
        widths = []
        for n, k, (before, _), d, starts in zip(
            self.extents, self.kernel, self.pairs, self.dilation, self.starts, strict=True
        ):
            end = starts[-1] + (k - 1) * d + 1
            widths.append((before, max(end - before - n, 0)))
        none = [(0, 0)] * (images.ndim - len(widths))
        return np.pad(images, [*none, *widths], constant_values=fill)

    def places(self, taps):
        """Index of the pixels of a padded image at one tap of all windows."""
        axes = zip(self.starts, taps, self.dilation, strict=True)
        return (..., *np.ix_(*[starts + tap * d for starts, tap, d in axes]))

    def taps(self):
        return itertools.product(*map(range, self.kernel))

    def gathered(self, images, fill):
        """(..., *windows, taps)"""
        padded = self.padded(images, fill)
        return np.stack([padded[self.places(taps)] for taps in self.taps()], axis=-1)

    def sizes(self, count_include_pad):
        """Pixels of each window: of the image and, if they count, of the padding."""
        sizes = np.ones(())
        for n, k, (before, after), starts in zip(
            self.extents, self.kernel, self.pairs, self.starts, strict=True
        ):
            first, end = (0, before + n + after) if count_include_pad else (before, before + n)
            seen = starts[:, None] + np.arange(k)
            sizes = np.multiply.outer(sizes, ((first <= seen) & (seen < end)).sum(axis=1))
        return sizes


def max_pool(x, *windows, **more):
    """Results and indices."""
    w = Windows(x.shape[2:], *windows, **more)
    numbers = w.gathered(x.astype(np.float64), -np.inf)
    pixels = w.gathered(np.arange(np.prod(w.extents)).reshape(w.extents), -1)
    pixels = np.broadcast_to(pixels, numbers.shape)
    nan = np.isnan(numbers)
    largest = np.where(nan, -np.inf, numbers).max(axis=-1, keepdims=True)
    best = np.where(nan.any(axis=-1, keepdims=True), nan, numbers == largest) & (pixels >= 0)
    first = best.argmax(axis=-1)[..., None]
    indices = np.where(best.any(axis=-1), np.take_along_axis(pixels, first, -1)[..., 0], -1)
    return np.where(nan.any(axis=-1), np.nan, largest[..., 0]), indices


def max_pool_grad_input(dy, x, *windows, **more):
    _, indices = max_pool(x, *windows, **more)
    batch, channels = x.shape[:2]
    dx = np.zeros((batch, channels, int(np.prod(x.shape[2:])) + 1))  # the last is for index -1
    for n, c in np.ndindex(batch, channels):
        np.add.at(dx[n, c], indices[n, c].ravel(), dy[n, c].astype(np.float64).ravel())
    return dx[..., :-1].reshape(x.shape)


def avg_pool(x, *windows, count_include_pad=True, **more):
    w = Windows(x.shape[2:], *windows, **more)
    return w.gathered(x.astype(np.float64), 0).sum(axis=-1) / w.sizes(count_include_pad)


def avg_pool_grad_input(dy, input_shape, *windows, count_include_pad=True, **more):
    w = Windows(input_shape[2:], *windows, **more)
    shares = dy.astype(np.float64) / w.sizes(count_include_pad)
    dx = w.padded(np.zeros(input_shape), 0)
    for taps in w.taps():
        dx[w.places(taps)] += shares
    inner = [slice(b, b + n) for (b, _), n in zip(w.pairs, w.extents, strict=True)]
    return dx[(..., *inner)]
