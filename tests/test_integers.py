"""Integers: every sum is exact modulo 2**bits of the result's dtype."""

from dataclasses import replace

import numpy as np
import pytest

import fastconv
from fastconv.cpu import integers
from fastconv.dtypes import INTEGERS, Numbers

from .cases import CASES, Case
from .dtypes import exactly, integers_of, result_dtype, wrapped
from .test_maps import function, read_only, strided

PAIRS = [(dtype.name, dtype.name) for dtype in INTEGERS] + [("uint8", "int8")]
ALGORITHMS = ("auto", "direct", "planar", "gemm", "depthwise", "reference")


@pytest.fixture(params=PAIRS, ids=lambda pair: "-".join(dict.fromkeys(pair)))
def pair(request):
    return tuple(map(np.dtype, request.param))


def assert_exact(result, exact, dtype):
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, wrapped(exact, dtype))


# A ninth of all cases for each pair of dtypes, another for the next.
SOME = [
    (pair, case, ALGORITHMS[k % 6])
    for i, pair in enumerate(PAIRS)
    for k, case in enumerate(CASES[i % 3 :: 3])
]


@pytest.mark.parametrize(
    ("pair", "case", "algorithm"),
    [pytest.param(*some, id=f"{some[0][0]}-{some[0][1]}-{some[1]}-{some[2]}") for some in SOME],
)
def test_forward(pair, case, algorithm, rng):
    x_dtype, w_dtype = map(np.dtype, pair)
    dtype = result_dtype(x_dtype)
    x, w = integers_of(rng, case.x_shape, x_dtype), integers_of(rng, case.weight_shape, w_dtype)
    b = integers_of(rng, case.filters, dtype)
    read_only(x, w, b)
    exact = exactly("conv", x, w, b, **case.geometry)
    out = np.full(exact.shape, 77, dtype)
    conv = function("conv", case.ndim)
    y = conv(x, w, b, **case.geometry, algorithm=algorithm, out=out)
    assert y is out
    assert_exact(y, exact, dtype)


TRANSPOSED = [
    Case((5, 6), (3, 2), stride=(2, 3), padding=(1, 0), channels=4, filters=6, groups=2),
    Case((7,), (4,), stride=3, dilation=2, padding="same", channels=17, filters=18),
    Case((4, 3, 5), (3, 2, 2), batch=3, padding=((1, 0), 1, 0), dilation=(1, 2, 1)),
    Case((6, 7), (3, 3), padding=1, channels=18, filters=20),
]


@pytest.mark.parametrize("case", TRANSPOSED, ids=str)
def test_transposed(case, pair, algorithm, rng):
    x = integers_of(rng, (case.batch, case.filters, *case.extents), pair[0])
    w = integers_of(rng, case.weight_shape, pair[1])
    dtype = result_dtype(pair[0])
    b = integers_of(rng, case.channels, dtype)
    exact = exactly("conv_transpose", x, w, b, **case.geometry)
    conv_transpose = function("conv_transpose", case.ndim)
    y = conv_transpose(x, w, b, **case.geometry, algorithm=algorithm)
    assert_exact(y, exact, dtype)


@pytest.mark.parametrize("out_dtype", INTEGERS, ids=str)
def test_out_dtype(out_dtype, pair, rng):
    case = Case((9, 12), (3, 2), stride=(1, 2), padding=1, channels=20, filters=18)
    x, w = integers_of(rng, case.x_shape, pair[0]), integers_of(rng, case.weight_shape, pair[1])
    b = integers_of(rng, case.filters, out_dtype)
    y = fastconv.conv2d(x, w, b, **case.geometry, out_dtype=out_dtype.name)
    assert_exact(y, exactly("conv", x, w, b, **case.geometry), out_dtype)


@pytest.mark.parametrize("extreme", ["min", "max"])
@pytest.mark.parametrize("more", [-1, 0, 1, 40])
def test_the_largest_sums_are_exact(pair, extreme, more):
    """As many of the largest products as fit into exact float32, and a few more; odd ones too."""
    largest = integers._magnitude(pair[0]) * integers._magnitude(pair[1])
    channels = max(2**24 // largest, 1000) + more
    values = [getattr(np.iinfo(dtype), extreme) for dtype in pair]
    x = np.full((1, channels, 3), values[0], pair[0])
    w = np.full((20, channels, 1), values[1], pair[1])
    w[1::2, 0] -= 1  # the last bit counts
    odd = values[0] * (int(w[1, 0, 0]) - values[1])
    exact = np.array([[[channels * values[0] * values[1]]], [[odd]]], object)
    expected = np.repeat(np.tile([exact[0, 0], exact[0, 0] + odd], (10, 1)), 3, axis=1)[None]
    for dtype in (np.int32, np.uint64):
        assert_exact(fastconv.conv1d(x, w, out_dtype=dtype), expected, np.dtype(dtype))


def test_how_sums_are_cut():
    def parts(dtype, x_shape, weight_shape):
        g, dtype = fastconv.explain(x_shape, weight_shape).geometry, np.dtype(dtype)
        return integers.sums_of(Numbers(dtype, dtype, result_dtype(dtype), None), "forward", g)

    # 2**24 / 2**14 products of int8, in float32; more in parts, as long as these are not too short.
    whole = parts("int8", (1, 1024, 9), (5, 1024, 1))
    assert whole.dtype == np.float32
    assert len(whole.parts) == 1
    cut = parts("int8", (1, 1025, 9), (5, 1025, 1))
    assert cut.dtype == np.float32
    assert [part.channels for part in cut.parts] == [slice(0, 512), slice(512, 1025)]
    assert parts("int8", (1, 64, 200), (5, 64, 200)).dtype == np.float64
    # Three convolutions of digits, the last one with twice the channels.
    digits = parts("int32", (1, 64, 9), (5, 64, 3))
    assert [part.geometry.in_channels for part in digits.parts] == [64, 128]
    assert [part.digits for part in digits.parts] == [((0, 0),), ((0, 1), (1, 0))]
    assert (
        sum(part.geometry.in_channels for part in parts("int64", (1, 8, 9), (5, 8, 3)).parts) == 80
    )


def test_sums_too_long_for_float64(rng):
    """More than 2**21 taps of a channel, each up to 2**32, fall to the literal loops."""
    x = rng.integers(2**31 - 9, 2**31 - 1, (1, 1, 2**21 + 9), np.int32)
    w = rng.integers(2**31 - 9, 2**31 - 1, (1, 1, 2**21 + 8), np.int32)
    told = fastconv.explain(x.shape, w.shape, dtype="int32")
    assert told.maps["forward"].algorithm == "reference"
    assert "would be rounded" in told.maps["forward"].why
    with pytest.raises(ValueError, match=r"direct.* cannot serve this call: sums over 2097160 t"):
        fastconv.conv1d(x, w, algorithm="direct")
    y = fastconv.conv1d(x, w, out_dtype=np.int64)
    # Sums of these are exact in int64.
    small, other = (a[0, 0].astype(np.int64) - 2**31 for a in (x, w))
    for i in range(2):
        a = small[i : i + w.size]
        exact = int((a * other).sum()) + 2**31 * int(a.sum() + other.sum()) + w.size * 2**62
        assert y[0, 0, i] == wrapped(np.array([exact], object), np.int64)


def test_many_channels_in_float64(rng):
    """int16 sums of more than 2**53 in all are cut."""
    taps = 2**20
    x = np.full((1, 10, taps), -(2**15), np.int16)
    w = np.full((1, 10, taps), -(2**15), np.int16)
    x[0, :, 5] = 3
    exact = 10 * ((taps - 1) * 2**30 - 3 * 2**15)
    assert exact > 2**53
    numbers = Numbers(x.dtype, x.dtype, np.dtype(np.int64), None)
    g = fastconv.explain(x.shape, w.shape).geometry
    assert len(integers.sums_of(numbers, "forward", g).parts) == 2
    assert fastconv.conv1d(x, w, out_dtype=np.int64).item() == exact


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_layouts(pair, data_format, rng):
    x, w = integers_of(rng, (2, 4, 7, 9), pair[0]), integers_of(rng, (6, 2, 3, 2), pair[1])
    options = {"stride": 2, "padding": 1, "groups": 2}
    dtype = result_dtype(pair[0])
    expected = wrapped(exactly("conv", x, w, **options), dtype)
    last = data_format == "channels_last"
    outs = strided(np.zeros_like(expected))
    for sx, sw, out in zip(strided(x), strided(w), outs, strict=True):
        read_only(sx, sw)
        given, target = (np.moveaxis(a, 1, -1) if last else a for a in (sx, out))
        fastconv.conv2d(given, sw, **options, data_format=data_format, out=target)
        np.testing.assert_array_equal(out, expected)
        y = fastconv.conv2d(given[1], sw, **options, data_format=data_format)
        np.testing.assert_array_equal(np.moveaxis(y, -1, 0) if last else y, expected[1])


def test_winograd_would_round(rng):
    case = Case((13, 11), (3, 3), padding=1, channels=64, filters=64)
    x, w = integers_of(rng, case.x_shape, "i1"), integers_of(rng, case.weight_shape, "i1")
    with pytest.raises(ValueError, match='"winograd" cannot serve this call: winograd would round'):
        fastconv.conv2d(x, w, padding=1, algorithm="winograd")
    with pytest.raises(ValueError, match="the filter must be 3x3"):
        fastconv.conv2d(x, w[..., :2], padding=1, algorithm="winograd")
    large = replace(case, extents=(56, 56))
    plan = fastconv.explain(large.x_shape, large.weight_shape, padding=1, dtype="int8")
    assert set(plan.maps) == {"forward"}
    assert plan.maps["forward"].algorithm == "direct"


def test_gradients_are_refused(pair):
    x, w = np.ones((2, 4, 8), pair[0]), np.ones((6, 4, 3), pair[1])
    y = fastconv.conv1d(x, w)
    for f, arguments in (
        (fastconv.conv1d_grad_input, (y, w, x.shape)),
        (fastconv.conv1d_grad_weight, (y, x, w.shape)),
        (fastconv.conv1d_grad_bias, (y,)),
        (fastconv.conv1d_backward, (y, x, w)),
        (fastconv.conv_transpose1d_backward, (y, y, w)),
    ):
        with pytest.raises(TypeError, match="between integers a loss has no slope"):
            f(*arguments)
    with pytest.raises(TypeError, match=r"dtype must be float16, .*, got int8"):
        fastconv.Conv1d(1, 1, 1, dtype=np.int8)


@pytest.mark.parametrize(
    ("x", "weight", "bias", "options", "message"),
    [
        ("i1", "u1", "i4", {}, "one dtype, got x int8 and weight uint8; served are arrays of one"),
        ("i2", "i1", "i4", {}, "one dtype, got x int16 and weight int8; served are arrays of one"),
        ("i4", "f4", "i4", {}, "one dtype, got x int32 and weight float32; served are arrays of"),
        ("f4", "i4", "f4", {}, "one dtype, got x float32 and weight int32; served are arrays of"),
        ("i1", "i1", "i1", {}, "bias must be int32 as the result is, got int8; served are arrays"),
        ("i1", "i1", "i4", {"out_dtype": "i8"}, "bias must be int64 as the result is, got int32"),
        ("i1", "i1", "i4", {"out_dtype": "f4"}, "out_dtype of integers must be an integer dtype"),
        ("i1", "i1", "i4", {"out_dtype": "?"}, "out_dtype of integers must be an integer dtype"),
        ("i1", "i1", "i4", {"out_dtype": ">i4"}, "out_dtype of integers must be an integer dtype"),
        ("i1", "i1", "i4", {"accumulate_dtype": "f8"}, "integers are summed exactly"),
    ],
)
def test_what_does_not_go_together(x, weight, bias, options, message):
    x, weight = np.ones((2, 4, 8), x), np.ones((6, 4, 3), weight)
    with pytest.raises(TypeError, match=message):
        fastconv.conv1d(x, weight, np.ones(6, bias), **options)


def test_out_has_the_dtype_of_the_result():
    x, w = np.ones((2, 4, 8), "i1"), np.ones((6, 4, 3), "i1")
    with pytest.raises(ValueError, match="out must be int32, got int8"):
        fastconv.conv1d(x, w, out=np.zeros((2, 6, 6), "i1"))
    out = np.zeros((2, 6, 6), "i1")
    assert fastconv.conv1d(x, w, out=out, out_dtype="i1") is out
    assert (out == 12).all()
