"""float16 and bfloat16: summed in float32, each result rounded once."""

import numpy as np
import pytest

import fastconv

from . import reference
from .cases import Case
from .dtype_maps import (
    TRANSPOSED,
    assert_rounded_once,
    computed,
    data,
    every_third,
    maps_of,
    off,
    transposed_maps_of,
)
from .dtypes import FLOAT16


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
