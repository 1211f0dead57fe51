"""Pooling of known networks and its gradients, which memory bounds."""

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from math import prod
from typing import Any

import fastconv

from ..geometry import Ints
from .contestant import Array, Call
from .results import OURS
from .suites import FLOAT_BYTES
from .ways import (
    PEER,
    Variant,
    Way,
    double,
    double_first,
    double_tensor,
    laid_out,
    last,
    layouts,
    random,
    theirs,
)

# Windows are (taps, stride, padding), the same along all axes.
POOLS: tuple[tuple[str, str, str, Ints, Ints], ...] = (
    ("resnet50-pool", "ResNet-50", "max", (16, 64, 112, 112), (3, 2, 1)),
    ("vgg16-pool1", "VGG-16", "max", (4, 64, 224, 224), (2, 2, 0)),
    ("vgg16-pool2", "VGG-16", "max", (4, 128, 112, 112), (2, 2, 0)),
    ("vgg16-pool3", "VGG-16", "max", (4, 256, 56, 56), (2, 2, 0)),
    ("vgg16-pool4", "VGG-16", "max", (4, 512, 28, 28), (2, 2, 0)),
    ("vgg16-pool5", "VGG-16", "max", (4, 512, 14, 14), (2, 2, 0)),
    ("alexnet-pool1", "AlexNet", "max", (16, 64, 55, 55), (3, 2, 0)),
    ("unet3d-pool2", "3-D U-Net", "max", (1, 64, 32, 64, 64), (2, 2, 0)),
    ("inception-pool", "Inception v3", "avg", (16, 192, 35, 35), (3, 1, 1)),
    ("densenet-transition", "DenseNet-121", "avg", (16, 128, 56, 56), (2, 2, 0)),
    ("resnet50-global", "ResNet-50", "avg", (16, 2048, 7, 7), (7, 7, 0)),
)

MEAN = f"{PEER} mean"  # what PyTorch's adaptive pooling takes where a window is the whole image


def _ours(calls: tuple[Call, Call]) -> list[Way]:
    return [
        Way(name, OURS, call, to_numpy)
        for name, call, to_numpy in zip(layouts(OURS), calls, (double, double_first), strict=True)
    ]


def _whole(x_shape: Ints, windows: Ints) -> bool:
    """Whether a window is the whole image."""
    return set(x_shape[2:]) == {windows[0]} and windows[2] == 0


def _forward(kind: str, x_shape: Ints, windows: Ints) -> tuple[Array, list[Way]]:
    torch = import_module("torch")
    name = f"{kind}_pool{len(x_shape) - 2}d"
    ours, pool = getattr(fastconv, name), getattr(torch.nn.functional, name)
    x = random(x_shape)
    x_last, tensor = last(x), torch.from_numpy(x)
    tensor_last = laid_out(tensor)
    ways = [
        *_ours(
            (
                lambda: ours(x, *windows),
                lambda: ours(x_last, *windows, data_format="channels_last"),
            )
        ),
        *theirs((lambda: pool(tensor, *windows), lambda: pool(tensor_last, *windows))),
    ]
    if kind == "avg" and _whole(x_shape, windows):
        axes = tuple(range(2, len(x_shape)))
        calls = (lambda: tensor.mean(axes, True), lambda: tensor_last.mean(axes, True))
        ways += theirs(calls, MEAN)
    return double_tensor(pool(tensor.double(), *windows)), ways


def _gradient(kind: str, x_shape: Ints, windows: Ints) -> tuple[Array, list[Way]]:
    torch = import_module("torch")
    ndim = len(x_shape) - 2
    name = f"{kind}_pool{ndim}d"
    ours, pool = getattr(fastconv, f"{name}_grad_input"), getattr(torch.nn.functional, name)
    taps, stride, padding = ([n] * ndim for n in windows)
    x = random(x_shape)
    tensor = torch.from_numpy(x)
    dy = random(tuple(pool(tensor, *windows).shape), seed=1)
    dy_last, tensor_dy = last(dy), torch.from_numpy(dy)

    def backward(x: Any, dy: Any) -> Call:
        if kind == "avg":
            operator = getattr(torch.ops.aten, f"{name}_backward")
            return lambda: operator(dy, x, taps, stride, padding, False, True, None)
        # Where the largest numbers are is known from the forward pass.
        _, places = pool(x, *windows, return_indices=True)
        operator = getattr(torch.ops.aten, f"{name}_with_indices_backward")
        return lambda: operator(dy, x, taps, stride, padding, [1] * ndim, False, places)

    tensors, tensors_last = (tensor, tensor_dy), (laid_out(tensor), laid_out(tensor_dy))
    # The gradient of maxima looks at the images, that of means only asks for their shape.
    seen: tuple[Any, Any] = (x, last(x))
    if kind == "avg":
        seen = (seen[0].shape, seen[1].shape)
    ways = [
        *_ours(
            (
                lambda: ours(dy, seen[0], *windows),
                lambda: ours(dy_last, seen[1], *windows, data_format="channels_last"),
            )
        ),
        *theirs((backward(*tensors), backward(*tensors_last))),
    ]
    if kind == "avg" and _whole(x_shape, windows):
        size = prod(x_shape[2:])
        laid = tensors_last[1]
        calls = (
            lambda: tensor_dy.expand(x_shape) / size,
            lambda: laid.expand(x_shape) / size,
        )
        ways += theirs(calls, MEAN)
    return double_tensor(backward(tensor.double(), tensor_dy.double())()), ways


def pooling(name: str, network: str, kind: str, x_shape: Ints, windows: Ints) -> Iterator[Variant]:
    """Both maps of a pooling layer; ``kind`` is "max" or "avg"."""
    taps, stride, padding = windows
    y = prod(x_shape[:2]) * prod((n + 2 * padding - taps) // stride + 1 for n in x_shape[2:])
    size = "x".join([str(taps)] * len(x_shape[2:]))
    text = f"{'x'.join(map(str, x_shape))}, {kind} {size} s{stride} p{padding}"
    images = 2 if kind == "max" else 1  # of x's size that the gradient reads or writes
    means = [MEAN] if kind == "avg" and _whole(x_shape, windows) else []
    for map_name, prepare, count in (
        ("forward", _forward, 1),
        ("grad_input", _gradient, images),
    ):
        yield Variant(
            name,
            network,
            "pooling",
            map_name,
            text,
            y * taps ** len(x_shape[2:]),
            FLOAT_BYTES * (count * prod(x_shape) + y),
            "float32",
            layouts(OURS, PEER, *means),
            partial(prepare, kind, x_shape, windows),
        )
