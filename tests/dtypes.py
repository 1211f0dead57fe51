"""What tests know of dtypes: formats of halves, parts of complex numbers, integers mod 2**bits."""

import numpy as np
import pytest

from . import reference

try:
    import ml_dtypes
except ModuleNotFoundError:
    BFLOAT16 = None
else:
    BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

FLOAT16 = np.dtype(np.float16)
NEEDS_ML_DTYPES = pytest.mark.skipif(BFLOAT16 is None, reason="needs ml_dtypes")

# Bits of the fraction, and exponent of the least normal number.
FORMATS = {
    "float16": (10, -14),
    "bfloat16": (7, -126),
    "float32": (23, -126),
    "complex64": (23, -126),
    "float64": (52, -1022),
    "complex128": (52, -1022),
}


def smallest_normal(dtype):
    return 2.0 ** FORMATS[np.dtype(dtype).name][1]


def ulp(values, dtype):
    """Distance of neighbours in a format, at these magnitudes."""
    bits, least = FORMATS[np.dtype(dtype).name]
    _, exponents = np.frexp(values)  # of fractions from 1/2 to 1
    return np.ldexp(1.0, np.maximum(exponents - 1, least) - bits)


def magnitude(array):
    """Of complex numbers, that of both parts together: a product of them is four."""
    array = reference.wide(array)
    return abs(array.real) + abs(array.imag)


def conjugate(array):
    return reference.wide(array).conj()


def result_dtype(x):
    """Of a convolution, by default."""
    return np.dtype(np.int32) if x.kind in "iu" and x.itemsize < 4 else x


def integers_of(rng, shape, dtype):
    """Random ones, of the whole range."""
    facts = np.iinfo(dtype)
    return rng.integers(facts.min, facts.max, shape, dtype, endpoint=True)


def wrapped(numbers, dtype):
    """Python's integers modulo 2**bits."""
    facts = np.iinfo(dtype)
    return ((numbers - int(facts.min)) % 2**facts.bits + int(facts.min)).astype(dtype)


def exactly(name, x, weight, bias=None, **geometry):
    """What a function of the oracle returns for integers, as Python's."""
    function = getattr(reference, name)
    if max(x.itemsize, weight.itemsize) <= 2:  # float64 is exact
        exact = function(x, weight, **geometry)
        assert np.abs(exact).max(initial=0) < 2**53
        exact = exact.astype(np.int64).astype(object)
    else:
        exact = function(x.astype(object), weight.astype(object), **geometry)
    if bias is not None:
        exact = exact + bias.astype(object).reshape(-1, *[1] * (exact.ndim - 2))
    return exact
