"""Numbers that no kernel has: converted to some that kernels have, computed, and converted back.

This is what such backends have in common. How arrays are converted is said for NumPy's by
``cpu/converted.py`` and ``cpu/complexes.py``, for those on a device by ``cuda/converted.py`` and
``cuda/complexes.py``.
"""

from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from .batches import parts_of
from .dispatch import Backend
from .dtypes import COMPLEX, Numbers
from .geometry import ConvGeometry, Ints

Array = Any


class Converted(Backend):
    """A backend that has another compute in the dtype of the sums.

    *Wide* arrays are those that the other one takes. What is kept between its maps, as images with
    their padding, is wide, and any map takes such arrays as they are.

    Parameters
    ----------
    numbers
        What a call computes with.
    sums : dtype
        That of wide arrays.
    backend
        The other one.
    """

    def __init__(self, numbers: Numbers, sums: np.dtype[Any], backend: Any) -> None:
        self.numbers = numbers
        self.sums = sums
        self.backend = backend
        self.parts = 2 if numbers.x in COMPLEX else 1  # wide numbers that make up one

    # How arrays are converted.

    def wide(self, array: Array) -> Array:
        """A wide copy, or the array itself if it is wide."""
        raise NotImplementedError

    def summed(self, out: Array) -> AbstractContextManager[Array]:
        """A wide array for sums, which then are rounded to ``out``; itself, if it is wide."""
        raise NotImplementedError

    # The same for what the maps take, which complex numbers do otherwise.

    def geometry(self, g: ConvGeometry) -> ConvGeometry:
        """The geometry of what is computed."""
        return g

    def image(self, image: Array, grouped: Ints, g: ConvGeometry, ndim: int) -> Array:
        """An image, as the caller has it, of this shape (N, G, C/G, D, H, W)."""
        return self.wide(image)

    def filters(self, filters: Array, g: ConvGeometry) -> Array:
        return self.wide(filters)

    def bias(self, bias: Array | None) -> Array | None:
        return None if bias is None else self.wide(bias)

    def image_result(
        self, out: Array, grouped: Ints, g: ConvGeometry, ndim: int
    ) -> AbstractContextManager[Array]:
        """What is to be filled with sums, which then go to the caller's ``out``."""
        return self.summed(out)

    def filters_result(
        self, out: Array, g: ConvGeometry, per_sample: bool
    ) -> AbstractContextManager[Array]:
        """The same for filters, or for those of each sample."""
        return self.summed(out)

    def at_a_time(self, g: ConvGeometry) -> int:
        """Images of a batch that are copied at a time, with their results."""
        return g.batch

    # What a backend offers.

    def kept_size(self, x: Array) -> int:
        """Bytes of a number of an image with its padding."""
        return self.parts * self.sums.itemsize

    def result_like(
        self, x: Array, shape: Ints, out: Array | None, inputs: tuple[Array | None, ...]
    ) -> Array:
        """The array for the result."""
        return self.backend.result_like(x, shape, out, inputs)

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
        return self._to_image("forward", x, weight, bias, geometry, out, algorithm, relu)

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
        return self._to_image(
            "grad_input", grad_output, weight, bias, geometry, out, algorithm, relu
        )

    def _to_image(
        self,
        map_name: str,
        source: Array,
        weight: Array,
        bias: Array | None,
        g: ConvGeometry,
        out: Array,
        algorithm: str,
        relu: bool,
    ) -> Array:
        """A map from the images ``source`` to the images ``out``."""
        compute, ndim = getattr(self.backend, map_name), len(weight.shape) - 2
        w, b = self.filters(weight, g), self.bias(bias)
        for part, images, results in parts_of(g, self.at_a_time(g), source, out):
            shapes = part.x_shape, part.y_shape
            seen, written = shapes if map_name == "forward" else shapes[::-1]
            wide = self.image(images, seen, part, ndim)
            with self.image_result(results, written, part, ndim) as sums:
                compute(wide, w, b, self.geometry(part), sums, algorithm, relu)
        return out

    def grad_weight(
        self, grad_output: Array, x: Array, geometry: ConvGeometry, out: Array, algorithm: str
    ) -> Array:
        """Correlate ``x`` with ``grad_output``."""
        g, ndim = geometry, len(out.shape) - 2
        dy, seen = self.image(grad_output, g.y_shape, g, ndim), self.image(x, g.x_shape, g, ndim)
        with self.filters_result(out, g, per_sample=False) as dw:
            self.backend.grad_weight(dy, seen, self.geometry(g), dw, algorithm)
        return out

    def grad_weight_per_sample(
        self, grad_output: Array, x: Array, geometry: ConvGeometry, out: Array, algorithm: str
    ) -> None:
        """Correlate each sample of ``x`` with that of ``grad_output``."""
        g, ndim = geometry, len(out.shape) - 3
        dy, seen = self.image(grad_output, g.y_shape, g, ndim), self.image(x, g.x_shape, g, ndim)
        with self.filters_result(out, g, per_sample=True) as dw:
            self.backend.grad_weight_per_sample(dy, seen, self.geometry(g), dw, algorithm)

    def temporary(self, like: Array, geometry: ConvGeometry, ndim: int) -> Array:
        """Uninitialised wide array for images like this with their padding."""
        return self.backend.temporary(like, self.geometry(geometry), ndim, self.sums)

    def pad(self, x: Array, geometry: ConvGeometry, ndim: int, out: Array) -> None:
        """Copy ``x`` with its padding around it to ``out``, which is wide."""
        g = geometry
        self.backend.pad(self.image(x, g.x_shape, g, ndim), self.geometry(g), ndim, out)

    def fold(self, padded: Array, geometry: ConvGeometry, ndim: int, out: Array) -> None:
        """Add up, for each pixel, the positions with the padding that show it."""
        g = geometry
        with self.image_result(out, g.x_shape, g, ndim) as dx:
            self.backend.fold(padded, self.geometry(g), ndim, dx)

    def add(self, part: Array, geometry: ConvGeometry, out: Array) -> None:
        """``out += part``, filters both, and wide."""
        self.backend.add(part, self.geometry(geometry), out)

    def side_by_side(self, a: Array, b: Array, axis: int, groups: int) -> Array:
        """``a`` and ``b``, of one shape, joined along an axis within each of its ``groups``."""
        return self.backend.side_by_side(a, b, axis, groups)

    def spread_bias(self, bias: Array, shape: Ints, ndim: int, channels_last: bool) -> Array:
        """A new array of an image's shape that has the bias of its channel in every pixel."""
        return self.backend.spread_bias(bias, shape, ndim, channels_last)

    def max_pool(
        self, x: Array, geometry: ConvGeometry, ndim: int, out: Array, indexed: bool
    ) -> Array | None:
        """Write the largest numbers of windows into ``out``; return their indices, if wanted."""
        with self.summed(out) as y:
            indices: Array | None = self.backend.max_pool(self.wide(x), geometry, ndim, y, indexed)
        return indices

    def max_pool_grad_input(
        self, grad_output: Array, x: Array, geometry: ConvGeometry, ndim: int, out: Array
    ) -> None:
        """Write the gradient of ``max_pool`` into ``out``."""
        with self.summed(out) as dx:
            dy, seen = self.wide(grad_output), self.wide(x)
            self.backend.max_pool_grad_input(dy, seen, geometry, ndim, dx)

    def avg_pool(
        self, x: Array, geometry: ConvGeometry, ndim: int, out: Array, padded: bool
    ) -> None:
        """Write the means of windows into ``out``."""
        with self.summed(out) as y:
            self.backend.avg_pool(self.wide(x), geometry, ndim, y, padded)

    def avg_pool_grad_input(
        self, grad_output: Array, geometry: ConvGeometry, ndim: int, out: Array, padded: bool
    ) -> None:
        """Write the gradient of ``avg_pool`` into ``out``."""
        with self.summed(out) as dx:
            self.backend.avg_pool_grad_input(self.wide(grad_output), geometry, ndim, dx, padded)
