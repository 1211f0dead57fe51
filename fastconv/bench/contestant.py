"""What takes part in the comparison: something that computes maps of layers."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastconv

from ..plan import cpu as plan
from .suites import Layer

Array = NDArray[Any]
Call = Callable[[], Any]


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
        return cls(*(rng.standard_normal(shape, np.float32) for shape in shapes))

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

    @abstractmethod
    def prepare(self, layer: Layer, map_name: str, operands: Operands) -> Call:
        """A call without arguments that computes the map, everything set up beforehand."""

    def to_numpy(self, result: Any, layer: Layer, map_name: str) -> Array:
        """What the call returned, as an array with the axes of ``conv{n}d``."""
        return np.asarray(result)


class Fastconv(Contestant):
    """This package, through its public functions."""

    peer = "fastconv"

    def __init__(self, algorithm: str = "auto") -> None:
        self.algorithm = algorithm
        self.name = "fastconv" if algorithm == "auto" else f"fastconv {algorithm}"

    def supports(self, layer: Layer, map_name: str) -> bool:
        try:
            plan.choose(map_name, layer.geometry, np.dtype(np.float32), self.algorithm)
        except ValueError:
            return False
        return True

    def prepare(self, layer: Layer, map_name: str, operands: Operands) -> Call:
        conv = f"conv{layer.ndim}d"
        axes = (layer.stride, layer.padding, layer.dilation, layer.groups)
        algorithm = self.algorithm
        x, weight, dy = operands.x, operands.weight, operands.dy
        if map_name == "forward":
            forward = getattr(fastconv, conv)
            return lambda: forward(x, weight, None, *axes, algorithm=algorithm)
        gradient = getattr(fastconv, f"{conv}_{map_name}")
        if map_name == "grad_input":
            return lambda: gradient(dy, weight, layer.x_shape, *axes, algorithm=algorithm)
        return lambda: gradient(dy, x, layer.weight_shape, *axes, algorithm=algorithm)
