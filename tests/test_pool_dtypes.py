"""Pooling of numbers that no kernel has: halves, rounded once, and the largest of integers."""

from math import prod

import numpy as np
import pytest

import fastconv

from . import pool_reference, reference
from .cases import data
from .dtypes import FLOAT16, integers_of, ulp
from .test_channels_last import first, last
from .test_maps import poisoned, read_only
from .test_pool import CASES, UNDILATED, draw, function

UNIT = 2.0**-24  # of float32, in which halves are added up

both_formats = pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])


def in_format(array, data_format):
    return last(array) if data_format == "channels_last" else array


def back(array, data_format):
    return first(array) if data_format == "channels_last" else array


def assert_rounded_once(got, expected, scale, terms):
    """Half a unit in the last place of what may be the sum: that of ``terms`` in float32."""
    assert got.shape == expected.shape
    error = (terms + 2) * UNIT * scale
    allowed = ulp(np.abs(expected) + error, got.dtype) / 2 + error
    excess = np.abs(reference.wide(got) - expected) - allowed
    assert (excess <= 0).all(), f"{excess.max():.2e} too much"


@both_formats
@pytest.mark.parametrize("case", CASES[::2], ids=str)
def test_largest_of_halves(case, data_format, half, rng):
    x = draw(rng, case.x_shape, half)
    options = {"dilation": case.dilation, "ceil_mode": case.ceil_mode}
    expected, places = pool_reference.max_pool(x, *case.windows, **options)
    dy = data(rng, expected.shape, half)
    gradient = [
        pool_reference.max_pool_grad_input(f(dy), x, *case.windows, **options)
        for f in (reference.wide, np.abs)
    ]
    x, dy = in_format(x, data_format), in_format(dy, data_format)
    read_only(x, dy)
    options["data_format"] = data_format
    out = poisoned(dy.shape, half)
    y, indices = function("max_pool", case.ndim)(
        x, *case.windows, **options, return_indices=True, out=out
    )
    assert y is out
    np.testing.assert_array_equal(reference.wide(back(y, data_format)), expected)
    np.testing.assert_array_equal(back(indices, data_format), places)
    out = poisoned(x.shape, half)
    dx = function("max_pool_grad_input", case.ndim)(dy, x, *case.windows, **options, out=out)
    assert dx is out
    assert_rounded_once(back(dx, data_format), *gradient, prod(case.kernel))


@pytest.mark.parametrize("padded", [True, False])
@both_formats
@pytest.mark.parametrize("case", UNDILATED[::2], ids=str)
def test_means_of_halves(case, data_format, padded, half, rng):
    options = {"ceil_mode": case.ceil_mode, "count_include_pad": padded}
    x = data(rng, case.x_shape, half)
    expected, scale = (
        pool_reference.avg_pool(f(x), *case.windows, **options) for f in (reference.wide, np.abs)
    )
    dy = data(rng, expected.shape, half)
    gradient = [
        pool_reference.avg_pool_grad_input(f(dy), x.shape, *case.windows, **options)
        for f in (reference.wide, np.abs)
    ]
    x, dy = in_format(x, data_format), in_format(dy, data_format)
    read_only(x, dy)
    options["data_format"] = data_format
    out = poisoned(dy.shape, half)
    assert function("avg_pool", case.ndim)(x, *case.windows, **options, out=out) is out
    assert_rounded_once(back(out, data_format), expected, scale, prod(case.kernel))
    grad_input = function("avg_pool_grad_input", case.ndim)
    out = poisoned(x.shape, half)
    assert grad_input(dy, x.shape, *case.windows, **options, out=out) is out
    assert_rounded_once(back(out, data_format), *gradient, prod(case.kernel))


def test_halves_are_not_summed_in_half(half):
    """5000 ones are 2048 in float16, 256 in bfloat16, if each is added to what there is."""
    ones = np.ones((1, 1, 5000), half)
    assert fastconv.avg_pool1d(ones, 5000).item() == 1
    # Each pixel's gradient is the sum over 5000 windows.
    dy = np.ones((1, 1, 5000), half)
    dx = fastconv.max_pool1d_grad_input(dy, np.eye(1, 9999, 4999, half)[None], 5000, 1)
    assert dx[0, 0, 4999] == (5000 if half == FLOAT16 else 4992)


def test_a_mean_of_large_halves_does_not_overflow(half):
    largest = {FLOAT16: 65504.0}.get(half, 3.0e38)
    x = np.full((1, 1, 4), largest, half)
    y = fastconv.avg_pool1d(x, 2)
    if half == FLOAT16:
        assert (y == x[..., :2]).all()
    else:  # float32 reaches no further
        assert np.isinf(y.astype("f4")).all()


def test_strided_halves(half, rng):
    x, out = draw(rng, (2, 3, 8, 9), half), poisoned((2, 3, 4, 8), half)
    expected, _ = pool_reference.max_pool(x, 2)
    fastconv.max_pool2d(np.asfortranarray(x), 2, out=out[..., ::2])
    np.testing.assert_array_equal(reference.wide(out[..., ::2]), expected)
    assert np.isnan(reference.wide(out[..., 1::2])).all()


def test_layers_of_halves(half, rng):
    x = data(rng, (2, 3, 7, 6), half)
    for make in (fastconv.MaxPool2d, fastconv.AvgPool2d):
        layer = make(2)
        y = layer.forward(x)
        assert y.dtype == layer.backward(y).dtype == half


# Integers.


@both_formats
@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4"])
@pytest.mark.parametrize("case", CASES[::4], ids=str)
def test_largest_of_integers(case, kind, data_format, rng):
    x = integers_of(rng, case.x_shape, kind)
    options = {"dilation": case.dilation, "ceil_mode": case.ceil_mode}
    expected, places = pool_reference.max_pool(x, *case.windows, **options)
    expected = np.maximum(expected, np.iinfo(kind).min)
    x = in_format(x, data_format)
    read_only(x)
    out = np.full(in_format(expected, data_format).shape, 77, kind)
    y, indices = function("max_pool", case.ndim)(
        x, *case.windows, **options, data_format=data_format, return_indices=True, out=out
    )
    assert y is out
    np.testing.assert_array_equal(back(y, data_format), expected)
    np.testing.assert_array_equal(back(indices, data_format), places)


def test_integers_have_no_means_and_no_gradients():
    x = np.ones((1, 1, 4, 4), np.int32)
    message = r"must be float16, bfloat16, float32 or float64 to be pooled, got int32"
    with pytest.raises(TypeError, match="x " + message):
        fastconv.avg_pool2d(x, 2)
    with pytest.raises(TypeError, match="grad_output " + message):
        fastconv.avg_pool2d_grad_input(x, (1, 1, 8, 8), 2)
    with pytest.raises(TypeError, match="grad_output " + message):
        fastconv.max_pool2d_grad_input(x, np.ones((1, 1, 8, 8), np.int32), 2)
    with pytest.raises(TypeError, match="integers of 8, 16 or 32 bits, to be pooled, got int64"):
        fastconv.max_pool2d(x.astype("i8"), 2)


def test_dtypes_do_not_mix(half):
    y, x = np.ones((1, 1, 4, 4), half), np.ones((1, 1, 8, 8), np.float32)
    with pytest.raises(TypeError, match=f"got grad_output {half} and x float32"):
        fastconv.max_pool2d_grad_input(y, x, 2)
