"""From arrays to the backend that computes on them: NumPy's on the CPU, device arrays on CUDA.

Lazy arrays of Dask have a backend of their own, which lays out tasks for that of the CPU.
"""

import functools
import importlib.util
import sys
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import DTypeLike

from .dtypes import DTYPES, stored_numbers
from .forks import preparing
from .geometry import ConvGeometry, Ints


class Backend(Protocol):
    """What computes the maps: a module ``cpu``, ``cuda`` or ``dask``, or one that converts numbers.

    They say what each function does; the arrays are of the backend's own kind.
    """

    def choose(
        self, map_name: str, geometry: ConvGeometry, x: Any, algorithm: str, precision: str
    ) -> str: ...

    def result_like(
        self, x: Any, shape: Ints, out: Any | None, inputs: tuple[Any | None, ...]
    ) -> Any: ...

    def forward(
        self,
        x: Any,
        weight: Any,
        bias: Any | None,
        geometry: ConvGeometry,
        out: Any,
        algorithm: str,
        relu: bool = False,
    ) -> Any: ...

    def grad_input(
        self,
        grad_output: Any,
        weight: Any,
        bias: Any | None,
        geometry: ConvGeometry,
        out: Any,
        algorithm: str,
        relu: bool = False,
    ) -> Any: ...

    def grad_weight(
        self, grad_output: Any, x: Any, geometry: ConvGeometry, out: Any, algorithm: str
    ) -> Any: ...

    def grad_weight_per_sample(
        self, grad_output: Any, x: Any, geometry: ConvGeometry, out: Any, algorithm: str
    ) -> None: ...

    def grad_bias(self, grad_output: Any, shape: Ints, channels_last: bool) -> Any: ...

    def kept_size(self, x: Any) -> int: ...

    def temporary(self, like: Any, geometry: ConvGeometry, ndim: int) -> Any: ...

    def pad(self, x: Any, geometry: ConvGeometry, ndim: int, out: Any) -> None: ...

    def fold(self, padded: Any, geometry: ConvGeometry, ndim: int, out: Any) -> None: ...

    def filters_result(
        self, out: Any, geometry: ConvGeometry, per_sample: bool
    ) -> AbstractContextManager[Any]: ...

    def add(self, part: Any, geometry: ConvGeometry, out: Any) -> None: ...

    def mask(self, a: Any, y: Any) -> Any: ...

    def side_by_side(self, a: Any, b: Any, axis: int, groups: int) -> Any: ...

    def spread_bias(self, bias: Any, shape: Ints, ndim: int, channels_last: bool) -> Any: ...


@functools.cache
def _cpu() -> Backend:
    # When it is first needed: its kernels' definitions take twice as long to import as the rest.
    with preparing:
        from . import cpu

    return cpu


@functools.cache
def _stored() -> ModuleType:
    with preparing:
        from .cpu import stored

    return stored


@functools.cache
def peculiar_arrays() -> tuple[type, ...]:
    """NumPy's arrays that are more than numbers: some are hidden, or there are always two axes."""
    with preparing:  # NumPy imports the first when it is first asked for it
        return np.ma.MaskedArray, np.matrix


@functools.cache
def cuda_backend() -> ModuleType:
    """The CUDA backend.

    Raises
    ------
    ModuleNotFoundError
        If numba-cuda is not installed.
    RuntimeError
        If no device answers.
    """
    if importlib.util.find_spec("numba_cuda") is None:
        raise ModuleNotFoundError(
            'arrays on a CUDA device need numba-cuda: pip install "fastconv[cuda13]", or'
            ' "fastconv[cuda12]" for a driver of CUDA 12'
        )
    from numba import cuda

    if not cuda.is_available():
        raise RuntimeError("no CUDA device answers: is there one, and a driver for it?")
    from . import cuda as backend

    return backend


def backend_of(
    arrays: dict[str, Any],
    bias: Any = None,
    out_dtype: DTypeLike | None = None,
    accumulate_dtype: DTypeLike | None = None,
    transposed: bool = False,
) -> Backend:
    """The backend that serves all these arguments, of which the bias may be missing.

    It is the one for transposed convolutions where they are ``transposed``.

    Raises
    ------
    TypeError
        If an argument is not an array, some lie on a device and some do not, or the dtypes are not
        served, or not together.
    ValueError
        If an array lies on another device than the current one, or ``accumulate_dtype`` is neither
        None nor float64.
    """
    if bias is not None:
        arrays["bias"] = bias
    dtype, plain = None, out_dtype is None and accumulate_dtype is None
    for array in arrays.values():
        if not isinstance(array, np.ndarray) or isinstance(array, peculiar_arrays()):
            return _dask_backend_of(arrays, out_dtype, accumulate_dtype) or _cuda_backend_of(
                arrays, out_dtype, accumulate_dtype, transposed
            )
        if dtype is None:
            dtype = array.dtype
            plain = plain and dtype in DTYPES
        elif array.dtype != dtype:
            plain = False
    if plain:
        return _cpu()
    return _stored_backend_of(arrays, out_dtype, accumulate_dtype, transposed)


def _dask_backend_of(
    arrays: dict[str, Any], out_dtype: DTypeLike | None, accumulate_dtype: DTypeLike | None
) -> Backend | None:
    """The same, where an argument is an array of Dask."""
    # Whoever has such an array has imported it.
    library = sys.modules.get("dask.array")
    if library is None or not any(isinstance(a, library.Array) for a in arrays.values()):
        return None
    from . import dask

    for name, dtype in (("out_dtype", out_dtype), ("accumulate_dtype", accumulate_dtype)):
        if dtype is not None:
            raise TypeError(f"{name} must be None beside Dask arrays, got {dtype!r}")
    module: Any = dask
    module.check(arrays)
    backend: Backend = module
    return backend


def _stored_backend_of(
    arrays: dict[str, Any],
    out_dtype: DTypeLike | None,
    accumulate_dtype: DTypeLike | None,
    transposed: bool,
) -> Backend:
    """The same for NumPy's arrays, if kernels are not simply called on them."""
    operands = [(name, array.dtype) for name, array in arrays.items()]
    numbers = stored_numbers(operands, out_dtype, accumulate_dtype, transposed)
    if numbers.x == numbers.sums:
        return _cpu()
    # That for integers has no gradients, which ``stored_numbers`` refuses.
    return cast(Backend, _stored().backend_for(numbers))


def _cuda_backend_of(
    arrays: dict[str, Any],
    out_dtype: DTypeLike | None,
    accumulate_dtype: DTypeLike | None,
    transposed: bool,
) -> Backend:
    """The same, where not all arguments are arrays of NumPy."""
    host, device = [], []
    for name, array in arrays.items():
        if _is_on_device(name, array):
            device.append(name)
        elif isinstance(array, np.ndarray) and not isinstance(array, peculiar_arrays()):
            host.append(name)
        else:
            kind = type(array)
            raise TypeError(
                f"{name} must be a NumPy array or one on a CUDA device, got"
                f" {kind.__module__}.{kind.__qualname__}"
            )
    if host:
        raise TypeError(
            f"all arrays must lie in one place, got {host[0]} in the host's memory and {device[0]}"
            " on a CUDA device"
        )
    module: Any = cuda_backend()
    module.check_devices(arrays)
    for name, array in arrays.items():
        module.check_resolved(name, array)
    operands = [(name, module.dtype_of(array)) for name, array in arrays.items()]
    numbers = stored_numbers(operands, out_dtype, accumulate_dtype, transposed)
    from .cuda import stored

    backend: Backend = stored.backend_for(numbers)
    return backend


def dtype_of(name: str, array: Any) -> np.dtype[Any] | None:
    """The dtype of NumPy's arrays and of those on a device; None of anything else."""
    dtype: np.dtype[Any] | None = None
    if isinstance(array, np.ndarray):
        dtype = array.dtype
    elif _is_on_device(name, array):
        dtype = cuda_backend().dtype_of(array)
    return dtype


def _is_on_device(name: str, array: Any) -> bool:
    # The simulator's arrays have no interface.
    if type(array).__module__.startswith("numba.cuda.simulator"):
        return True
    try:
        return hasattr(array, "__cuda_array_interface__")
    except RuntimeError as error:  # of a PyTorch tensor that records gradients
        raise TypeError(f"{name} cannot be read: {error}") from error
