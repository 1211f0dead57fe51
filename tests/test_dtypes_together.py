"""Padding modes, activations, per_sample and gradients of gradients, of every dtype."""

from dataclasses import replace

import numpy as np
import pytest

import fastconv
from fastconv import cpu, padded
from fastconv.cpu import converted

from . import reference
from .cases import Case
from .dtype_maps import data
from .dtypes import BFLOAT16, NEEDS_ML_DTYPES, conjugate, exactly, integers_of, ulp, wrapped
from .test_channels_last import LAST, last
from .test_maps import function, poisoned, read_only, strided

# Stored numbers, what their sums may be off in units of the largest, and options.
KINDS = {
    "float16": ("float16", 1e-5, {}),
    "bfloat16": (BFLOAT16, 1e-5, {}),
    "complex64": ("complex64", 1e-5, {}),
    "complex128": ("complex128", 1e-14, {}),
    "float32 in float64": ("float32", 1e-13, {"accumulate_dtype": "float64"}),
    "float16 in float64": ("float16", 1e-13, {"accumulate_dtype": "float64"}),
    "complex64 in float64": ("complex64", 1e-13, {"accumulate_dtype": "float64"}),
}
REAL = [kind for kind in KINDS if "complex" not in kind]
SHOWING = ("reflect", "replicate", "circular")
CASE = Case((9, 12), (3, 2), batch=3, channels=4, filters=6, groups=2, padding=((2, 1), (0, 3)))
CASES = [
    *[replace(CASE, padding_mode=mode) for mode in SHOWING],
    Case((11,), (3,), channels=18, filters=5, stride=2, padding=4, padding_mode="reflect"),
    Case((4, 3, 5), (2, 3, 2), dilation=(1, 2, 1), padding=2, padding_mode="circular"),
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def marked(kinds):
    return [pytest.param(k, marks=NEEDS_ML_DTYPES) if k == "bfloat16" else k for k in kinds]


every_kind = pytest.mark.parametrize("kind", marked(KINDS))
real_kind = pytest.mark.parametrize("kind", marked(REAL))


def assert_rounded(got, expected, digits):
    """To the nearest, or one for sums that are so far off."""
    error = digits * np.abs(expected).max(initial=0)
    for part in (np.real, np.imag):
        allowed = ulp(np.abs(part(expected)) + error, got.dtype) / 2 + error
        assert (np.abs(part(reference.wide(got)) - part(expected)) <= allowed).all()


def operands(case, dtype, rng):
    x, w, b = (data(rng, n, dtype) for n in (case.x_shape, case.weight_shape, case.filters))
    dy = data(rng, reference.conv(x, w, **case.geometry).shape, dtype)
    read_only(x, w, b, dy)
    return x, w, b, dy


def check_padding(case, kind, rng, to, back, options):
    dtype, digits, more = KINDS[kind]
    x, w, b, dy = operands(case, dtype, rng)
    options = {**case.geometry, **options, **more}
    conv = f"conv{case.ndim}d"
    out = poisoned(to(dy).shape, dtype)
    assert getattr(fastconv, conv)(to(x), w, b, **options, out=out) is out
    assert_rounded(back(out), reference.conv(x, w, b, **case.geometry), digits)
    out = poisoned(to(x).shape, dtype)
    getattr(fastconv, f"{conv}_grad_input")(to(dy), w, out.shape, **options, out=out)
    expected = reference.conv_grad_input(dy, conjugate(w), x.shape, **case.geometry)
    assert_rounded(back(out), expected, digits)
    out = poisoned(w.shape, dtype)
    getattr(fastconv, f"{conv}_grad_weight")(to(dy), to(x), w.shape, **options, out=out)
    expected = reference.conv_grad_weight(dy, conjugate(x), w.shape, **case.geometry)
    assert_rounded(out, expected, digits)


def same(array):
    return array


@every_kind
@every_case
def test_padding_mode(case, kind, rng):
    check_padding(case, kind, rng, same, same, {})


@every_kind
@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_padding_mode_with_channels_last(case, kind, rng):
    check_padding(case, kind, rng, last, lambda a: np.moveaxis(a, -1, 1), LAST)


@every_kind
def test_padding_mode_of_a_batch_in_parts(kind, rng, monkeypatch):
    """Sums over the parts are rounded once."""
    monkeypatch.setattr(padded, "PIECE_BYTES", 1)
    check_padding(replace(CASES[0], batch=9), kind, rng, same, same, {})


@real_kind
@pytest.mark.parametrize("nbytes", [1, 30_000], ids=["images", "parts"])
@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_copies_of_a_batch_in_parts(mode, nbytes, kind, rng, monkeypatch):
    sizes, forward = [], cpu.forward

    def counted(x, *rest):
        sizes.append(len(x))
        return forward(x, *rest)

    monkeypatch.setattr(cpu, "forward", counted)
    monkeypatch.setattr(converted, "PIECE_BYTES", nbytes)
    case = replace(CASE, batch=9, padding_mode=mode)
    check_padding(case, kind, rng, same, same, {})
    assert sum(sizes) == case.batch
    assert max(sizes) == 1 if nbytes == 1 else 1 < max(sizes) < case.batch
    check_padding(case, kind, rng, last, lambda a: np.moveaxis(a, -1, 1), LAST)


@pytest.mark.parametrize("algorithm", ["auto", "reference"])
@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64"])
@every_case
def test_padding_mode_and_relu_of_integers(case, dtype, algorithm, rng):
    x, w = integers_of(rng, case.x_shape, dtype), integers_of(rng, case.weight_shape, dtype)
    result = np.dtype("int64" if dtype == "int64" else "int32")
    b = integers_of(rng, case.filters, result)
    expected = wrapped(exactly("conv", x, w, b, **case.geometry), result)
    conv = function("conv", case.ndim)
    for activation, right in ((None, expected), ("relu", np.maximum(expected, 0))):
        options = {**case.geometry, "activation": activation, "algorithm": algorithm}
        np.testing.assert_array_equal(conv(x, w, b, **options), right)
        got = conv(last(x), w, b, **options, **LAST)
        np.testing.assert_array_equal(np.moveaxis(got, -1, 1), right)


@real_kind
@pytest.mark.parametrize("family", ["conv", "conv_transpose"])
def test_relu(family, kind, rng):
    dtype, digits, more = KINDS[kind]
    x, w = data(rng, (2, 4, 7, 9), dtype), data(rng, (4, 2, 3, 2), dtype)
    b, g = data(rng, 4, dtype), {"stride": (2, 1), "padding": 1, "groups": 2}
    expected = getattr(reference, family)(x, w, b, **g)
    out = poisoned(expected.shape, dtype)
    getattr(fastconv, f"{family}2d")(x, w, b, **g, **more, activation="relu", out=out)
    assert_rounded(out, np.maximum(expected, 0), digits)
    dy = data(rng, expected.shape, dtype)
    backward = getattr(fastconv, f"{family}2d_backward")
    masked = np.where(reference.wide(out) > 0, dy, np.zeros((), dtype))
    right = backward(masked, x, w, **g, **more)
    for sdy, sy in zip(strided(dy), strided(out), strict=True):
        got = backward(sdy, x, w, **g, **more, activation="relu", y=sy)
        for mine, expected in zip(got, right, strict=True):
            np.testing.assert_array_equal(mine, expected)


@real_kind
def test_relu_keeps_nan(kind):
    dtype, _, more = KINDS[kind]
    x = np.array([[[np.nan, -1, 1, -0.0]]], dtype)
    y = fastconv.conv1d(x, np.ones((1, 1, 1), dtype), activation="relu", **more)
    np.testing.assert_array_equal(y.astype("f8"), [[[np.nan, 0, 1, 0]]])
    dy = np.full(x.shape, 3, dtype)
    one = np.ones((1, 1, 1), dtype)
    dx, _, _ = fastconv.conv1d_backward(dy, x, one, activation="relu", y=y, **more)
    np.testing.assert_array_equal(dx.astype("f8"), [[[3, 0, 3, 0]]])


def test_complex_numbers_have_no_activation():
    x, w = np.ones((2, 4, 8), "c8"), np.ones((4, 4, 1), "c8")
    out = poisoned(x.shape, "c8")
    no_order = pytest.raises(TypeError, match="activation must be None for complex numbers, which")
    for family in ("conv1d", "conv_transpose1d"):
        with no_order:
            getattr(fastconv, family)(x, w, activation="relu", out=out)
        with no_order:
            getattr(fastconv, f"{family}_backward")(x, x, w, activation="relu", y=x)
        for given in ((x, None, None), (None, w, None), (None, None, w[:, 0, 0])):
            with no_order:
                second = getattr(fastconv, f"{family}_double_backward")
                second(*given, x, x, w, activation="relu", y=x)
    for layer in (fastconv.Conv1d, fastconv.ConvTranspose1d):
        with no_order:
            layer(1, 1, 1, dtype="c16", activation="relu")
    assert np.isnan(out).all()


@every_kind
@pytest.mark.parametrize("options", [{}, LAST], ids=["first", "last"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
def test_per_sample(padding_mode, groups, options, kind, rng, monkeypatch):
    dtype, digits, more = KINDS[kind]
    case = replace(CASE, groups=groups, padding_mode=padding_mode)
    x, w, _, dy = operands(case, dtype, rng)
    expected = [
        reference.conv_grad_weight(dy[n : n + 1], conjugate(x[n : n + 1]), w.shape, **case.geometry)
        for n in range(case.batch)
    ]
    to = last if options else same
    options = {**case.geometry, **options, **more, "per_sample": True}
    monkeypatch.setattr(padded, "PIECE_BYTES", 1)
    for out in strided(poisoned((case.batch, *w.shape), dtype)):
        fastconv.conv2d_grad_weight(to(dy), to(x), w.shape, **options, out=out)
        assert_rounded(out, np.stack(expected), digits)
    empty = fastconv.conv2d_grad_weight(to(dy)[:0], to(x)[:0], w.shape, **options)
    assert empty.shape == (0, *w.shape)


@pytest.mark.parametrize("dtype", ["float16", "complex64"])
def test_per_sample_of_transposed_convolutions(dtype, rng):
    g = {"stride": 2, "groups": 2}
    x, w = data(rng, (3, 4, 5, 4), dtype), data(rng, (4, 3, 3, 2), dtype)
    dy = data(rng, reference.conv_transpose(x, w, **g).shape, dtype)
    dw = fastconv.conv_transpose2d_grad_weight(dy, x, w.shape, **g, per_sample=True)
    each = [
        reference.conv_grad_weight(conjugate(x[n : n + 1]), dy[n : n + 1], w.shape, **g)
        for n in range(3)
    ]
    assert_rounded(dw, np.stack(each), 1e-5)


@every_kind
@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular"])
@pytest.mark.parametrize("options", [{}, LAST], ids=["first", "last"])
def test_double_backward(options, mode, kind, rng):
    dtype, digits, more = KINDS[kind]
    case = replace(CASE, stride=(1, 2), padding_mode=mode)
    x, w, _, dy = operands(case, dtype, rng)
    ggx, ggw, ggb, _ = operands(case, dtype, rng)
    g, to = case.geometry, last if options else same
    back = (lambda a: np.moveaxis(a, -1, 1)) if options else same
    of_dy = reference.conv(ggx, w, ggb, **g) + reference.conv(x, ggw, **g)
    of_x = reference.conv_grad_input(dy, conjugate(ggw), x.shape, **g)
    of_w = reference.conv_grad_weight(dy, conjugate(ggx), w.shape, **g)
    second = fastconv.conv2d_double_backward
    got = second(to(ggx), ggw, ggb, to(dy), to(x), w, **g, **options, **more)
    assert_rounded(back(got[0]), of_dy, digits)
    assert_rounded(back(got[1]), of_x, digits)
    assert_rounded(got[2], of_w, digits)
    spread, _, _ = second(None, None, ggb, to(dy), to(x), w, **g, **options, **more)
    np.testing.assert_array_equal(back(spread), np.broadcast_to(ggb[:, None, None], dy.shape))


@real_kind
@pytest.mark.parametrize("family", ["conv", "conv_transpose"])
def test_double_backward_through_a_relu(family, kind, rng):
    dtype, _, more = KINDS[kind]
    options = {"stride": (2, 1), "padding": 1, "groups": 2, **more}
    x, w = data(rng, (2, 4, 7, 9), dtype), data(rng, (4, 2, 3, 2), dtype)
    y = getattr(fastconv, f"{family}2d")(x, w, activation="relu", **options)
    ggx, ggw, ggb, dy = (data(rng, n, dtype) for n in (x.shape, w.shape, 4, y.shape))
    second = getattr(fastconv, f"{family}2d_double_backward")
    none = np.zeros((), dtype)
    masked = np.where(reference.wide(y) > 0, dy, none)
    of_dy, *others = second(ggx, ggw, ggb, masked, x, w, **options)
    expected = np.where(reference.wide(y) > 0, of_dy, none), *others
    got = second(ggx, ggw, ggb, dy, x, w, activation="relu", y=y, **options)
    for mine, right in zip(got, expected, strict=True):
        assert mine.dtype == dtype
        np.testing.assert_array_equal(mine, right)


@every_kind
def test_double_backward_of_transposed_convolutions(kind, rng):
    dtype, digits, more = KINDS[kind]
    g = {"stride": 2, "groups": 2, "padding": 1}
    x, w = data(rng, (2, 4, 5, 4), dtype), data(rng, (4, 3, 3, 2), dtype)
    ggx, ggw, ggb = (data(rng, n, dtype) for n in (x.shape, w.shape, 6))
    of_dy = reference.conv_transpose(ggx, w, ggb, **g) + reference.conv_transpose(x, ggw, **g)
    dy = data(rng, of_dy.shape, dtype)
    got = fastconv.conv_transpose2d_double_backward(ggx, ggw, ggb, dy, x, w, **g, **more)
    of_x = reference.conv(dy, conjugate(ggw), **g)
    of_w = reference.conv_grad_weight(conjugate(ggx), dy, w.shape, **g)
    for mine, right in zip(got, (of_dy, of_x, of_w), strict=True):
        assert_rounded(mine, right, digits)


def test_integers_have_no_gradients():
    x, w = np.ones((2, 4, 8), "i4"), np.ones((4, 4, 1), "i4")
    for call in (
        lambda: fastconv.conv1d_double_backward(x, None, None, x, x, w),
        lambda: fastconv.conv1d_grad_weight(x, x, w.shape, per_sample=True),
        lambda: fastconv.conv1d_backward(x, x, w, activation="relu", y=x),
    ):
        with pytest.raises(TypeError, match="gradients are of floating-point or complex numbers"):
            call()


def test_explain_counts_copies_in_the_dtype_of_the_sums():
    filters, images, padded = (16, 16, 3, 3), (8, 16, 20, 20), (8, 16, 22, 22)
    told = fastconv.explain(images, filters, padding=1, padding_mode="reflect", dtype="float16")
    on_the_copy = fastconv.explain(padded, filters, dtype="float16")
    assert told.flops == on_the_copy.flops
    assert told.flops == fastconv.explain(images, filters, padding=1, dtype="float16").flops
    for name, plan in told.maps.items():
        assert plan.workspace == on_the_copy.maps[name].workspace + 4 * np.prod(padded)
