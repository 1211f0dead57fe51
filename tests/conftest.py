import numpy as np
import pytest


@pytest.fixture
def rng():
    return np.random.default_rng(20240229)


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture(params=["depthwise", "direct", "gemm", "planar", "reference"])
def algorithm(request):
    return request.param
