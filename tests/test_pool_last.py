"""Pooling with ``data_format="channels_last"``, beside the matrix of ``test_pool.py``."""

import re

import numba
import numpy as np
import pytest

import fastconv
from fastconv import host
from fastconv.cpu import pool_lines
from fastconv.cpu.pool_blocks import ONES, Windows
from fastconv.cpu.views import Layout

from . import pool_reference as reference
from .cases import assert_close, data
from .test_channels_last import LAST, first, last
from .test_maps import poisoned, read_only, strided
from .test_pool import CASES, Pool, draw, function


@pytest.mark.parametrize("case", CASES[:4], ids=str)
def test_unbatched(case, dtype, rng):
    """As the same image in a batch."""
    x = draw(rng, case.x_shape, dtype)
    options = {"dilation": case.dilation, "ceil_mode": case.ceil_mode}
    expected, places = reference.max_pool(x, *case.windows, **options)
    dy = data(rng, expected.shape, dtype)
    expected_dx = reference.max_pool_grad_input(dy, x, *case.windows, **options)
    one, dy = last(x)[1], last(dy)[1]
    y, indices = function("max_pool", case.ndim)(
        one, *case.windows, **options, **LAST, return_indices=True
    )
    np.testing.assert_array_equal(y, last(expected)[1])
    np.testing.assert_array_equal(indices, last(places)[1])
    dx = function("max_pool_grad_input", case.ndim)(dy, one, *case.windows, **options, **LAST)
    assert_close(dx, last(expected_dx)[1])
    x = data(rng, case.x_shape, dtype)
    y = function("avg_pool", case.ndim)(last(x)[1], *case.windows, **LAST)
    assert_close(y, last(reference.avg_pool(x, *case.windows))[1])
    dx = function("avg_pool_grad_input", case.ndim)(y, one.shape, *case.windows, **LAST)
    expected_dx = reference.avg_pool_grad_input(first(y[None]), (1, *x.shape[1:]), *case.windows)
    assert_close(dx, last(expected_dx)[0])


@pytest.mark.parametrize("windows", [(3, 1, 1), ((2, 3), 2, (1, 0)), (2,)], ids=str)
def test_strided_arrays(windows, dtype, rng):
    """Channels last in name, whatever the order in memory."""
    x = draw(rng, (2, 20, 9, 13), dtype)
    y, places = reference.max_pool(x, *windows)
    dy = data(rng, y.shape, dtype)
    dx = reference.max_pool_grad_input(dy, x, *windows)
    shares = reference.avg_pool_grad_input(dy, x.shape, *windows)
    for sx, sdy in zip(strided(last(x)), strided(last(dy)), strict=True):
        read_only(sx, sdy)
        for out in strided(poisoned(last(y).shape, dtype)):
            _, indices = fastconv.max_pool2d(sx, *windows, return_indices=True, out=out, **LAST)
            np.testing.assert_array_equal(first(out), y)
            np.testing.assert_array_equal(first(indices), places)
        for out in strided(poisoned(sx.shape, dtype)):
            fastconv.max_pool2d_grad_input(sdy, sx, *windows, out=out, **LAST)
            assert_close(first(out), dx)
        for out in strided(poisoned(sx.shape, dtype)):
            fastconv.avg_pool2d_grad_input(sdy, sx.shape, *windows, out=out, **LAST)
            assert_close(first(out), shares)


@pytest.mark.parametrize(
    "case",
    [
        Pool((61, 57), (3, 3), 1, 1, batch=3, channels=40),
        Pool((60, 57), (2, 3), batch=3, channels=41),
        Pool((100_000,), (7,), 2, 3, batch=1, channels=5),
        Pool((40, 20, 24), (3, 2, 5), 1, 1, batch=1, channels=20),
    ],
    ids=str,
)
def test_any_number_of_threads_gives_the_same_bits(case, rng):
    x = last(data(rng, case.x_shape, "f4"))
    results = []
    before = numba.get_num_threads()
    try:
        for threads in (1, numba.config.NUMBA_NUM_THREADS):
            numba.set_num_threads(threads)
            y = function("max_pool", case.ndim)(x, *case.windows, **LAST)
            dx = function("max_pool_grad_input", case.ndim)(y, x, *case.windows, **LAST)
            means = function("avg_pool", case.ndim)(x, *case.windows, **LAST)
            grad_input = function("avg_pool_grad_input", case.ndim)
            results.append((y, dx, means, grad_input(means, x.shape, *case.windows, **LAST)))
    finally:
        numba.set_num_threads(before)
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("taps", [2, 3, 5])
def test_lines_of_every_width(taps, stride, padding, rng):
    """Whatever runs of windows a line is cut into; zeros outside would be larger than all of x."""
    windows = (3, taps), (2, stride), (1, padding)
    for width in range(max(1, taps - 2 * padding), 18):
        x = draw(rng, (2, 19, 5, width), "f4") - 100
        y, _ = reference.max_pool(x, *windows)
        out = poisoned(last(y).shape, "f4")
        fastconv.max_pool2d(last(x), *windows, out=out, **LAST)
        np.testing.assert_array_equal(first(out), y)
        x = data(rng, x.shape, "f4")
        means = reference.avg_pool(x, *windows)
        out = poisoned(last(means).shape, "f4")
        fastconv.avg_pool2d(last(x), *windows, out=out, **LAST)
        assert_close(first(out), means)
        dy = data(rng, means.shape, "f4")
        out = poisoned(last(x).shape, "f4")
        fastconv.avg_pool2d_grad_input(last(dy), out.shape, *windows, out=out, **LAST)
        assert_close(first(out), reference.avg_pool_grad_input(dy, x.shape, *windows))


@pytest.mark.parametrize(
    ("taps", "stride", "outputs", "channels", "divisor", "by_line"),
    [
        (3, 1, 8, 8, 9, True),
        (3, 1, 8, 7, 9, False),  # less than a vector
        (3, 1, 8, 8, 0, False),  # means of different numbers of pixels
        (8, 1, 1, 8, 64, False),  # one window
        (23, 1, 2, 8, 529, False),  # long sums
    ],
)
def test_which_windows_are_taken_by_line(
    taps, stride, outputs, channels, divisor, by_line, monkeypatch
):
    monkeypatch.setattr(host, "VECTOR_BITS", 256)
    extent = (outputs - 1) * stride + taps
    x = Layout((1, channels, 1, 1, extent, extent), (0, 1, 1, 0, extent * channels, channels))
    y = Layout((1, channels, 1, 1, outputs, outputs), (0, 1, 1, 0, outputs * channels, channels))
    windows = Windows(
        x.shape[3:], y.shape[3:], (1, taps, taps), (1, stride, stride), (0,) * 3, ONES
    )
    arguments = pool_lines.mean_of_lines, x, y, windows, divisor
    plan = pool_lines.plan_lines(np.dtype("f4"), 2, *arguments)
    assert (plan is not None) is by_line


@pytest.mark.parametrize("channels", [7, 8, 41, 1100])
@pytest.mark.parametrize("extents", [(5,), (1, 1), (7, 5), (24, 23), (3, 2, 5)])
def test_means_of_whole_images(extents, channels, dtype, rng):
    """Those of 24 x 23 pixels are too long for sums that are added up in order."""
    x = data(rng, (3, channels, *extents), dtype)
    means = x.mean(axis=tuple(range(2, x.ndim)), dtype="f8", keepdims=True)
    for image in strided(last(x)):
        read_only(image)
        for out in strided(poisoned(last(means).shape, dtype)):
            function("avg_pool", len(extents))(image, extents, out=out, **LAST)
            assert_close(first(out), means)
    dy = last(data(rng, means.shape, dtype))
    expected = np.broadcast_to(dy.astype("f8") / np.prod(extents), last(x).shape)
    for out in strided(poisoned(last(x).shape, dtype)):
        function("avg_pool_grad_input", len(extents))(dy, out.shape, extents, out=out, **LAST)
        assert_close(out, expected)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_layers(ndim, dtype, rng):
    extents, windows = (9, 7, 6)[:ndim], ((3, 2, 2)[:ndim], 2, 1)
    x = data(rng, (2, 3, *extents), dtype)
    largest = getattr(fastconv, f"MaxPool{ndim}d")(*windows, ceil_mode=True, **LAST)
    y = largest.forward(last(x))
    np.testing.assert_array_equal(first(y), reference.max_pool(x, *windows, ceil_mode=True)[0])
    dx = reference.max_pool_grad_input(first(y), x, *windows, ceil_mode=True)
    assert_close(first(largest.backward(y)), dx)
    means = getattr(fastconv, f"AvgPool{ndim}d")(*windows, count_include_pad=False, **LAST)
    y = means.forward(last(x))
    assert_close(first(y), reference.avg_pool(x, *windows, count_include_pad=False))
    dx = reference.avg_pool_grad_input(first(y), x.shape, *windows, count_include_pad=False)
    assert_close(first(means.backward(y)), dx)


X = np.ones((2, 8, 9, 4), np.float32)
Y = np.ones((2, 2, 4, 4), np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_format": "NHWC"}, 'data_format must be "channels_first" or "channels_last", got'),
        ({"data_format": None}, "data_format must be"),
        ({"data_format": ["channels_last"]}, "data_format must be"),
        ({"x": X[0, 0]}, "x must have 4 axes (N, H, W, C), or 3 without the batch"),
        ({"x": X[..., :0]}, "x (channels first) may be empty along the batch axis only, got shape"),
        ({"kernel_size": 9}, "more than the padded x (channels first) of (8, 9)"),
        ({"out": np.ones((2, 4, 2, 4), np.float32)}, "out must have shape (2, 2, 4, 4)"),
    ],
)
def test_mistakes(changes, message):
    for pooling in (fastconv.max_pool2d, fastconv.avg_pool2d):
        out = poisoned(Y.shape, "f4")
        arguments = {"x": X, "kernel_size": (3, 2), "out": out, **LAST, **changes}
        with pytest.raises(ValueError, match=re.escape(message)):
            pooling(**arguments)
        assert np.isnan(out).all()


def test_mistakes_in_gradients():
    message = re.escape("grad_output must have the shape of the result, (2, 2, 4, 4)")
    with pytest.raises(ValueError, match=message):
        fastconv.max_pool2d_grad_input(first(Y), X, (3, 2), **LAST)
    with pytest.raises(ValueError, match=message):
        fastconv.avg_pool2d_grad_input(first(Y), X.shape, (3, 2), **LAST)
    with pytest.raises(ValueError, match=re.escape("input_shape must have 4 axes (N, H, W, C)")):
        fastconv.avg_pool2d_grad_input(Y, (8, 9), (3, 2), **LAST)


@pytest.mark.parametrize("make", [fastconv.MaxPool2d, fastconv.AvgPool2d])
def test_mistakes_in_layers(make):
    with pytest.raises(ValueError, match="data_format must be"):
        make(2, data_format="NHWC")
