"""Calls like earlier ones: the same bits, and the same complaints."""

import itertools

import numba
import numpy as np
import pytest

import fastconv
from fastconv import repeats

from .cases import CASES, data
from .test_maps import function, read_only, strided


@pytest.fixture(autouse=True)
def none_known():
    repeats._known.clear()
    yield
    repeats._known.clear()


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("biased", [False, True], ids=["plain", "bias"])
def test_same_bits(case, biased, dtype, rng):
    """As a call with ``out`` has, which is always looked at in earnest."""
    conv, options = function("conv", case.ndim), {**case.geometry}
    grad_input = function("conv_grad_input", case.ndim)
    grad_weight = function("conv_grad_weight", case.ndim)
    for relu in (None, "relu"):
        for _ in range(3):
            x, w = data(rng, case.x_shape, dtype), data(rng, case.weight_shape, dtype)
            b = data(rng, case.filters, dtype) if biased else None
            read_only(x, w)
            y = conv(x, w, b, **options, activation=relu)
            out = np.full_like(y, np.nan)
            conv(x, w, b, **options, activation=relu, out=out)
            np.testing.assert_array_equal(y, out)
            dx, dw = grad_input(y, w, x.shape, **options), grad_weight(y, x, w.shape, **options)
            out = np.full_like(x, np.nan)
            np.testing.assert_array_equal(dx, grad_input(y, w, x.shape, **options, out=out))
            out = np.full_like(w, np.nan)
            np.testing.assert_array_equal(dw, grad_weight(y, x, w.shape, **options, out=out))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_layouts(stride, data_format, rng):
    """Strides tell calls of the same shapes apart."""
    x, w = data(rng, (2, 4, 9, 13), "f4"), data(rng, (6, 2, 3, 2), "f4")
    options = {"stride": stride, "padding": 1, "groups": 2}
    expected = fastconv.conv2d(x, w, **options)
    options["data_format"] = data_format
    last = data_format == "channels_last"
    for sx, sw in zip([x, *strided(x)], [w, *strided(w)], strict=True):
        for image in (sx, np.moveaxis(np.moveaxis(sx, 1, -1).copy(), -1, 1)):
            given = np.moveaxis(image, 1, -1) if last else image
            for _ in range(2):
                y = fastconv.conv2d(given, sw, **options)
                y = np.moveaxis(y, -1, 1) if last else y
                np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_they_are_known_and_results_are_new(rng):
    x, w = data(rng, (1, 1, 8, 8), "f4"), data(rng, (1, 1, 3, 3), "f4")
    first = fastconv.conv2d(x, w, padding=1)
    assert len(repeats._known) == 1
    second, third = (fastconv.conv2d(x, w, padding=1) for _ in range(2))
    assert len(repeats._known) == 1
    assert not np.shares_memory(second, third)
    assert not np.shares_memory(first, second)
    fastconv.conv2d_grad_input(first, w, x.shape, padding=1)
    fastconv.conv2d_grad_weight(first, x, w.shape, padding=1)
    assert len(repeats._known) == 3


# Of several megabytes, or many operations: on all threads, in aligned memory.
LARGE = [
    ((2, 40, 41, 37), (24, 40, 3, 3), {"stride": 2, "padding": 1}),  # grad_input in phases
    ((3, 24, 45, 31), (96, 24, 1, 1), {}),
    ((2, 64, 33, 35), (64, 1, 3, 3), {"padding": 1, "groups": 64}),
    ((1, 1, 300, 500), (1, 1, 1, 1), {}),  # of few operations
    ((2, 16, 12, 10), (32, 16, 12, 10), {}),  # grad_input may copy the filters
    ((3, 96, 45, 31), (24, 96, 1, 1), {"stride": (1, 2)}),  # no filter meets some pixels
]


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize(("x_shape", "weight_shape", "options"), LARGE, ids=str)
def test_large_ones(x_shape, weight_shape, options, last, rng):
    x, w = data(rng, x_shape, "f4"), data(rng, weight_shape, "f4")
    if last:
        x, options = np.moveaxis(x, 1, -1).copy(), {**options, "data_format": "channels_last"}
    y = fastconv.conv2d(x, w, **options)
    calls = [
        (fastconv.conv2d, (x, w), y),
        (fastconv.conv2d_grad_input, (y, w, x.shape), x),
        (fastconv.conv2d_grad_weight, (y, x, w.shape), w),
    ]
    for call, arguments, like in calls:
        expected = np.full_like(like, np.nan)
        call(*arguments, **options, out=expected)
        results = [call(*arguments, **options) for _ in range(3)]
        threads = numba.get_num_threads()
        try:
            numba.set_num_threads(1)
            results.append(call(*arguments, **options))
        finally:
            numba.set_num_threads(threads)
        results.append(call(*arguments, **options))
        for result in results:
            np.testing.assert_array_equal(result, expected)
        assert len({result.ctypes.data for result in results}) == len(results)
    kept = [key[0] for key, repeat in repeats._known.items() if repeat]
    assert {"forward", "grad_weight"} <= {*kept}
    assert len(kept) == 3 or weight_shape in [weights for _, weights, _ in LARGE[-2:]]


POOLS = [
    ((2, 5, 9, 11), (3, 2), {"stride": (2, 1), "padding": 1, "ceil_mode": True}),
    ((3, 40, 24, 22), 2, {}),
    ((4, 64, 60, 50), 3, {"stride": 2}),
]


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize(("shape", "size", "options"), POOLS, ids=str)
def test_pooling(shape, size, options, last, dtype, rng):
    x = data(rng, shape, dtype)
    if last:
        x, options = np.moveaxis(x, 1, -1).copy(), {**options, "data_format": "channels_last"}
    y = fastconv.max_pool2d(x, size, **options)
    dy = data(rng, y.shape, dtype)
    calls = [
        (fastconv.max_pool2d, (x, size), y.shape),
        (fastconv.max_pool2d_grad_input, (dy, x, size), x.shape),
        (fastconv.avg_pool2d, (x, size), y.shape),
        (fastconv.avg_pool2d_grad_input, (dy, x.shape, size), x.shape),
    ]
    for pool, arguments, result in calls:
        expected = np.full(result, np.nan, dtype)
        pool(*arguments, **options, out=expected)
        results = [pool(*arguments, **options) for _ in range(3)]
        for other in results:
            np.testing.assert_array_equal(other, expected)
        assert len({other.ctypes.data for other in results}) == 3
    assert len(repeats._known) == 4
    assert all(repeats._known.values())


def test_pooling_with_other_words():
    """Calls that differ in nothing but a word are other calls."""
    x = np.arange(1.0, 7).reshape(1, 1, 6)
    for _ in range(2):
        for padded, whole in itertools.product((True, False), repeat=2):
            how = {"padding": 1, "ceil_mode": whole, "count_include_pad": padded}
            y = fastconv.avg_pool1d(x, 3, **how)
            means = [1, 4, 3] if padded else [1.5, 4, 6]
            assert y.tolist() == [[means if whole else means[:2]]]
            dx = fastconv.avg_pool1d_grad_input(y, x.shape, 3, **how)
            assert dx[0, 0, 0] == y[0, 0, 0] / (3 if padded else 2)
        indices = fastconv.max_pool1d(x, 2, return_indices=True)[1]
        assert indices.tolist() == [[[1, 3, 5]]]
        assert fastconv.max_pool1d(x, 2).tolist() == [[[2, 4, 6]]]
        for size in (2.0, [2.0], True):
            with pytest.raises(TypeError, match="kernel_size"):
                fastconv.max_pool1d(x, size)


def test_what_is_not_kept():
    for dtype in ("f2", "c8", "i4"):  # of other backends
        fastconv.conv1d(np.ones((1, 1, 5), dtype), np.ones((1, 1, 3), dtype))
    fastconv.conv1d(np.ones((0, 1, 5)), np.ones((1, 1, 3)))
    fastconv.conv1d(np.ones((1, 1, 5)), np.ones((1, 1, 3)), padding=1, padding_mode="reflect")
    fastconv.conv1d(np.ones((1, 1, 5)), np.ones((1, 1, 3)), algorithm="reference")
    fastconv.max_pool1d(np.ones((1, 1, 5), "i4"), 2)
    fastconv.avg_pool1d(np.ones((0, 1, 5)), 2)
    assert len(repeats._known) == 8
    assert not any(repeats._known.values())


def test_long_tables():
    """Of few numbers and operations, but with an offset for each of many taps."""
    x = np.ones((1, 1, 60_000), "f4")
    for _ in range(3):
        assert fastconv.conv1d(x, x)[0, 0, 0] == 60_000


def test_a_read_only_bias(rng):
    x, w, b = (data(rng, shape, "f8") for shape in ((1, 2, 5), (3, 2, 3), 3))
    read_only(b)
    expected = fastconv.conv1d(x, w, b)
    assert any(repeats._known.values())
    np.testing.assert_array_equal(fastconv.conv1d(x, w, b), expected)


def test_words_that_cannot_be_looked_up():
    x = np.ones((1, 1, 5))
    for _ in range(2):
        y = fastconv.conv1d(x, x[..., :3], data_format=np.array("channels_first"))
        assert (y == 3).all()


def test_their_number_is_bounded(monkeypatch):
    monkeypatch.setattr(repeats, "KEPT", 5)
    for n in range(3, 20):
        fastconv.conv1d(np.ones((1, 1, n)), np.ones((1, 1, 3)))
        assert len(repeats._known) <= 5


X, W, B = np.ones((1, 2, 5)), np.ones((3, 2, 3)), np.ones(3)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"stride": 1.0}, TypeError),
        ({"dilation": (1.0,)}, TypeError),
        ({"padding": True}, TypeError),
        ({"groups": 1.0}, TypeError),
        ({"data_format": ["channels_first"]}, (TypeError, ValueError)),
        ({"algorithm": ["auto"]}, (TypeError, ValueError)),
        ({"precision": None}, TypeError),
        ({"padding_mode": None}, (TypeError, ValueError)),
        ({"bias": np.ones(4)}, ValueError),
        ({"bias": np.ones(3, "f4")}, TypeError),
        ({"bias": [1.0, 1.0, 1.0]}, TypeError),
        ({"weight": W.astype("f4")}, TypeError),
        ({"weight": W.tolist()}, TypeError),
        ({"x": np.ma.ones((1, 2, 5))}, TypeError),
        ({"x": X.astype(">f8")}, TypeError),
        ({"out_dtype": "f4"}, TypeError),
        ({"accumulate_dtype": "f4"}, ValueError),
        ({"out": X}, ValueError),
    ],
    ids=str,
)
def test_what_is_wrong_is_wrong_afterwards(change, error):
    """What equals an argument of a known call is not taken for it."""
    arguments = {"x": X, "weight": W, "bias": B, "stride": 1, "dilation": (1,), "padding": 1}
    for name in ("bias",):
        fastconv.conv1d(**{**arguments, name: None})
    fastconv.conv1d(**arguments)
    with pytest.raises(error) as known:
        fastconv.conv1d(**{**arguments, **change})
    repeats._known.clear()
    with pytest.raises(error) as unknown:
        fastconv.conv1d(**{**arguments, **change})
    assert str(known.value) == str(unknown.value)


def test_shapes_that_are_no_integers():
    y, options = np.ones((1, 3, 3)), {}
    fastconv.conv1d_grad_input(y, W, (1, 2, 5), **options)
    fastconv.conv1d_grad_weight(y, X, (3, 2, 3), **options)
    with pytest.raises(TypeError, match="input_shape must be"):
        fastconv.conv1d_grad_input(y, W, (1, 2, 5.0))
    with pytest.raises(TypeError, match="weight_shape must be"):
        fastconv.conv1d_grad_weight(y, X, (3, 2.0, 3))


def test_taps_that_meet_no_pixel(rng):
    """Of an image one pixel wide, with a stride: the others are no part of the call."""
    dy, w = data(rng, (2, 3, 1), "f8"), data(rng, (3, 2, 3), "f8")
    options = {"stride": 2, "padding": 1}
    out = np.full((2, 2, 1), np.nan)
    fastconv.conv1d_grad_input(dy, w, (2, 2, 1), **options, out=out)
    for _ in range(3):
        dx = fastconv.conv1d_grad_input(dy, w, (2, 2, 1), **options)
        np.testing.assert_array_equal(dx, out)


def test_arrays_at_odd_addresses(rng):
    x, w = data(rng, (1, 2, 5), "f8"), data(rng, (3, 2, 3), "f8")
    expected = fastconv.conv1d(x, w)

    def misaligned(array):
        raw = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
        raw[...] = array
        assert not raw.flags.aligned
        return raw

    for given in ((misaligned(x), w), (x, misaligned(w))):
        np.testing.assert_array_equal(fastconv.conv1d(*given), expected)
