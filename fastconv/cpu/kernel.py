"""Kernels: what they are called with, and compiling them when a dtype first needs them.

A *kernel* is a worker ``f(task, slot, size, table, a, b, c, out, work)`` that does one of many
independent tasks. All have this one signature, so that ``driver.py`` can call any of them by
address: a parallel loop around an address compiles in half a second, one around a kernel's body
would have Numba optimise that body three times over.
"""

from collections.abc import Callable
from typing import Any

from numba import njit, types

from ..caching import PerDtype

# Division never raises inside a kernel: nothing there may leave by an exception.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}

# Nothing but a kernel calls its parts: no wrappers are made for other callers.
_PART: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, **OPTIONS}
# A part of a kernel: compiled into whatever calls it ...
device = njit(**_PART)
# ... or pasted into it before optimisation, so that literal arguments unroll its loops ...
inline = njit(forceinline=True, **_PART)
# ... or copied to the places, one in a kernel, that call it. Each of the others is compiled to
# machine code by itself first, which nothing runs. With large parts copied, and no wrappers, the
# first call of "direct" takes 5.9 s instead of 9.1.
once = njit(inline="always", **_PART)


def named(*variant: object) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator of a function that is made for some values: these become part of its name.

    Machine code is found by a name which tells functions made by one factory apart by a number that
    counts them in a process. Code from the cache has the numbers of those that compiled it: where
    two processes had compiled one variant each, a third ran the same code for both.
    """

    def name(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__qualname__ = "_".join([function.__qualname__, *map(str, variant)])
        return function

    return name


def kernel_signature(scalar: types.Float) -> Any:
    """``(task, slot, size, table, a, b, c, out, work)`` for arrays of ``scalar``.

    ``size`` and ``table`` describe the problem; ``a``, ``b``, ``c`` are the inputs, ``out`` the
    result, each given by the address of its first element; ``work`` is scratch memory, of which
    each ``slot`` (of those that run at the same time) has a part of its own.

    They are pointers, not arrays: Numba counts references to arrays at every call that takes one,
    and each of these atomic operations waits until all that was written has reached the cache.
    """
    integers, numbers = types.CPointer(types.int64), types.CPointer(scalar)
    return types.void(types.intp, types.intp, integers, integers, *5 * (numbers,))


def driver_arguments(scalar: types.Float) -> tuple[types.Type, ...]:
    """The arrays from ``size`` to ``work`` as the driver takes them from Python."""
    integers = types.Array(types.int64, 1, "C", readonly=True)
    source = types.Array(scalar, 6, "A", readonly=True)
    bias = types.Array(scalar, 1, "C", readonly=True)
    target = types.Array(scalar, 6, "A")
    work = types.Array(scalar, 1, "C")
    return integers, integers, source, source, bias, target, work


class Kernel(PerDtype):
    """A worker, called by its ``address`` for a dtype."""

    def __init__(self, function: Callable[..., None]) -> None:
        super().__init__(function, kernel_signature, **OPTIONS)
