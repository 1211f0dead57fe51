"""Where the time of training goes: seconds in each layer, forward and backward."""

from time import perf_counter

from .network import Array, Layer, Network


class Timed:
    """A layer with a clock, which runs in training mode."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self._training = True
        self.forward_seconds = 0.0
        self.backward_seconds = 0.0

    @property
    def parameters(self) -> dict[str, Array]:
        return self._layer.parameters

    @property
    def grads(self) -> dict[str, Array]:
        return self._layer.grads

    def train(self, mode: bool = True) -> None:
        self._training = mode
        self._layer.train(mode)

    def forward(self, x: Array) -> Array:
        start = perf_counter()
        y = self._layer.forward(x)
        if self._training:
            self.forward_seconds += perf_counter() - start
        return y

    def backward(self, dy: Array) -> Array:
        start = perf_counter()
        dx = self._layer.backward(dy)
        self.backward_seconds += perf_counter() - start
        return dx


def timed(network: Network) -> tuple[Network, dict[str, Timed]]:
    """The same network with clocks, and the clocks by the layers' names."""
    clocks = {name: Timed(layer) for name, layer in network.layers.items()}
    return Network(dict(clocks)), clocks


def table(clocks: dict[str, Timed], total: float) -> str:
    """Seconds of each layer, and what is left of ``total`` outside of the layers."""
    lines = [f"{'layer':<18}{'forward':>10}{'backward':>10}{'share':>8}"]
    spent = 0.0
    for name, clock in clocks.items():
        forward, backward = clock.forward_seconds, clock.backward_seconds
        spent += forward + backward
        share = (forward + backward) / total
        lines.append(f"{name:<18}{forward:>8.2f} s{backward:>8.2f} s{share:>8.1%}")
    rest = total - spent
    lines.append(f"{'Adam, loss, tests':<18}{rest:>20.2f} s{rest / total:>8.1%}")
    return "\n".join(lines)
