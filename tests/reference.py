"""The oracle: convolution in plain NumPy, independent of the package.

It computes in float64, complex128 or Python's integers (arrays of objects), and by another way than
the package does: pad, view all windows, and contract with einsum. Gradients
are read off the same windows, the one of the input by scattering, tap by tap.
"""

import itertools

import numpy as np

LETTERS = "uvwxyz"

# What NumPy calls them.
MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pairs_of(padding, extents, reach, stride):
    """Padding as (before, after) pairs, by the definitions of "same" and "valid"."""
    ndim = len(extents)
    if padding == "valid":
        return [(0, 0)] * ndim
    if padding == "same":
        total = [
            max((-(-n // s) - 1) * s + r - n, 0)
            for n, r, s in zip(extents, reach, stride, strict=True)
        ]
        return [(t // 2, t - t // 2) for t in total]
    if isinstance(padding, int):
        return [(padding, padding)] * ndim
    return [(p, p) if isinstance(p, int) else tuple(p) for p in padding]


def tuple_of(value, ndim):
    return (value,) * ndim if isinstance(value, int) else tuple(value)


def wide(x):
    """The same numbers in a dtype for sums."""
    kind = x.dtype.kind
    return x if kind == "O" else x.astype(np.complex128 if kind == "c" else np.float64)


def pad(x, pairs, mode):
    """``numpy.pad`` of all axes after the second, where negative numbers crop."""
    widths = [(max(before, 0), max(after, 0)) for before, after in pairs]
    # NumPy's own zero, of 64 bits, would be out of place among Python's integers.
    zero = {"constant_values": np.zeros((), x.dtype)} if mode == "zeros" else {}
    padded = np.pad(x, [(0, 0), (0, 0), *widths], MODES[mode], **zero)
    inner = [
        slice(max(-before, 0), n - max(-after, 0))
        for (before, after), n in zip(pairs, padded.shape[2:], strict=True)
    ]
    return padded[(..., *inner)]


def unpad(padded, extents, pairs, mode):
    """The adjoint of ``pad``, by scattering: each position adds to the pixel that it shows."""
    for axis, (n, pair) in enumerate(zip(extents, pairs, strict=True), 2):
        # Pixels count from 1, so that 0 stands for none.
        shown = pad(np.arange(1, n + 1)[None, None], [pair], mode)[0, 0]
        sums = np.zeros((n + 1, *np.moveaxis(padded, axis, 0).shape[1:]), padded.dtype)
        np.add.at(sums, shown, np.moveaxis(padded, axis, 0))
        padded = np.moveaxis(sums[1:], 0, axis)
    return padded


def grouped_channels(x, groups):
    """(N, C, ...) as (N, G, C/G, ...), wide."""
    return wide(x).reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])


class Windows:
    """All windows of a padded image: a view (N, G, C/G, *pixels, *taps)."""

    def __init__(self, x, kernel, stride, padding, dilation, groups, padding_mode="zeros"):
        ndim = len(kernel)
        stride, dilation = tuple_of(stride, ndim), tuple_of(dilation, ndim)
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        self.pairs = pairs_of(padding, x.shape[2:], reach, stride)
        self.padded = pad(wide(x), self.pairs, padding_mode)
        axes = tuple(range(2, 2 + ndim))
        view = np.lib.stride_tricks.sliding_window_view(self.padded, reach, axes, writeable=True)
        steps = [slice(None, None, s) for s in stride] + [slice(None, None, d) for d in dilation]
        view = view[(slice(None), slice(None), *steps)]
        self.view = view.reshape(x.shape[0], groups, x.shape[1] // groups, *view.shape[2:])
        self.shape = view.shape[2 : 2 + ndim]
        self.stride, self.dilation, self.kernel = stride, dilation, kernel
        self.pixels, self.taps = LETTERS[:ndim], LETTERS[3 : 3 + ndim]


def conv(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros"):
    w = wide(weight).reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    v = Windows(x, weight.shape[2:], stride, padding, dilation, groups, padding_mode)
    rule = f"ngc{v.pixels}{v.taps},gkc{v.taps}->ngk{v.pixels}"
    y = np.einsum(rule, v.view, w, optimize=True).reshape(x.shape[0], weight.shape[0], *v.shape)
    return y if bias is None else y + wide(bias).reshape(-1, *[1] * len(v.shape))


def conv_grad_weight(
    dy, x, weight_shape, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros"
):
    v = Windows(x, weight_shape[2:], stride, padding, dilation, groups, padding_mode)
    grouped = grouped_channels(dy, groups)
    rule = f"ngc{v.pixels}{v.taps},ngk{v.pixels}->gkc{v.taps}"
    return np.einsum(rule, v.view, grouped, optimize=True).reshape(weight_shape)


def conv_grad_input(
    dy, weight, input_shape, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros"
):
    v = Windows(np.zeros(input_shape), weight.shape[2:], stride, padding, dilation, groups)
    w = wide(weight).reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    grouped = grouped_channels(dy, groups)
    dx = grouped_channels(np.zeros(v.padded.shape, grouped.dtype), groups)
    for taps in itertools.product(*map(range, v.kernel)):
        place = tuple(
            slice(t * d, t * d + (p - 1) * s + 1, s)
            for t, d, p, s in zip(taps, v.dilation, dy.shape[2:], v.stride, strict=True)
        )
        rule = f"ngk{v.pixels},gkc->ngc{v.pixels}"
        dx[(..., *place)] += np.einsum(rule, grouped, w[(..., *taps)], optimize=True)
    return unpad(dx.reshape(v.padded.shape), input_shape[2:], v.pairs, padding_mode)


def conv_transpose(
    x,
    weight,
    bias=None,
    stride=1,
    padding=0,
    output_padding=0,
    groups=1,
    dilation=1,
    output_shape=None,
):
    """By its definition: every pixel of ``x`` stamps the filter, times itself, on the result."""
    ndim = x.ndim - 2
    stride, dilation = tuple_of(stride, ndim), tuple_of(dilation, ndim)
    extra = tuple_of(output_padding, ndim)
    kernel = weight.shape[2:]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    full = [(n - 1) * s + r for n, s, r in zip(x.shape[2:], stride, reach, strict=True)]
    if padding == "same":
        result = output_shape or [n * s for n, s in zip(x.shape[2:], stride, strict=True)]
        pairs = pairs_of("same", result, reach, stride)
    else:
        pairs = pairs_of(padding, x.shape[2:], reach, stride)
        result = output_shape or [
            f - sum(p) + e for f, p, e in zip(full, pairs, extra, strict=True)
        ]
    w = wide(weight).reshape(groups, -1, *weight.shape[1:])
    source = grouped_channels(x, groups)
    first = [max(-before, 0) for before, _ in pairs]  # where the first stamp goes
    room = [b + max(f, p[0] + r) for b, f, p, r in zip(first, full, pairs, result, strict=True)]
    y = np.zeros((x.shape[0], groups, weight.shape[1], *room), source.dtype)
    for pixel in np.ndindex(*x.shape[2:]):
        place = tuple(
            slice(b + p * s, b + p * s + r, d)
            for b, p, s, r, d in zip(first, pixel, stride, reach, dilation, strict=True)
        )
        y[(..., *place)] += np.einsum("ngc,gck...->ngk...", source[(..., *pixel)], w)
    y = y.reshape(x.shape[0], groups * weight.shape[1], *room)
    starts = [b + p[0] for b, p in zip(first, pairs, strict=True)]
    y = y[(..., *[slice(start, start + r) for start, r in zip(starts, result, strict=True)])]
    return y if bias is None else y + wide(bias).reshape(-1, *[1] * ndim)
