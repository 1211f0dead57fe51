"""All maps of a case in any dtype: what they must return, and how far they may be off."""

from dataclasses import dataclass
from math import prod

import numpy as np
import pytest

from . import reference
from .cases import CASES, Case
from .dtypes import conjugate, magnitude, ulp
from .test_maps import function, poisoned, read_only

UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}
ALGORITHMS = ("auto", "direct", "planar", "gemm", "depthwise", "reference")


def every_third(first):
    """A third of all cases, each with one of the algorithms."""
    some = enumerate(CASES[first::3])
    return pytest.mark.parametrize(
        ("case", "algorithm"),
        [pytest.param(c, ALGORITHMS[i % 6], id=f"{c}-{ALGORITHMS[i % 6]}") for i, c in some],
    )


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
