"""From arrays to the backend that computes on them: NumPy's on the CPU, device arrays on CUDA.

Lazy arrays of Dask have a backend of their own, which lays out tasks for that of the CPU.
"""

import functools
import importlib.util
import sys
from types import ModuleType
from typing import Any

import numpy as np

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
CUDA_DTYPES = (np.dtype(np.float16), *DTYPES)


@functools.cache
def _cpu() -> ModuleType:
    # When it is first needed: its kernels' definitions take twice as long to import as the rest.
    from . import cpu

    return cpu


@functools.cache
def cuda_backend() -> ModuleType:
    """The CUDA backend.

    Raises
    ------
    ModuleNotFoundError
        If numba-cuda is not installed.
    RuntimeError
        If no device answers.
    """
    if importlib.util.find_spec("numba_cuda") is None:
        raise ModuleNotFoundError(
            'arrays on a CUDA device need numba-cuda: pip install "fastconv[cuda13]", or'
            ' "fastconv[cuda12]" for a driver of CUDA 12'
        )
    from numba import cuda

    if not cuda.is_available():
        raise RuntimeError("no CUDA device answers: is there one, and a driver for it?")
    from . import cuda as backend

    return backend


def backend_of(arrays: dict[str, Any], bias: Any = None) -> ModuleType:
    """The backend that serves all these arguments, of which the bias may be missing.

    Raises
    ------
    TypeError
        If an argument is not an array, some lie on a device and some do not, or the dtypes are
        unsupported or differ.
    ValueError
        If an array lies on another device than the current one.
    """
    if bias is not None:
        arrays["bias"] = bias
    dtype = None
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
            return _dask_backend_of(arrays) or _cuda_backend_of(arrays)
        if array.dtype not in DTYPES:
            raise TypeError(f"{name} must be float32 or float64, got {array.dtype.str}")
        if dtype is None:
            first, dtype = name, array.dtype
        elif array.dtype != dtype:
            raise TypeError(
                f"all arrays must have one dtype, got {first} {dtype} and {name} {array.dtype}"
            )
    return _cpu()


def _dask_backend_of(arrays: dict[str, Any]) -> ModuleType | None:
    """The same, where an argument is an array of Dask."""
    # Whoever has such an array has imported it.
    library = sys.modules.get("dask.array")
    if library is None or not any(isinstance(a, library.Array) for a in arrays.values()):
        return None
    from . import dask as backend

    backend.check(arrays)
    return backend


def _cuda_backend_of(arrays: dict[str, Any]) -> ModuleType:
    """The same, where not all arguments are arrays of NumPy."""
    host, device = [], []
    for name, array in arrays.items():
        if _is_on_device(name, array):
            device.append(name)
        elif isinstance(array, np.ndarray) and not isinstance(array, np.ma.MaskedArray):
            host.append(name)
        else:
            kind = type(array)
            raise TypeError(
                f"{name} must be a NumPy array or one on a CUDA device, got"
                f" {kind.__module__}.{kind.__qualname__}"
            )
    if host:
        raise TypeError(
            f"all arrays must lie in one place, got {host[0]} in the host's memory and {device[0]}"
            " on a CUDA device"
        )
    backend = cuda_backend()
    backend.check(arrays)
    return backend


def _is_on_device(name: str, array: Any) -> bool:
    # The simulator's arrays have no interface.
    if type(array).__module__.startswith("numba.cuda.simulator"):
        return True
    try:
        return hasattr(array, "__cuda_array_interface__")
    except RuntimeError as error:  # of a PyTorch tensor that records gradients
        raise TypeError(f"{name} cannot be read: {error}") from error
