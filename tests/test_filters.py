"""Where filters are packed, and from where they are read: the same bits."""

import numpy as np
import pytest

import fastconv
from fastconv.cpu import direct, winograd
from fastconv.cpu.tile import STEPS

from . import reference
from .cases import assert_close_in_norm, data
from .plans import forget_plans

# Sums that are cut, and not; a group's filters that fill no panel; planes; more than one block.
SHAPES = [
    ((2, STEPS + 9, 6, 9), (20, STEPS + 9, 3, 3), 1),
    ((3, 15, 13, 10), (42, 5, 3, 3), 3),
    ((1, 6, 4, 9, 7), (70, 6, 3, 3, 3), 1),
    ((4, 3, 40, 37), (17, 3, 3, 3), 1),
]


pytestmark = pytest.mark.usefixtures("plans_anew")


def maps(x, w, b, **options):
    ndim = x.ndim - 2
    y = getattr(fastconv, f"conv{ndim}d")(x, w, b, **options)
    return y, getattr(fastconv, f"conv{ndim}d_grad_input")(y, w, x.shape, **options)


@pytest.mark.parametrize("algorithm", ["direct", "winograd"])
@pytest.mark.parametrize(("x_shape", "w_shape", "groups"), SHAPES)
def test_same_bits(x_shape, w_shape, groups, algorithm, dtype, rng, monkeypatch):
    x, w, b = (data(rng, shape, dtype) for shape in (x_shape, w_shape, w_shape[:1]))
    options = {"padding": 1, "groups": groups, "algorithm": algorithm}
    y, dx = maps(x, w, b, **options)
    geometry = {"padding": 1, "groups": groups}
    assert_close_in_norm(y, reference.conv(x, w, b, **geometry))
    assert_close_in_norm(dx, reference.conv_grad_input(y, w, x.shape, **geometry))
    # Winograd's are taken to the points by tasks of their own, or where they are needed; all come
    # from beyond a second-level cache of nothing, and blocks are of the least size.
    for own_blocks, cache in ((0, None), (10**6, None), (0, 0), (10**6, 0)):
        monkeypatch.setattr(winograd, "OWN_BLOCKS", own_blocks)
        for engine in (direct, winograd):
            if cache is not None:
                monkeypatch.setattr(engine, "L2_BYTES", cache)
        forget_plans()
        for result, expected in zip(maps(x, w, b, **options), (y, dx), strict=True):
            np.testing.assert_array_equal(result, expected)
