"""The CPU backends for numbers that no kernel is compiled for.

float16, bfloat16            in float32, results rounded once        ``converted.py``
float32, summed in float64   in float64, results rounded once        ``converted.py``
complex64, complex128        as twice as many channels and filters   ``complexes.py``
integers                     in sums that are not rounded            ``integers.py``
"""

from functools import lru_cache

from ..dtypes import COMPLEX, Numbers
from .complexes import Complex
from .converted import Converted
from .integers import Integers
from .stored_backend import Stored


@lru_cache(maxsize=256)
def backend_for(numbers: Numbers) -> Stored:
    """The backend, with the functions of ``cpu``, for such operands."""
    if numbers.sums is None:
        return Integers(numbers)
    return Complex(numbers) if numbers.x in COMPLEX else Converted(numbers)
