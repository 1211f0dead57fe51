"""Batches in parts, where copies of all images at once would take memory or leave the caches."""

from collections.abc import Iterator
from dataclasses import replace
from math import ceil
from typing import Any

from .geometry import ConvGeometry

Array = Any


def images_at_a_time(g: ConvGeometry, nbytes: int, room: int) -> int:
    """As many images of ``nbytes`` each as fit into ``room``, in parts of about the same size."""
    parts = ceil(g.batch / max(room // nbytes, 1))
    return ceil(g.batch / max(parts, 1))


def parts_of(
    g: ConvGeometry, count: int, *images: Array
) -> Iterator[tuple[ConvGeometry, *tuple[Array, ...]]]:
    """The batch, or parts of ``count`` images, with their geometry."""
    if count == g.batch:  # as of images without a batch axis
        yield g, *images
        return
    for first in range(0, g.batch, count):
        last = min(first + count, g.batch)
        yield replace(g, batch=last - first), *[image[first:last] for image in images]
