"""Numbers that no CUDA kernel has, on a device or in Numba's simulator: see ``test_cuda.py``."""

from dataclasses import replace

import numpy as np
import pytest

import fastconv
from fastconv import padded
from fastconv.dtypes import INTEGERS

from . import pool_reference, reference
from .cases import Case
from .dtype_maps import (
    assert_rounded_once,
    assert_sums,
    data,
    maps_of,
    transposed_maps_of,
)
from .dtypes import BFLOAT16, NEEDS_ML_DTYPES, exactly, integers_of, result_dtype, wrapped
from .test_cuda import FEW, TILES, few_blocks  # noqa: F401  # which finds out whether it can run
from .test_maps import function

pytest.importorskip("numba_cuda")
from numba import cuda

from fastconv.cuda import conversion
from fastconv.cuda.arrays import operand

# What a device does without a word: the simulator's integers wrap around, and its halves overflow.
pytestmark = [
    pytest.mark.filterwarnings("ignore:overflow encountered in scalar:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning"),
]

CASES = [
    replace(FEW[i], batch=2, channels=4, filters=6, groups=2 if i % 2 else 1) for i in (1, 4, 7)
] + [Case((5, 4), (3, 2), channels=3, filters=2, stride=(2, 1), padding=((0, 2), 1))]
ALGORITHMS = ("reference", "planar", "auto", "planar")

FLOATING = [
    pytest.param("bfloat16", None, marks=NEEDS_ML_DTYPES),
    pytest.param("bfloat16", "float64", marks=NEEDS_ML_DTYPES),
    ("float16", "float64"),
    ("float32", "float64"),
    ("complex64", None),
    ("complex64", "float64"),
    ("complex128", None),
]


def named(dtype):
    return BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype)


def sums_of(dtype, accumulate):
    return accumulate or ("float64" if dtype == "complex128" else "float32")


def on_device(*arrays):
    return [cuda.to_device(np.ascontiguousarray(array)) for array in arrays]


def poisoned(shape, dtype):
    """NaN everywhere, or an integer that nobody would take for a result."""
    dtype = np.dtype(dtype)
    return cuda.to_device(np.full(shape, 77 if dtype.kind in "iu" else np.nan, dtype))


def computed(map_, case, **options):
    f, dtype = function(map_.name, case.ndim), map_.arrays[0].dtype
    if map_.name == "conv_grad_bias":
        options.pop("algorithm", None)
        result = f(*on_device(*map_.arrays), **options)
    else:
        out = poisoned(map_.expected.shape, dtype)
        result = f(*on_device(*map_.arrays), *map_.shape, **case.geometry, **options, out=out)
        assert result is out
    result = result.copy_to_host()
    assert result.dtype == dtype
    assert result.shape == map_.expected.shape
    return result


def assert_near(map_, result, accumulate):
    """What sums may be off, and half a unit in the last place of what they are rounded to."""
    sums = sums_of(result.dtype.name, accumulate)
    if result.dtype.kind != "c":
        assert_rounded_once(map_, result, sums)
    elif accumulate is None:
        assert_sums(map_, result, sums)
    else:
        for part in ("real", "imag"):
            half = replace(map_, expected=getattr(map_.expected, part))
            assert_rounded_once(half, getattr(result, part), sums)


@pytest.mark.parametrize(("dtype", "accumulate"), FLOATING)
@pytest.mark.parametrize(
    ("case", "algorithm"),
    [*zip(CASES, ALGORITHMS, strict=True), (TILES[2], "gemm"), (TILES[2], "auto")],
    ids=str,
)
def test_maps(case, algorithm, dtype, accumulate, rng):
    sums = sums_of(dtype, accumulate)
    if algorithm == "gemm" and sums == "float64":
        pytest.skip("tiles are of float32")
    for map_ in maps_of(case, named(dtype), rng):
        result = computed(map_, case, algorithm=algorithm, accumulate_dtype=accumulate)
        assert_near(map_, result, accumulate)


@pytest.mark.parametrize(("dtype", "accumulate"), FLOATING)
@pytest.mark.parametrize(
    "case",
    [
        Case((4, 5), (3, 2), stride=(2, 3), padding=(1, 0), channels=4, filters=2, groups=2),
        Case((2, 3, 2), (2, 1, 2), batch=1, padding=((1, 0), 0, 1), dilation=(1, 2, 1)),
    ],
    ids=str,
)
def test_transposed(case, dtype, accumulate, rng):
    for map_ in transposed_maps_of(case, named(dtype), rng):
        assert_near(map_, computed(map_, case, accumulate_dtype=accumulate), accumulate)


@pytest.mark.parametrize("dtype", ["float32", "complex64", "float16"])
def test_float64_sees_what_float32_loses(dtype):
    """2**30 + 1 - 2**30, of factors that float16 has."""
    x = np.array([[[2.0**15, 1, 2.0**15]]], dtype)
    w = np.array([[[2.0**15, 1, -(2.0**15)]]], dtype)
    y = fastconv.conv1d(*on_device(x, w), accumulate_dtype="float64")
    assert y.copy_to_host().item() == 1
    assert fastconv.conv1d(*on_device(x, w)).copy_to_host().item() == 0


SHOWING = Case(
    (5, 4), (3, 2), batch=3, channels=4, filters=2, groups=2, padding=1, padding_mode="reflect"
)


@pytest.mark.parametrize("form", ["channels_first", "channels_last"])
@pytest.mark.parametrize(
    "dtype", [pytest.param("bfloat16", marks=NEEDS_ML_DTYPES), "complex64", "complex128"]
)
def test_layouts_of_images_with_padding(dtype, form, rng, monkeypatch):
    """Two images at a time; results in parts are added up before they are rounded."""
    monkeypatch.setattr(padded, "PIECE_BYTES", 2100 if dtype == "complex128" else 1050)
    maps = {map_.name: map_ for map_ in maps_of(SHOWING, named(dtype), rng)}

    def moved(array):
        return np.moveaxis(array, 1, -1) if form == "channels_last" else array

    (x, w, b), (dy, _) = maps["conv"].arrays, maps["conv_grad_input"].arrays
    dx, dys, w, b = *on_device(moved(x), moved(dy)), *on_device(w, b)
    options = {**SHOWING.geometry, "data_format": form}
    y = fastconv.conv2d(dx, w, b, **options)
    of_x, of_w, of_b = fastconv.conv2d_backward(dys, dx, w, **options)
    back = (lambda a: np.moveaxis(a, -1, 1)) if form == "channels_last" else (lambda a: a)
    for map_, result in zip(maps.values(), (y, of_x, of_w, of_b), strict=True):
        result = result.copy_to_host()
        if map_.name in ("conv", "conv_grad_input"):
            result = back(result)
        if map_.name == "conv_grad_input":
            # What each pixel of the padding gets is added to what the image's own has.
            excess = np.abs(reference.wide(result) - map_.expected)
            tolerance = {"bfloat16": 2.0**-8, "complex64": 2.0**-20, "complex128": 2.0**-49}[dtype]
            assert (excess <= tolerance * np.abs(map_.scale).max()).all()
        else:
            assert_near(map_, result, None)
    # One image alone, without a batch axis.
    y = fastconv.conv2d(dx[1], w, b, **options).copy_to_host()
    expected = maps["conv"].expected[1]
    y = np.moveaxis(y, -1, 0) if form == "channels_last" else y
    tolerance = 2.0**-7 if dtype == "bfloat16" else 2.0**-20
    assert np.abs(reference.wide(y) - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize(
    "dtype", [pytest.param("bfloat16", marks=NEEDS_ML_DTYPES), "complex64", "complex128"]
)
def test_per_sample(dtype, mode, rng):
    case = replace(SHOWING, padding_mode=mode)
    x = data(rng, case.x_shape, named(dtype))
    dy = data(rng, reference.conv(x, np.zeros(case.weight_shape), **case.geometry).shape, x.dtype)
    shape = (case.batch, *case.weight_shape)
    out = poisoned(shape, x.dtype)
    options = {**case.geometry, "per_sample": True, "out": out}
    fastconv.conv2d_grad_weight(*on_device(dy, x), case.weight_shape, **options)
    expected = np.stack(
        [
            reference.conv_grad_weight(
                reference.wide(dy[n : n + 1]),
                reference.wide(x[n : n + 1]).conj(),
                case.weight_shape,
                **case.geometry,
            )
            for n in range(case.batch)
        ]
    )
    tolerance = {"bfloat16": 2.0**-7, "complex64": 2.0**-20, "complex128": 2.0**-48}[dtype]
    excess = np.abs(reference.wide(out.copy_to_host()) - expected)
    assert excess.max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("dtype", [pytest.param("bfloat16", marks=NEEDS_ML_DTYPES), "complex128"])
@pytest.mark.parametrize("family", ["conv", "conv_transpose"])
def test_double_backward_is_that_of_the_cpu(family, dtype, rng):
    case = Case((3, 2), (2, 1), channels=2, filters=4, groups=2, stride=(2, 1), padding=(1, 0))
    x_shape = case.x_shape if family == "conv" else (2, 4, 2, 2)
    x, ggx = data(rng, x_shape, named(dtype)), data(rng, x_shape, named(dtype))
    w, ggw = (data(rng, case.weight_shape, named(dtype)) for _ in range(2))
    ggb = data(rng, 4 if family == "conv" else 2, named(dtype))
    dy = getattr(fastconv, f"{family}2d")(x, w, ggb, **case.geometry)
    second = getattr(fastconv, f"{family}2d_double_backward")
    tolerance = {"bfloat16": 2.0**-7, "complex128": 2.0**-48}[dtype]
    for given in ((ggx, ggw, ggb, dy, x, w), (None, None, ggb, dy, x, w)):
        arrays = [None if a is None else cuda.to_device(a) for a in given]
        expected = second(*given, **case.geometry)
        for got, right in zip(second(*arrays, **case.geometry), expected, strict=True):
            assert (got is None) == (right is None)
            if got is not None:
                error = np.abs(reference.wide(got.copy_to_host()) - reference.wide(right))
                assert error.max() <= tolerance * np.abs(reference.wide(right)).max()


@NEEDS_ML_DTYPES
def test_activation_of_bfloat16(rng):
    case = Case((4, 5), (1, 2), channels=4, filters=6)
    x, w, b = (data(rng, n, BFLOAT16) for n in (case.x_shape, case.weight_shape, case.filters))
    y = fastconv.conv2d(*on_device(x, w, b), activation="relu")
    linear = fastconv.conv2d(*on_device(x, w, b)).copy_to_host().astype("f4")
    host = y.copy_to_host().astype("f4")
    np.testing.assert_array_equal(host, np.maximum(linear, 0))
    assert (host == 0).any()
    dy = data(rng, host.shape, BFLOAT16)
    left = np.where(host > 0, dy.astype("f4"), 0).astype(BFLOAT16)
    dx, weight = (cuda.to_device(a) for a in (x, w))
    got = fastconv.conv2d_backward(cuda.to_device(dy), dx, weight, activation="relu", y=y)
    expected = fastconv.conv2d_backward(cuda.to_device(left), dx, weight)
    for mine, right in zip(got, expected, strict=True):
        np.testing.assert_array_equal(
            mine.copy_to_host().view("u2"), right.copy_to_host().view("u2")
        )


@NEEDS_ML_DTYPES
def test_pooling_of_bfloat16(rng):
    x = data(rng, (2, 2, 3, 5), BFLOAT16)
    device = cuda.to_device(x)
    y, indices = fastconv.max_pool2d(device, (2, 3), 2, 1, return_indices=True)
    expected, places = pool_reference.max_pool(x.astype("f8"), (2, 3), 2, 1)
    np.testing.assert_array_equal(y.copy_to_host().astype("f8"), expected)
    np.testing.assert_array_equal(indices.copy_to_host(), places)
    dy = data(rng, expected.shape, BFLOAT16)
    host = {"max": (dy, x), "avg": (dy, x.shape)}
    for kind, given in host.items():
        on = [a if isinstance(a, tuple) else cuda.to_device(a) for a in given]
        f = getattr(fastconv, f"{kind}_pool2d_grad_input")
        got, right = f(*on, (2, 3), 2, 1).copy_to_host(), f(*given, (2, 3), 2, 1)
        np.testing.assert_array_equal(got.view("u2"), right.view("u2"))
    y = fastconv.avg_pool2d(device, 3, 2).copy_to_host()
    means = pool_reference.avg_pool(x.astype("f8"), 3, 2)
    assert np.abs(y.astype("f8") - means).max() <= 2.0**-8 * np.abs(means).max()


PAIRS = [(dtype.name, dtype.name) for dtype in INTEGERS] + [("uint8", "int8")]


@pytest.fixture(params=PAIRS, ids=lambda pair: "-".join(dict.fromkeys(pair)))
def pair(request):
    return tuple(map(np.dtype, request.param))


INTEGER_CASE = Case((5, 6), (3, 2), stride=(1, 2), padding=1, channels=4, filters=6, groups=2)


@pytest.mark.parametrize("algorithm", ["auto", "reference"])
def test_integers(algorithm, pair, rng):
    case, dtype = INTEGER_CASE, result_dtype(pair[0])
    x, w = integers_of(rng, case.x_shape, pair[0]), integers_of(rng, case.weight_shape, pair[1])
    b = integers_of(rng, case.filters, dtype)
    exact = exactly("conv", x, w, b, **case.geometry)
    out = poisoned(exact.shape, dtype)
    y = fastconv.conv2d(*on_device(x, w, b), **case.geometry, algorithm=algorithm, out=out)
    assert y is out
    np.testing.assert_array_equal(y.copy_to_host(), wrapped(exact, dtype))
    last = cuda.to_device(np.ascontiguousarray(np.moveaxis(x, 1, -1)))
    options = {**case.geometry, "algorithm": algorithm, "data_format": "channels_last"}
    y = fastconv.conv2d(last, *on_device(w, b), **options).copy_to_host()
    np.testing.assert_array_equal(y, np.moveaxis(wrapped(exact, dtype), 1, -1))


def test_integers_transposed(pair, rng):
    case, dtype = INTEGER_CASE, result_dtype(pair[0])
    x = integers_of(rng, (2, 6, 4, 3), pair[0])
    w = integers_of(rng, case.weight_shape, pair[1])
    exact = exactly("conv_transpose", x, w, **case.geometry)
    y = fastconv.conv_transpose2d(*on_device(x, w), **case.geometry)
    np.testing.assert_array_equal(y.copy_to_host(), wrapped(exact, dtype))


@pytest.mark.parametrize("out_dtype", INTEGERS, ids=str)
def test_out_dtype_and_activation(out_dtype, rng):
    """What wraps around to a number below zero is below zero."""
    x, w = (integers_of(rng, shape, "i2") for shape in ((1, 2, 9), (3, 2, 3)))
    expected = wrapped(exactly("conv", x, w), out_dtype)
    y = fastconv.conv1d(*on_device(x, w), out_dtype=out_dtype)
    assert y.dtype == out_dtype
    np.testing.assert_array_equal(y.copy_to_host(), expected)
    y = fastconv.conv1d(*on_device(x, w), out_dtype=out_dtype, activation="relu")
    np.testing.assert_array_equal(y.copy_to_host(), np.maximum(expected, 0))


def test_activation_of_integers_that_kernels_take_as_they_are():
    """On a device their sums are wider than they are: it is the wrapped ones that count."""
    x, w = np.full((1, 1, 2), 2**30, np.int32), np.ones((1, 1, 2), np.int32)
    assert fastconv.conv1d(*on_device(x, w)).copy_to_host().item() == -(2**31)
    assert fastconv.conv1d(*on_device(x, w), activation="relu").copy_to_host().item() == 0


@pytest.mark.parametrize("mode", ["reflect", "circular"])
def test_integers_with_padding(mode, rng):
    x, w = integers_of(rng, (2, 3, 5), "i1"), integers_of(rng, (2, 3, 3), "i1")
    options = {"padding": 2, "padding_mode": mode}
    y = fastconv.conv1d(*on_device(x, w), **options)
    expected = wrapped(exactly("conv", x, w, **options), np.dtype("i4"))
    np.testing.assert_array_equal(y.copy_to_host(), expected)


@pytest.mark.parametrize("dtype", [dtype for dtype in INTEGERS if dtype.itemsize <= 4], ids=str)
def test_pooling_of_integers(dtype, rng):
    x = integers_of(rng, (2, 3, 5, 6), dtype)
    x[0, 0, :2] = np.iinfo(dtype).min
    y, indices = fastconv.max_pool2d(cuda.to_device(x), (2, 3), 2, 1, return_indices=True)
    assert y.dtype == dtype
    expected, places = pool_reference.max_pool(x.astype("f8"), (2, 3), 2, 1)
    np.testing.assert_array_equal(y.copy_to_host(), expected)
    np.testing.assert_array_equal(indices.copy_to_host(), places)


X, W = np.ones((1, 2, 5), np.int8), np.ones((3, 2, 3), np.int8)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fastconv.conv1d_grad_input(*on_device(X, W), X.shape), TypeError, "gradients are"),
        (lambda: fastconv.conv1d(*on_device(X, W.astype("i4"))), TypeError, "x int8 and weight in"),
        (
            lambda: fastconv.conv1d(*on_device(X, W), accumulate_dtype="f8"),
            TypeError,
            "accumulate_dtype is for floating-point",
        ),
        (
            lambda: fastconv.conv1d(*on_device(X > 0, W > 0)),
            TypeError,
            "x must be float16.* got bool",
        ),
        (
            lambda: fastconv.conv1d(*on_device(X, W), algorithm="gemm"),
            ValueError,
            '"gemm" cannot serve this call: its sums are float32, too short for int32',
        ),
        (
            lambda: fastconv.conv1d(*on_device(X.astype("c8"), W.astype("c8")), activation="relu"),
            TypeError,
            "activation must be None for complex numbers",
        ),
        (
            lambda: fastconv.max_pool1d(*on_device(X.astype("c8")), 2),
            TypeError,
            "x must be float16, bfloat16, float32 or float64, or integers of .* got complex64",
        ),
        (
            lambda: fastconv.conv1d(*on_device(X, W), out=cuda.to_device(np.ones((1, 3, 3), "i1"))),
            ValueError,
            "out must be int32, got int8",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def converted(numbers, target):
    numbers = np.asarray(numbers)
    source, out = on_device(numbers, np.empty(numbers.shape, target))
    how = conversion.Conversion(numbers.dtype, np.dtype(target))
    conversion.convert(operand(source), operand(out), how, source)
    return out.copy_to_host()


@NEEDS_ML_DTYPES
def test_bfloat16_by_its_bits():
    """To float32 exactly, and back from all that is near."""
    patterns = np.concatenate([np.arange(0, 2**16, 97), [0x7F7F, 0x7F80, 0x7F81, 0xFFC0, 1, 0x80]])
    patterns = np.unique(patterns).astype(np.uint16)
    numbers = patterns.view(BFLOAT16)
    with np.errstate(invalid="ignore"):
        wide = numbers.astype("f4")
        finite = np.isfinite(wide)
        np.testing.assert_array_equal(converted(numbers, "f4"), wide)
        assert np.isnan(converted(wide[np.isnan(wide)], BFLOAT16).astype("f4")).all()
    np.testing.assert_array_equal(converted(wide[finite], BFLOAT16).view("u2"), patterns[finite])
    low = patterns[(patterns < 0x7F80)]
    below = low.view(BFLOAT16).astype("f8")
    above = np.where(low < 0x7F7F, (low + 1).view(BFLOAT16).astype("f8"), 2.0**128)
    halfway, even = (below + above) / 2, low + (low & 1)
    for dtype in ("f4", "f8"):
        middle = halfway.astype(dtype)
        for given, expected in (
            (np.nextafter(middle, np.array(0, dtype)), low),
            (middle, even),
            (np.nextafter(middle, np.array(np.inf, dtype)), low + 1),
        ):
            np.testing.assert_array_equal(converted(given, BFLOAT16).view("u2"), expected)
            np.testing.assert_array_equal(converted(-given, BFLOAT16).view("u2"), expected | 0x8000)


def test_float64_goes_to_float16_in_one_step():
    """Rounded to float32 first, these would come to lie halfway."""
    one = np.float64(1 + 2.0**-11)
    numbers = np.array([one + 2.0**-40, one, one - 2.0**-40, 65520 - 2.0**-30, 65520])
    with np.errstate(over="ignore"):
        expected = numbers.astype("f2")
        np.testing.assert_array_equal(converted(numbers, "f2"), expected)


@pytest.mark.parametrize("target", ["int8", "uint8", "int16", "uint32", "int64", "uint64"])
def test_integers_wrap_around(target):
    numbers = np.array([0, -1, 127, 128, -129, 2**31 - 1, -(2**31)], np.int32)
    np.testing.assert_array_equal(converted(numbers, target), numbers.astype(target))


def test_explain():
    """Copies are part of what a call needs."""
    shapes, options = ((2, 64, 20, 21), (64, 64, 3, 3)), {"padding": 1, "backend": "cuda"}
    plain = fastconv.explain(*shapes, **options).maps["forward"]
    told = fastconv.explain(*shapes, **options, dtype="complex64").maps["forward"]
    assert plain.algorithm == told.algorithm == "gemm"
    assert told.products == 4 * plain.products
    told = fastconv.explain(*shapes, **options, dtype="int8").maps["forward"]
    assert told.algorithm == "planar"
    assert "too short for int32" in told.why
    x, w = (int(np.prod(shape)) for shape in shapes)
    assert told.workspace == 4 * (x + w + x)
    told = fastconv.explain(*shapes, **options, accumulate_dtype="float64").maps["forward"]
    assert told.algorithm == "planar"
    assert fastconv.explain(*shapes, **options, dtype="int32").maps["forward"].workspace == 0
    if BFLOAT16 is not None:  # its numbers are some of TF32's
        told = fastconv.explain(*shapes, **options, dtype=BFLOAT16)
        assert {plan.algorithm for plan in told.maps.values()} == {"tf32"}
