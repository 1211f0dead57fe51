"""Numba's CUDA simulator, with coroutines for its threads.

The simulator starts a thread of the system for each thread of a block. Coroutines do the same in a
fortieth of the time and in the same order every time, and show a fault that it does not see: a
barrier that only some threads of a block reach.
"""

import sys
from types import SimpleNamespace

import greenlet
import numpy as np
from numba.cuda.simulator import kernel, kernelapi

from fastconv.cuda.kernel import Kernel


class _Thread:
    """What the simulator's functions ask of the thread that runs."""

    def __init__(self, function, block, grid_point, thread_point):
        self.blockIdx = kernelapi.Dim3(*grid_point)
        self.threadIdx = kernelapi.Dim3(*thread_point)
        self._manager = block
        x, y, _ = block._block_dim
        i, j, k = thread_point
        self.thread_id = i + x * (j + y * k)
        self.coroutine = greenlet.greenlet(function)

    def syncthreads(self):
        self.coroutine.parent.switch()


def _run(block, grid_point, *arguments):
    """Run the threads of a block in turns, each until its next barrier."""
    waiting = [
        _Thread(block._f, block, grid_point, point) for point in np.ndindex(*block._block_dim)
    ]
    start = arguments
    while waiting:
        reached = []
        for thread in waiting:
            _running.thread = thread
            thread.coroutine.switch(*start)
            if not thread.coroutine.dead:
                reached.append(thread)
        if reached and len(reached) < len(waiting):
            raise RuntimeError(
                f"{len(reached)} of {len(waiting)} threads of block {grid_point} reached a barrier"
            )
        waiting, start = reached, ()


_running = SimpleNamespace(thread=None)


def _shared_array(self, shape, dtype, alignment=None):
    """A block's shared array: one for each line of the kernel that asks, poisoned with NaN."""
    caller = sys._getframe(1)
    line = caller.f_code, caller.f_lineno
    if line not in self._allocations:
        kind = np.dtype(dtype.name)
        poison = np.nan if kind.kind == "f" else np.iinfo(kind).min
        self._allocations[line] = np.full(shape, poison, kind)
    return self._allocations[line]


_launch = Kernel.launch


def _checked_launch(self, dtype, stream, grid, *arguments):
    """On a device, numbers are passed one after the other: their count must be the kernel's."""
    for kind, argument in zip(self.parameters, arguments, strict=True):
        numbers = argument if isinstance(argument, tuple) else ()
        assert len(numbers) == (int(kind) if kind.isdigit() else 0), (self.name, kind, argument)
        assert all(type(number) is int for number in numbers), (self.name, argument)
        assert kind != "i" or type(argument) is int, (self.name, argument)
    _launch(self, dtype, stream, grid, *arguments)


def install():
    """Have the simulator use coroutines from now on, and take shared arrays that are aligned."""
    Kernel.launch = _checked_launch
    kernelapi.FakeCUDAShared.array = _shared_array
    kernelapi.threading = SimpleNamespace(current_thread=lambda: _running.thread)
    kernel.BlockManager.run = _run
