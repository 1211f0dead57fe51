"""What takes part in the comparison: something that computes maps of layers."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastconv

from ..memory import empty
from ..plan import cpu as plan
from .results import our_name
from .suites import Layer

Array = NDArray[Any]
Call = Callable[[], Any]


def aligned(array: Array) -> Array:
    """A copy that is contiguous and, if large, begins at a cache line: as results of ours do, and
    PyTorch's.
    """
    copy = empty(array.shape, array.dtype)
    copy[...] = array
    return copy


@dataclass(frozen=True)
class Operands:
    """Input, filters and gradient of the result of a layer; each map takes two of them."""

    x: Array
    weight: Array
    dy: Array

    @classmethod
    def random(cls, layer: Layer, seed: int = 0) -> "Operands":
        """Normally distributed float32 numbers."""
        rng = np.random.default_rng(seed)
        shapes = (layer.x_shape, layer.weight_shape, layer.y_shape)
        return cls(*(aligned(rng.standard_normal(shape, np.float32)) for shape in shapes))

    def double(self) -> "Operands":
        """The same numbers in float64."""
        return Operands(*(a.astype(np.float64) for a in (self.x, self.weight, self.dy)))


class Contestant(ABC):
    """One way to compute maps of layers.

    Attributes
    ----------
    name : str
        Unique among all.
    peer : str
        The library; the best of its contestants stands for it.
    settle : float
        Seconds until its idle threads stop burning the processor's time after a call.
    """

    name: str
    peer: str
    settle = 0.002

    def active(self) -> AbstractContextManager[Any]:
        """A context in which the calls are made: number of threads, no autograd."""
        return nullcontext()

    @abstractmethod
    def supports(self, layer: Layer, map_name: str) -> bool:
        """Whether it can compute this map of this layer."""

    def choice(self, layer: Layer, map_name: str) -> str:
        """The algorithm of ours that computes this map, if it is us."""
        return ""

    @abstractmethod
    def prepare(self, layer: Layer, map_name: str, operands: Operands) -> Call:
        """A call without arguments that computes the map, everything set up beforehand."""

    def to_numpy(self, result: Any, layer: Layer, map_name: str) -> Array:
        """What the call returned, as an array with the axes of ``conv{n}d``."""
        return np.asarray(result)


class Fastconv(Contestant):
    """This package, through its public functions, in one of its layouts.

    ``options`` go to these functions.
    """

    peer = "fastconv"

    def __init__(
        self, algorithm: str = "auto", channels_last: bool = False, **options: Any
    ) -> None:
        self.algorithm = algorithm
        self._data_format = "channels_last" if channels_last else "channels_first"
        self._options = options
        self.name = our_name(algorithm, channels_last)

    def supports(self, layer: Layer, map_name: str) -> bool:
        try:
            self.choice(layer, map_name)
        except ValueError:
            return False
        return True

    def choice(self, layer: Layer, map_name: str) -> str:
        channels_last = self._data_format == "channels_last"
        geometry = replace(layer.geometry, channels_last=channels_last)
        return plan.choose(map_name, geometry, np.dtype(np.float32), self.algorithm)

    def prepare(self, layer: Layer, map_name: str, operands: Operands) -> Call:
        conv = f"conv{layer.ndim}d"
        axes = (layer.stride, layer.padding, layer.dilation, layer.groups)
        how = {"algorithm": self.algorithm, "data_format": self._data_format, **self._options}
        x, weight, dy, x_shape = operands.x, operands.weight, operands.dy, layer.x_shape
        if self._data_format == "channels_last":
            x, dy = (aligned(np.moveaxis(array, 1, -1)) for array in (x, dy))
            x_shape = x.shape
        if map_name == "forward":
            forward = getattr(fastconv, conv)
            return lambda: forward(x, weight, None, *axes, **how)
        gradient = getattr(fastconv, f"{conv}_{map_name}")
        if map_name == "grad_input":
            return lambda: gradient(dy, weight, x_shape, *axes, **how)
        return lambda: gradient(dy, x, layer.weight_shape, *axes, **how)

    def to_numpy(self, result: Any, layer: Layer, map_name: str) -> Array:
        array = np.asarray(result)
        if self._data_format == "channels_first" or map_name == "grad_weight":
            return array
        return np.moveaxis(array, -1, 1)
