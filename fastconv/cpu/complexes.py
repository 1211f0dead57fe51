"""Complex numbers: real and imaginary parts as channels of a real convolution.

    Re y = sum  Re x Re w - Im x Im w
    Im y = sum  Re x Im w + Im x Re w

is a convolution of twice as many channels with twice as many filters, channel 2c+i of which is a
part of channel c. Its gradients by these parts are ``dL/dRe + i dL/dIm`` of a real loss L, in
PyTorch's convention: grad_input takes dy to ``sum dy conj(w)``, grad_weight to ``sum dy conj(x)``,
in two copies of each part of dw that are added up.

A transposed convolution is ``sum x w``, too: the gradient of a convolution with conj(w). So the
filters of its maps are conjugated, and with grad_weight's result they are conjugated back.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import cpu
from ..dtypes import COMPLEX, Numbers
from ..geometry import ConvGeometry, Ints
from ..memory import copied, empty
from .converted import Converted

Array = NDArray[Any]


class Complex(Converted):
    """A backend as ``cpu`` is one, for complex numbers. Its wide images are grouped views."""

    def __init__(self, numbers: Numbers) -> None:
        super().__init__(numbers)
        self.sign = -1 if numbers.transposed else 1  # of the imaginary parts of filters

    def geometry(self, g: ConvGeometry) -> ConvGeometry:
        return g.of_parts

    def image(self, image: Array, grouped: Ints, g: ConvGeometry, ndim: int) -> Array:
        if image.dtype == self.sums:
            return image
        image = cpu.grouped_image(image, grouped, g)
        if self._parts_are_channels(image):
            return _parts(image)
        parts = empty((*grouped[:3], 2, *grouped[3:]), self.sums)
        parts[:, :, :, 0], parts[:, :, :, 1] = image.real, image.imag
        return parts.reshape(_twice(grouped))

    def filters(self, filters: Array, g: ConvGeometry) -> Array:
        w = filters.reshape(g.weight_shape)
        groups, outer, inner, *taps = w.shape
        parts = np.empty((groups, outer, 2, inner, 2, *taps), self.sums)
        parts[:, :, 0, :, 0] = parts[:, :, 1, :, 1] = w.real
        parts[:, :, 0, :, 1], parts[:, :, 1, :, 0] = -self.sign * w.imag, self.sign * w.imag
        return parts.reshape(groups, 2 * outer, 2 * inner, *taps)

    def bias(self, bias: Array | None) -> Array | None:
        if bias is None:
            return None
        return np.stack([bias.real, bias.imag], axis=1).reshape(-1).astype(self.sums, copy=False)

    @contextmanager
    def image_result(
        self, out: Array, grouped: Ints, g: ConvGeometry, ndim: int
    ) -> Iterator[Array]:
        if out.dtype == self.sums:
            yield out
            return
        out = cpu.grouped_image(out, grouped, g)
        if self._parts_are_channels(out):
            yield _parts(out)
            return
        sums = empty(_twice(grouped), self.sums)
        yield sums
        parts = sums.reshape(*grouped[:3], 2, *grouped[3:])
        with np.errstate(over="ignore"):
            out.real, out.imag = parts[:, :, :, 0], parts[:, :, :, 1]

    @contextmanager
    def filters_result(self, out: Array, g: ConvGeometry, per_sample: bool) -> Iterator[Array]:
        if out.dtype == self.sums:
            yield out
            return
        *several, groups, outer, inner, t, r, s = (g.batch,) * per_sample + g.weight_shape
        out = out.reshape(*several, groups, outer, inner, t, r, s)
        sums = np.empty((*several, groups, 2 * outer, 2 * inner, t, r, s), self.sums)
        yield sums
        parts = sums.reshape(*several, groups, outer, 2, inner, 2, t, r, s)
        (same, imag_real), (real_imag, other) = np.moveaxis(parts, (-6, -4), (0, 1))
        with np.errstate(over="ignore"):
            out.real = same + other
            out.imag = self.sign * (real_imag - imag_real)

    def grad_bias(self, grad_output: Array, shape: Ints, channels_last: bool) -> Array:
        wide = np.result_type(self.sums, np.complex64)
        if grad_output.dtype == wide:
            return cpu.grad_bias(grad_output, shape, channels_last)
        sums = cpu.grad_bias(copied(grad_output, wide), shape, channels_last)
        with np.errstate(over="ignore"):
            return sums.astype(grad_output.dtype)

    def at_a_time(self, g: ConvGeometry) -> int:
        """All: parts of 8 MiB took 0.98 to 1.29 times as long, most where nothing is copied."""
        return g.batch

    def _parts_are_channels(self, image: Array) -> bool:
        """Whether the parts lie where twice as many channels would: no copy is needed."""
        return image.strides[2] == image.itemsize and COMPLEX[image.dtype] == self.sums


def _parts(image: Array) -> Array:
    channels_last = np.moveaxis(image, 2, -1)
    return np.moveaxis(channels_last.view(COMPLEX[image.dtype]), -1, 2)


def _twice(grouped: Ints) -> Ints:
    return (*grouped[:2], 2 * grouped[2], *grouped[3:])
