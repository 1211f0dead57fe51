"""Checks of arguments that have to do with one another."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .dispatch import dtype_of
from .dtypes import check_ordered
from .geometry import Ints

Array = NDArray[Any]
Needs = tuple[bool, bool, bool]


def check_bias(bias: Array | None, channels: int) -> None:
    if bias is not None and bias.shape != (channels,):
        raise ValueError(
            f"bias must have shape ({channels},), one number for each output channel, got shape"
            f" {tuple(bias.shape)}"
        )


def check_needs(needs: Needs, of: str = "x, weight and bias") -> Needs:
    if not isinstance(needs, tuple | list) or not all(isinstance(n, bool | np.bool) for n in needs):
        raise TypeError(f"needs must be a tuple of 3 booleans, got {needs!r}")
    if len(needs) != 3:
        raise ValueError(f"needs must have 3 entries, for {of}, got {needs!r}")
    return needs


def check_activation(activation: str | None, dtype: np.dtype[Any] | None) -> bool:
    """Whether ``activation`` is "relu" and not None, of numbers of this dtype, if it is known."""
    if not (activation is None or (isinstance(activation, str) and activation == "relu")):
        raise ValueError(f'activation must be None or "relu", got {activation!r}')
    if activation is not None and dtype is not None:
        check_ordered(dtype)
    return activation is not None


def check_result(activation: str | None, grad_output: Array, y: Array | None) -> bool:
    """Whether gradients pass back through an activation, whose result is ``y``."""
    relu = check_activation(activation, dtype_of("grad_output", grad_output))
    if relu and y is None:
        raise ValueError(
            'y must be the result of the forward call where activation is "relu", got None'
        )
    if y is not None:
        if not relu:
            raise ValueError(
                f"y must be None where activation is, got an array of shape {tuple(y.shape)}"
            )
        if tuple(y.shape) != tuple(grad_output.shape):
            raise ValueError(
                f"y must have the shape of grad_output, {tuple(grad_output.shape)}, got"
                f" {tuple(y.shape)}"
            )
    return relu


def check_grad_output(grad_output: Array, needed: Ints) -> None:
    if grad_output.shape != needed:
        raise ValueError(
            f"grad_output must have the shape of the result, {needed}, got"
            f" {tuple(grad_output.shape)}"
        )
