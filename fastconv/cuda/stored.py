"""The CUDA backends for numbers that no kernel is compiled for.

bfloat16                            in float32, results rounded once        ``converted.py``
floating-point, summed in float64   in float64, results rounded once        ``converted.py``
integers                            in int32 or int64, modulo 2**bits       ``converted.py``
complex64, complex128               as twice as many channels and filters   ``complexes.py``
"""

from functools import lru_cache
from typing import Any

from .. import cuda
from ..dtypes import COMPLEX, Numbers
from ..plan.cuda import is_native
from .complexes import Complex
from .converted import Converted, Integers


@lru_cache(maxsize=256)
def backend_for(numbers: Numbers) -> Any:
    """The backend for such operands: ``cuda`` itself, or one with its functions."""
    if numbers.sums is None:  # even if kernels take them: what is below 0, their own bits say
        return Integers(numbers)
    if is_native(numbers):
        return cuda
    return Complex(numbers) if numbers.x in COMPLEX else Converted(numbers)
