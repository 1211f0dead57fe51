"""``data_format="channels_last"``: every function against the oracle, and the layers."""

import numpy as np
import pytest

import fastconv
from fastconv.cpu import depthwise_last_weight

from . import reference
from .cases import CASES, Case, assert_close, assert_close_in_norm, data
from .plans import forget_plans
from .test_maps import function, poisoned, read_only

LAST = {"data_format": "channels_last"}

# More channels than a vector has lanes, in whole vectors and not, as kernels for this layout need.
WIDE = [
    Case((9, 12), (3, 2), channels=channels, filters=filters, stride=stride, padding=(1, 2))
    for channels, filters in ((16, 64), (32, 48), (70, 130))
    for stride in (1, 2, (1, 3))
]
WIDE += [
    Case((9, width), (3, 3), channels=c, filters=c, groups=c, stride=stride, padding=padding)
    for c in (16, 32, 41)
    for width in (5, 8, 20, 37)
    for stride, padding in ((1, 1), (2, 1), ((1, 2), (0, 2)), (3, 0))
]
WIDE += [
    Case((4, 9, 12), (2, 3, 3), channels=20, filters=20, groups=20, stride=(2, 1, 2), padding=1),
    Case((9, 12), (3, 2), channels=20, filters=20, groups=20, dilation=(2, 3), padding=(3, 0)),
    Case((40,), (4,), channels=20, filters=20, groups=20, stride=3, padding=((1, 4),)),
    Case((9, 12), (3, 3), channels=40, filters=70, padding=1),
    Case((3, 3), (3, 3), channels=18, filters=18, groups=18, padding=4),
]
every_case = pytest.mark.parametrize("case", [*CASES, *dict.fromkeys(WIDE)], ids=str)


def last(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def first(x):
    return np.moveaxis(x, -1, 1)


@every_case
def test_maps(case, algorithm, rng):
    x, w = data(rng, case.x_shape, "f4"), data(rng, case.weight_shape, "f4")
    b = data(rng, case.filters, "f4")
    conv, options = f"conv{case.ndim}d", {**case.geometry, **LAST, "algorithm": algorithm}
    expected = reference.conv(x, w, b, **case.geometry)
    dy = data(rng, expected.shape, "f4")
    xl, dyl = last(x), last(dy)
    read_only(xl, dyl, w, b)

    out = poisoned(last(expected).shape, "f4")
    y = getattr(fastconv, conv)(xl, w, b, **options, out=out)
    assert y is out
    assert_close(first(y), expected)

    out = poisoned(xl.shape, "f4")
    getattr(fastconv, f"{conv}_grad_input")(dyl, w, xl.shape, **options, out=out)
    assert_close(first(out), reference.conv_grad_input(dy, w, case.x_shape, **case.geometry))

    out = poisoned(w.shape, "f4")
    getattr(fastconv, f"{conv}_grad_weight")(dyl, xl, w.shape, **options, out=out)
    assert_close(out, reference.conv_grad_weight(dy, x, case.weight_shape, **case.geometry))

    db = getattr(fastconv, f"{conv}_grad_bias")(dyl, **LAST)
    assert_close(db, dy.astype("f8").sum(axis=(0, *range(2, dy.ndim))))


@every_case
def test_auto(case, dtype, rng):
    """Results are new arrays with channels innermost; algorithms are those of "auto"."""
    x, w = data(rng, case.x_shape, dtype), data(rng, case.weight_shape, dtype)
    expected = reference.conv(x, w, **case.geometry)
    y = function("conv", case.ndim)(last(x), w, **case.geometry, **LAST)
    assert y.flags.c_contiguous
    assert y.dtype == dtype
    assert_close_in_norm(first(y), expected)
    dy = data(rng, expected.shape, dtype)
    dx, dw, db = function("conv_backward", case.ndim)(last(dy), last(x), w, **case.geometry, **LAST)
    dx_expected = reference.conv_grad_input(dy, w, case.x_shape, **case.geometry)
    assert_close_in_norm(first(dx), dx_expected)
    dw_expected = reference.conv_grad_weight(dy, x, case.weight_shape, **case.geometry)
    assert_close_in_norm(dw, dw_expected)
    assert_close_in_norm(db, dy.sum(axis=(0, *range(2, dy.ndim)), dtype="f8"))


@pytest.mark.parametrize("padding", [0, 1, 2, (3, 0)])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("taps", [2, 3])
def test_depthwise_lines_of_every_width(taps, stride, padding, rng):
    """Whatever runs of pixels a line is cut into, and however many of them miss taps."""
    pair = (padding, padding) if isinstance(padding, int) else padding
    for width in range(max(1, taps - sum(pair)), 18):
        case = Case((4, width), (3, taps), 1, 18, 18, (1, stride), ((1, 0), pair), 1, 18)
        x, w = data(rng, case.x_shape, "f4"), data(rng, case.weight_shape, "f4")
        expected = reference.conv(x, w, **case.geometry)
        dy = data(rng, expected.shape, "f4")
        options = {**case.geometry, **LAST, "algorithm": "depthwise"}

        out = poisoned(last(expected).shape, "f4")
        assert_close(first(fastconv.conv2d(last(x), w, **options, out=out)), expected)
        out = poisoned(last(x).shape, "f4")
        dx = fastconv.conv2d_grad_input(last(dy), w, out.shape, **options, out=out)
        assert_close(first(dx), reference.conv_grad_input(dy, w, x.shape, **case.geometry))
        out = poisoned(w.shape, "f4")
        dw = fastconv.conv2d_grad_weight(last(dy), last(x), w.shape, **options, out=out)
        assert_close(dw, reference.conv_grad_weight(dy, x, w.shape, **case.geometry))


@pytest.mark.usefixtures("plans_anew")
@pytest.mark.parametrize("groups", [48, 90])
@pytest.mark.parametrize(("extents", "stride"), [((7, 9), 1), ((90, 100), (1, 2))])
def test_depthwise_sums_some_groups_before_the_next(extents, stride, groups, rng, monkeypatch):
    case = Case(extents, (3, 3), 2, groups, groups, stride, 1, 1, groups)
    x = data(rng, case.x_shape, "f4")
    expected = reference.conv(x, np.ones(case.weight_shape, "f4"), **case.geometry)
    dy = data(rng, expected.shape, "f4")
    exact = reference.conv_grad_weight(dy, x, case.weight_shape, **case.geometry)
    results = []
    for seen in (0, 2**16, 2**30):
        monkeypatch.setattr(depthwise_last_weight, "SEEN_BYTES", seen)
        forget_plans()
        dw = poisoned(case.weight_shape, "f4")
        options = {**case.geometry, **LAST, "algorithm": "depthwise"}
        fastconv.conv2d_grad_weight(last(dy), last(x), dw.shape, **options, out=dw)
        assert_close_in_norm(dw, exact)
        results.append(dw)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


@pytest.mark.parametrize("case", [case for case in CASES if case.padding != "same"][::5], ids=str)
def test_transposed(case, rng):
    x = data(rng, (case.batch, case.filters, *case.extents), "f8")
    w = data(rng, (case.filters, case.channels // case.groups, *case.kernel), "f8")
    b = data(rng, case.channels, "f8")
    try:
        expected = reference.conv_transpose(x, w, b, **case.geometry)
    except ValueError:
        expected = None
    if expected is None or 0 in expected.shape[1:]:
        pytest.skip("the padding leaves nothing of the result")
    y = function("conv_transpose", case.ndim)(last(x), w, b, **case.geometry, **LAST)
    assert_close(first(y), expected)
    dy = data(rng, expected.shape, "f8")
    got = function("conv_transpose_backward", case.ndim)(
        last(dy), last(x), w, **case.geometry, **LAST
    )
    dx, dw, db = function("conv_transpose_backward", case.ndim)(dy, x, w, **case.geometry)
    assert_close(first(got[0]), dx)
    assert_close(got[1], dw)
    assert_close(got[2], db, tolerance=1e-12)
    options = {**case.geometry, **LAST}
    single = function("conv_transpose_grad_input", case.ndim)(last(dy), w, last(x).shape, **options)
    np.testing.assert_array_equal(single, got[0])
    single = function("conv_transpose_grad_weight", case.ndim)(
        last(dy), last(x), w.shape, **options
    )
    np.testing.assert_array_equal(single, got[1])


def test_unbatched(rng):
    x, w = data(rng, (2, 20, 8, 9), "f4"), data(rng, (18, 20, 3, 2), "f4")
    y = fastconv.conv2d(last(x), w, padding=1, **LAST)
    for n in range(2):
        one = fastconv.conv2d(last(x)[n], w, padding=1, **LAST)
        np.testing.assert_array_equal(one, y[n])
    dx, _, db = fastconv.conv2d_backward(y[1], last(x)[1], w, padding=1, **LAST)
    assert dx.shape == (8, 9, 20)
    assert db.shape == (18,)


@pytest.mark.parametrize("layer_type", [fastconv.Conv2d, fastconv.ConvTranspose2d])
def test_layers(layer_type, rng):
    x = data(rng, (2, 6, 8, 9), "f4")
    layers = [layer_type(6, 10, 3, stride=2, padding=1, rng=1, **o) for o in ({}, LAST)]
    y, y_last = layers[0].forward(x), layers[1].forward(last(x))
    assert_close(first(y_last), y.astype("f8"))
    dx, dx_last = layers[0].backward(y), layers[1].backward(last(y))
    assert_close(first(dx_last), dx.astype("f8"))
    for name, grad in layers[0].grads.items():
        assert_close(layers[1].grads[name], grad.astype("f8"))


def test_long_bias_gradients_keep_their_precision():
    dy = np.random.default_rng(0).random((1, 1024, 1025, 1), np.float32)
    db = fastconv.conv2d_grad_bias(dy, **LAST)
    assert abs(db.item() / dy.sum(dtype="f8") - 1) < 1e-6


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"data_format": "NHWC"}, ValueError, 'data_format must be "channels_first" or'),
        ({"data_format": None}, ValueError, "data_format must be"),
        ({"x": np.ones((8, 9), "f4")}, ValueError, r"x must have 4 axes \(N, H, W, C\)"),
        (
            {"x": np.ones((2, 8, 9, 5), "f4")},
            ValueError,
            r"to match x \(channels first\) of shape \(2, 5, 8, 9\)",
        ),
        ({"out": np.ones((2, 6, 6, 8), "f4")}, ValueError, r"out must have shape \(2, 6, 8, 6\)"),
    ],
)
def test_mistakes(changes, error, message):
    arguments = {"x": np.ones((2, 8, 9, 4), "f4"), "weight": np.ones((6, 4, 3, 2), "f4"), **LAST}
    options = {**arguments, **changes}
    with pytest.raises(error, match=message):
        fastconv.conv2d(**options)


def test_mistakes_in_shapes():
    dy, w = np.ones((2, 6, 8, 6), "f4"), np.ones((6, 4, 3, 2), "f4")
    with pytest.raises(ValueError, match=r"input_shape must have 4 axes \(N, H, W, C\)"):
        fastconv.conv2d_grad_input(dy, w, (8, 9), **LAST)
    with pytest.raises(ValueError, match=r"grad_output must have the shape of .*\(2, 6, 8, 6\)"):
        fastconv.conv2d_grad_input(first(dy), w, (2, 8, 9, 4), **LAST)
