"""The layers of a convolutional network, and the network, in plain NumPy.

Every layer is a pair of functions. ``forward`` maps x to y and keeps what the other one needs;
``backward`` maps dL/dy to dL/dx, by the chain rule, and leaves the gradients of the layer's own
parameters in ``grads``. ``fastconv.Conv2d`` is such a layer; all the others follow. How they are
trained is in ``training.py``.
"""

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import Conv2d

Array = NDArray[Any]


class Layer(Protocol):
    """What a network needs of its layers, and what ``fastconv.Conv2d`` has."""

    @property
    def parameters(self) -> dict[str, Array]: ...
    @property
    def grads(self) -> dict[str, Array]: ...
    def train(self, mode: bool = True) -> None: ...
    def forward(self, x: Array, /) -> Array: ...
    def backward(self, grad_output: Array, /) -> Array: ...


class _Layer:
    def __init__(self) -> None:
        self.parameters: dict[str, Array] = {}
        self.grads: dict[str, Array] = {}
        self.training = True

    def train(self, mode: bool = True) -> None:
        self.training = mode


class ReLU(_Layer):
    """``y = max(x, 0)``: the gradient passes where the input was positive."""

    def forward(self, x: Array) -> Array:
        self.y = np.maximum(x, 0)
        return self.y

    def backward(self, dy: Array) -> Array:
        return dy * (self.y > 0)


class MaxPool(_Layer):
    """The largest pixel of every 2x2 window: the gradient goes to that pixel alone."""

    corners = ((0, 0), (0, 1), (1, 0), (1, 1))

    def forward(self, x: Array) -> Array:
        self.x = x
        a, b, c, d = (x[..., i::2, j::2] for i, j in self.corners)
        self.y = np.maximum(np.maximum(a, b), np.maximum(c, d))
        return self.y

    def backward(self, dy: Array) -> Array:
        dx = np.empty_like(self.x)
        free = np.ones(dy.shape, bool)  # windows whose largest pixel is still to come
        for i, j in self.corners:
            wins = free & (self.x[..., i::2, j::2] == self.y)
            dx[..., i::2, j::2] = dy * wins
            free &= ~wins  # of equal pixels the first one takes it all
        return dx


class Flatten(_Layer):
    """One row of numbers for each image."""

    def forward(self, x: Array) -> Array:
        self.shape = x.shape
        return x.reshape(len(x), math.prod(x.shape[1:]))  # -1 is not known without images

    def backward(self, dy: Array) -> Array:
        return dy.reshape(self.shape)


class Dropout(_Layer):
    """Zero a random half of the inputs in training, so that no output relies on a single one.

    The rest is doubled: the mean is that of the whole, with which the network is tested.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self.rng = rng

    def forward(self, x: Array) -> Array:
        if not self.training:
            return x
        self.factors = 2 * self.rng.integers(0, 2, x.shape).astype(x.dtype)
        return np.asarray(x * self.factors)

    def backward(self, dy: Array) -> Array:
        return np.asarray(dy * self.factors)


class Linear(_Layer):
    """``y = x W + b``, so ``dW = x^T dy``, ``db = sum of dy over the batch``, ``dx = dy W^T``."""

    def __init__(
        self, inputs: int, outputs: int, dtype: DTypeLike, rng: np.random.Generator
    ) -> None:
        super().__init__()
        # Variance 1 / inputs: scores of the size of the inputs, hence no early overconfidence.
        weight = rng.standard_normal((inputs, outputs)) / math.sqrt(inputs)
        self.parameters = {"weight": weight.astype(dtype), "bias": np.zeros(outputs, dtype)}

    def forward(self, x: Array) -> Array:
        self.x = x
        return np.asarray(x @ self.parameters["weight"] + self.parameters["bias"])

    def backward(self, dy: Array) -> Array:
        self.grads = {"weight": self.x.T @ dy, "bias": dy.sum(axis=0)}
        return np.asarray(dy @ self.parameters["weight"].T)


class Network:
    """Layers one after the other; the gradient takes the same way back."""

    def __init__(self, layers: dict[str, Layer]) -> None:
        self.layers = layers

    def forward(self, x: Array) -> Array:
        for layer in self.layers.values():
            x = layer.forward(x)
        return x

    def backward(self, dy: Array) -> Array:
        for layer in reversed(self.layers.values()):
            dy = layer.backward(dy)
        return dy

    def train(self, mode: bool) -> None:
        for layer in self.layers.values():
            layer.train(mode)

    def parameters(self) -> list[Array]:
        return [array for layer in self.layers.values() for array in layer.parameters.values()]

    def grads(self) -> list[Array]:
        layers = self.layers.values()
        return [layer.grads[name] for layer in layers for name in layer.parameters]


def digit_network(
    size: int, rng: np.random.Generator, channels: int = 32, dtype: DTypeLike = np.float32
) -> Network:
    """Ten scores for images of ``size`` x ``size`` pixels, one for each digit.

    3x3 filters with a padding of 1 keep the size of an image, each pooling halves it.
    """
    c, quarter = channels, size // 4
    return Network(
        {
            "conv1": Conv2d(1, c, 3, padding=1, dtype=dtype, rng=rng),
            "relu1": ReLU(),
            "conv2": Conv2d(c, c, 3, padding=1, dtype=dtype, rng=rng),
            "relu2": ReLU(),
            "pool2": MaxPool(),
            "conv3": Conv2d(c, 2 * c, 3, padding=1, dtype=dtype, rng=rng),
            "relu3": ReLU(),
            "pool3": MaxPool(),
            "flatten": Flatten(),
            "dropout": Dropout(rng),
            "linear": Linear(2 * c * quarter * quarter, 10, dtype, rng),
        }
    )
