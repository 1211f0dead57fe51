"""The CUDA path beside the CPU's: on arrays that lie on the device, and with their copies."""

from typing import Any

import numpy as np

from ..dispatch import cuda_backend
from .contestant import Array, Call, Contestant, Fastconv, Operands
from .suites import Layer

_TAKES = {"forward": ("x", "weight"), "grad_input": ("dy", "weight"), "grad_weight": ("dy", "x")}


class Cuda(Contestant):
    """This package's functions on device arrays.

    Parameters
    ----------
    copies : bool
        Whether a call takes arrays of the host and returns one.
    """

    def __init__(self, copies: bool) -> None:
        self._backend = cuda_backend()
        self._copies = copies
        self.name = self.peer = "cuda+copies" if copies else "cuda"

    def supports(self, layer: Layer, map_name: str) -> bool:
        return True

    def prepare(self, layer: Layer, map_name: str, operands: Operands) -> Call:
        backend = self._backend

        def on_device() -> Call:
            # What the map does not take is not copied either.
            arrays: dict[str, Any] = {"x": None, "weight": None, "dy": None}
            for name in _TAKES[map_name]:
                arrays[name] = backend.to_device(getattr(operands, name))
            return Fastconv().prepare(layer, map_name, Operands(**arrays))

        if self._copies:
            return lambda: backend.to_host(on_device()())
        call = on_device()

        def finished() -> Any:
            result = call()
            backend.synchronize()
            return result

        return finished

    def to_numpy(self, result: Any, layer: Layer, map_name: str) -> Array:
        return np.asarray(result if self._copies else self._backend.to_host(result))


def paths() -> list[Contestant]:
    """Both.

    Raises
    ------
    ModuleNotFoundError, RuntimeError
        If numba-cuda is not installed or no device answers.
    """
    return [Cuda(copies=False), Cuda(copies=True)]
