"""Floating-point formats of 16 bits: what tests know of them."""

import numpy as np
import pytest

try:
    import ml_dtypes
except ModuleNotFoundError:
    BFLOAT16 = None
else:
    BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

FLOAT16 = np.dtype(np.float16)
NEEDS_ML_DTYPES = pytest.mark.skipif(BFLOAT16 is None, reason="needs ml_dtypes")

# Bits of the fraction, and exponent of the least normal number.
FORMATS = {"float16": (10, -14), "bfloat16": (7, -126), "float32": (23, -126)}


def ulp(values, dtype):
    """Distance of neighbours in a format, at these magnitudes."""
    bits, least = FORMATS[np.dtype(dtype).name]
    _, exponents = np.frexp(values)  # of fractions from 1/2 to 1
    return np.ldexp(1.0, np.maximum(exponents - 1, least) - bits)
