"""Pooling and its gradients against the oracle: every geometry, dtype and order of axes in memory.

Numbers are small integers, so that windows have equal ones, among them NaN and infinities: the
largest numbers and their indices must be the oracle's to the bit.
"""

import re
from dataclasses import dataclass, replace
from math import prod

import numba
import numpy as np
import pytest

import fastconv
from fastconv.cpu import pool, pool_blocks, pool_gradient

from . import pool_reference as reference
from .cases import assert_close, data
from .guard import guarded
from .test_maps import poisoned, read_only, strided
from .test_memory import MIB, peak_of


@dataclass(frozen=True)
class Pool:
    """One pooling: ``extents`` and ``kernel`` have one entry for each spatial axis."""

    extents: tuple
    kernel: tuple
    stride: object = None
    padding: object = 0
    dilation: object = 1
    ceil_mode: bool = False
    batch: int = 2
    channels: int = 3

    @property
    def ndim(self):
        return len(self.extents)

    @property
    def x_shape(self):
        return (self.batch, self.channels, *self.extents)

    @property
    def windows(self):
        return (self.kernel, self.stride, self.padding)

    def __str__(self):
        return (
            f"{'x'.join(map(str, self.x_shape))}-{'x'.join(map(str, self.kernel))}-s{self.stride}"
            f"-p{self.padding}-d{self.dilation}{'-ceil' if self.ceil_mode else ''}"
        ).replace(" ", "")


def _cases():
    image = Pool((9, 12), (3, 2))
    # Ranks.
    yield image
    yield Pool((17,), (4,), 2, 1)
    yield Pool((4, 7, 6), (2, 3, 1), (1, 2, 3))
    yield Pool((5, 6, 7), (3, 2, 4), (1, 2, 1), ((1, 0), 1, (0, 2)), (1, 1, 2))
    # Strides, with and without leftover pixels, and larger than the window.
    for stride in (1, 2, 3, (1, 2), (3, 1), (5, 4), 9):
        for padding in (0, 1):
            yield replace(image, stride=stride, padding=padding)
            yield replace(image, stride=stride, padding=padding, ceil_mode=True)
    # Padding in every form, up to half of the window.
    for padding in (1, (1, 0), ((1, 0), (0, 1)), ((0, 1), 1)):
        yield replace(image, padding=padding, stride=(2, 1), ceil_mode=True)
    yield Pool((9, 12), (5, 4), 1, 2)
    yield Pool((9, 12), (5, 4), (2, 3), ((2, 0), (1, 2)), ceil_mode=True)
    # Dilations, coprime to the stride or not; some windows see nothing but padding.
    for dilation in (2, 3, (1, 4)):
        for stride in (1, 2, (3, 2)):
            yield replace(image, stride=stride, dilation=dilation, padding=1, ceil_mode=True)
    yield Pool((4, 5), (2, 2), 1, 1, (5, 2))
    # Windows larger than the image; one window.
    yield Pool((2, 3), (4, 5), 1, 2)
    yield Pool((2, 3), (5, 7), 3, (2, 1), ceil_mode=True)
    yield Pool((9, 12), (9, 12))
    yield Pool((1, 1), (1, 1))
    # Channels around the sizes of vectors, alone and of several images.
    for channels in (1, 2, 5, 8, 15, 16, 17, 33, 70, 130, 290):
        yield replace(image, channels=channels, stride=(2, 1), padding=1)
        yield replace(image, channels=channels, batch=1)
    yield replace(image, batch=13, channels=1)
    # Widths around the numbers of windows that are taken together.
    for width in (*range(1, 12), 15, 16, 17, 31, 40):
        yield Pool((3, width), (2, min(width, 3)), (1, 1), (0, 1 if width > 1 else 0))
        yield Pool((3, width), (2, 1), (1, 2), channels=70)
    # Each pixel in one window, of channels in whole vectors and not.
    for channels in (32, 41):
        yield Pool((9, 12), (4, 5), None, (1, 2), ceil_mode=True, channels=channels)
        yield Pool((9, 12), (4, 5), None, ((2, 0), (0, 1)), ceil_mode=True, channels=channels)
        yield Pool((7, 6), (7, 6), 1, channels=channels)
        yield Pool((7, 6), (9, 7), 2, ((1, 2), 1), batch=1, channels=channels)
        yield Pool((9, 12), (1, 3), None, 0, (2, 1), channels=channels)
        yield Pool((4, 6, 9), (2, 3, 3), channels=9 * channels)
        yield Pool((60, 57), (2, 3), batch=1, channels=channels)
    # Few channels, of which strips are taken for more.
    yield Pool((48, 10), (2, 2), batch=1, channels=1)
    yield Pool((36, 11), (3, 2), (3, 1), (0, 1), batch=2, channels=3)
    yield Pool((16, 5), (2, 2), (2, 1), (0, 1), (1, 5), batch=1, channels=1)
    yield Pool((300,), (2,), 3, batch=3, channels=1)
    yield Pool((24, 6, 5), (2, 3, 2), batch=1, channels=2)
    yield Pool((8 * 90, 75), (90, 75), batch=1, channels=1)
    # More than a block: of lines, of a line, of planes.
    yield Pool((150, 41), (3, 3), 2, 1, batch=1)
    yield Pool((20_000,), (5,), 3, 2, batch=1, channels=1)
    yield Pool((30, 15, 16), (3, 3, 3), 2, 1, batch=1, ceil_mode=True)
    # More taps than have tables, more pixels than are copied, in several pieces and blocks.
    yield Pool((70, 75), (70, 65), 3, batch=1)
    yield Pool((5203,), (5000,), 101, 2500, batch=1, ceil_mode=True)
    yield Pool((110, 105), (3, 3), 2, 1, (50, 49), batch=1, channels=17)
    # Batches.
    yield replace(image, batch=0)
    yield replace(image, batch=0, channels=20, padding=1)


CASES = list(dict.fromkeys(_cases()))
UNDILATED = [case for case in CASES if case.dilation == 1]

every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_mean = pytest.mark.parametrize("case", UNDILATED, ids=str)
ENGINES = [
    *(pool.max_pool, pool.avg_pool),
    *(pool_gradient.max_pool_grad_input, pool_gradient.avg_pool_grad_input),
]

both_orders = pytest.mark.parametrize("order", ["channels first", "channels last"])
# The last are arrays whose axes stand in that order.
every_order = pytest.mark.parametrize("order", ["channels first", "channels last", "channels_last"])


def function(name, ndim):
    """``max_pool_grad_input`` and 2 give ``fastconv.max_pool2d_grad_input``."""
    return getattr(fastconv, f"{name[:8]}{ndim}d{name[8:]}")


def draw(rng, shape, dtype):
    """Small integers, among which there are equal ones, infinities and NaN."""
    x = rng.integers(-4, 5, shape).astype(dtype)
    for value, part in ((-np.inf, 0.3), (np.nan, 0.03), (np.inf, 0.03), (-0.0, 0.1)):
        x[rng.random(shape) < part] = value
    return x


def ordered(array, order):
    """The same numbers, with the channels next to each other or far apart."""
    if order == "channels first":
        return array
    last = np.ascontiguousarray(np.moveaxis(array, 1, -1))
    return last if order == "channels_last" else np.moveaxis(last, -1, 1)


def first(array, order):
    """The same array with its axes in the usual order."""
    return np.moveaxis(array, -1, 1) if order == "channels_last" else array


def options_of(order, **options):
    return {**options, "data_format": "channels_last"} if order == "channels_last" else options


@every_order
@every_case
def test_max_pool(case, order, dtype, rng):
    x = draw(rng, case.x_shape, dtype)
    options = {"dilation": case.dilation, "ceil_mode": case.ceil_mode}
    expected, places = reference.max_pool(x, *case.windows, **options)
    x, options = ordered(x, order), options_of(order, **options)
    read_only(x)
    out = ordered(poisoned(expected.shape, dtype), order)
    y, indices = function("max_pool", case.ndim)(
        x, *case.windows, **options, return_indices=True, out=out
    )
    assert y is out
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(first(y, order), expected)
    np.testing.assert_array_equal(first(indices, order), places)
    same = function("max_pool", case.ndim)(x, *case.windows, **options)
    np.testing.assert_array_equal(first(same, order), expected)
    assert same.dtype == dtype
    assert same.flags.c_contiguous


@every_order
@every_case
def test_max_pool_grad_input(case, order, dtype, rng):
    x = draw(rng, case.x_shape, dtype)
    options = {"dilation": case.dilation, "ceil_mode": case.ceil_mode}
    dy = data(rng, reference.max_pool(x, *case.windows, **options)[0].shape, dtype)
    expected = reference.max_pool_grad_input(dy, x, *case.windows, **options)
    x, dy, options = ordered(x, order), ordered(dy, order), options_of(order, **options)
    read_only(x, dy)
    out = ordered(poisoned(case.x_shape, dtype), order)
    dx = function("max_pool_grad_input", case.ndim)(dy, x, *case.windows, **options, out=out)
    assert dx is out
    assert_close(first(dx, order), expected)


@pytest.mark.parametrize("padded", [True, False])
@every_order
@every_mean
def test_avg_pool(case, order, padded, dtype, rng):
    x = data(rng, case.x_shape, dtype)
    options = {"ceil_mode": case.ceil_mode, "count_include_pad": padded}
    expected = reference.avg_pool(x, *case.windows, **options)
    x, options = ordered(x, order), options_of(order, **options)
    read_only(x)
    out = ordered(poisoned(expected.shape, dtype), order)
    y = function("avg_pool", case.ndim)(x, *case.windows, **options, out=out)
    assert y is out
    assert_close(first(y, order), expected)


@pytest.mark.parametrize("padded", [True, False])
@every_order
@every_mean
def test_avg_pool_grad_input(case, order, padded, dtype, rng):
    options = {"ceil_mode": case.ceil_mode, "count_include_pad": padded}
    shape = reference.avg_pool(np.zeros(case.x_shape), *case.windows, **options).shape
    dy = data(rng, shape, dtype)
    expected = reference.avg_pool_grad_input(dy, case.x_shape, *case.windows, **options)
    dy, options = ordered(dy, order), options_of(order, **options)
    read_only(dy)
    out = ordered(poisoned(case.x_shape, dtype), order)
    dx = function("avg_pool_grad_input", case.ndim)(
        dy, out.shape, *case.windows, **options, out=out
    )
    assert dx is out
    assert_close(first(dx, order), expected)


@every_mean
def test_means_are_adjoint(case, rng):
    options = {"ceil_mode": case.ceil_mode, "count_include_pad": False}
    x = data(rng, case.x_shape, "f8")
    y = function("avg_pool", case.ndim)(x, *case.windows, **options)
    dy = data(rng, y.shape, "f8")
    dx = function("avg_pool_grad_input", case.ndim)(dy, x.shape, *case.windows, **options)
    scale = np.linalg.norm(dy) * np.linalg.norm(y) or 1.0
    assert abs(np.vdot(dy, y) - np.vdot(x, dx)) <= 1e-12 * scale


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_central_differences(ndim, rng):
    extents, windows = (7, 6, 5)[:ndim], ((3, 2, 2)[:ndim], 2, 1)
    # Numbers far enough apart that the step changes no order.
    x = rng.permutation(2 * 3 * prod(extents)).reshape(2, 3, *extents) / 8.0
    largest, means = function("max_pool", ndim), function("avg_pool", ndim)
    of_largest, of_means = (
        function(f"{name}_grad_input", ndim) for name in ("max_pool", "avg_pool")
    )
    result = fastconv.gradcheck(
        lambda x: largest(x, *windows), lambda dy: of_largest(dy, x, *windows), x
    )
    assert result, str(result)
    result = fastconv.gradcheck(
        lambda x: means(x, *windows), lambda dy: of_means(dy, x.shape, *windows), x, linear=True
    )
    assert result, str(result)


@pytest.mark.parametrize("case", CASES[:4], ids=str)
def test_unbatched(case, dtype, rng):
    x = data(rng, case.x_shape[1:], dtype)
    options = {"dilation": case.dilation, "ceil_mode": case.ceil_mode}
    y, indices = function("max_pool", case.ndim)(x, *case.windows, **options, return_indices=True)
    expected, places = reference.max_pool(x[None], *case.windows, **options)
    np.testing.assert_array_equal(y, expected[0])
    np.testing.assert_array_equal(indices, places[0])
    dy = data(rng, y.shape, dtype)
    dx = function("max_pool_grad_input", case.ndim)(dy, x, *case.windows, **options)
    expected = reference.max_pool_grad_input(dy[None], x[None], *case.windows, **options)
    assert_close(dx, expected[0])
    y = function("avg_pool", case.ndim)(x, *case.windows)
    assert_close(y, reference.avg_pool(x[None], *case.windows)[0])
    dx = function("avg_pool_grad_input", case.ndim)(y, x.shape, *case.windows)
    assert_close(dx, reference.avg_pool_grad_input(y[None], (1, *x.shape), *case.windows)[0])


@pytest.mark.parametrize("windows", [(3, 1, 1), ((2, 3), 2, (1, 0))], ids=str)
def test_strided_arrays(windows, dtype, rng):
    x = draw(rng, (2, 20, 9, 13), dtype)
    y, places = reference.max_pool(x, *windows)
    dy = data(rng, y.shape, dtype)
    dx = reference.max_pool_grad_input(dy, x, *windows)
    finite = np.nan_to_num(x, posinf=1, neginf=-1)
    means = reference.avg_pool(finite, *windows)
    shares = reference.avg_pool_grad_input(dy, x.shape, *windows)
    for sx, sfinite, sdy in zip(strided(x), strided(finite), strided(dy), strict=True):
        read_only(sx, sfinite, sdy)
        for out in strided(poisoned(y.shape, dtype)):
            _, indices = fastconv.max_pool2d(sx, *windows, return_indices=True, out=out)
            np.testing.assert_array_equal(out, y)
            np.testing.assert_array_equal(indices, places)
        for out in strided(poisoned(y.shape, dtype)):
            assert_close(fastconv.avg_pool2d(sfinite, *windows, out=out), means)
        for out in strided(poisoned(x.shape, dtype)):
            assert_close(fastconv.max_pool2d_grad_input(sdy, sx, *windows, out=out), dx)
        for out in strided(poisoned(x.shape, dtype)):
            assert_close(fastconv.avg_pool2d_grad_input(sdy, x.shape, *windows, out=out), shares)


def test_broadcast_and_unaligned_inputs(rng):
    x = data(rng, (1, 3, 8, 9), "f4")
    expected = fastconv.max_pool2d(x, 3)
    repeated = fastconv.max_pool2d(np.broadcast_to(x, (3, 3, 8, 9)), 3)
    np.testing.assert_array_equal(repeated, np.broadcast_to(expected, repeated.shape))
    buffer = np.zeros(x.nbytes + 1, np.uint8)
    unaligned = buffer[1:].view(np.float32).reshape(x.shape)
    unaligned[...] = x
    assert not unaligned.flags.aligned
    np.testing.assert_array_equal(fastconv.max_pool2d(unaligned, 3), expected)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("channels", [3, 16, 70])
@both_orders
def test_nothing_else_is_touched(order, channels, before, rng):
    """Neither read nor written: one step beyond the arrays would end the process."""

    def at_the_edge(array):
        if order == "channels first":
            return guarded(array, before)
        return np.moveaxis(guarded(np.moveaxis(array, 1, -1), before), -1, 1)

    x = at_the_edge(data(rng, (2, channels, 9, 23), "f4"))
    for windows in ((2, 2), (3, 2, 1), ((9, 23),)):
        expected, places = reference.max_pool(x, *windows)
        y = at_the_edge(np.full_like(expected, np.nan, "f4"))
        _, indices = fastconv.max_pool2d(x, *windows, return_indices=True, out=y)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(indices, places)
        dx = at_the_edge(np.full_like(x, np.nan))
        fastconv.max_pool2d_grad_input(y, x, *windows, out=dx)
        assert_close(dx, reference.max_pool_grad_input(y, x, *windows))
        assert_close(fastconv.avg_pool2d(x, *windows, out=y), reference.avg_pool(x, *windows))
        fastconv.avg_pool2d_grad_input(y, x.shape, *windows, out=dx)
        assert_close(dx, reference.avg_pool_grad_input(y, x.shape, *windows))


@both_orders
@pytest.mark.parametrize(
    "case",
    [
        Pool((61, 57), (3, 3), 1, 1, batch=3, channels=40),
        Pool((100_000,), (7,), 2, 3, batch=1, channels=5),
        Pool((40, 20, 24), (3, 2, 5), 1, 1, batch=1, channels=20),
    ],
    ids=str,
)
def test_any_number_of_threads_gives_the_same_bits(case, order, rng):
    x = ordered(data(rng, case.x_shape, "f4"), order)
    results = []
    before = numba.get_num_threads()
    try:
        for threads in (1, numba.config.NUMBA_NUM_THREADS):
            numba.set_num_threads(threads)
            y = function("max_pool", case.ndim)(x, *case.windows)
            dx = function("max_pool_grad_input", case.ndim)(y, x, *case.windows)
            means = function("avg_pool", case.ndim)(x, *case.windows)
            shares = function("avg_pool_grad_input", case.ndim)(means, x.shape, *case.windows)
            results.append((y, dx, means, shares))
    finally:
        numba.set_num_threads(before)
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


@both_orders
def test_any_blocks_give_the_same_bits(order, dtype, rng, monkeypatch):
    """Overlapping windows add up in one order, wherever an image is cut."""
    x = ordered(data(rng, (2, 19, 23, 61), dtype), order)
    windows = ((3, 5), (1, 2), (1, 2))
    results = []
    for room in (2**13, 2**15, 2**19):
        monkeypatch.setattr(pool_blocks, "L2_BYTES", room)
        for engine in ENGINES:
            monkeypatch.setattr(engine, "_plans", {})
        y = fastconv.max_pool2d(x, *windows)
        dx = fastconv.max_pool2d_grad_input(y, x, *windows)
        means = fastconv.avg_pool2d(x, *windows)
        shares = fastconv.avg_pool2d_grad_input(means, x.shape, *windows)
        results.append((y, dx, means, shares))
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(first, second)


def test_the_first_of_equal_numbers_and_of_nan():
    zeros = np.array([[0.0, -0.0, 0.0, -0.0, 0.0]])
    y, indices = fastconv.max_pool1d(zeros, 3, 1, return_indices=True)
    assert indices.tolist() == [[0, 1, 2]]
    assert np.signbit(y).tolist() == [[False, True, False]]
    x = np.array([[np.inf, np.nan, 1.0, np.nan, 2.0]])
    for order in (x, x.repeat(40, axis=0)):
        y, indices = fastconv.max_pool1d(order, 4, 1, return_indices=True)
        assert np.isnan(y).all()
        assert (indices == [1, 1]).all()


def test_the_mean_of_many_equal_numbers():
    """Long sums are added up in pieces: in one piece this would be off by 1%."""
    x = np.full((1, 1, 3_000_001), 0.1, np.float32)
    assert fastconv.avg_pool1d(x, x.shape[-1])[0, 0, 0] == pytest.approx(np.float32(0.1), rel=1e-5)
    assert (fastconv.avg_pool2d(np.ones((2, 20, 49, 7), np.float32), (7, 7)) == 1).all()


def test_an_average_spreads_nan_over_its_windows_alone(rng):
    x = data(rng, (1, 40, 6, 8), "f4")
    x[0, 7, 2, 3] = np.nan
    y = fastconv.avg_pool2d(x, 2)
    assert np.argwhere(np.isnan(y)).tolist() == [[0, 7, 1, 1]]


def test_scratch_memory():
    """No more than the arrays take and 64 MiB, even where most lanes are empty."""
    x = np.ones((1, 1, 1400, 1500), np.float32)
    y = fastconv.max_pool2d(x, 3, 1, 1)
    for call in (
        lambda: fastconv.max_pool2d(x, 3, 1, 1),
        lambda: fastconv.max_pool2d_grad_input(y, x, 3, 1, 1),
        lambda: fastconv.avg_pool2d(x, 1400),
        lambda: fastconv.avg_pool2d_grad_input(y, x.shape, 3, 1, 1),
    ):
        call()  # compiles, plans
        assert peak_of(call) - y.nbytes <= x.nbytes + y.nbytes + 64 * MIB


def test_more_pixels_than_an_index_has_bits():
    x = np.broadcast_to(np.float32(1), (1, 1, 2**16, 2**15))
    with pytest.raises(ValueError, match="x must have at most 2147483647 pixels to a channel"):
        fastconv.max_pool2d(x, 2**12)
    y = np.ones((1, 1, 16, 8), np.float32)
    with pytest.raises(ValueError, match="x must have at most 2147483647 pixels to a channel"):
        fastconv.max_pool2d_grad_input(y, x, 2**12)


X = np.ones((2, 4, 8, 9), np.float32)
Y = fastconv.max_pool2d(X, (3, 2))

BAD = {
    "list": ({"x": X.tolist()}, TypeError, "x must be a NumPy array or one on a CUDA device"),
    "integers": (
        {"x": X.astype("i8")},
        TypeError,
        "x must be float16, bfloat16, float32 or float64",
    ),
    "complex": ({"x": X.astype("c8")}, TypeError, "to be pooled, got complex64"),
    "byte order": ({"x": X.astype(">f4")}, TypeError, "to be pooled, got >f4"),
    "masked": ({"x": np.ma.array(X)}, TypeError, "x must be a NumPy array or one on a CUDA device"),
    "rank": ({"x": X[0, 0]}, ValueError, "x must have 4 axes (N, C, H, W), or 3 without"),
    "no channels": ({"x": X[:, :0]}, ValueError, "x may be empty along the batch axis only"),
    "no pixels": ({"x": X[..., :0]}, ValueError, "x may be empty along the batch axis only"),
    "kernel 0": ({"kernel_size": 0}, ValueError, "kernel_size must be at least 1"),
    "kernel float": ({"kernel_size": 2.0}, TypeError, "kernel_size must be one integer or"),
    "kernel 3": ({"kernel_size": (1, 2, 3)}, ValueError, "kernel_size must be one integer or 2"),
    "too large": (
        {"kernel_size": (9, 2)},
        ValueError,
        "kernel_size (9, 2) with dilation (1, 1) spans (9, 2), more than the padded x of (8, 9)",
    ),
    "no ceiling": (
        {"kernel_size": (11, 2), "stride": 3, "ceil_mode": True},
        ValueError,
        "more than the padded x of (8, 9): there would be (0, 3) windows",
    ),
    "stride 0": ({"stride": 0}, ValueError, "stride must be at least 1"),
    "stride bool": ({"stride": True}, TypeError, "stride must be one integer or 2"),
    "padding -1": ({"padding": -1}, ValueError, "padding must be at least 0"),
    "padding 2": (
        {"padding": 2},
        ValueError,
        "padding must be at most half of kernel_size, (3, 2), along every axis, got 2",
    ),
    "padding pair": ({"padding": (1, (0, 2))}, ValueError, "padding must be at most half of kern"),
    "padding name": (
        {"padding": "same"},
        TypeError,
        "padding must be an integer, or one integer or pair (before, after) for each axis, got 's",
    ),
    "padding 3": ({"padding": (1, 1, 1)}, ValueError, "padding must have 2 entries"),
    "out type": ({"out": Y.tolist()}, TypeError, "out must be a NumPy array"),
    "out shape": ({"out": Y[:1]}, ValueError, "out must have shape (2, 4, 2, 4)"),
    "out dtype": ({"out": Y.astype("f8")}, ValueError, "out must be float32, got float64"),
}
ONLY_MAX = {
    "dilation 0": ({"dilation": 0}, ValueError, "dilation must be at least 1"),
    "too dilated": ({"dilation": 4}, ValueError, "with dilation (4, 4) spans (9, 5), more than"),
}


@pytest.mark.parametrize("name", [*BAD, *ONLY_MAX])
def test_bad_arguments(name):
    options, error, message = {**BAD, **ONLY_MAX}[name]
    for pooling in (fastconv.max_pool2d, fastconv.avg_pool2d)[: 1 if name in ONLY_MAX else 2]:
        out = np.full_like(Y, 7)
        with pytest.raises(error, match=re.escape(message)):
            pooling(**{"x": X, "kernel_size": (3, 2), "out": out, **options})
        assert (out == 7).all()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"grad_output": Y[:1]}, ValueError, "grad_output must have the shape of the result, (2,"),
        ({"grad_output": Y.tolist()}, TypeError, "grad_output must be a NumPy array"),
        ({"kernel_size": (3, 3)}, ValueError, "grad_output must have the shape of the result"),
        ({"ceil_mode": True}, ValueError, "grad_output must have the shape of the result"),
        ({"stride": 0}, ValueError, "stride must be at least 1"),
        ({"out": Y}, ValueError, "out must have shape (2, 4, 8, 9)"),
    ],
)
def test_bad_gradients(changes, error, message):
    arguments = {"grad_output": Y, "kernel_size": (3, 2), **changes}
    with pytest.raises(error, match=re.escape(message)):
        fastconv.max_pool2d_grad_input(x=X, **arguments)
    with pytest.raises(error, match=re.escape(message)):
        fastconv.avg_pool2d_grad_input(input_shape=X.shape, **arguments)


def test_lazy_arrays_are_not_pooled():
    da = pytest.importorskip("dask.array")
    x, y = da.from_array(X), da.from_array(Y)
    with pytest.raises(TypeError, match="x must be of NumPy or on a CUDA device"):
        fastconv.max_pool2d(x, 2)
    with pytest.raises(TypeError, match="x must be of NumPy or on a CUDA device"):
        fastconv.avg_pool2d(x, 2)
    with pytest.raises(TypeError, match="grad_output and x must be of NumPy"):
        fastconv.max_pool2d_grad_input(y, x, (3, 2))
    with pytest.raises(TypeError, match="grad_output must be of NumPy"):
        fastconv.avg_pool2d_grad_input(y, X.shape, (3, 2))
    with pytest.raises(TypeError):
        fastconv.max_pool2d_grad_input(y, X, (3, 2))


def test_dtypes_and_shapes_of_gradients():
    with pytest.raises(TypeError, match="grad_output must be float16, bfloat16, float32 or"):
        fastconv.avg_pool2d_grad_input(Y.astype("c8"), X.shape, (3, 2))
    with pytest.raises(TypeError, match="got grad_output float64 and x float32"):
        fastconv.max_pool2d_grad_input(Y.astype("f8"), X, (3, 2))
    with pytest.raises(ValueError, match="input_shape must have 4 axes"):
        fastconv.avg_pool2d_grad_input(Y, (2, 4), (3, 2))
    with pytest.raises(TypeError, match="input_shape must be made of integers"):
        fastconv.avg_pool2d_grad_input(Y, (2, 4, 8, 9.0), (3, 2))


def test_out_must_not_overlap():
    memory = np.ones(2 * X.size, np.float32)
    x, out = memory[: X.size].reshape(X.shape), memory[X.size - 1 :][: Y.size].reshape(Y.shape)
    for pooling in (fastconv.max_pool2d, fastconv.avg_pool2d):
        with pytest.raises(ValueError, match="out must not share memory with an input"):
            pooling(x, (3, 2), out=out)
    with pytest.raises(ValueError, match="out must not share memory with an input"):
        fastconv.max_pool2d_grad_input(Y, X, (3, 2), out=X)


def test_integers_of_every_kind_are_taken(rng):
    x = data(rng, X.shape, "f4")
    expected = fastconv.max_pool2d(x, 3, 2, 1)
    for two in (np.int8(2), [2, 2], np.array([2, 2]), np.array(2)):
        np.testing.assert_array_equal(fastconv.max_pool2d(x, 3, two, 1), expected)
    for one in (np.int64(1), [1, 1], [[1, 1], 1], np.ones((2, 2), int)):
        np.testing.assert_array_equal(fastconv.max_pool2d(x, 3, 2, one), expected)
    np.testing.assert_array_equal(fastconv.max_pool2d(x, np.array(3), 2, 1), expected)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_layers(ndim, dtype, rng):
    extents, windows = (9, 7, 6)[:ndim], ((3, 2, 2)[:ndim], 2, 1)
    x = data(rng, (2, 3, *extents), dtype)
    largest = getattr(fastconv, f"MaxPool{ndim}d")(*windows, ceil_mode=True)
    y = largest.forward(x)
    np.testing.assert_array_equal(y, reference.max_pool(x, *windows, ceil_mode=True)[0])
    dx = reference.max_pool_grad_input(y, x, *windows, ceil_mode=True)
    assert_close(largest.backward(y), dx)
    means = getattr(fastconv, f"AvgPool{ndim}d")(*windows, count_include_pad=False)
    y = means.forward(x)
    assert_close(y, reference.avg_pool(x, *windows, count_include_pad=False))
    dx = reference.avg_pool_grad_input(y, x.shape, *windows, count_include_pad=False)
    assert_close(means.backward(y), dx)


@pytest.mark.parametrize("make", [fastconv.MaxPool2d, fastconv.AvgPool2d])
def test_layers_with_channels_last(make, rng):
    x, dy = data(rng, (2, 9, 7, 5), "f4"), data(rng, (2, 5, 4, 5), "f4")
    layer, same = make(3, 2, 1, data_format="channels_last"), make(3, 2, 1)
    y = layer.forward(x)
    np.testing.assert_array_equal(first(y, "channels_last"), same.forward(np.moveaxis(x, -1, 1)))
    dx = same.backward(np.moveaxis(dy, -1, 1))
    np.testing.assert_array_equal(first(layer.backward(dy), "channels_last"), dx)
    np.testing.assert_array_equal(layer.forward(x[0]), y[0])
    with pytest.raises(ValueError, match="data_format must be"):
        make(3, data_format="NHWC")


@pytest.mark.parametrize("make", [fastconv.MaxPool2d, fastconv.AvgPool2d])
def test_modes_of_layers(make):
    layer = make(2)
    assert layer.parameters == layer.grads == {}
    assert layer.to("cuda") is layer
    with pytest.raises(ValueError, match="device must be"):
        layer.to("tpu")
    with pytest.raises(RuntimeError, match=rf"{make.__name__}\.backward needs the input"):
        layer.backward(Y)
    layer.forward(X)
    with pytest.raises(ValueError, match="x must have 4 axes"):
        layer.forward(X[0, 0])
    assert layer.backward(np.ones((2, 4, 4, 4), np.float32)).shape == X.shape
    layer.eval()
    layer.forward(X)
    with pytest.raises(RuntimeError, match="in training mode"):
        layer.backward(Y)


@pytest.mark.parametrize("make", [fastconv.MaxPool2d, fastconv.AvgPool2d])
def test_bad_layers(make):
    for arguments, error, message in (
        ((0,), ValueError, "kernel_size must be at least 1"),
        ((3, 0), ValueError, "stride must be at least 1"),
        ((3, 1, 2), ValueError, "padding must be at most half of kernel_size"),
        ((3, 1, "same"), TypeError, "padding must be an integer, or one integer or pair"),
    ):
        with pytest.raises(error, match=message):
            make(*arguments)
    with pytest.raises(ValueError, match="dilation must be at least 1"):
        fastconv.MaxPool2d(3, dilation=0)
