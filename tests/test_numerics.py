"""What docs/reliability.md promises of rounding errors, for sums of up to 100,000 products."""

from itertools import permutations
from math import fsum

import numpy as np
import pytest

import fastconv
from fastconv.plan.cpu import ALGORITHMS

from .numerics import MAPS, UNIT, worst

PROMISED = 64  # units of rounding, where long sums are added up piece by piece
FEW = 32  # for the gradient of the bias
PIECEWISE = {
    "forward": ("auto", "direct", "gemm", "planar", "winograd"),
    "grad_input": ("auto", "direct", "gemm", "planar", "winograd"),
    "grad_weight": ("auto", "depthwise", "direct", "gemm", "planar", "winograd"),
}


@pytest.mark.parametrize("length", [10, 100, 1000, 10_000, 100_000])
@pytest.mark.parametrize("map_name", MAPS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_rounding(algorithm, map_name, dtype, length):
    units = worst(map_name, algorithm, dtype.name, length)
    if algorithm in PIECEWISE[map_name]:
        assert units <= PROMISED
    else:  # one product after the other: a random walk
        assert units <= 4 * length**0.5


@pytest.mark.parametrize("shape", [(300_001, 2, 1), (1, 2, 300_001), (400, 3, 800), (3000, 20, 9)])
@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_rounding_of_the_gradient_of_the_bias(order, shape, dtype, rng):
    """Whatever the order of batch, filters and pixels in memory."""
    lies = rng.random([shape[axis] for axis in order], dtype)
    dy = lies.transpose(np.argsort(order))
    exact = [fsum(dy[:, k].flat) for k in range(shape[1])]
    first = fastconv.conv1d_grad_bias(dy)
    last = fastconv.conv1d_grad_bias(dy.swapaxes(1, 2), data_format="channels_last")
    for found in (first, last):
        np.testing.assert_allclose(found, exact, rtol=FEW * UNIT[dtype.name])


@pytest.mark.parametrize("axis", range(3))
def test_rounding_of_the_gradient_of_the_bias_of_a_broadcast_array(axis):
    shape = 100, 3, 30_000
    lies = np.full([n if i == axis else 1 for i, n in enumerate(shape)], 0.1, "f4")
    found = fastconv.conv1d_grad_bias(np.broadcast_to(lies, shape))
    np.testing.assert_allclose(found, 3e6 * lies.item(0), rtol=FEW * UNIT["float32"])
