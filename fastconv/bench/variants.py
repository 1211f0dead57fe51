"""More than convolutions of float32 numbers: pooling, half precision, gradients for each sample.

Each is timed beside what a user of PyTorch would write for it, and checked against PyTorch in
float64, in suites of their own: ``pooling``, ``half`` and ``per-sample``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from math import prod
from typing import Any, NamedTuple

import numpy as np

import fastconv

from ..geometry import Ints
from .contestant import Array, Call, Fastconv, Operands, aligned
from .peers import torch_convolution
from .results import OURS, our_name
from .suites import FLOAT_BYTES, MAPS, SUITES, Layer, layers_of

PEER = "torch"
SAME_WORK = "torch float32"  # a second peer of half precision


class Way(NamedTuple):
    """One way to compute a variant: a call of a library, and its result as a float64 array."""

    name: str
    peer: str
    call: Call
    to_numpy: Callable[[Any], Array]
    settle: float = 0.002  # seconds, as a ``Contestant`` has


@dataclass(frozen=True)
class Variant:
    """What is to be computed, as a record of results says it, and how.

    ``prepare()`` gives the result in float64 and the ways to compute it, ours first.
    """

    name: str
    network: str
    suite: str
    map_name: str
    shape: str
    flops: int
    bytes: int
    dtype: str
    prepare: Callable[[], tuple[Array, list[Way]]]


def _random(shape: Ints) -> Array:
    return aligned(np.random.default_rng(0).standard_normal(shape, np.float32))


def _last(array: Array) -> Array:
    return aligned(np.moveaxis(array, 1, -1))


def _double(result: Any) -> Array:
    return np.asarray(result).astype(np.float64)


def _double_first(result: Any) -> Array:
    return np.moveaxis(_double(result), -1, 1)


def _double_tensor(result: Any) -> Array:
    return np.asarray(result.double().numpy())


def _laid_out(tensor: Any) -> Any:
    return tensor.contiguous(memory_format=import_module("torch").channels_last)


def _ours(first: Call, last: Call, to_first: Callable[[Any], Array] = _double_first) -> list[Way]:
    return [
        Way(our_name(), OURS, first, _double),
        Way(our_name(channels_last=True), OURS, last, to_first),
    ]


def _theirs(first: Call, last: Call, peer: str = PEER) -> list[Way]:
    ways = ((peer, first), (f"{peer} channels_last", last))
    return [Way(name, peer, call, _double_tensor) for name, call in ways]


# Pooling: windows are (taps, stride, padding), the same along both axes.

POOLS: tuple[tuple[str, str, str, Ints, Ints], ...] = (
    ("resnet50-pool", "ResNet-50", "max", (16, 64, 112, 112), (3, 2, 1)),
    ("vgg16-pool1", "VGG-16", "max", (4, 64, 224, 224), (2, 2, 0)),
    ("vgg16-pool3", "VGG-16", "max", (4, 256, 56, 56), (2, 2, 0)),
    ("vgg16-pool5", "VGG-16", "max", (4, 512, 14, 14), (2, 2, 0)),
    ("alexnet-pool1", "AlexNet", "max", (16, 64, 55, 55), (3, 2, 0)),
    ("inception-pool", "Inception v3", "avg", (16, 192, 35, 35), (3, 1, 1)),
    ("densenet-transition", "DenseNet-121", "avg", (16, 128, 56, 56), (2, 2, 0)),
    ("resnet50-global", "ResNet-50", "avg", (16, 2048, 7, 7), (7, 7, 0)),
)


def _pool(kind: str, x_shape: Ints, windows: Ints) -> tuple[Array, list[Way]]:
    torch = import_module("torch")
    x = _random(x_shape)
    ours = getattr(fastconv, f"{kind}_pool2d")
    theirs = getattr(torch.nn.functional, f"{kind}_pool2d")
    last, tensor = _last(x), torch.from_numpy(x)
    tensor_last = _laid_out(tensor)
    return _double_tensor(theirs(tensor.double(), *windows)), [
        *_ours(
            lambda: ours(x, *windows),
            lambda: ours(last, *windows, data_format="channels_last"),
        ),
        *_theirs(lambda: theirs(tensor, *windows), lambda: theirs(tensor_last, *windows)),
    ]


def _pool_gradient(kind: str, x_shape: Ints, windows: Ints) -> tuple[Array, list[Way]]:
    torch = import_module("torch")
    x = _random(x_shape)
    ours = getattr(fastconv, f"{kind}_pool2d_grad_input")
    taps, stride, padding = ([n] for n in windows)
    last, tensor = _last(x), torch.from_numpy(x)
    y = getattr(fastconv, f"{kind}_pool2d")(x, *windows)
    dy = _random(y.shape)
    dy_last, tensor_dy = _last(dy), torch.from_numpy(dy)

    def backward(x: Any, dy: Any) -> Call:
        if kind == "avg":
            operator = torch.ops.aten.avg_pool2d_backward
            return lambda: operator(dy, x, taps, stride, padding, False, True, None)
        # Where the largest numbers are is known from the forward pass.
        _, places = torch.nn.functional.max_pool2d(x, *windows, return_indices=True)
        operator = torch.ops.aten.max_pool2d_with_indices_backward
        return lambda: operator(dy, x, taps, stride, padding, [1], False, places)

    seen, seen_last = (x, last) if kind == "max" else (x.shape, last.shape)
    return _double_tensor(backward(tensor.double(), tensor_dy.double())()), [
        *_ours(
            lambda: ours(dy, seen, *windows),
            lambda: ours(dy_last, seen_last, *windows, data_format="channels_last"),
        ),
        *_theirs(
            backward(tensor, tensor_dy),
            backward(_laid_out(tensor), _laid_out(tensor_dy)),
        ),
    ]


def _pooling() -> Iterator[Variant]:
    for name, network, kind, x_shape, windows in POOLS:
        taps, stride, padding = windows
        pixels = (x_shape[2] + 2 * padding - taps) // stride + 1
        y = prod(x_shape[:2]) * pixels**2
        text = f"{'x'.join(map(str, x_shape))}, {kind} {taps}x{taps} s{stride} p{padding}"
        images = 2 if kind == "max" else 1  # of x's size that the gradient reads or writes
        for map_name, prepare, count in (
            ("forward", _pool, 1),
            ("grad_input", _pool_gradient, images),
        ):
            yield Variant(
                name,
                network,
                "pooling",
                map_name,
                text,
                y * taps**2,
                FLOAT_BYTES * (count * prod(x_shape) + y),
                "float32",
                partial(prepare, kind, x_shape, windows),
            )


# Half precision: in the same dtype, and in float32, which is the same work.

HALVES = (
    "resnet50-conv2-3x3",
    "resnet50-conv3-reduce",
    "resnet50-conv4-3x3",
    "mobilenetv2-depthwise144",
    "mobilenetv2-pointwise96-24",
)


def _half_precision(layer: Layer, map_name: str, dtype: str) -> tuple[Array, list[Way]]:
    torch = import_module("torch")
    kind = np.dtype(dtype if dtype == "float16" else import_module("ml_dtypes").bfloat16)
    full = Operands.random(layer)
    halves = Operands(*(a.astype(kind) for a in (full.x, full.weight, full.dy)))
    tensors = [torch.from_numpy(a.astype(np.float32)) for a in (halves.x, halves.weight, halves.dy)]

    def theirs(dtype: Any, peer: str) -> list[Way]:
        first = [tensor.to(dtype) for tensor in tensors]
        last = [_laid_out(tensor) for tensor in first]
        return _theirs(
            torch_convolution(layer, map_name, *first),
            torch_convolution(layer, map_name, *last),
            peer,
        )

    expected = torch_convolution(layer, map_name, *(tensor.double() for tensor in tensors))()
    first, last = (
        Fastconv(channels_last=c).prepare(layer, map_name, halves) for c in (False, True)
    )
    return _double_tensor(expected), [
        *_ours(first, last, _double if map_name == "grad_weight" else _double_first),
        *theirs(getattr(torch, dtype), PEER),
        *theirs(torch.float32, SAME_WORK),
    ]


def _half() -> Iterator[Variant]:
    for layer in layers_of(SUITES):
        if layer.name not in HALVES:
            continue
        for dtype in ("float16", "bfloat16"):
            for map_name in MAPS:
                yield Variant(
                    f"{layer.name} {dtype}",
                    layer.network,
                    "half",
                    map_name,
                    layer.shape,
                    layer.flops,
                    layer.bytes // 2,
                    dtype,
                    partial(_half_precision, layer, map_name, dtype),
                )


# The gradient of the filters for each sample.

SAMPLES = ("resnet50-conv2-3x3", "resnet50-conv3-3x3", "resnet50-conv2-expand", "lenet5-c3")


def _each_sample(layer: Layer) -> tuple[Array, list[Way]]:
    torch = import_module("torch")
    operands = Operands.random(layer)
    x, weight, dy = (torch.from_numpy(a) for a in (operands.x, operands.weight, operands.dy))
    backward = torch.ops.aten.convolution_backward.default
    axes = (layer.stride, layer.padding, layer.dilation, False, (0, 0))

    def gradient(dy: Any, x: Any, weight: Any, groups: int = 1) -> Any:
        return backward(dy, x, weight, None, *axes, groups, (False, True, False))[1]

    def loop(dy: Any = dy, x: Any = x, weight: Any = weight) -> Any:
        each = range(len(x))
        return torch.stack([gradient(dy[i : i + 1], x[i : i + 1], weight) for i in each])

    def as_groups() -> Any:
        one = (1, -1)
        images, results = x.reshape(*one, *x.shape[2:]), dy.reshape(*one, *dy.shape[2:])
        many = weight.expand(len(x), *weight.shape).reshape(-1, *weight.shape[1:])
        return gradient(results, images, many, len(x)).reshape(len(x), *weight.shape)

    mapped = torch.func.vmap(lambda dy, x: gradient(dy[None], x[None], weight))
    ours = fastconv.conv2d_grad_weight
    shape, how = layer.weight_shape, (layer.stride, layer.padding, layer.dilation, layer.groups)
    x_last, dy_last = _last(operands.x), _last(operands.dy)
    options: dict[str, Any] = {"per_sample": True, "data_format": "channels_last"}
    return _double_tensor(loop(dy.double(), x.double(), weight.double())), [
        *_ours(
            lambda: ours(operands.dy, operands.x, shape, *how, per_sample=True),
            lambda: ours(dy_last, x_last, shape, *how, **options),
            _double,
        ),
        Way("torch loop", PEER, loop, _double_tensor),
        Way("torch vmap", PEER, lambda: mapped(dy, x), _double_tensor),
        Way("torch groups", PEER, as_groups, _double_tensor),
    ]


def _per_sample() -> Iterator[Variant]:
    for layer in layers_of(SUITES):
        if layer.name in SAMPLES:
            filters = (layer.x_shape[0] - 1) * prod(layer.weight_shape)
            yield Variant(
                layer.name,
                layer.network,
                "per-sample",
                "grad_weight",
                layer.shape,
                layer.flops,
                layer.bytes + FLOAT_BYTES * filters,
                "float32",
                partial(_each_sample, layer),
            )


VARIANTS: dict[str, tuple[Variant, ...]] = {
    "pooling": tuple(_pooling()),
    "half": tuple(_half()),
    "per-sample": tuple(_per_sample()),
}
