"""Floating-point numbers that no kernel has: converted, computed by those there are, and rounded.

Operands are copied to the dtype of the sums, which are rounded to that of the result, once. Complex
numbers (``complexes.py``) are another conversion.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import cpu
from ..dtypes import Numbers, is_half
from ..geometry import ConvGeometry, Ints
from ..memory import COPY_BYTES, copied, empty
from ..plan import Choice, check_precision
from ..plan import cpu as plan
from ..results import result_like
from .halves import narrow, widen

Array = NDArray[Any]


class Converted:
    """A backend as ``cpu`` is one, for half precision, and for float32 summed in float64."""

    def __init__(self, numbers: Numbers) -> None:
        assert numbers.sums is not None
        self.sums = numbers.sums

    # The arrays as the kernels take them.

    def geometry(self, g: ConvGeometry) -> ConvGeometry:
        """The geometry of what is computed."""
        return g

    def image(self, image: Array, grouped: Ints, g: ConvGeometry) -> Array:
        """An image, as the caller has it, of this shape (N, G, C/G, D, H, W)."""
        return self._wide(image)

    def filters(self, filters: Array, g: ConvGeometry) -> Array:
        return self._wide(filters)

    def bias(self, bias: Array | None) -> Array | None:
        return None if bias is None else self._wide(bias)

    @contextmanager
    def image_result(self, out: Array, grouped: Ints, g: ConvGeometry) -> Iterator[Array]:
        """What is to be filled with sums, which then go to the caller's ``out``."""
        with self._result(out) as sums:
            yield sums

    @contextmanager
    def filters_result(self, out: Array, g: ConvGeometry) -> Iterator[Array]:
        """The same for filters."""
        with self._result(out) as sums:
            yield sums

    def copies(self, g: ConvGeometry) -> int:
        """Numbers in the copies of all arrays."""
        return sum(map(prod, (g.x_shape, g.weight_shape, g.y_shape)))

    def _wide(self, array: Array) -> Array:
        if is_half(array.dtype):
            array = widen(array)
        return array if array.dtype == self.sums else copied(array, self.sums)

    @contextmanager
    def _result(self, out: Array) -> Iterator[Array]:
        sums = empty(out.shape, self.sums, COPY_BYTES)
        yield sums
        if not is_half(out.dtype):
            with np.errstate(over="ignore"):
                out[...] = sums
        elif out.flags.c_contiguous:
            narrow(sums, out)
        else:
            rounded = np.empty(out.shape, out.dtype)
            narrow(sums, rounded)
            out[...] = rounded

    # What ``cpu`` offers.

    def choose(
        self, map_name: str, geometry: ConvGeometry, x: Array, algorithm: str, precision: str
    ) -> str:
        """The algorithm for a map."""
        check_precision(precision)
        return self.explain_choice(map_name, geometry, algorithm).algorithm

    def explain_choice(self, map_name: str, g: ConvGeometry, algorithm: str) -> Choice:
        """The same, and why."""
        return plan.explain_choice(map_name, self.geometry(g), self.sums, algorithm)

    def requirements(self, map_name: str, g: ConvGeometry, algorithm: str) -> Ints:
        """Floating-point operations, bytes of scratch memory, and threads of a map."""
        needs = cpu.requirements(map_name, self.geometry(g), self.sums, algorithm)
        operations, elements, threads = needs
        return operations, (elements + self.copies(g)) * self.sums.itemsize, threads

    def result_like(
        self, x: Array, shape: Ints, out: Array | None, inputs: tuple[Array | None, ...]
    ) -> Array:
        """The array for the result."""
        return result_like(x, shape, out, inputs)

    def forward(
        self,
        x: Array,
        weight: Array,
        bias: Array | None,
        geometry: ConvGeometry,
        out: Array,
        algorithm: str,
    ) -> None:
        """Correlate ``x`` with ``weight``."""
        g = geometry
        operands = self.image(x, g.x_shape, g), self.filters(weight, g), self.bias(bias)
        with self.image_result(out, g.y_shape, g) as y:
            cpu.forward(*operands, self.geometry(g), y, algorithm)

    def grad_input(
        self,
        grad_output: Array,
        weight: Array,
        bias: Array | None,
        geometry: ConvGeometry,
        out: Array,
        algorithm: str,
    ) -> None:
        """Correlate ``grad_output`` with the flipped filters."""
        g = geometry
        operands = self.image(grad_output, g.y_shape, g), self.filters(weight, g), self.bias(bias)
        with self.image_result(out, g.x_shape, g) as dx:
            cpu.grad_input(*operands, self.geometry(g), dx, algorithm)

    def grad_weight(
        self, grad_output: Array, x: Array, geometry: ConvGeometry, out: Array, algorithm: str
    ) -> None:
        """Correlate ``x`` with ``grad_output``."""
        g = geometry
        operands = self.image(grad_output, g.y_shape, g), self.image(x, g.x_shape, g)
        with self.filters_result(out, g) as dw:
            cpu.grad_weight(*operands, self.geometry(g), dw, algorithm)

    def grad_bias(self, grad_output: Array, shape: Ints, channels_last: bool) -> Array:
        """Sum ``grad_output`` by channel."""
        sums = cpu.grad_bias(self._wide(grad_output), shape, channels_last)
        out = np.empty(sums.shape, grad_output.dtype)
        with self._result(out) as target:
            target[...] = sums
        return out
