"""The maps of a geometry: choose an algorithm, find a place for the result, call the backend.

``functional.py``, ``transposed.py`` and ``double_backward.py`` check their arguments and build a
geometry; what they compute is one of these. ``shape`` is that of the result, batched or not.
"""

from typing import Any

from numpy.typing import NDArray

from . import padded
from .arguments import batched_shape
from .checks import check_bias
from .dispatch import Backend
from .geometry import ConvGeometry, Ints

Array = NDArray[Any]
Gradients = tuple[Array | None, Array | None, Array | None]


def choose(
    backend: Backend, map_name: str, g: ConvGeometry, x: Array, algorithm: str, precision: str
) -> str:
    """What ``backend.choose`` says, or what is wrong, of words."""
    for name, word in (("algorithm", algorithm), ("precision", precision)):
        if not isinstance(word, str):
            raise TypeError(f"{name} must be a word, got {word!r}")
    return backend.choose(map_name, g, x, algorithm, precision)


def run_forward(
    backend: Backend,
    g: ConvGeometry,
    x: Array,
    weight: Array,
    bias: Array | None,
    shape: Ints,
    algorithm: str,
    precision: str,
    out: Array | None,
    relu: bool = False,
) -> Array:
    check_bias(bias, g.out_channels)
    shown = g.padded
    algorithm = choose(backend, "forward", shown, x, algorithm, precision)
    y: Array = backend.result_like(x, shape, out, (x, weight, bias))
    if g.batch and shown is g:
        y = backend.forward(x, weight, bias, g, y, algorithm, relu)
    elif g.batch:
        padded.forward(backend, x, weight, bias, g, y, algorithm, relu)
    return y


def run_grad_input(
    backend: Backend,
    g: ConvGeometry,
    dy: Array,
    weight: Array,
    bias: Array | None,
    shape: Ints,
    algorithm: str,
    precision: str,
    out: Array | None,
    relu: bool = False,
) -> Array:
    check_bias(bias, g.in_channels)
    shown = g.padded
    algorithm = choose(backend, "grad_input", shown, dy, algorithm, precision)
    dx: Array = backend.result_like(dy, shape, out, (dy, weight, bias))
    if g.batch and shown is g:
        dx = backend.grad_input(dy, weight, bias, g, dx, algorithm, relu)
    elif g.batch:  # of no transposed convolution: there is no bias, and no activation
        padded.grad_input(backend, dy, weight, g, dx, algorithm)
    return dx


def run_grad_weight(
    backend: Backend,
    g: ConvGeometry,
    dy: Array,
    x: Array,
    shape: Ints,
    algorithm: str,
    precision: str,
    out: Array | None,
    per_sample: bool = False,
) -> Array:
    shown = g.padded
    seen = shown.per_sample if per_sample and g.batch else shown
    if per_sample:
        shape = (g.batch, *shape)
    algorithm = choose(backend, "grad_weight", seen, x, algorithm, precision)
    dw: Array = backend.result_like(x, shape, out, (dy, x))
    if shown is not g:
        padded.grad_weight(backend, dy, x, g, dw, algorithm, per_sample)
    elif not per_sample:
        dw = backend.grad_weight(dy, x, g, dw, algorithm)
    elif g.batch:
        backend.grad_weight_per_sample(dy, x, g, dw, algorithm)
    return dw


def run_grad_bias(backend: Backend, ndim: int, dy: Array, channels_last: bool) -> Array:
    shape = batched_shape("grad_output", dy.shape, ndim, channels_last)
    db: Array = backend.grad_bias(dy, shape, channels_last)
    return db
