"""The three maps of images whose padding shows pixels: those of images to which it belongs.

An image is copied with its padding around it, and what follows is a convolution without any. The
gradient of the copy is *folded*: each pixel of the image adds up the positions that show it. Both
are done for some images of a batch at a time, so that copies take little memory.
"""

from collections.abc import Iterator
from math import prod
from typing import Any

from .batches import images_at_a_time, parts_of
from .dispatch import Backend
from .geometry import ConvGeometry

Array = Any

# Bytes of images with their padding that are made at a time, if they are several. With 16 MiB a
# layer of 512 channels at 7x7, whose filters are packed each time, took 1.1 times as long; with
# 64 MiB a depthwise one at 112x112, which found nothing in the caches, 1.2 times.
PIECE_BYTES = 32 * 2**20


def forward(
    backend: Backend,
    x: Array,
    weight: Array,
    bias: Array | None,
    g: ConvGeometry,
    out: Array,
    algorithm: str,
    relu: bool,
) -> None:
    """``backend.forward`` of ``x`` with its padding."""
    ndim = len(weight.shape) - 2
    for part, images, results in _parts(backend, g, x, out):
        shown = _pad(backend, images, part, ndim)
        backend.forward(shown, weight, bias, part.padded, results, algorithm, relu)


def grad_input(
    backend: Backend,
    grad_output: Array,
    weight: Array,
    g: ConvGeometry,
    out: Array,
    algorithm: str,
) -> None:
    """Fold ``backend.grad_input`` of the padded image."""
    ndim = len(weight.shape) - 2
    for part, dy, dx in _parts(backend, g, grad_output, out):
        shown = backend.temporary(dx, part, ndim)
        backend.grad_input(dy, weight, None, part.padded, shown, algorithm)
        backend.fold(shown, part, ndim, dx)


def grad_weight(
    backend: Backend,
    grad_output: Array,
    x: Array,
    g: ConvGeometry,
    out: Array,
    algorithm: str,
    per_sample: bool,
) -> None:
    """``backend.grad_weight`` for ``x`` with its padding; or one for each sample."""
    ndim = len(out.shape) - (3 if per_sample else 2)
    first, parts = 0, _parts(backend, g, grad_output, x)
    with backend.filters_result(out, g, per_sample) as sums:
        for part, dy, images in parts:
            shown = _pad(backend, images, part, ndim)
            if per_sample:
                dw = sums[first : first + part.batch]
                backend.grad_weight_per_sample(dy, shown, part.padded, dw, algorithm)
            elif first == 0:
                backend.grad_weight(dy, shown, part.padded, sums, algorithm)
            else:
                dw = backend.result_like(sums, sums.shape, None, ())
                backend.grad_weight(dy, shown, part.padded, dw, algorithm)
                backend.add(dw, part, sums)
            first += part.batch


def padded_at_a_time(g: ConvGeometry, itemsize: int) -> int:
    """Images of a batch that are made with their padding at a time, of numbers of this size."""
    return images_at_a_time(g, prod(g.padded.x_shape[1:]) * itemsize, PIECE_BYTES)


def _parts(
    backend: Backend, g: ConvGeometry, *images: Array
) -> Iterator[tuple[ConvGeometry, *tuple[Array, ...]]]:
    return parts_of(g, padded_at_a_time(g, backend.kept_size(images[0])), *images)


def _pad(backend: Backend, x: Array, g: ConvGeometry, ndim: int) -> Array:
    """The images with their padding."""
    shown = backend.temporary(x, g, ndim)
    backend.pad(x, g, ndim, shown)
    return shown
