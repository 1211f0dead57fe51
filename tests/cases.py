"""Geometries that the tests run over: every feature, around every size that a kernel treats apart.

Nothing is symmetric: extents, filters, strides and paddings differ between axes, so that a swap or
a flip shows.
"""

from dataclasses import dataclass, replace

import numpy as np

from . import reference


@dataclass(frozen=True)
class Case:
    """One convolution: ``extents`` and ``kernel`` have one entry for each spatial axis."""

    extents: tuple
    kernel: tuple
    batch: int = 2
    channels: int = 3
    filters: int = 5
    stride: object = 1
    padding: object = 0
    dilation: object = 1
    groups: int = 1
    padding_mode: str = "zeros"

    @property
    def ndim(self):
        return len(self.extents)

    @property
    def x_shape(self):
        return (self.batch, self.channels, *self.extents)

    @property
    def weight_shape(self):
        return (self.filters, self.channels // self.groups, *self.kernel)

    @property
    def geometry(self):
        given = {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }
        # Transposed convolutions have no such argument.
        mode = {} if self.padding_mode == "zeros" else {"padding_mode": self.padding_mode}
        return given | mode

    @property
    def pairs(self):
        """Padding before and after each axis."""
        stride, dilation = (reference.tuple_of(n, self.ndim) for n in (self.stride, self.dilation))
        reach = [(k - 1) * d + 1 for k, d in zip(self.kernel, dilation, strict=True)]
        return reference.pairs_of(self.padding, self.extents, reach, stride)

    @property
    def is_allowed(self):
        """Whether the padding mode has pixels for this much padding."""
        if self.padding_mode == "zeros":
            return True
        more = {"reflect": -1, "replicate": 10**9, "circular": 0}[self.padding_mode]
        return all(
            min(pair) >= 0 and max(pair) <= n + more
            for pair, n in zip(self.pairs, self.extents, strict=True)
        )

    def __str__(self):
        return (
            f"{self.batch}x{self.channels}x{'x'.join(map(str, self.extents))}"
            f"-{self.filters}x{'x'.join(map(str, self.kernel))}-s{self.stride}-p{self.padding}"
            f"-d{self.dilation}-g{self.groups}"
            f"{'' if self.padding_mode == 'zeros' else '-' + self.padding_mode}"
        ).replace(" ", "")


def _cases():
    image = Case((9, 12), (3, 2))
    yield image
    # Ranks.
    yield Case((17,), (4,))
    yield Case((4, 7, 6), (2, 3, 1))
    yield Case(
        (5, 6, 7), (3, 2, 4), stride=(1, 2, 1), padding=((1, 0), 1, (0, 2)), dilation=(1, 1, 2)
    )
    yield Case((40,), (3,), stride=3, padding=((2, 1),), dilation=(4,))
    # Strides, with and without leftover pixels, larger than the filter, not coprime to dilation.
    for stride in (2, 3, (1, 2), (3, 1), (5, 4)):
        yield replace(image, stride=stride, padding=1)
    for stride, dilation in ((2, 2), (2, 3), (4, 2), ((3, 2), (1, 3)), (6, 4)):
        yield replace(image, extents=(19, 22), stride=stride, dilation=dilation, padding=(2, 3))
    # Padding in every form, more than the filter reaches, and none.
    for padding in (1, (0, 3), ((2, 0), (1, 3)), "same", "valid", 4):
        yield replace(image, padding=padding)
        yield replace(image, padding=padding, stride=(2, 3))
    for kernel in ((1, 1), (2, 2), (1, 4), (5, 5), (9, 12)):
        yield replace(image, kernel=kernel, padding="same", dilation=1)
        yield replace(image, kernel=kernel)
    # Single taps, for the whole or in phases, that meet fewer pixels than there are.
    yield replace(image, kernel=(1, 1), channels=20, filters=40, padding=((0, 2), (0, 1)))
    yield Case((9, 4), (1, 2), channels=9, stride=(1, 2), padding=((0, 5), (3, 4)), dilation=(1, 3))
    # Cropping, on either side or on one with padding on the other; windows that miss the ends.
    yield replace(image, padding=-1)
    yield replace(image, padding=((-2, 1), (2, -4)), stride=(2, 3), dilation=(2, 1))
    yield replace(image, padding=((-3, 2), -2), channels=20, filters=20, groups=20, stride=(1, 2))
    yield replace(image, kernel=(1, 1), channels=20, filters=40, padding=((-1, 1), (2, -2)))
    yield replace(image, extents=(50, 41), kernel=(3, 3), batch=1, padding=((-7, 1), (-3, -4)))
    yield Case((6, 7, 6), (2, 3, 1), padding=((-2, 0), (1, -1), (-1, 1)), stride=(1, 2, 1))
    yield Case((40,), (3,), padding=((-5, -9),), stride=4, dilation=3)
    # Taps, windows and whole filters that meet no pixel, first and last and on both sides.
    yield replace(image, kernel=(3, 4), dilation=(5, 14), padding="same")
    yield replace(image, channels=20, filters=20, groups=20, dilation=(11, 1), padding=((12, 9), 1))
    yield replace(image, channels=18, filters=17, stride=(16, 3), padding=((33, 20), (14, 8)))
    yield replace(image, kernel=(3, 3), padding=((7, 1), (0, 9)), batch=1)
    yield Case((5, 3, 4), (3, 1, 2), stride=(1, 8, 3), padding=((6, 3), (4, 9), (0, 7)), dilation=6)
    yield Case((3,), (2,), stride=40, dilation=40, padding=((35, 90),))
    # Groups, depthwise, depthwise with multiplier.
    for channels, filters, groups in ((4, 6, 2), (6, 6, 6), (6, 12, 6), (9, 3, 3), (34, 70, 2)):
        yield replace(image, channels=channels, filters=filters, groups=groups)
        yield replace(image, channels=channels, filters=filters, groups=groups, stride=2, padding=1)
    # Channels around the sizes of vectors and tiles.
    for channels, filters in ((1, 1), (2, 4), (3, 16), (7, 17), (16, 31), (8, 33), (33, 8)):
        yield replace(image, channels=channels, filters=filters, padding=1)
    for channels, filters in ((64, 48), (15, 64), (17, 65), (70, 70), (5, 128), (2, 130)):
        yield replace(image, channels=channels, filters=filters, batch=1)
    # Widths around the sizes of vectors and tiles, and blocks cut short.
    for width in (*range(1, 9), 15, 16, 17, 31, 33, 40):
        yield Case((3, width), (2, min(width, 3)), padding=(0, 1))
    yield Case((50, 41), (3, 3), batch=1, padding=1)
    yield Case((7, 7), (3, 3), batch=13, padding=1)
    yield Case((1100,), (5,), batch=1, padding=2)
    yield Case((30, 5, 6), (3, 3, 3), batch=1, padding=1)
    # Batches.
    yield replace(image, batch=0)
    yield replace(image, batch=0, channels=17, filters=18, kernel=(3, 3), padding=1)
    yield replace(image, batch=1)


CASES = list(dict.fromkeys(_cases()))

# Reduction lengths in float64 are a few thousand at most: rounding stays far below these.
TOLERANCE = {np.dtype(np.float32): 2e-6, np.dtype(np.float64): 1e-14}


def data(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


def assert_close(got, expected, *, tolerance=None):
    """Errors relative to the largest element; NaN, where it should not be, is an error too."""
    assert got.shape == expected.shape
    if got.size:
        scale = np.abs(expected).max() or 1.0
        error = np.abs(got - expected).max() / scale
        limit = tolerance or TOLERANCE[got.dtype]
        assert error <= limit, f"relative error {error:.2e}, more than {limit:.0e}"


def assert_close_in_norm(got, expected):
    """Winograd's transforms spread rounding over a tile: its bound is on the relative L2 error."""
    assert got.shape == expected.shape
    error = np.linalg.norm(got - expected) / (np.linalg.norm(expected) or 1.0)
    limit = 1e-5 if got.dtype == np.float32 else 2e-14
    assert error <= limit, f"relative L2 error {error:.2e}, more than {limit:.0e}"
