"""Gradients of few filters, taken for several lines and columns of taps at a time."""

import numpy as np
import pytest

from fastconv.cpu import phases
from fastconv.cpu.planar_weight import LINE, TILES, _cycles

from . import reference
from .cases import assert_close, data
from .plans import forget_plans
from .test_maps import function

pytestmark = pytest.mark.usefixtures("plans_anew")

# Taps for each tile, with some left over; images that have fewer lines of windows than a tile has
# of taps, and lines shorter and longer than vectors; strides and dilations, for which lines of taps
# see no neighbours; three axes.
CASES = [
    ((2, 1, 37, 40), (1, 1, 3, 3), {"padding": 1}),
    ((1, 1, 21, 50), (2, 1, 5, 5), {}),
    ((1, 2, 20, 23), (1, 2, 7, 8), {"padding": (3, 0)}),
    ((1, 1, 31, 33), (1, 1, 15, 14), {"padding": 2}),
    ((3, 1, 6, 70), (3, 1, 5, 2), {}),
    ((1, 1, 4, 19), (1, 1, 4, 9), {}),
    ((2, 1, 9, 40), (1, 1, 3, 3), {"stride": (1, 2), "dilation": (1, 3)}),
    ((2, 2, 19, 40), (2, 2, 3, 3), {"stride": (2, 1)}),
    ((2, 2, 19, 40), (2, 2, 3, 3), {"dilation": (3, 1)}),
    ((2, 2, 5, 9, 20), (1, 2, 2, 4, 3), {"stride": (2, 1, 1), "padding": 1}),
    ((2, 2, 60), (1, 2, 11), {"padding": 5}),
]


def grad_weight(dy, x, shape, options):
    dw = np.full(shape, np.nan, x.dtype)
    gradient = function("conv_grad_weight", x.ndim - 2)
    return gradient(dy, x, shape, algorithm="planar", out=dw, **options)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_taps_and_lines_left_over(case, dtype, rng, monkeypatch):
    x_shape, w_shape, options = case
    x = data(rng, x_shape, dtype)
    dy = data(rng, reference.conv(x, np.ones(w_shape, dtype), **options).shape, dtype)
    expected = reference.conv_grad_weight(dy, x, w_shape, **options)
    assert_close(grad_weight(dy, x, w_shape, options), expected)
    monkeypatch.setattr(phases, "L2_BYTES", 8192)  # blocks of some lines
    forget_plans()
    assert_close(grad_weight(dy, x, w_shape, options), expected)


@pytest.mark.parametrize("taps", [(3, 3), (4, 7), (5, 5), (11, 2)])
@pytest.mark.parametrize(("line", "column"), [(0, 0), (0, -1), (-1, 0), (-1, -1)])
def test_an_infinity_reaches_the_taps_that_see_it(taps, line, column, rng):
    """A corner of the image is seen by one tap, whatever is multiplied at a time."""
    x = data(rng, (1, 1, 23, 45), "f4")
    dy = 1 + data(rng, (1, 1, 24 - taps[0], 46 - taps[1]), "f4") ** 2
    x[..., line, column] = np.inf
    dw = grad_weight(dy, x, (1, 1, *taps), {})
    assert dw[0, 0, line, column] == np.inf
    assert np.isfinite(dw).sum() == dw.size - 1


def test_each_tile_is_the_best_for_some_taps():
    best = {min(TILES, key=lambda tile: _cycles(tile, taps, taps)) for taps in range(2, 16)}
    assert best == set(TILES)
    assert LINE not in TILES
