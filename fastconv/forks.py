"""What a process must not be in the midst of when it forks: compiling, and importing the kernels.

A child has one thread, the one that forked. Locks that others held stay locked in it, and what they
were at stays half done: a child forked while another thread compiled waited at its first call for
ever. New locks in place of Numba's would leave LLVM's data half written. So a fork waits until no
other thread compiles, be it code of this package or not, and its child finds everything done.
"""

import os
import threading
from typing import Any

from llvmlite.binding import ffi
from numba.core.compiler_lock import global_compiler_lock

# Held by a thread that imports the kernels' definitions or has one compiled. Python's own locks of
# modules that are being imported stay locked in a child as well.
preparing = threading.RLock()


def _hold_in_forks(lock: Any) -> None:
    def leave() -> None:
        lock.__exit__(None, None, None)

    os.register_at_fork(before=lock.__enter__, after_in_parent=leave, after_in_child=leave)


if hasattr(os, "register_at_fork"):
    # The last one is taken first. That is the order in which compilations take them.
    for _lock in (ffi.lib._lock, global_compiler_lock, preparing):
        _hold_in_forks(_lock)
