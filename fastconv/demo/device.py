"""Convolution layers computed on a CUDA device, in a network whose arrays are NumPy's."""

from ..dispatch import cuda_backend
from ..layers import Conv2d
from .network import Array, Network


class OnDevice:
    """A layer with everything it takes copied to the device, and what it returns copied back.

    The parameters stay on the host, where they are trained.

    Raises
    ------
    ModuleNotFoundError, RuntimeError
        If numba-cuda is not installed or no device answers.
    """

    def __init__(self, layer: Conv2d) -> None:
        self._backend = cuda_backend()
        self._layer = layer
        self.parameters = layer.parameters
        self.grads: dict[str, Array] = {}

    def train(self, mode: bool = True) -> None:
        self._layer.train(mode)

    def forward(self, x: Array) -> Array:
        copies = {name: self._backend.to_device(p) for name, p in self.parameters.items()}
        self._layer.weight, self._layer.bias = copies["weight"], copies.get("bias")
        return self._host(self._layer.forward(self._backend.to_device(x)))

    def backward(self, dy: Array) -> Array:
        dx = self._layer.backward(self._backend.to_device(dy))
        self.grads = {name: self._host(grad) for name, grad in self._layer.grads.items()}
        return self._host(dx)

    def _host(self, array: Array) -> Array:
        host: Array = self._backend.to_host(array)
        return host


def on_device(network: Network) -> Network:
    """The same network, its convolutions on the device."""
    return Network(
        {
            name: OnDevice(layer) if isinstance(layer, Conv2d) else layer
            for name, layer in network.layers.items()
        }
    )
