"""``accumulate_dtype``: sums in float64."""

from dataclasses import replace

import numpy as np
import pytest

import fastconv

from . import reference
from .cases import CASES
from .dtype_maps import (
    TRANSPOSED,
    assert_rounded_once,
    computed,
    data,
    every_third,
    maps_of,
    transposed_maps_of,
)


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


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("family", ["conv", "conv_transpose"])
def test_layers(family, dtype, rng):
    layer_type = fastconv.Conv1d if family == "conv" else fastconv.ConvTranspose1d
    options = {"stride": 2, "padding": 1, "groups": 2}
    plain, layer = (
        layer_type(40, 6, 5, **options, dtype=dtype, rng=1, **more)
        for more in ({}, {"accumulate_dtype": "float64"})
    )
    plain.bias[:] = layer.bias[:] = data(rng, 6, dtype)
    x = data(rng, (2, 40, 30), dtype)
    y = layer.forward(x)
    sums = getattr(reference, family)(x, layer.weight, layer.bias, **options)
    np.testing.assert_array_equal(y, sums.astype(dtype))  # of float64 sums, rounded once
    dx = layer.backward(y)
    given = y, x, layer.weight
    backward = getattr(fastconv, f"{family}1d_backward")
    expected = backward(*given, **options, accumulate_dtype="float64")
    for mine, right in zip((dx, *layer.grads.values()), expected, strict=True):
        assert mine.dtype == dtype
        np.testing.assert_array_equal(mine, right)
    assert (plain.forward(x) != y).any()
    assert (plain.backward(y) != dx).any()


@pytest.mark.parametrize("layer_type", [fastconv.Conv2d, fastconv.ConvTranspose2d])
def test_layers_say_what_is_wrong(layer_type):
    with pytest.raises(ValueError, match="accumulate_dtype must be None or float64, got float32"):
        layer_type(1, 1, 1, accumulate_dtype="float32")
    with pytest.raises(TypeError, match="accumulate_dtype must name a dtype, got 'double!'"):
        layer_type(1, 1, 1, accumulate_dtype="double!")


@pytest.mark.parametrize("dtype", ["float32", "float16", "complex64"])
def test_explain(dtype):
    """The maps of float64, or complex128, and copies of all arrays in that."""
    shapes, options = ((4, 64, 40, 41), (48, 64, 3, 3)), {"padding": 1}
    told = fastconv.explain(*shapes, **options, dtype=dtype, accumulate_dtype=np.float64)
    wide = fastconv.explain(*shapes, **options, dtype="c16" if dtype == "complex64" else "f8")
    assert told.accumulate_dtype == np.float64
    assert wide.accumulate_dtype is None
    assert f"groups 1, {dtype} summed in float64\n" in str(told)
    assert told.flops == wide.flops
    assert told.nbytes == wide.nbytes // wide.dtype.itemsize * np.dtype(dtype).itemsize
    copies = 0 if dtype == "complex64" else wide.nbytes  # which complex128 needs as well
    for name, plan in told.maps.items():
        same = wide.maps[name]
        assert (plan.algorithm, plan.products) == (same.algorithm, same.products)
        assert plan.workspace == same.workspace + copies


def test_explain_says_what_is_wrong():
    shapes = (1, 1, 8, 8), (1, 1, 3, 3)
    with pytest.raises(ValueError, match="accumulate_dtype must be None or float64, got float16"):
        fastconv.explain(*shapes, accumulate_dtype="f2")
    with pytest.raises(TypeError, match="accumulate_dtype is for floating-point numbers"):
        fastconv.explain(*shapes, dtype="i4", accumulate_dtype="f8")


def test_float64_is_summed_in_float64_anyway(rng):
    x, w = data(rng, (2, 3, 9), "f8"), data(rng, (4, 3, 2), "f8")
    y = fastconv.conv1d(x, w, accumulate_dtype="float64")
    np.testing.assert_array_equal(y, fastconv.conv1d(x, w))
