"""What docs/reliability.md promises of rounding errors, for sums of up to 100,000 products."""

import pytest

from fastconv.plan.cpu import ALGORITHMS

from .numerics import MAPS, worst

PROMISED = 64  # units of rounding, where long sums are added up piece by piece
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
