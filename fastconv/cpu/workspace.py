"""Scratch memory that is kept between calls.

Fresh pages cost the system about 0.25 us each: a call that needs 10 MB would spend half a
millisecond on them every time. Each thread that calls the package keeps the largest buffer it has
needed, up to ``KEEP_BYTES``; larger ones are allocated for their call alone.
"""

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEEP_BYTES = 64 * 2**20
LINE = 64  # bytes of a cache line, and of the widest vector

_kept = threading.local()


def workspace(elements: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Uninitialised array of ``elements`` numbers, aligned to a cache line.

    It is valid until the calling thread asks for the next one.
    """
    nbytes = elements * dtype.itemsize + LINE
    buffer = getattr(_kept, "buffer", None)
    if buffer is None or buffer.size < nbytes:
        buffer = np.empty(nbytes, np.uint8)
        _kept.buffer = buffer if nbytes <= KEEP_BYTES else None
    start = -buffer.ctypes.data % LINE
    return buffer[start : start + elements * dtype.itemsize].view(dtype)


def free_workspace() -> None:
    """Give back the scratch memory that the calling thread keeps between calls.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.free_workspace()
    """
    _kept.buffer = None
