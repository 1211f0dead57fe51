"""Floating-point numbers that no kernel has: converted, computed by those there are, and rounded.

Operands are copied to the dtype of the sums, which are rounded to that of the result, once. Maps
from images to images copy some of a batch at a time, so that these stay in the caches. Complex
numbers (``complexes.py``) are another conversion.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import converted, cpu
from ..batches import images_at_a_time
from ..dtypes import Numbers, is_half
from ..geometry import ConvGeometry, Ints
from ..memory import copied, empty
from ..plan import Choice
from ..plan import cpu as plan
from .halves import narrow, widen
from .stored_backend import Stored

Array = NDArray[Any]

# Bytes of copies that are made at a time of images and their results, if they are several. Forward
# and grad_input of 7 layers in float16 and bfloat16 took 1.20 times as long with 4 MiB, 1.00 with
# 16, 1.03 with whole batches of 16, and depthwise ones at 56x56 up to 1.45 times with these.
PIECE_BYTES = 8 * 2**20


class Converted(Stored, converted.Converted):
    """A backend as ``cpu`` is one, for half precision, and for float32 summed in float64."""

    def __init__(self, numbers: Numbers) -> None:
        assert numbers.sums is not None
        super().__init__(numbers, numbers.sums, cpu)

    def wide(self, array: Array) -> Array:
        """A wide copy, or the array itself if it is wide."""
        if is_half(array.dtype):
            array = widen(array)
        return array if array.dtype == self.sums else copied(array, self.sums)

    @contextmanager
    def summed(self, out: Array) -> Iterator[Array]:
        """A wide array for sums, which then are rounded to ``out``; itself, if it is wide."""
        if out.dtype == self.sums:
            yield out
            return
        sums = empty(out.shape, self.sums)
        yield sums
        if is_half(out.dtype):
            narrow(sums, out)
        else:
            with np.errstate(over="ignore"):
                out[...] = sums

    def at_a_time(self, g: ConvGeometry) -> int:
        """Images of a batch that are copied at a time, with their results."""
        numbers = prod(g.x_shape[1:]) + prod(g.y_shape[1:])
        return images_at_a_time(g, numbers * self.sums.itemsize, PIECE_BYTES)

    def explain_choice(self, map_name: str, g: ConvGeometry, algorithm: str) -> Choice:
        return plan.explain_choice(map_name, self.geometry(g), self.sums, algorithm)

    def requirements(self, map_name: str, g: ConvGeometry, algorithm: str) -> Ints:
        needs = cpu.requirements(map_name, self.geometry(g), self.sums, algorithm)
        operations, elements, threads = needs
        at_a_time = g if map_name == "grad_weight" else replace(g, batch=self.at_a_time(g))
        return (
            operations,
            (elements + self.copies(self.geometry(at_a_time))) * self.sums.itemsize,
            threads,
        )

    def grad_bias(self, grad_output: Array, shape: Ints, channels_last: bool) -> Array:
        """Sum ``grad_output`` by channel."""
        sums = cpu.grad_bias(self.wide(grad_output), shape, channels_last)
        out = np.empty(sums.shape, grad_output.dtype)
        with self.summed(out) as target:
            target[...] = sums
        return out

    def mask(self, a: Array, y: Array) -> Array:
        """A new array: ``a`` where ``y``, of the same shape, is above 0 or NaN, 0 elsewhere."""
        if is_half(a.dtype):
            return np.where(widen(y) <= 0, np.zeros((), a.dtype), a)
        return cpu.mask(a, y)
