"""CUDA kernels: compiled when a dtype first needs them, launched with addresses and integers.

A kernel takes arrays as pointers, and their shapes and strides as tuples of integers: all of them
numbers of 64 bits.
"""

import functools
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import numpy as np
from numba import config, cuda
from numba.cuda import types

from ..plan.cuda import THREADS

SIMULATED = bool(config.ENABLE_CUDASIM)

# What products are added up in; integers, modulo 2**bits.
WIDE = {
    "float16": types.float32,
    "float32": types.float32,
    "float64": types.float64,
    **{
        f"{sign}int{bits}": getattr(types, f"{sign}int{bits}")
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}


# By what kernels know numbers that they cannot compute with: the bits of a half, and two parts.
_WORDS: dict[str, np.dtype[Any]] = {
    "bfloat16": np.dtype(np.uint16),
    "complex64": np.dtype(np.float32),
    "complex128": np.dtype(np.float64),
}


def word_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype by which kernels know numbers of this one; a complex number is two of them."""
    return _WORDS.get(dtype.name, dtype)


def wide_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """NumPy's name for it."""
    wide: np.dtype[Any] = np.dtype(WIDE[dtype.name].name)
    return wide


class Kernel:
    """A kernel, given by a function that makes it for one type of sums.

    Parameters
    ----------
    parameters : str
        A letter for each parameter: "p" for a pointer to elements, "w" for one to what sums of them
        are added up in, "s" for one to what a variant reads, of the dtype that is its ``source``,
        "l" for one to integers, "i" for an integer, a digit for a tuple of that many integers.
    make : callable
        Takes what ``of`` was given, if that is used, and the type in which products are added up,
        by which numbers can be converted; returns the kernel.
    options : dict
        What ``numba.cuda.jit`` is told besides.
    """

    def __init__(
        self,
        parameters: str,
        make: Callable[..., Callable[..., None]],
        options: dict[str, Any],
        variant: Any = None,
    ) -> None:
        self.name = make.__name__
        self.parameters = parameters
        self.options = options
        self.variant = variant
        self._make = make
        self._compiled: dict[str, Any] = {}

    @functools.cache  # noqa: B019 - kernels are module constants, and last
    def of(self, variant: Hashable) -> "Kernel":
        """The kernel made for a variant of it."""
        made = functools.update_wrapper(functools.partial(self._make, variant), self._make)
        return Kernel(self.parameters, made, self.options, variant)

    def signature(self, dtype: np.dtype[Any]) -> Any:
        """What Numba compiles the kernel for."""
        kinds = {
            "p": types.CPointer(getattr(types, dtype.name)),
            "w": types.CPointer(WIDE[dtype.name]),
            "l": types.CPointer(types.int64),
            "i": types.int64,
        }
        if "s" in self.parameters:
            kinds["s"] = types.CPointer(getattr(types, word_of(self.variant.source).name))
        return types.void(
            *[
                types.UniTuple(types.int64, int(kind)) if kind.isdigit() else kinds[kind]
                for kind in self.parameters
            ]
        )

    def function(self, dtype: np.dtype[Any]) -> Callable[..., None]:
        """The kernel as a Python function, not compiled."""
        return self._make(WIDE[dtype.name])

    def launch(self, dtype: np.dtype[Any], stream: int, grid: Any, *arguments: Any) -> None:
        """Run the kernel on a stream in a grid of blocks, a number of them or (x, y, z)."""
        compiled = self._compiled.get(dtype.name)
        if compiled is None:
            compiled = self._compiled[dtype.name] = self._compile(dtype)
        if SIMULATED:
            compiled[grid, THREADS](*arguments)
        else:
            _launch(compiled, stream, grid, arguments)

    def _compile(self, dtype: np.dtype[Any]) -> Any:
        function = self.function(dtype)
        if SIMULATED:
            return cuda.jit(function)
        dispatcher = cuda.jit(self.signature(dtype), **self.options)(function)
        return next(iter(dispatcher.overloads.values()))


def _launch(compiled: Any, stream: int, grid: Any, arguments: Iterable[Any]) -> None:
    # As Numba does it, which takes 50 us to make integers of C of 42 of Python, where launch itself
    # takes 64-bit ones as they are in 1 us; and which warns of every small grid.
    from cuda.core import LaunchConfig, Stream, launch

    numbers: list[int] = []
    for argument in arguments:
        if type(argument) is tuple:
            numbers += argument
        else:
            numbers.append(argument)
    function = compiled._codelibrary.get_cufunc().kernel
    launch(Stream.from_handle(stream), LaunchConfig(grid=grid, block=THREADS), function, *numbers)


def blocks_for(tasks: int) -> int:
    """Blocks that have a thread for each task; in a grid as large as the largest, threads loop."""
    return max(1, min(-(-tasks // THREADS), 2**20))


def kernel(
    parameters: str, **options: Any
) -> Callable[[Callable[..., Callable[..., None]]], Kernel]:
    """Decorator: ``Kernel(parameters, function, options)``."""
    return lambda make: Kernel(parameters, make, options)
