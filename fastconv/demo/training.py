"""How a network learns: the loss, Adam's steps, and the training loop, in plain NumPy.

What the layers do is in ``network.py``, to be read before.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from .data import Digits
from .network import Array, Network


def cross_entropy(scores: Array, labels: Array) -> tuple[float, Array]:
    """Mean of ``-log p[label]`` with ``p = softmax(scores)``, and its gradient.

    ``dL/dscores = (p - onehot(label)) / N``: what was predicted less what is true.
    """
    rows = np.arange(len(labels))
    # The largest score is taken off all of an image: p stays the same, and exp cannot overflow.
    scores = scores - scores.max(axis=1, keepdims=True)
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    gradient = np.exp(log_p)
    gradient[rows, labels] -= 1
    return -float(log_p[rows, labels].mean()), gradient / len(labels)


class Adam:
    """Steps against the gradient's running mean, each divided by its running root mean square.

    Every parameter so moves by about the rate, however large its gradient is (Kingma and Ba,
    arXiv:1412.6980). Both means start at zero; what they lack at step t is divided out.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.moments = [(np.zeros_like(p), np.zeros_like(p)) for p in network.parameters()]
        self.steps = 0

    def step(self, rate: float, keep: float = 0.9, keep_square: float = 0.999) -> None:
        self.steps += 1
        rate /= 1 - keep**self.steps
        lacking = 1 - keep_square**self.steps
        both = zip(self.network.parameters(), self.network.grads(), strict=True)
        for (parameter, grad), (mean, square) in zip(both, self.moments, strict=True):
            mean += (1 - keep) * (grad - mean)
            square += (1 - keep_square) * (grad * grad - square)
            parameter -= rate * mean / (np.sqrt(square / lacking) + 1e-8)


@dataclass(frozen=True)
class Epoch:
    """One pass over all training images: the loss of every batch, and accuracies.

    ``accuracy`` is counted in training, while the network changes and with dropout;
    ``test_accuracy`` after it, on the images held out.
    """

    losses: list[float]
    accuracy: float
    test_accuracy: float

    @property
    def loss(self) -> float:
        return sum(self.losses) / len(self.losses)


def train(
    network: Network,
    digits: Digits,
    rng: np.random.Generator,
    *,
    epochs: int,
    batch_size: int,
    rate: float,
    progress: Callable[[list[Array]], Iterable[Array]] = iter,
) -> Iterator[Epoch]:
    """Train, and report after every epoch; ``progress`` is told of the batches one by one.

    Raises
    ------
    FloatingPointError
        If the loss grows beyond all numbers, as it does with too high a rate.
    """
    images, labels = digits.train_images, digits.train_labels
    adam = Adam(network)
    steps = epochs * math.ceil(len(images) / batch_size)
    for _ in range(epochs):
        order = rng.permutation(len(images))
        batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        losses, correct = [], 0
        network.train(True)
        for batch in progress(batches):
            scores = network.forward(images[batch])
            loss, gradient = cross_entropy(scores, labels[batch])
            if not math.isfinite(loss):
                raise FloatingPointError("the loss is no longer finite")
            network.backward(gradient)
            # From the full rate down to zero along half a cosine: long steps first, while
            # everything is wrong, short ones last, to settle.
            adam.step(rate * (1 + math.cos(math.pi * adam.steps / steps)) / 2)
            losses.append(loss)
            correct += int((scores.argmax(axis=1) == labels[batch]).sum())
        right = predict(network, digits.test_images) == digits.test_labels
        yield Epoch(losses, correct / len(images), float(right.mean()))


def predict(network: Network, images: Array, batch_size: int = 256) -> Array:
    """The digit with the highest score, for each image."""
    network.train(False)
    batches = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]
    return np.concatenate([network.forward(batch).argmax(axis=1) for batch in batches])
