"""From arrays to the backend that computes on them."""

import functools
from types import ModuleType
from typing import Any

import numpy as np

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


@functools.cache
def _cpu() -> ModuleType:
    # When it is first needed: its kernels' definitions take twice as long to import as the rest.
    from . import cpu

    return cpu


def backend_of(arrays: dict[str, Any], bias: Any = None) -> ModuleType:
    """The backend that serves all these arguments, of which the bias may be missing.

    Raises
    ------
    TypeError
        If an argument is not an array, or the dtypes are unsupported or differ.
    """
    if bias is not None:
        arrays["bias"] = bias
    dtype = None
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
            kind = type(array)
            raise TypeError(
                f"{name} must be a NumPy array, got {kind.__module__}.{kind.__qualname__}"
            )
        if array.dtype not in DTYPES:
            raise TypeError(f"{name} must be float32 or float64, got {array.dtype.str}")
        if dtype is None:
            first, dtype = name, array.dtype
        elif array.dtype != dtype:
            raise TypeError(
                f"all arrays must have one dtype, got {first} {dtype} and {name} {array.dtype}"
            )
    return _cpu()
