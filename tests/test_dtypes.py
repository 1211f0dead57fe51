"""What holds for all floating-point and complex dtypes that no kernel is compiled for."""

import numpy as np
import pytest

import fastconv

from . import reference
from .child import python
from .dtype_maps import data
from .dtypes import BFLOAT16, NEEDS_ML_DTYPES
from .test_maps import poisoned, read_only, strided

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


@pytest.mark.parametrize("there", [pytest.param(True, marks=NEEDS_ML_DTYPES), False])
def test_bfloat16_by_name(there):
    code = """
import sys
if sys.argv[1] == "False":
    sys.modules["ml_dtypes"] = None
import fastconv
try:
    print(fastconv.Conv1d(1, 1, 3, dtype="bfloat16"))
except TypeError as error:
    print(error)
"""
    said = (
        "dtype='bfloat16'" if there else 'dtype "bfloat16" needs ml_dtypes: pip install ml_dtypes'
    )
    assert said in python("-c", code, str(there))


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
