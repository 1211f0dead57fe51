"""Arrays at the very edge of memory that may be touched: one step beyond ends the process."""

import ctypes
import mmap

import numpy as np

_protect = ctypes.CDLL(None, use_errno=True).mprotect
_protect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int


def guarded(array, before=False):
    """A contiguous copy that ends where a page that cannot be touched begins, or begins after one.

    Memory is given back when the copy is freed.
    """
    page = mmap.PAGESIZE
    room = -(-max(array.nbytes, 1) // page) * page
    memory = mmap.mmap(-1, room + 2 * page)
    raw = np.frombuffer(memory, np.uint8)
    for start in (0, room + page):
        if _protect(raw.ctypes.data + start, page, 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    first = page if before else page + room - array.nbytes
    copy = raw[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
