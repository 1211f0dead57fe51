"""What Dask's tasks call: the CPU backend on arrays of NumPy, on the thread of the task."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import cpu
from ..cpu.team import calling_thread
from ..geometry import ConvGeometry, Ints
from ..maps import run_grad_weight

Array = NDArray[Any]


def correlated(
    run: Callable[..., Array],
    geometry: ConvGeometry,
    shape: Ints,
    algorithm: str,
    relu: bool,
    slab: Any,
    weight: Array,
    bias: Array | None = None,
) -> Array:
    """A block of this shape: ``run_forward`` or ``run_grad_input`` of a slab."""
    with calling_thread():
        how = shape, algorithm, "highest", None, relu
        return run(cpu, geometry, _joined(slab), weight, bias, *how)


def grad_weight(geometry: ConvGeometry, shape: Ints, algorithm: str, dy: Any, x: Any) -> Array:
    """What a block of ``grad_output`` adds to the gradient of filters of this shape."""
    with calling_thread():
        arrays = _joined(dy), _joined(x)
        return run_grad_weight(cpu, geometry, *arrays, shape, algorithm, "highest", None)


def grad_bias(dy: Array) -> Array:
    """What a chunk of ``grad_output`` adds to the gradient of the bias."""
    return cpu.grad_bias(dy, dy.shape, channels_last=False)


def added(terms: list[Array]) -> Array:
    """The sum of arrays, from the first to the last."""
    return reduce(np.add, terms)


def cut_out(chunk: Array, parts: list[tuple[slice, ...]]) -> list[Array]:
    """Parts of a chunk, and not views, which would keep the chunk."""
    return [chunk[part].copy() for part in parts]


def _joined(slab: Any) -> Array:
    return slab if isinstance(slab, np.ndarray) else np.block(slab)
