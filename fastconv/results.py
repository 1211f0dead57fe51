"""The array a result is written to: a fresh one, or the caller's ``out`` if that is safe."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .dispatch import peculiar_arrays
from .geometry import Ints
from .memory import empty

Array = NDArray[Any]


def result_like(
    x: Array,
    shape: Ints,
    out: Array | None,
    inputs: tuple[Array | None, ...],
    dtype: np.dtype[Any] | None = None,
) -> Array:
    """``out``, or a new array of this shape and dtype, by default ``x``'s.

    Raises
    ------
    TypeError
        If ``out`` is not an array, or one of ``peculiar_arrays``.
    ValueError
        If ``out`` has another shape or dtype, cannot be written, is not aligned to its dtype, or
        shares memory with an input or itself.
    """
    dtype = dtype or x.dtype
    if out is None:
        return empty(shape, dtype)
    if not isinstance(out, np.ndarray) or isinstance(out, peculiar_arrays()):
        raise TypeError(f"out must be a NumPy array, got {type(out).__qualname__}")
    if out.dtype != dtype:
        raise ValueError(f"out must be {dtype}, got {out.dtype}")
    if out.shape != shape:
        raise ValueError(f"out must have shape {shape}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out must be writeable, got a read-only array")
    if not out.flags.aligned:
        raise ValueError("out must be aligned to its dtype, got an unaligned array")
    if overlaps_itself(out.shape, out.strides, out.itemsize):
        raise ValueError(
            "out must have distinct elements, got an array whose elements share memory, of strides"
            f" {out.strides}"
        )
    if any(array is not None and _share_memory(out, array) for array in inputs):
        raise ValueError("out must not share memory with an input")
    return out


def _share_memory(a: Array, b: Array) -> bool:
    if not np.may_share_memory(a, b):  # the bounds alone: nearly always enough
        return False
    try:
        return np.shares_memory(a, b, max_work=10_000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def overlaps_itself(shape: Ints, strides: Ints, itemsize: int) -> bool:
    """Whether some axis steps by less than the axes inside it span; true of every overlap.

    ``strides`` are in the units of ``itemsize``.
    """
    if 0 in shape:
        return False
    reach = itemsize
    for stride, extent in sorted(
        (abs(stride), extent) for stride, extent in zip(strides, shape, strict=True) if extent > 1
    ):
        if stride < reach:
            return True
        reach += stride * (extent - 1)
    return False
