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
    """Uninitialised array of at least ``elements`` numbers, aligned to a cache line.

    It is valid until the calling thread asks for the next one.
    """
    kept: NDArray[Any] | None = getattr(_kept, "buffer", None)
    if kept is not None and kept.size >= elements and kept.dtype == dtype:
        return kept
    _kept.buffer = kept = None  # before the larger one is asked for
    nbytes = elements * dtype.itemsize
    raw = np.empty(nbytes + LINE, np.uint8)
    start = -raw.ctypes.data % LINE
    buffer: NDArray[Any] = raw[start : start + nbytes].view(dtype)
    if nbytes <= KEEP_BYTES:
        _kept.buffer = buffer
    return buffer


def free_workspace() -> None:
    """Give back the scratch memory that the calling thread keeps between calls.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.free_workspace()
    """
    _kept.buffer = None
