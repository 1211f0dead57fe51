"""Without a device, or what drives one: all else works, and errors say what is missing."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

import fastconv
from fastconv import dispatch

CODE = """
import sys
import numpy as np
import fastconv
fastconv.conv2d(np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3)))
cuda = ("numba.cuda", "numba_cuda", "fastconv.cuda")
loaded = [name for name in sys.modules if name.startswith(cuda)]
assert not loaded, loaded
"""


class OnDevice:
    """What any library's device array is to us."""

    def __init__(self, shape):
        self.shape = shape
        self.__cuda_array_interface__ = {
            "shape": shape,
            "typestr": "<f4",
            "data": (0, False),
            "version": 3,
        }


@pytest.fixture(autouse=True)
def forget_backend():
    dispatch.cuda_backend.cache_clear()
    yield
    dispatch.cuda_backend.cache_clear()


def call():
    return fastconv.conv2d(OnDevice((1, 1, 4, 4)), OnDevice((1, 1, 3, 3)))


def test_numpy_calls_load_nothing_of_cuda():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_numba_cuda(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "fastconv\[cuda13\]"'):
        call()


def test_without_a_device(monkeypatch):
    pytest.importorskip("numba_cuda")
    from numba import cuda

    monkeypatch.setattr(cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="no CUDA device answers"):
        call()


def test_host_and_device_are_not_mixed():
    with pytest.raises(TypeError, match=r"weight in the host's memory and x on a CUDA device"):
        fastconv.conv2d(OnDevice((1, 1, 4, 4)), np.ones((1, 1, 3, 3), np.float32))


def test_a_tensor_that_records_gradients():
    class Recording:
        shape = (1, 1, 4, 4)

        @property
        def __cuda_array_interface__(self):
            raise RuntimeError("use tensor.detach()")

    with pytest.raises(TypeError, match=r"x cannot be read: use tensor.detach\(\)"):
        fastconv.conv2d(Recording(), OnDevice((1, 1, 3, 3)))
