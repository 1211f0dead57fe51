"""Which dtypes are served, and which of them go together.

Kernels know float32 and float64, on a device others besides. Arrays of other numbers are turned
into these before them, and back after them: ``cpu/stored.py``, ``cuda/stored.py``.
"""

import importlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from .forks import preparing

DType = np.dtype[Any]

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))

COMPLEX: dict[DType, DType] = {
    np.dtype(np.complex64): DTYPES[0],
    np.dtype(np.complex128): DTYPES[1],
}
INTEGERS = tuple(np.dtype(sign + str(size)) for size in (1, 2, 4, 8) for sign in "iu")
POOLED_INTEGERS = tuple([dtype for dtype in INTEGERS if dtype.itemsize <= 4])

FLOATING_SERVED = "float16, bfloat16, float32, float64, complex64 or complex128"
SERVED = f"{FLOATING_SERVED}, or integers of 8, 16, 32 or 64 bits"
TOGETHER = (
    f"served are arrays of one dtype out of {FLOATING_SERVED}, and x and weight of one integer"
    " dtype, or of uint8 and int8, with a bias of the result's"
)


class Numbers(NamedTuple):
    """What a call computes with.

    ``x`` and ``weight`` are the dtypes of its operands, ``result`` of its result, ``sums`` that of
    the kernels: None for integers, for which it depends on how long the sums are. Whether the
    convolution is ``transposed`` makes a difference to complex numbers.
    """

    x: DType
    weight: DType
    result: DType
    sums: DType | None
    transposed: bool = False


def check_dtypes(dtypes: dict[str, DType], served: tuple[DType, ...], place: str) -> None:
    """See that arrays of these names have one dtype, of those that are served at this place.

    >>> check_dtypes({"x": np.dtype("int8")}, DTYPES, "there")
    Traceback (most recent call last):
    TypeError: x must be float32 or float64 there, got int8
    """
    *names, last = map(str, served)
    first = next(iter(dtypes))
    for name, dtype in dtypes.items():
        if dtype not in served:
            raise TypeError(f"{name} must be {', '.join(names)} or {last} {place}, got {dtype}")
        if dtype != dtypes[first]:
            raise TypeError(
                f"all arrays must have one dtype, got {first} {dtypes[first]} and {name} {dtype}"
            )


def check_ordered(dtype: DType) -> None:
    """Raise TypeError if no number of this dtype is above another: there is no activation."""
    if dtype in COMPLEX:
        raise TypeError(
            f'activation must be None for complex numbers, which have no order, got "relu" and'
            f" {dtype}"
        )


def is_half(dtype: DType) -> bool:
    """Whether this is float16, or the bfloat16 of ml_dtypes, which is known by its name.

    >>> is_half(np.dtype("float16")), is_half(np.dtype(">f2"))
    (True, False)
    """
    return dtype == np.float16 or (dtype.name == "bfloat16" and dtype.isnative)


def is_floating(dtype: DType) -> bool:
    """Whether real or complex numbers of this dtype are served."""
    return dtype in DTYPES or dtype in COMPLEX or is_half(dtype)


@lru_cache(maxsize=256)
def numbers_of(
    operands: tuple[tuple[str, DType], ...],
    out_dtype: DType | None = None,
    accumulate_dtype: DType | None = None,
    transposed: bool = False,
) -> Numbers:
    """What a call with arrays of these names and dtypes, in order, computes with.

    >>> numbers_of((("x", np.dtype("u1")), ("weight", np.dtype("i1")))).result
    dtype('int32')

    Raises
    ------
    TypeError
        If a dtype is not served, or not together with the others.
    """
    for name, dtype in operands:
        if not is_floating(dtype) and dtype not in INTEGERS:
            raise TypeError(f"{name} must be {SERVED}, got {dtype}")
    (first, dtype), *others = operands
    if dtype in INTEGERS:
        return _integers(dict(operands), out_dtype, accumulate_dtype)
    for name, other in others:
        if other != dtype:
            raise _mixed((first, dtype), (name, other))
    if out_dtype is not None and out_dtype != dtype:
        raise TypeError(
            f"out_dtype is for integers, results of {dtype} are {dtype}, got {out_dtype}"
        )
    own = DTYPES[0] if is_half(dtype) else COMPLEX.get(dtype, dtype)
    return Numbers(dtype, dtype, dtype, accumulate_dtype or own, transposed)


def _mixed(first: tuple[str, DType], other: tuple[str, DType]) -> TypeError:
    return TypeError(
        f"all arrays must have one dtype, got {first[0]} {first[1]} and {other[0]} {other[1]};"
        f" {TOGETHER}"
    )


def _integers(
    operands: dict[str, DType], out_dtype: DType | None, accumulate_dtype: DType | None
) -> Numbers:
    if "grad_output" in operands:
        raise TypeError(
            "gradients are of floating-point or complex numbers, got grad_output"
            f" {operands['grad_output']}: between integers a loss has no slope"
        )
    if "weight" not in operands:  # of a pooling
        return Numbers(operands["x"], operands["x"], operands["x"], None)
    x, weight = operands["x"], operands["weight"]
    if x != weight and not (x == np.uint8 and weight == np.int8):
        raise _mixed(("x", x), ("weight", weight))
    if accumulate_dtype is not None:
        raise TypeError(
            f"accumulate_dtype is for floating-point numbers, got {accumulate_dtype} with {x}:"
            " integers are summed exactly"
        )
    default = np.dtype(np.int32) if x.itemsize < 4 else x
    result = default if out_dtype is None else out_dtype
    if result not in INTEGERS:
        raise TypeError(f"out_dtype of integers must be an integer dtype, got {result}")
    bias = operands.get("bias", result)
    if bias != result:
        raise TypeError(f"bias must be {result} as the result is, got {bias}; {TOGETHER}")
    return Numbers(x, weight, result, None)


def stored_numbers(
    operands: Iterable[tuple[str, DType]],
    out_dtype: DTypeLike | None,
    accumulate_dtype: DTypeLike | None,
    transposed: bool,
) -> Numbers:
    """``numbers_of``, for dtypes as users name them.

    Raises
    ------
    TypeError
        If one is no name of a dtype, or ``numbers_of`` says so.
    ValueError
        If ``accumulate_dtype`` is neither None nor float64.
    """
    accumulate = None
    if accumulate_dtype is not None:
        accumulate = named("accumulate_dtype", accumulate_dtype)
    if accumulate is not None and accumulate != np.float64:
        raise ValueError(f"accumulate_dtype must be None or float64, got {accumulate}")
    result = None if out_dtype is None else named("out_dtype", out_dtype)
    return numbers_of(tuple(operands), result, accumulate, transposed)


def named(name: str, dtype: DTypeLike) -> DType:
    """The dtype that a user names; None, which NumPy takes for float64, names none."""
    if isinstance(dtype, str) and dtype == "bfloat16":  # which NumPy learns from ml_dtypes
        try:
            with preparing:
                importlib.import_module("ml_dtypes")
        except ModuleNotFoundError:
            raise TypeError(f'{name} "bfloat16" needs ml_dtypes: pip install ml_dtypes') from None
    try:
        if dtype is not None:
            return np.dtype(dtype)
    except TypeError:
        pass
    raise TypeError(f"{name} must name a dtype, got {dtype!r}")
