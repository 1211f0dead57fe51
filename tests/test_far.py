"""Results that are written past the caches: the same bits."""

import numpy as np
import pytest

import fastconv
from fastconv.cpu import far, lines, tile

from .cases import data
from .plans import forget_plans

# Filters that fill vectors, and some that do not; pixels that do, and some that do not.
SHAPES = [
    ((2, 16, 8, 16), (96, 16, 1, 1), 0),
    ((2, 24, 8, 10), (144, 24, 1, 1), 0),
    ((3, 5, 7, 9), (20, 5, 1, 1), 0),
    ((2, 3, 12, 16), (64, 3, 3, 3), 1),
    ((2, 3, 9, 15), (48, 3, 3, 2), 1),
    ((1, 2, 6, 40), (160, 2, 2, 3), 0),
]


pytestmark = pytest.mark.usefixtures("plans_anew")


def outputs(shape, dtype):
    """Arrays of NaN: at the beginning of a cache line, one number beyond, with gaps between lines.

    And what lies around them, which must stay.
    """
    size = int(np.prod(shape))
    for beyond in (0, 1):
        room = np.full(size + 64, np.nan, dtype)
        start = -room.ctypes.data // room.itemsize % (64 // room.itemsize) + beyond
        yield room[start : start + size].reshape(shape), room[start + size :]
    wide = np.full((*shape[:-1], shape[-1] + 3), np.nan, dtype)
    yield wide[..., :-3], wide[..., -3:]


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("algorithm", ["direct", "gemm"])
@pytest.mark.parametrize(("x_shape", "w_shape", "padding"), SHAPES)
def test_same_bits(x_shape, w_shape, padding, algorithm, data_format, dtype, rng, monkeypatch):
    x, w = data(rng, x_shape, dtype), data(rng, w_shape, dtype)
    b = data(rng, w_shape[0], dtype)
    if data_format == "channels_last":
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    options = {"padding": padding, "algorithm": algorithm, "data_format": data_format}
    near = fastconv.conv2d(x, w, b, **options, activation="relu")
    grad = {**options, "out": None}
    dx = fastconv.conv2d_grad_input(near, w, x.shape, **grad)
    monkeypatch.setattr(far, "BYTES", 0)
    monkeypatch.setattr(far, "DEPTH", tile.STEPS)
    forget_plans()
    for out, around in outputs(near.shape, dtype):
        fastconv.conv2d(x, w, b, **options, activation="relu", out=out)
        np.testing.assert_array_equal(out, near)
        assert np.isnan(around).all()
    out = np.full_like(x, np.nan)
    fastconv.conv2d_grad_input(near, w, x.shape, **options, out=out)
    np.testing.assert_array_equal(out, dx)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [20, 32, 48])
def test_depthwise(groups, stride, dtype, rng, monkeypatch):
    x, w = data(rng, (2, 9, 14, groups), dtype), data(rng, (groups, 1, 3, 3), dtype)
    b = data(rng, groups, dtype)
    options = {
        "padding": 1,
        "stride": stride,
        "groups": groups,
        "algorithm": "depthwise",
        "data_format": "channels_last",
    }
    near = fastconv.conv2d(x, w, b, **options, activation="relu")
    dx = fastconv.conv2d_grad_input(near, w, x.shape, **options)
    monkeypatch.setattr(far, "BYTES", 0)
    monkeypatch.setattr(lines, "FAR_RESULTS", True)
    forget_plans()
    for out, around in outputs(near.shape, dtype):
        fastconv.conv2d(x, w, b, **options, activation="relu", out=out)
        np.testing.assert_array_equal(out, near)
        assert np.isnan(around).all()
    for out, around in outputs(dx.shape, dtype):
        fastconv.conv2d_grad_input(near, w, x.shape, **options, out=out)
        np.testing.assert_array_equal(out, dx)
        assert np.isnan(around).all()


def test_which_results_are_far():
    def layout(*shape):
        return far.Layout(shape, (0,) * 6)

    large = far.BYTES // 4
    assert far.is_far(layout(1, 1, 1, 1, 1, large), np.dtype("f4"), far.DEPTH)
    assert not far.is_far(layout(1, 1, 1, 1, 1, large - 1), np.dtype("f4"), far.DEPTH)
    assert far.is_far(layout(1, 1, 1, 1, 1, large // 2), np.dtype("f8"), 1)
    assert not far.is_far(layout(1, 1, 1, 1, 1, large), np.dtype("f4"), far.DEPTH + 1)
    assert far.DEPTH <= tile.STEPS  # kernels write such sums once, and do not add to them


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_a_large_result(data_format, rng):
    """As it comes, in pieces of which each is small."""
    shape = (5, 16, 230, 240) if data_format == "channels_first" else (5, 230, 240, 16)
    x, w = data(rng, shape, "f4"), data(rng, (16, 16, 1, 1), "f4")
    y = fastconv.conv2d(x, w, data_format=data_format)
    for n in range(5):
        alone = fastconv.conv2d(x[n : n + 1], w, data_format=data_format)
        np.testing.assert_allclose(y[n], alone[0], rtol=1e-5, atol=1e-5)
