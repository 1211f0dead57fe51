"""Device arrays of three libraries: where their elements lie, new ones like them, their stream.

CuPy arrays, PyTorch tensors and Numba's device arrays all say by ``__cuda_array_interface__`` where
they lie; in Numba's simulator, arrays are NumPy's in disguise.
"""

import importlib.util
import sys
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from ..geometry import Ints
from .kernel import SIMULATED, word_of

DType = np.dtype[Any]


class Operand(NamedTuple):
    """What kernels are told of an array; strides are counted in words, see ``word_of``.

    ``itemsize`` is that of a word, and ``owner`` what keeps its memory from being freed.
    """

    pointer: Any
    shape: Ints
    strides: Ints
    itemsize: int
    owner: Any = None

    def moved(self, words: int) -> "Operand":
        """Beginning so many words later."""
        return self._replace(pointer=self.pointer + words * (1 if SIMULATED else self.itemsize))

    def swapped(self, first: int, second: int) -> "Operand":
        """With two axes exchanged."""
        order = [*range(len(self.shape))]
        order[first], order[second] = second, first
        shape, strides = self.shape, self.strides
        return self._replace(
            shape=tuple([shape[i] for i in order]), strides=tuple([strides[i] for i in order])
        )

    def part(self, place: tuple[slice, ...]) -> "Operand":
        """The elements at slices of the last axes, which have a start, no stop, and a step."""
        lead = len(self.shape) - len(place)
        start, shape, strides = 0, [*self.shape], [*self.strides]
        for axis, at in enumerate(place, lead):
            start += at.start * strides[axis]
            shape[axis] = len(range(at.start, shape[axis], at.step))
            strides[axis] *= at.step
        return self.moved(start)._replace(shape=tuple(shape), strides=tuple(strides))


class _HostPointer:
    """Stands for a device pointer in the simulator, and sees that nothing outside is touched."""

    def __init__(self, array: np.ndarray[Any, Any], strides: Ints) -> None:
        word = word_of(array.dtype)
        words = array.real if array.dtype.kind == "c" else array.view(word)
        reach = array.itemsize // word.itemsize
        reach += sum((n - 1) * stride for n, stride in zip(array.shape, strides, strict=True))
        self._elements = np.lib.stride_tricks.as_strided(words, (reach,), (word.itemsize,))

    def __add__(self, elements: int) -> "_HostPointer":
        moved = object.__new__(_HostPointer)
        moved._elements = self._elements[elements:]
        return moved

    def __getitem__(self, i: int) -> Any:
        if i < 0:
            raise IndexError(f"element {i}")
        return self._elements[i]

    def __setitem__(self, i: int, value: Any) -> None:
        if i < 0:
            raise IndexError(f"element {i}")
        self._elements[i] = value


def _interface(array: Any) -> dict[str, Any]:
    if SIMULATED:
        return dict(array._ary.__array_interface__)
    return dict(array.__cuda_array_interface__)


def _dtype(interface: dict[str, Any]) -> DType:
    named = interface["typestr"]
    if named == "<V2":  # as bfloat16 is called there, by CuPy and by PyTorch
        if importlib.util.find_spec("ml_dtypes") is None:
            raise ModuleNotFoundError("arrays of bfloat16 need ml_dtypes: pip install ml_dtypes")
        named = importlib.import_module("ml_dtypes").bfloat16
    dtype: DType = np.dtype(named)
    return dtype


def dtype_of(array: Any) -> DType:
    """The NumPy dtype of its elements; bfloat16 is that of ml_dtypes."""
    return _dtype(_interface(array))


def operand(array: Any) -> Operand:
    """What kernels are told of ``array``."""
    interface = _interface(array)
    dtype = _dtype(interface)
    size = word_of(dtype).itemsize
    shape = tuple(interface["shape"])
    nbytes = interface.get("strides") or _dense(shape, dtype.itemsize)
    strides = tuple([n // size for n in nbytes])
    pointer = _HostPointer(array._ary, strides) if SIMULATED else interface["data"][0]
    return Operand(pointer, shape, strides, size, array)


def _dense(shape: Ints, itemsize: int) -> Ints:
    strides = [itemsize]
    for n in reversed(shape[1:]):
        strides.append(strides[-1] * n)
    return tuple(reversed(strides))


def bounds(array: Any) -> tuple[int, int]:
    """First address of an array that is not empty, and the one after the last."""
    interface = _interface(array)
    itemsize: int = np.dtype(interface["typestr"]).itemsize
    nbytes = interface.get("strides") or _dense(tuple(interface["shape"]), itemsize)
    reach = [(n - 1) * stride for n, stride in zip(interface["shape"], nbytes, strict=True)]
    start: int = interface["data"][0]
    return start + sum(min(n, 0) for n in reach), start + sum(max(n, 0) for n in reach) + itemsize


def _library(array: Any) -> str:
    return type(array).__module__.partition(".")[0]


def empty_like(array: Any, shape: Ints, dtype: Any = None) -> Any:
    """Uninitialised C-contiguous array of ``array``'s library and device, by default its dtype."""
    library = _library(array)
    dtype = dtype_of(array) if dtype is None else np.dtype(dtype)
    if library == "torch":
        return array.new_empty(shape, dtype=getattr(sys.modules["torch"], dtype.name))
    if library == "cupy":
        return sys.modules["cupy"].empty(shape, dtype)
    return cuda.device_array(shape, dtype)


def to_device(array: np.ndarray[Any, Any]) -> Any:
    """A copy on the current device: CuPy's array, where that is installed, or else Numba's."""
    if importlib.util.find_spec("cupy") is not None and not SIMULATED:
        return importlib.import_module("cupy").asarray(array)
    return cuda.to_device(array)


def to_host(array: Any) -> np.ndarray[Any, Any]:
    """A copy of a device array as NumPy's."""
    library = _library(array)
    host: np.ndarray[Any, Any]
    if library == "torch":
        host = array.cpu().numpy()
    elif library == "cupy":
        host = array.get()
    else:
        host = array.copy_to_host()
    return host


def stream_of(array: Any) -> int:
    """Handle of the stream on which the library of ``array`` would put its own next operation."""
    library = _library(array)
    handle = 0
    if library == "torch":
        handle = sys.modules["torch"].cuda.current_stream(array.device).cuda_stream
    elif library == "cupy":
        handle = sys.modules["cupy"].cuda.get_current_stream().ptr
    return handle


def check_resolved(name: str, array: Any) -> None:
    """Raise TypeError for a tensor whose numbers are not what its memory says."""
    if _library(array) == "torch" and (array.is_conj() or array.is_neg()):
        raise TypeError(
            f"{name} must be in memory as it is, got a tensor that PyTorch has yet to conjugate or"
            " negate: .resolve_conj().resolve_neg() does"
        )


def check_devices(arrays: dict[str, Any]) -> None:
    """Raise ValueError unless all arrays lie on the current device, on which kernels run."""
    for name, array in arrays.items():
        library = _library(array)
        if library == "torch":
            place = array.device.index
        elif library == "cupy":
            place = array.device.id
        else:
            continue  # Numba's are made in the current context
        here = cuda.current_context().device.id
        if place != here:
            raise ValueError(
                f"{name} must lie on the current device, {here}, got an array on device {place}:"
                f" numba.cuda.select_device({place}) makes that one current"
            )


def synchronize() -> None:
    """Wait until the current device has done all it was asked for."""
    cuda.synchronize()


def device() -> tuple[str, str]:
    """Name and compute capability of the current device."""
    found = cuda.get_current_device()
    name = found.name.decode() if isinstance(found.name, bytes) else str(found.name)
    return name, "{}.{}".format(*found.compute_capability)
