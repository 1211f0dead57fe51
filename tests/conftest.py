import numpy as np
import pytest

from .dtypes import BFLOAT16, FLOAT16, NEEDS_ML_DTYPES


@pytest.fixture
def rng():
    return np.random.default_rng(20240229)


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture(params=["depthwise", "direct", "gemm", "planar", "reference"])
def algorithm(request):
    return request.param


@pytest.fixture(params=["float16", pytest.param("bfloat16", marks=NEEDS_ML_DTYPES)])
def half(request):
    return FLOAT16 if request.param == "float16" else BFLOAT16
