"""Memory that is kept between calls: scratch, and that of large results.

Fresh pages cost the system about 0.25 us each, on a virtual machine up to 4 us, or, where it has
large ones, the time of filling them with zeros. A call that needs 10 MB of scratch memory would
spend half a millisecond on them every time; a result of 50 MB spent 3 ms, where the 1x1 convolution
that computes it takes 4.
"""

import threading
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .geometry import Ints
from .host import LINE

Bytes = NDArray[np.uint8]

# Results are aligned from this size on, which takes 1.6 us. NumPy's arrays begin 16 bytes into a
# cache line, so that every vector lies across two: as the input of the next layer they took 1.05
# times the time, mean of 16 layers with channels last, 1.25 where memory is the bound.
ALIGNED_BYTES = 256 * 2**10

# Each thread keeps the largest scratch memory that it has needed for each use, up to this.
SCRATCH_BYTES = 64 * 2**20

# Blocks beyond 32 MiB the C library hands back to the system when they are freed, and smaller ones
# when several are freed at a time. Here those from LARGE_BYTES on are kept for the next array of
# about that size, up to KEPT_BYTES in all: a step of training through 15 layers of MobileNetV2,
# forward and back, 16 images, took 0.85 of the time of keeping those beyond 32 MiB.
LARGE_BYTES = 2**20
KEPT_BYTES = 256 * 2**20

_scratch = threading.local()

# Freed blocks by their size. Only atomic operations are done on it: a block may be freed by any
# thread, and in the midst of any of these.
_freed: dict[int, list[tuple[Bytes, int]]] = {}


def _aligned(nbytes: int) -> tuple[Bytes, int]:
    """Memory that begins at a cache line, and its address."""
    raw = np.empty(nbytes + LINE, np.uint8)
    address = raw.__array_interface__["data"][0]  # 0.7 us less than by `ctypes`
    start = -address % LINE
    return raw[start : start + nbytes], address + start


def workspace(elements: int, dtype: np.dtype[Any], use: str = "kernels") -> NDArray[Any]:
    """Uninitialised array of at least ``elements`` numbers, aligned to a cache line.

    It is valid until the calling thread asks for the next one of the same use.
    """
    kept: NDArray[Any] | None = getattr(_scratch, use, None)
    nbytes = elements * dtype.itemsize
    if kept is not None and kept.nbytes >= nbytes:
        return kept if kept.dtype == dtype else kept.view(dtype)
    kept = None
    _scratch.__dict__.pop(use, None)  # before the larger one is asked for
    buffer: NDArray[Any] = _aligned(-(-nbytes // LINE) * LINE)[0].view(dtype)
    if buffer.nbytes <= SCRATCH_BYTES:
        setattr(_scratch, use, buffer)
    return buffer


class _Block:
    """Memory in use: the array in it has this object for its base and keeps it alive."""

    __slots__ = ("__array_interface__", "_memory")

    def __init__(self, memory: Bytes, address: int, shape: Ints, dtype: np.dtype[Any]) -> None:
        self._memory = memory, address
        self.__array_interface__ = {
            "version": 3,
            "data": (address, False),
            "shape": shape,
            "typestr": dtype.str,
        }

    def __del__(self) -> None:
        memory, _ = self._memory
        if memory.nbytes > KEPT_BYTES:
            return
        kept = sum(nbytes * len(blocks) for nbytes, blocks in list(_freed.items()))
        if kept + memory.nbytes > KEPT_BYTES:
            _freed.clear()  # most likely of sizes that are no longer asked for
        _freed.setdefault(memory.nbytes, []).append(self._memory)


def _size_of_block(nbytes: int) -> int:
    """The size of the blocks that serve arrays of so many bytes, up to a sixteenth more.

    Arrays of about the same size share them, so that those of changing sizes use them again.

    >>> _size_of_block(2**20), _size_of_block(2**20 + 1) - 2**20
    (1048576, 65536)
    """
    step = 1 << (nbytes.bit_length() - 5)
    return -(-nbytes // step) * step


def empty(shape: Ints, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Uninitialised array like ``np.empty``'s; a large one is in memory that was used before.

    From ALIGNED_BYTES on it is aligned to a cache line.
    """
    nbytes = prod(shape) * dtype.itemsize
    if nbytes < ALIGNED_BYTES:
        return np.empty(shape, dtype)
    if nbytes < LARGE_BYTES:
        return _aligned(nbytes)[0].view(dtype).reshape(shape)
    size = _size_of_block(nbytes)
    try:
        memory, address = _freed[size].pop()
    except (KeyError, IndexError):
        memory, address = _aligned(size)
    array: NDArray[Any] = np.asarray(_Block(memory, address, shape, dtype))
    return array if array.dtype == dtype else array.view(dtype)  # bfloat16 is no type of NumPy's


def copied(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The numbers of an array in another dtype, contiguous."""
    copy = empty(array.shape, dtype)
    with np.errstate(invalid="ignore"):  # of a NaN that signals
        np.copyto(copy, array, casting="unsafe")
    return copy


def free_workspace() -> None:
    """Give back the memory kept between calls.

    That is the scratch memory of the calling thread, at most 64 MiB, and as much again for images
    with their padding; and memory of results and copies from 1 MiB on that nobody uses any more, at
    most 256 MiB.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.free_workspace()
    """
    _scratch.__dict__.clear()
    _freed.clear()
