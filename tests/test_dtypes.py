"""Floating-point and complex dtypes that no kernel is compiled for, and sums in float64."""

from dataclasses import dataclass, replace
from math import prod

import numpy as np
import pytest

import fastconv

from . import reference
from .cases import CASES, Case
from .child import python
from .dtypes import BFLOAT16, FLOAT16, NEEDS_ML_DTYPES, conjugate, magnitude, ulp
from .test_maps import function, poisoned, read_only, strided

UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}
ALGORITHMS = ("auto", "direct", "planar", "gemm", "depthwise", "reference")


@pytest.fixture(params=["float16", pytest.param("bfloat16", marks=NEEDS_ML_DTYPES)])
def half(request):
    return FLOAT16 if request.param == "float16" else BFLOAT16


@pytest.fixture(params=["complex64", "complex128"])
def complexes(request):
    return np.dtype(request.param)


def every_third(first):
    """A third of all cases, each with one of the algorithms."""
    some = enumerate(CASES[first::3])
    return pytest.mark.parametrize(
        ("case", "algorithm"),
        [pytest.param(c, ALGORITHMS[i % 6], id=f"{c}-{ALGORITHMS[i % 6]}") for i, c in some],
    )


# Every map, against the oracle.


@dataclass
class Map:
    """A call, what it must return, the sums of magnitudes, and how many products are in one."""

    name: str
    arrays: tuple
    shape: tuple
    expected: np.ndarray
    scale: np.ndarray
    products: int


def data(rng, shape, dtype):
    numbers = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        numbers = numbers + 1j * rng.standard_normal(shape)
    return numbers.astype(dtype)


def maps_of(case, dtype, rng):
    """All maps of random data; in gradients dy is multiplied by conjugates."""
    x, w, b = (data(rng, n, dtype) for n in (case.x_shape, case.weight_shape, case.filters))
    pixels = reference.conv(np.zeros(case.x_shape), magnitude(w), **case.geometry).shape
    dy = data(rng, pixels, dtype)
    read_only(x, w, b, dy)
    taps, groups, pixels = prod(case.kernel), case.groups, dy[:, 0].size
    for name, arrays, shape, products in (
        ("conv", (x, w, b), (), case.channels // groups * taps + 1),
        ("conv_grad_input", (dy, w), (case.x_shape,), case.filters // groups * taps),
        ("conv_grad_weight", (dy, x), (case.weight_shape,), pixels),
    ):
        oracle = getattr(reference, name)
        operands = arrays if name == "conv" else (dy, conjugate(arrays[1]))
        expected = oracle(*operands, *shape, **case.geometry)
        scale = oracle(*map(magnitude, arrays), *shape, **case.geometry)
        yield Map(name, arrays, shape, expected, scale, products)
    axes = (0, *range(2, dy.ndim))
    sums = [f(dy).sum(axis=axes) for f in (reference.wide, magnitude)]
    yield Map("conv_grad_bias", (dy,), (), *sums, pixels)


def transposed_maps_of(case, dtype, rng):
    """The same of transposed convolutions, from K to C channels."""
    x = data(rng, (case.batch, case.filters, *case.extents), dtype)
    w, b = data(rng, case.weight_shape, dtype), data(rng, case.channels, dtype)
    g, taps, groups = case.geometry, prod(case.kernel), case.groups
    expected = reference.conv_transpose(x, w, b, **g)
    scale = reference.conv_transpose(*map(magnitude, (x, w, b)), **g)
    products = case.filters // groups * taps + 1
    yield Map("conv_transpose", (x, w, b), (), expected, scale, products)
    dy = data(rng, expected.shape, dtype)
    read_only(x, w, b, dy)
    dx = [reference.conv(f(dy), f2(w), **g) for f, f2 in RULES]
    yield Map("conv_transpose_grad_input", (dy, w), (x.shape,), *dx, case.channels * taps)
    dw = [reference.conv_grad_weight(f2(x), f(dy), w.shape, **g) for f, f2 in RULES]
    yield Map("conv_transpose_grad_weight", (dy, x), (w.shape,), *dw, x[:, 0].size)


RULES = ((reference.wide, conjugate), (magnitude, magnitude))
TRANSPOSED = [
    Case((9, 12), (3, 2), stride=(2, 3), padding=(1, 0), channels=4, filters=6, groups=2),
    Case((7,), (4,), stride=3, dilation=2, padding="same", channels=17, filters=18),
    Case((4, 3, 5), (3, 2, 2), batch=3, padding=((1, 0), 1, 0), dilation=(1, 2, 1)),
]


def computed(map_, case, **options):
    """What the package says, in an array that was full of NaN where it takes one."""
    f, dtype = function(map_.name, case.ndim), map_.arrays[0].dtype
    if map_.name == "conv_grad_bias":
        options.pop("algorithm", None)
        result = f(*map_.arrays, **options)
    else:
        out = poisoned(map_.expected.shape, dtype)
        result = f(*map_.arrays, *map_.shape, **case.geometry, **options, out=out)
        assert result is out
    assert result.dtype == dtype
    assert result.shape == map_.expected.shape
    return result


def off(map_, sums):
    """What sums in this dtype may be off: a unit of rounding of magnitudes for each product.

    A part of complex numbers has two for each. The oracle's own sums are in float64.
    """
    parts = 2 if map_.expected.dtype.kind == "c" else 1
    oracle = 2 if sums == "float64" else 1
    return oracle * (parts * map_.products + 1) * UNIT[sums] * map_.scale


def assert_sums(map_, result, sums):
    excess = np.abs(reference.wide(result) - map_.expected) - off(map_, sums)
    assert (excess <= 0).all(), f"{map_.name}: {excess.max():.2e} too much"


def assert_rounded_once(map_, result, sums, error=None):
    """Half a unit in the last place of what may be the sum."""
    error = off(map_, sums) if error is None else error
    allowed = ulp(np.abs(map_.expected) + error, result.dtype) / 2 + error
    excess = np.abs(reference.wide(result) - map_.expected) - allowed
    assert (excess <= 0).all(), f"{map_.name}: {excess.max():.2e} too much"


# Half precision.


@every_third(0)
def test_half(case, algorithm, half, rng):
    for map_ in maps_of(case, half, rng):
        assert_rounded_once(map_, computed(map_, case, algorithm=algorithm), "float32")


@pytest.mark.parametrize("case", TRANSPOSED, ids=str)
def test_half_transposed(case, half, rng):
    for map_ in transposed_maps_of(case, half, rng):
        assert_rounded_once(map_, computed(map_, case), "float32")


def test_half_with_winograd(half, rng):
    case = Case((13, 11), (3, 3), padding=1, channels=18, filters=20)
    for map_ in maps_of(case, half, rng):
        error = 30 * off(map_, "float32").max()  # of its transforms, of the largest in a tile
        result = computed(map_, case, algorithm="winograd")
        assert_rounded_once(map_, result, "float32", error)


def test_half_is_not_summed_in_half(half):
    """One for each of 5000 products is lost in either format from 2048 on."""
    ones, nearest = np.ones((1, 5000, 1), half), 5000 if half == FLOAT16 else 4992
    assert fastconv.conv1d(ones, ones).item() == nearest
    assert fastconv.conv1d_grad_bias(ones.reshape(1, 1, 5000)).item() == nearest


def test_half_overflows_to_infinity(half):
    large = np.full((1, 1, 2), {FLOAT16: 6e4}.get(half, 3e38), half)
    y = fastconv.conv1d(large, np.array([[[1, 1]], [[-1, -1]], [[1, 0]]], half))
    np.testing.assert_array_equal(y[0, :2, 0].astype("f8"), [np.inf, -np.inf])
    assert y[0, 2, 0] == large[0, 0, 0]


def test_half_special_values(half, algorithm, rng):
    x, w = data(rng, (1, 2, 9, 7), half), data(rng, (20, 2, 3, 2), half)
    x[0, 1, 4, 3], x[0, 0, 1, 1] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        expected = reference.conv(x, w)
    y = reference.wide(fastconv.conv2d(x, w, algorithm=algorithm))
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    np.testing.assert_array_equal(y[np.isinf(y)], expected[np.isinf(expected)])


# Sums in float64.


@every_third(1)
def test_float32_summed_in_float64(case, algorithm, rng):
    for map_ in maps_of(case, "float32", rng):
        result = computed(map_, case, algorithm=algorithm, accumulate_dtype="float64")
        assert_rounded_once(map_, result, "float64")


@every_third(2)
def test_half_summed_in_float64(case, algorithm, half, rng):
    for map_ in maps_of(case, half, rng):
        result = computed(map_, case, algorithm=algorithm, accumulate_dtype=np.float64)
        assert_rounded_once(map_, result, "float64")


@pytest.mark.parametrize("case", TRANSPOSED, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_transposed_summed_in_float64(case, dtype, rng):
    for map_ in transposed_maps_of(case, dtype, rng):
        result = computed(map_, case, accumulate_dtype="float64")
        assert_rounded_once(map_, result, "float64")


def test_complex_summed_in_float64(rng):
    case = CASES[0]
    for map_ in maps_of(case, "complex64", rng):
        result = computed(map_, case, accumulate_dtype="float64")
        for part in ("real", "imag"):
            half_map = replace(map_, expected=getattr(map_.expected, part))
            assert_rounded_once(half_map, getattr(result, part), "float64")


@pytest.mark.parametrize("dtype", ["float32", "complex64", "float16"])
def test_float64_sees_what_float32_loses(dtype):
    """2**30 + 1 - 2**30, of factors that float16 has."""
    x = np.array([[[2.0**15, 1, 2.0**15]]], dtype)
    w = np.array([[[2.0**15, 1, -(2.0**15)]]], dtype)
    # As sums of products in two channels' taps, in whatever order.
    assert fastconv.conv1d(x, w, accumulate_dtype="float64").item() == 1
    assert fastconv.conv1d(x, w, algorithm="reference").item() == 0


@pytest.mark.parametrize("family", ["conv", "conv_transpose"])
def test_backward_passes_accumulate_dtype_on(family, rng):
    x, w = data(rng, (2, 4, 90), "f4"), data(rng, (4, 4, 5), "f4")
    dy = getattr(fastconv, f"{family}1d")(x, w)
    options = {"accumulate_dtype": "float64"}
    dx, dw, db = getattr(fastconv, f"{family}1d_backward")(dy, x, w, **options)
    single = getattr(fastconv, f"{family}1d_grad_input")(dy, w, x.shape, **options)
    np.testing.assert_array_equal(dx, single)
    single = getattr(fastconv, f"{family}1d_grad_weight")(dy, x, w.shape, **options)
    np.testing.assert_array_equal(dw, single)
    np.testing.assert_array_equal(db, fastconv.conv1d_grad_bias(dy, **options))
    for plain, wide in zip(
        getattr(fastconv, f"{family}1d_backward")(dy, x, w), (dx, dw, db), strict=True
    ):
        assert (plain != wide).any()


def test_float64_is_summed_in_float64_anyway(rng):
    x, w = data(rng, (2, 3, 9), "f8"), data(rng, (4, 3, 2), "f8")
    y = fastconv.conv1d(x, w, accumulate_dtype="float64")
    np.testing.assert_array_equal(y, fastconv.conv1d(x, w))


# Complex numbers.


@every_third(1)
def test_complex(case, algorithm, complexes, rng):
    sums = "float32" if complexes == np.complex64 else "float64"
    for map_ in maps_of(case, complexes, rng):
        assert_sums(map_, computed(map_, case, algorithm=algorithm), sums)


@pytest.mark.parametrize("case", TRANSPOSED, ids=str)
def test_complex_transposed(case, complexes, rng):
    sums = "float32" if complexes == np.complex64 else "float64"
    for map_ in transposed_maps_of(case, complexes, rng):
        assert_sums(map_, computed(map_, case), sums)


def differences(loss, at, step=1e-6):
    """dL/dRe + i dL/dIm by central differences."""
    gradient = np.empty_like(at)
    for index in np.ndindex(*at.shape):
        total = 0
        for unit in (1, 1j):
            moved = at.copy()
            moved[index] = at[index] + unit * step
            above = loss(moved)
            moved[index] = at[index] - unit * step
            total += unit * (above - loss(moved)) / (2 * step)
        gradient[index] = total
    return gradient


@pytest.mark.parametrize("family", ["conv", "conv_transpose"])
def test_complex_gradients_of_a_real_loss(family, rng):
    """A loss that is no function of y alone, without its conjugate."""
    x, w = data(rng, (2, 4, 4, 3), "c16"), data(rng, (4, 2, 2, 3), "c16")
    options = {"stride": (1, 2), "padding": 1, "groups": 2}
    b = data(rng, 4, "c16")
    forward = getattr(fastconv, f"{family}2d")
    backward = getattr(fastconv, f"{family}2d_backward")
    y = forward(x, w, b, **options)
    p, q, r = rng.standard_normal((3, *y.shape))

    def loss(x, w, b):
        y = forward(x, w, b, **options)
        return (p * y.real**2 + q * y.real * y.imag + r * y.imag).sum()

    dy = 2 * p * y.real + q * y.imag + 1j * (q * y.real + r)
    dx, dw, db = backward(dy, x, w, **options)
    for gradient, expected in (
        (dx, differences(lambda x: loss(x, w, b), x)),
        (dw, differences(lambda w: loss(x, w, b), w)),
        (db, differences(lambda b: loss(x, w, b), b)),
    ):
        assert np.abs(gradient - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.torch
@pytest.mark.parametrize("transposed", [False, True])
def test_complex_gradients_are_those_of_torch(transposed, rng):
    torch = pytest.importorskip("torch")
    x, w = data(rng, (2, 6, 8, 7), "c16"), data(rng, (6, 3, 3, 2), "c16")
    b = data(rng, 6, "c16")
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, w, b)]
    name = "conv_transpose2d" if transposed else "conv2d"
    arguments = ((2, 1), (1, 0), 0, 2) if transposed else ((2, 1), (1, 0), 1, 2)
    ty = getattr(torch.nn.functional, name)(*tensors, *arguments)
    y = getattr(fastconv, name)(x, w, b, *arguments)
    assert np.abs(y - ty.detach().numpy()).max() <= 1e-13 * np.abs(y).max()
    dy = data(rng, y.shape, "c16")
    ty.backward(torch.from_numpy(dy))
    gradients = getattr(fastconv, f"{name}_backward")(dy, x, w, *arguments)
    for got, tensor in zip(gradients, tensors, strict=True):
        expected = tensor.grad.numpy()
        assert np.abs(got - expected).max() <= 1e-13 * np.abs(expected).max()


def test_gradcheck_of_complex_numbers(rng):
    x, w = data(rng, (1, 2, 5, 4), "c16"), data(rng, (3, 2, 2, 3), "c16")

    def gradient(dy):
        return fastconv.conv2d_grad_weight(dy, x, w.shape)

    passed = fastconv.gradcheck(lambda w: fastconv.conv2d(x, w), gradient, w, linear=True)
    assert passed, str(passed)
    assert passed.adjointness is not None
    for wrong in (lambda dy: gradient(dy).conj(), lambda dy: gradient(dy.conj())):
        assert not fastconv.gradcheck(lambda w: fastconv.conv2d(x, w), wrong, w)


# Whatever holds for all dtypes.

EVERY = ["float16", pytest.param("bfloat16", marks=NEEDS_ML_DTYPES), "complex64", "complex128"]


@pytest.fixture(params=EVERY)
def stored(request):
    return BFLOAT16 if request.param == "bfloat16" else np.dtype(request.param)


def assert_same(got, expected):
    """Of sums in another order."""
    assert got.dtype == expected.dtype
    got, expected = reference.wide(got), reference.wide(expected)
    digits = 1e-2 if got.dtype.kind == "f" else 2e-6
    assert np.abs(got - expected).max() <= digits * np.abs(expected).max()


def test_channels_last(stored, rng):
    x, w = data(rng, (2, 6, 7, 9), stored), data(rng, (4, 3, 3, 2), stored)
    b = data(rng, 4, stored)
    options = {"stride": 2, "padding": 1, "groups": 2}
    y = fastconv.conv2d(x, w, b, **options)
    dx, dw, db = fastconv.conv2d_backward(y, x, w, **options)
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    for given in (last, last[0], np.repeat(last, 2, axis=-1)[..., ::2]):
        out = poisoned((*given.shape[:-3], 4, 5, 4), stored)
        fastconv.conv2d(given, w, b, **options, data_format="channels_last", out=out)
        assert_same(np.moveaxis(out, -1, -3), y if given.ndim == 4 else y[0])
    last_y = np.ascontiguousarray(np.moveaxis(y, 1, -1))
    gradients = fastconv.conv2d_backward(last_y, last, w, **options, data_format="channels_last")
    assert_same(np.moveaxis(gradients[0], -1, 1), dx)
    assert_same(gradients[1], dw)
    assert_same(gradients[2], db)


def test_arrays_of_any_strides(stored, rng):
    x, w = data(rng, (2, 4, 7, 9), stored), data(rng, (6, 2, 3, 2), stored)
    y = fastconv.conv2d(x, w, groups=2)
    dx, dw, _ = fastconv.conv2d_backward(y, x, w, groups=2)
    outs = [poisoned(shape, stored) for shape in (y.shape, x.shape, w.shape)]
    for sx, sw, sy, *targets in zip(*map(strided, (x, w, y, *outs)), strict=True):
        read_only(sx, sw, sy)
        assert_same(fastconv.conv2d(sx, sw, groups=2, out=targets[0]), y)
        how = {"groups": 2}
        assert_same(fastconv.conv2d_grad_input(sy, sw, x.shape, **how, out=targets[1]), dx)
        assert_same(fastconv.conv2d_grad_weight(sy, sx, w.shape, **how, out=targets[2]), dw)
    wide = np.broadcast_to(x[:1], x.shape)
    assert_same(fastconv.conv2d(wide, w, groups=2), np.repeat(y[:1], 2, axis=0))
    unaligned = np.zeros(x.nbytes + 1, np.uint8)[1:].view(stored).reshape(x.shape)
    unaligned[...] = x
    assert_same(fastconv.conv2d(unaligned, w, groups=2), y)


@pytest.mark.parametrize("name", ["Conv2d", "ConvTranspose2d"])
def test_layers(name, stored, rng):
    layer = getattr(fastconv, name)(4, 6, (3, 2), stride=2, groups=2, dtype=stored, rng=1)
    assert {a.dtype for a in layer.parameters.values()} == {stored}
    layer.bias[:] = data(rng, 6, stored)
    x = data(rng, (2, 4, 7, 9), stored)
    y = layer.forward(x)
    oracle = reference.conv if name == "Conv2d" else reference.conv_transpose
    assert_same(y, oracle(x, layer.weight, layer.bias, stride=2, groups=2).astype(stored))
    dx = layer.backward(y)
    family = "conv2d" if name == "Conv2d" else "conv_transpose2d"
    backward = getattr(fastconv, f"{family}_backward")
    expected = backward(y, x, layer.weight, stride=2, groups=2)
    for got, e in zip((dx, *layer.grads.values()), expected, strict=True):
        assert got.dtype == stored
        np.testing.assert_array_equal(got, e)


def test_complex_layers_start_with_the_variance_of_real_ones():
    w = fastconv.Conv2d(64, 128, 3, dtype="complex64", rng=1).weight
    for part in (w.real, w.imag):
        assert part.std() == pytest.approx(np.sqrt(1 / (64 * 9)), rel=0.02)
    assert abs((w.real * w.imag).mean()) < 1e-5
    halves, doubles = (
        fastconv.Conv2d(4, 6, 3, dtype=dtype, rng=1).weight for dtype in ("f2", "f8")
    )
    np.testing.assert_array_equal(halves, doubles.astype("f2"))


def test_any_number_of_threads_gives_the_same_bits():
    code = """
import hashlib, numba, numpy as np, fastconv
rng = np.random.default_rng(0)
x, w = rng.standard_normal((2, 4, 20, 30, 31)), rng.standard_normal((2, 70, 20, 3, 3))
for dtype, kind in (("f2", "f2"), ("c8", "c8"), ("i1", "i4"), ("i8", "i8")):
    a, b = ((10 * z[0] + 10j * z[1]).real.astype(dtype) if dtype != "c8"
            else (z[0] + 1j * z[1]).astype(dtype) for z in (x, w))
    seen = set()
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        y = fastconv.conv2d(a, b, padding=1)
        assert y.dtype == kind
        seen.add(hashlib.sha256(y.tobytes()).hexdigest())
    print(len(seen), end=" ")
"""
    assert python("-W", "error", "-c", code, NUMBA_NUM_THREADS="3") == "1 1 1 1"


def test_without_the_compiler():
    code = """
import numpy as np, fastconv
from tests import reference
x, w = np.arange(-30, 30).reshape(1, 2, 5, 6), np.arange(-12, 12).reshape(3, 2, 2, 2)
for dtype in ("f2", "c8", "i1", "i8"):
    a, b = x.astype(dtype), w.astype(dtype)
    y = fastconv.conv2d(a, b, stride=2, padding=1)
    np.testing.assert_array_equal(y, reference.conv(x, w, stride=2, padding=1).astype(y.dtype))
    if dtype[0] != "i":
        dx, dw, db = fastconv.conv2d_backward(y, a, b, stride=2, padding=1)
        expected = reference.conv_grad_input(y, w, x.shape, stride=2, padding=1)
        np.testing.assert_array_equal(dx, expected.astype(dtype))
"""
    python("-W", "error", "-c", code, NUMBA_DISABLE_JIT="1")


def test_ml_dtypes_is_not_imported():
    code = """
import sys, numpy as np, fastconv
fastconv.conv1d(np.ones((1, 1, 4), "f2"), np.ones((1, 1, 2), "f2"))
print("ml_dtypes" in sys.modules)
"""
    assert python("-c", code) == "False"


def test_explain(stored):
    shapes = (16, 64, 56, 56), (64, 64, 3, 3)
    told, single = fastconv.explain(*shapes, dtype=stored), fastconv.explain(*shapes)
    parts = 4 if stored.kind == "c" else 1
    assert told.flops == parts * single.flops
    assert told.nbytes * 4 == single.nbytes * stored.itemsize
    for name, plan in told.maps.items():
        assert plan.workspace > single.maps[name].workspace
        if stored.itemsize <= 8:
            assert plan.algorithm == "winograd"
            assert 0.24 < 2 * plan.products / told.flops < 0.3


# What is refused.

X, W, B = np.ones((2, 4, 8)), np.ones((6, 4, 3)), np.ones(6)


@pytest.mark.parametrize("dtype", ["?", "O", "g", "G", "M8[s]", "m8[s]", "S3", ">f4", ">c8", ">i4"])
def test_dtypes_that_are_not_served(dtype):
    x, w = np.zeros(X.shape, dtype), np.zeros(W.shape, dtype)
    served = "must be float16, bfloat16, float32, float64, complex64 or complex128, or integers of"
    with pytest.raises(TypeError, match=f"x {served}"):
        fastconv.conv1d(x, w)
    with pytest.raises(TypeError, match=f"grad_output {served}"):
        fastconv.conv1d_grad_bias(x)
    with pytest.raises(TypeError, match="dtype must be float16, bfloat16, float32, float64, "):
        fastconv.Conv1d(1, 1, 1, dtype=dtype)
    with pytest.raises(TypeError, match="dtype must be float16, bfloat16, float32, float64, "):
        fastconv.explain(X.shape, W.shape, dtype=dtype)


@pytest.mark.parametrize(
    ("x", "weight", "bias"),
    [("f2", "f4", "f2"), ("c8", "c16", "c8"), ("c8", "f4", "c8"), ("f2", "f2", "f4")],
)
def test_mixed_dtypes(x, weight, bias):
    names = [np.dtype(dtype).name for dtype in (x, weight, bias)]
    second = "weight " + names[1] if names[1] != names[0] else "bias " + names[2]
    message = f"one dtype, got x {names[0]} and {second}; served are arrays of one dtype out of"
    with pytest.raises(TypeError, match=message):
        fastconv.conv1d(X.astype(x), W.astype(weight), B.astype(bias))


def test_keywords():
    x, w = X.astype("f4"), W.astype("f4")
    out = poisoned((2, 6, 6), "f4")
    for options, error, message in (
        ({"accumulate_dtype": "f4"}, ValueError, "accumulate_dtype must be None or float64, got f"),
        ({"accumulate_dtype": "g"}, ValueError, "accumulate_dtype must be None or float64, got f"),
        ({"accumulate_dtype": "double!"}, TypeError, "accumulate_dtype must name a dtype, got 'd"),
        ({"out_dtype": "f8"}, TypeError, "out_dtype is for integers, results of float32 are float"),
        ({"out_dtype": 3}, TypeError, "out_dtype must name a dtype, got 3"),
    ):
        with pytest.raises(error, match=message):
            fastconv.conv1d(x, w, **options, out=out)
        if "out_dtype" not in options:
            with pytest.raises(error, match=message):
                fastconv.conv1d_backward(x, x, w, **options)
            with pytest.raises(error, match=message):
                fastconv.conv1d_grad_bias(x, **options)
    assert np.isnan(out).all()
    np.testing.assert_array_equal(
        fastconv.conv1d(x, w, out_dtype="f4", out=out), fastconv.conv1d(x, w)
    )


def test_out_has_the_dtype_of_the_result():
    x, w = X.astype("c8"), W.astype("c8")
    with pytest.raises(ValueError, match="out must be complex64, got float32"):
        fastconv.conv1d(x, w, out=np.zeros((2, 6, 6), "f4"))
    same = np.zeros((2, 6, 8), "c8")
    with pytest.raises(ValueError, match="out must not share memory with an input"):
        fastconv.conv1d(same[:, :4], np.ones((4, 4, 1), "c8"), out=same[:, 2:])
