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

from .. import cpu
from ..batches import images_at_a_time, parts_of
from ..dispatch import Backend
from ..dtypes import Numbers, check_ordered, is_half
from ..geometry import ConvGeometry, Ints
from ..memory import COPY_BYTES, copied, empty
from ..plan import Choice
from ..plan import cpu as plan
from ..results import result_like
from .elementwise import side_by_side, spread_bias
from .halves import narrow, widen
from .stored_backend import Stored

Array = NDArray[Any]

# Bytes of copies that are made at a time of images and their results, if they are several. Forward
# and grad_input of 7 layers in float16 and bfloat16 took 1.20 times as long with 4 MiB, 1.00 with
# 16, 1.03 with whole batches of 16, and depthwise ones at 56x56 up to 1.45 times with these.
PIECE_BYTES = 8 * 2**20


class Converted(Stored, Backend):
    """A backend as ``cpu`` is one, for half precision, and for float32 summed in float64."""

    def __init__(self, numbers: Numbers) -> None:
        assert numbers.sums is not None
        self.sums = numbers.sums
        self.wide = numbers.sums  # of arrays that are kept between maps

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
        with self.summed(out) as sums:
            yield sums

    @contextmanager
    def filters_result(self, out: Array, shape: Ints) -> Iterator[Array]:
        """The same for filters, whose shape is (G, K/G, C/G, T, R, S), or for N of such."""
        with self.summed(out) as sums:
            yield sums

    def at_a_time(self, g: ConvGeometry) -> int:
        """Images of a batch that are copied at a time, with their results."""
        numbers = prod(g.x_shape[1:]) + prod(g.y_shape[1:])
        return images_at_a_time(g, numbers * self.wide.itemsize, PIECE_BYTES)

    def parts(self, wide: Array) -> tuple[Array, ...]:
        """A wide array as arrays of the kernels' dtype."""
        return (wide,)

    def _wide(self, array: Array) -> Array:
        if is_half(array.dtype):
            array = widen(array)
        return array if array.dtype == self.wide else copied(array, self.wide)

    @contextmanager
    def summed(self, out: Array) -> Iterator[Array]:
        """A wide array for sums, which then are rounded to ``out``; itself, if it is wide."""
        if out.dtype == self.wide:
            yield out
            return
        sums = empty(out.shape, self.wide, COPY_BYTES)
        yield sums
        if is_half(out.dtype):
            narrow(sums, out)
        else:
            with np.errstate(over="ignore"):
                out[...] = sums

    # What ``cpu`` offers.

    def explain_choice(self, map_name: str, g: ConvGeometry, algorithm: str) -> Choice:
        return plan.explain_choice(map_name, self.geometry(g), self.sums, algorithm)

    def requirements(self, map_name: str, g: ConvGeometry, algorithm: str) -> Ints:
        needs = cpu.requirements(map_name, self.geometry(g), self.sums, algorithm)
        operations, elements, threads = needs
        at_a_time = g if map_name == "grad_weight" else replace(g, batch=self.at_a_time(g))
        return operations, (elements + self.copies(at_a_time)) * self.sums.itemsize, threads

    def forward(
        self,
        x: Array,
        weight: Array,
        bias: Array | None,
        geometry: ConvGeometry,
        out: Array,
        algorithm: str,
        relu: bool = False,
    ) -> Array:
        """Correlate ``x`` with ``weight``."""
        g = geometry
        if relu:
            check_ordered(out.dtype)
        w, b = self.filters(weight, g), self.bias(bias)
        for part, images, results in parts_of(g, self.at_a_time(g), x, out):
            wide = self.image(images, part.x_shape, part)
            with self.image_result(results, part.y_shape, part) as y:
                cpu.forward(wide, w, b, self.geometry(part), y, algorithm, relu)
        return out

    def grad_input(
        self,
        grad_output: Array,
        weight: Array,
        bias: Array | None,
        geometry: ConvGeometry,
        out: Array,
        algorithm: str,
        relu: bool = False,
    ) -> Array:
        """Correlate ``grad_output`` with the flipped filters."""
        g = geometry
        if relu:
            check_ordered(out.dtype)
        w, b = self.filters(weight, g), self.bias(bias)
        for part, gradients, results in parts_of(g, self.at_a_time(g), grad_output, out):
            wide = self.image(gradients, part.y_shape, part)
            with self.image_result(results, part.x_shape, part) as dx:
                cpu.grad_input(wide, w, b, self.geometry(part), dx, algorithm, relu)
        return out

    def grad_weight(
        self, grad_output: Array, x: Array, geometry: ConvGeometry, out: Array, algorithm: str
    ) -> Array:
        """Correlate ``x`` with ``grad_output``."""
        g = geometry
        operands = self.image(grad_output, g.y_shape, g), self.image(x, g.x_shape, g)
        with self.filters_result(out, g.weight_shape) as dw:
            cpu.grad_weight(*operands, self.geometry(g), dw, algorithm)
        return out

    def grad_weight_per_sample(
        self, grad_output: Array, x: Array, geometry: ConvGeometry, out: Array, algorithm: str
    ) -> None:
        """Correlate each sample of ``x`` with that of ``grad_output``."""
        g = geometry
        operands = self.image(grad_output, g.y_shape, g), self.image(x, g.x_shape, g)
        with self.filters_result(out, (g.batch, *g.weight_shape)) as dw:
            cpu.grad_weight_per_sample(*operands, self.geometry(g), dw, algorithm)

    def grad_bias(self, grad_output: Array, shape: Ints, channels_last: bool) -> Array:
        """Sum ``grad_output`` by channel."""
        sums = cpu.grad_bias(self._wide(grad_output), shape, channels_last)
        out = np.empty(sums.shape, grad_output.dtype)
        with self.summed(out) as target:
            target[...] = sums
        return out

    def temporary(self, like: Array, shape: Ints) -> Array:
        """Uninitialised wide array, valid until the calling thread asks for the next one."""
        return cpu.temporary(np.empty(0, self.wide), shape)

    def pad(self, x: Array, geometry: ConvGeometry, ndim: int, out: Array) -> None:
        """Copy ``x`` with its padding around it to ``out``, which is wide."""
        for image, shown in zip(self.parts(self._wide(x)), self.parts(out), strict=True):
            cpu.pad(image, geometry, ndim, shown)

    def fold(self, padded: Array, geometry: ConvGeometry, ndim: int, out: Array) -> None:
        """Add up, for each pixel, the positions with the padding that show it."""
        with self.summed(out) as dx:
            for shown, image in zip(self.parts(padded), self.parts(dx), strict=True):
                cpu.fold(shown, geometry, ndim, image)

    def add(self, part: Array, geometry: ConvGeometry, out: Array) -> None:
        """``out += part``, filters both, and wide."""
        cpu.add(part, geometry, out)

    def mask(self, a: Array, y: Array) -> Array:
        """A new array: ``a`` where ``y``, of the same shape, is above 0 or NaN, 0 elsewhere."""
        check_ordered(a.dtype)
        if is_half(a.dtype):
            return np.where(widen(y) <= 0, np.zeros((), a.dtype), a)
        return cpu.mask(a, y)

    # Poolings, of half precision alone.

    def max_pool(
        self, x: Array, geometry: ConvGeometry, ndim: int, out: Array, indexed: bool
    ) -> Array | None:
        """Write the largest numbers of windows into ``out``; return their indices, if wanted."""
        with self.summed(out) as y:
            return cpu.max_pool(self._wide(x), geometry, ndim, y, indexed)

    def max_pool_grad_input(
        self, grad_output: Array, x: Array, geometry: ConvGeometry, ndim: int, out: Array
    ) -> None:
        """Write the gradient of ``max_pool`` into ``out``."""
        with self.summed(out) as dx:
            dy, seen = self._wide(grad_output), self._wide(x)
            cpu.max_pool_grad_input(dy, seen, geometry, ndim, dx)

    def avg_pool(
        self, x: Array, geometry: ConvGeometry, ndim: int, out: Array, padded: bool
    ) -> None:
        """Write the means of windows into ``out``."""
        with self.summed(out) as y:
            cpu.avg_pool(self._wide(x), geometry, ndim, y, padded)

    def avg_pool_grad_input(
        self, grad_output: Array, geometry: ConvGeometry, ndim: int, out: Array, padded: bool
    ) -> None:
        """Write the gradient of ``avg_pool`` into ``out``."""
        with self.summed(out) as dx:
            cpu.avg_pool_grad_input(self._wide(grad_output), geometry, ndim, dx, padded)

    result_like = staticmethod(result_like)
    side_by_side = staticmethod(side_by_side)
    spread_bias = staticmethod(spread_bias)
