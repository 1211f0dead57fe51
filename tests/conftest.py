import importlib.util
import os

import numpy as np
import pytest

from .dtypes import BFLOAT16, FLOAT16, NEEDS_ML_DTYPES


def pytest_collection_modifyitems(items):
    """What waits for the simulator's tests goes last."""
    items.sort(key=lambda item: item.name == "test_cuda_backend_in_the_simulator")


def pytest_collection_finish(session):
    """Begin the simulator's tests at once, beside all others."""
    beside = len(session.items) > 100 and (os.cpu_count() or 1) > 1
    installed = importlib.util.find_spec("numba_cuda") and importlib.util.find_spec("greenlet")
    if beside and installed and not session.config.option.collectonly:
        for item in session.items:
            if item.name == "test_cuda_backend_in_the_simulator":
                item.module.simulation()


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


@pytest.fixture
def plans_anew():
    """No plan of earlier tests is used, and none of this one later."""
    from .plans import forget_plans

    forget_plans()
    yield
    forget_plans()


@pytest.fixture
def known_machine(monkeypatch):
    """The benchmark's measurement of this machine takes no time."""
    from fastconv.bench import machine

    monkeypatch.setattr(machine, "measure_peak", lambda threads: 1e11)
    monkeypatch.setattr(machine, "measure_bandwidth", lambda: 1e10)
