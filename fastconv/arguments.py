"""The forms in which arguments may come: numbers for all axes or for each, padding, shapes.

Each function returns the one form that the rest of the package knows, or says what is wrong.
"""

import operator
from collections.abc import Sequence
from typing import SupportsIndex

from .geometry import Ints, PaddingForm
from .ranks import IMAGE_AXES

PerAxis = SupportsIndex | Sequence[SupportsIndex]
Padding = str | SupportsIndex | Sequence[SupportsIndex] | Sequence[Sequence[SupportsIndex]]


# Numbers are below it: distances within arrays, some products of two of them, have 63 bits.
MOST = 2**40

FORMS_OF_PADDING = (
    '"same", "valid", an integer, or one integer or pair (before, after) for each axis'
)


def is_plain(value: object) -> bool:
    """Whether a value is made of integers proper, so that what equals it means the same.

    >>> is_plain(1), is_plain((1, 2)), is_plain(((1, 2), (0, 0))), is_plain("same")
    (True, True, True, True)
    >>> is_plain(1.0), is_plain((1, True)), is_plain([1, 2])
    (False, False, False)
    """
    if type(value) in (int, str):
        return True
    if type(value) is not tuple:
        return False
    kinds = {*map(type, value)}
    return kinds == {int} or (
        kinds == {tuple} and all({*map(type, pair)} == {int} for pair in value)
    )


def per_axis(name: str, value: PerAxis, ndim: int, least: int) -> Ints:
    """``value``, one integer or one for each axis, as a tuple; ``least`` is the smallest allowed.

    >>> per_axis("stride", 2, ndim=2, least=1)
    (2, 2)
    """
    if _is_integer(value):
        numbers = (operator.index(value),) * ndim  # type: ignore[arg-type]
    else:
        form = f"one integer or {ndim}, one for each spatial axis"
        numbers = _integers(name, value, form)
        if len(numbers) != ndim:
            raise ValueError(f"{name} must be {form}, got {value!r}")
    if min(numbers) < least or max(numbers) >= MOST:
        raise ValueError(
            f"{name} must be at least {least} and below 2**40 along every axis, got {value!r}"
        )
    return numbers


def positive(name: str, value: SupportsIndex) -> int:
    """``value`` as an integer, at least 1."""
    if not _is_integer(value):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if operator.index(value) < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return operator.index(value)


def _is_integer(value: object) -> bool:
    if type(value) is int:
        return True
    # Asking whether it is a SupportsIndex would cost 8 us, as much as a small convolution.
    if type(value) in (tuple, list, str, bool):
        return False
    try:
        operator.index(value)  # type: ignore[arg-type]
    except TypeError:  # also of an array of several numbers, which has the method and fails
        return False
    return True


def _sequence(name: str, value: object, form: str) -> tuple[object, ...]:
    # An array of no axes has both methods.
    sequence = hasattr(value, "__len__") and hasattr(value, "__getitem__")
    if isinstance(value, str) or not sequence or getattr(value, "ndim", 1) == 0:
        raise TypeError(f"{name} must be {form}, got {value!r}")
    return tuple(value)  # type: ignore[arg-type]


def _integers(name: str, value: object, form: str) -> Ints:
    numbers = _sequence(name, value, form)
    if not all(_is_integer(number) for number in numbers):
        raise TypeError(f"{name} must be made of integers, got {value!r}")
    return tuple([operator.index(number) for number in numbers])  # type: ignore[arg-type]


def padding_form(padding: Padding, ndim: int) -> PaddingForm:
    """``padding`` as "same", "valid", or a pair (before, after) for each axis, negative to crop.

    >>> padding_form((1, (2, -1)), ndim=2)
    ((1, 1), (2, -1))
    """
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ValueError(f"padding must be {FORMS_OF_PADDING}, got {padding!r}")
        return padding
    if _is_integer(padding):
        return (_pair(padding, padding),) * ndim
    axes = _sequence("padding", padding, FORMS_OF_PADDING)
    if len(axes) != ndim:
        raise ValueError(
            f"padding must have {ndim} entries, one for each spatial axis, got {padding!r}"
        )
    return tuple([_pair(axis, padding) for axis in axes])


def _pair(entry: object, padding: object) -> tuple[int, int]:
    # (before, after) of an axis, whose entry of the whole padding this is.
    if _is_integer(entry):
        numbers: Ints = (operator.index(entry),) * 2  # type: ignore[arg-type]
    else:
        numbers = _integers("padding", entry, FORMS_OF_PADDING)
    if len(numbers) != 2:
        raise ValueError(f"padding must be {FORMS_OF_PADDING}, got {padding!r}")
    if max(map(abs, numbers)) >= MOST:
        raise ValueError(f"padding must be below 2**40 along every axis, got {padding!r}")
    return numbers


def is_channels_last(data_format: str) -> bool:
    """Whether ``data_format`` is "channels_last" and not "channels_first".

    >>> is_channels_last("channels_last")
    True
    """
    if data_format not in ("channels_first", "channels_last"):
        raise ValueError(
            f'data_format must be "channels_first" or "channels_last", got {data_format!r}'
        )
    return data_format == "channels_last"


def batched_shape(name: str, shape: Ints, ndim: int, channels_last: bool = False) -> Ints:
    """(N, C, *spatial) of an image that may lack the batch axis.

    >>> batched_shape("x", (8, 9, 3), ndim=2, channels_last=True)
    (1, 3, 8, 9)
    """
    shape = tuple(shape)  # PyTorch and Numba's simulator have kinds of their own
    if len(shape) not in (ndim + 1, ndim + 2):
        axes = f"{IMAGE_AXES[ndim]}, C" if channels_last else f"C, {IMAGE_AXES[ndim]}"
        raise ValueError(
            f"{name} must have {ndim + 2} axes (N, {axes}), or {ndim + 1} without the batch, got"
            f" shape {shape}"
        )
    batch = shape[0] if len(shape) == ndim + 2 else 1
    if channels_last:
        return (batch, shape[-1], *shape[-1 - ndim : -1])
    return (batch, *shape[-1 - ndim :])


def shape_tuple(name: str, shape: Sequence[SupportsIndex]) -> Ints:
    """A shape argument as a tuple of non-negative integers."""
    numbers = _integers(name, shape, "a sequence of integers")
    if any(number < 0 for number in numbers):
        raise ValueError(f"{name} must not have negative entries, got {numbers}")
    return numbers
