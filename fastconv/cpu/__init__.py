"""The CPU backend: the three maps on NumPy arrays.

    forward(x, weight, bias, geometry, out, algorithm)
    grad_input(grad_output, weight, bias, geometry, out, algorithm)
    grad_weight(grad_output, x, geometry, out, algorithm)

Arrays come checked, in any strides, with groups as an axis of their own and three spatial axes:
x (N, G, C/G, D, H, W), weight (G, K/G, C/G, T, R, S), y (N, G, K/G, O, P, Q). ``out`` is written
whole. ``grad_input`` adds a bias because a transposed convolution, which it computes as well, has
one.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import reference
from ..caching import PerDtype
from ..geometry import ConvGeometry, Ints
from . import direct, direct_weight, planar, planar_weight, winograd, winograd_weight

Array = NDArray[Any]
ONES = (1, 1, 1)


def forward(
    x: Array, weight: Array, bias: Array | None, geometry: ConvGeometry, out: Array, algorithm: str
) -> None:
    """Correlate ``x`` with ``weight``."""
    g = geometry
    if algorithm == "reference":
        _reference(reference.forward, (x, weight, _bias(bias, out)), g, out)
    else:
        _correlate(algorithm, x, weight, bias, out, g.stride, g.before, g.dilation)


def grad_input(
    grad_output: Array,
    weight: Array,
    bias: Array | None,
    geometry: ConvGeometry,
    out: Array,
    algorithm: str,
) -> None:
    """Correlate ``grad_output`` with the flipped filters, their two channel axes swapped."""
    if algorithm == "reference":
        _reference(reference.grad_input, (grad_output, weight, _bias(bias, out)), geometry, out)
        return
    swapped = weight.swapaxes(1, 2)
    for phase in geometry.phases:
        part = out[phase.place]
        if phase.taps is None:
            part[...] = _bias(bias, out).reshape(*out.shape[1:3], 1, 1, 1)
        else:
            flipped = swapped[phase.taps]
            _correlate(
                algorithm, grad_output, flipped, bias, part, ONES, phase.before, phase.dilation
            )


def grad_weight(
    grad_output: Array, x: Array, geometry: ConvGeometry, out: Array, algorithm: str
) -> None:
    """Correlate ``x`` with ``grad_output``."""
    g = geometry
    if algorithm == "reference":
        _reference(reference.grad_weight, (grad_output, x), g, out)
    elif algorithm == "winograd":
        winograd_weight.grad_weight(grad_output, x, out, g.before)
    else:
        engine = planar_weight if algorithm == "planar" else direct_weight
        engine.grad_weight(grad_output, x, out, g.stride, g.before, g.dilation)


def _correlate(
    algorithm: str,
    x: Array,
    weight: Array,
    bias: Array | None,
    y: Array,
    stride: Ints,
    before: Ints,
    dilation: Ints,
) -> None:
    if algorithm == "winograd":
        winograd.correlate(x, weight, bias, y, before)
    else:
        engine = planar if algorithm == "planar" else direct
        engine.correlate(x, weight, bias, y, stride, before, dilation)


def _bias(bias: Array | None, out: Array) -> Array:
    return np.zeros(out.shape[1] * out.shape[2], out.dtype) if bias is None else bias


def _reference(function: PerDtype, inputs: tuple[Array, ...], g: ConvGeometry, out: Array) -> None:
    """Call a function of ``reference.py`` on contiguous arrays, for which alone it is compiled."""
    contiguous = [np.ascontiguousarray(array) for array in inputs]
    result = np.empty_like(out, order="C")
    function[out.dtype](*contiguous, g.stride, g.before, g.dilation, result)
    out[...] = result
