"""``accumulate_dtype``: sums in float64."""

from dataclasses import replace

import numpy as np
import pytest

import fastconv

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


def test_float64_is_summed_in_float64_anyway(rng):
    x, w = data(rng, (2, 3, 9), "f8"), data(rng, (4, 3, 2), "f8")
    y = fastconv.conv1d(x, w, accumulate_dtype="float64")
    np.testing.assert_array_equal(y, fastconv.conv1d(x, w))
