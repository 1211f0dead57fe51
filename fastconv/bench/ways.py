"""What is timed beside convolutions of float32 numbers, and the ways to compute it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from ..geometry import Ints
from .contestant import Array, Call, Fastconv, Operands, aligned
from .suites import Layer

PEER = "torch"


class Way(NamedTuple):
    """One way to compute something: a call of a library, and its result as an array."""

    name: str
    peer: str
    call: Call
    to_numpy: Callable[[Any], Array]
    algorithm: str = ""
    settle: float = 0.002  # seconds, as a ``Contestant`` has


@dataclass(frozen=True)
class Variant:
    """What is to be computed, as a record of results says it, and how.

    ``prepare()`` gives the result in float64 and the ways to compute it, ours first, which have the
    names of ``ways``.
    """

    name: str
    network: str
    suite: str
    map_name: str
    shape: str
    flops: int
    bytes: int
    dtype: str
    ways: tuple[str, ...]
    prepare: Callable[[], tuple[Array, list[Way]]]


def layouts(*names: str) -> tuple[str, ...]:
    """Each name for channels first and for channels last."""
    return tuple(f"{name}{layout}" for name in names for layout in ("", " channels_last"))


def random(shape: Ints, seed: int = 0) -> Array:
    """Normally distributed float32 numbers."""
    return aligned(np.random.default_rng(seed).standard_normal(shape, np.float32))


def last(array: Array) -> Array:
    """A copy with channels last."""
    return aligned(np.moveaxis(array, 1, -1))


def laid_out(tensor: Any) -> Any:
    """A copy of a tensor that lies in memory with channels last, as PyTorch means it."""
    name = "channels_last" if tensor.ndim == 4 else "channels_last_3d"
    return tensor.contiguous(memory_format=getattr(import_module("torch"), name))


def double(result: Any) -> Array:
    """An array in float64."""
    return np.asarray(result).astype(np.float64)


def double_first(result: Any) -> Array:
    """An array with channels last in float64 with channels first."""
    return np.moveaxis(double(result), -1, 1)


def double_tensor(result: Any) -> Array:
    """A tensor in float64."""
    return np.asarray(result.double().numpy())


def our_convolution(layer: Layer, map_name: str, operands: Operands, **options: Any) -> list[Way]:
    """A map of a layer with options of its function, in both of our layouts."""
    ways = []
    for channels_last in (False, True):
        ours = Fastconv(channels_last=channels_last, **options)
        to_first = partial(ours.to_numpy, layer=layer, map_name=map_name)
        call = ours.prepare(layer, map_name, operands)
        ways.append(Way(ours.name, ours.peer, call, to_first))
    return ways


def theirs(calls: tuple[Call, Call], name: str = PEER, peer: str = PEER) -> list[Way]:
    """Calls of PyTorch with channels first and last."""
    return [
        Way(each, peer, call, double_tensor)
        for each, call in zip(layouts(name), calls, strict=True)
    ]
