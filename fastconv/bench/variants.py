"""More than convolutions of float32 numbers, each beside what a user of PyTorch would write.

Pooling, half precision, gradients for each sample and padding that shows pixels, in suites of their
own, whose results are checked against PyTorch in float64.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from importlib import import_module
from math import prod
from typing import Any

import numpy as np

from .contestant import Array, Call, Operands
from .peers import torch_convolution
from .pools import POOLS, pooling
from .results import OURS
from .suites import FLOAT_BYTES, MAPS, SUITES, Layer, image_layer, layers_of
from .ways import PEER, Variant, Way, double_tensor, laid_out, layouts, our_convolution, theirs

SAME_WORK = "torch float32"  # a second peer of half precision


def _variants(
    suite: str, layer: Layer, maps: Iterable[str], prepare: Any, ways: tuple[str, ...], **said: Any
) -> Iterator[Variant]:
    """Maps of a convolution, with what is ``said`` of them instead of what is true of ``layer``."""
    of_layer = {"name": layer.name, "shape": layer.shape, "bytes": layer.bytes, "dtype": "float32"}
    for map_name in maps:
        yield Variant(
            network=layer.network,
            suite=suite,
            map_name=map_name,
            flops=layer.flops,
            ways=ways,
            prepare=partial(prepare, layer, map_name),
            **{**of_layer, **said},
        )


def _tensors(operands: Operands) -> list[Any]:
    from_numpy = import_module("torch").from_numpy
    return [from_numpy(array) for array in (operands.x, operands.weight, operands.dy)]


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

    def both(dtype: Any) -> tuple[Call, Call]:
        first = [tensor.to(dtype) for tensor in tensors]
        last = [laid_out(tensor) for tensor in first]
        return (
            torch_convolution(layer, map_name, *first),
            torch_convolution(layer, map_name, *last),
        )

    expected = torch_convolution(layer, map_name, *(tensor.double() for tensor in tensors))()
    return double_tensor(expected), [
        *our_convolution(layer, map_name, halves),
        *theirs(both(getattr(torch, dtype))),
        *theirs(both(torch.float32), SAME_WORK, SAME_WORK),
    ]


def half(layer: Layer, dtype: str) -> Iterator[Variant]:
    """All maps of a convolution of float16 or bfloat16 numbers."""
    yield from _variants(
        "half",
        layer,
        MAPS,
        partial(_half_precision, dtype=dtype),
        layouts(OURS, PEER, SAME_WORK),
        name=f"{layer.name} {dtype}",
        bytes=layer.bytes // 2,
        dtype=dtype,
    )


# The gradient of the filters for each sample.

SAMPLES = ("resnet50-conv2-3x3", "resnet50-conv3-3x3", "resnet50-conv2-expand", "lenet5-c3")


def _each_sample(layer: Layer, map_name: str) -> tuple[Array, list[Way]]:
    torch = import_module("torch")
    operands = Operands.random(layer)
    x, weight, dy = _tensors(operands)
    backward = torch.ops.aten.convolution_backward.default
    axes = (layer.stride, layer.padding, layer.dilation, False, (0,) * layer.ndim)
    n, groups = len(x), layer.groups

    def gradient(dy: Any, x: Any, weight: Any, groups: int = groups) -> Any:
        return backward(dy, x, weight, None, *axes, groups, (False, True, False))[1]

    def loop(dy: Any = dy, x: Any = x, weight: Any = weight) -> Any:
        return torch.stack([gradient(dy[i : i + 1], x[i : i + 1], weight) for i in range(n)])

    def as_groups() -> Any:
        images, results = (a.reshape(1, -1, *a.shape[2:]) for a in (x, dy))
        many = weight.expand(n, *weight.shape).reshape(-1, *weight.shape[1:])
        return gradient(results, images, many, n * groups).reshape(n, *weight.shape)

    # The operator itself is mapped, which spares PyTorch the forward pass of ``vmap(grad)``.
    mapped = torch.func.vmap(lambda dy, x: gradient(dy[None], x[None], weight))
    return double_tensor(loop(dy.double(), x.double(), weight.double())), [
        *our_convolution(layer, map_name, operands, per_sample=True),
        Way("torch loop", PEER, loop, double_tensor),
        Way("torch vmap", PEER, lambda: mapped(dy, x), double_tensor),
        Way("torch groups", PEER, as_groups, double_tensor),
    ]


def per_sample(layer: Layer) -> Iterator[Variant]:
    """The gradient of the filters for each sample."""
    yield from _variants(
        "per-sample",
        layer,
        ["grad_weight"],
        _each_sample,
        (*layouts(OURS), "torch loop", "torch vmap", "torch groups"),
        bytes=layer.bytes + FLOAT_BYTES * (layer.x_shape[0] - 1) * prod(layer.weight_shape),
    )


# Padding that shows pixels, which PyTorch copies images for.

MODES = ("reflect", "circular")


def _padded_layers() -> Iterator[Layer]:
    yield image_layer("cyclegan-stem", "CycleGAN", 1, 256, 3, 64, 7)
    yield image_layer("cyclegan-block", "CycleGAN", 1, 64, 256, 256, 3)
    chosen = ("resnet50-conv2-3x3", "mobilenetv2-depthwise144", "unet3d-block3")
    yield from (layer for layer in layers_of(SUITES) if layer.name in chosen)


def _padding_mode(layer: Layer, map_name: str, mode: str) -> tuple[Array, list[Way]]:
    torch = import_module("torch")
    functional = torch.nn.functional
    pairs = [n for n in reversed(layer.padding) for _ in "lr"]  # the last axis comes first
    conv = getattr(functional, f"conv{layer.ndim}d")
    operands = Operands.random(layer)

    def forward(x: Any, weight: Any, dy: Any) -> Call:
        def call() -> Any:
            padded = functional.pad(x, pairs, mode)
            return conv(padded, weight, None, layer.stride, 0, layer.dilation, layer.groups)

        return call

    def grad_input(x: Any, weight: Any, dy: Any) -> Call:
        # Circular padding has no operator for its gradient: what autograd recorded is played back.
        leaf = x.detach().requires_grad_()
        y = forward(leaf, weight, dy)()
        return lambda: torch.autograd.grad(y, leaf, dy, retain_graph=True)[0]

    prepare = forward if map_name == "forward" else grad_input
    with torch.inference_mode(False), torch.enable_grad():
        tensors = _tensors(operands)
        first = prepare(*tensors)
        last = prepare(*(laid_out(tensor) for tensor in tensors))
        expected = prepare(*(tensor.double() for tensor in tensors))()
    return double_tensor(expected.detach()), [
        *our_convolution(layer, map_name, operands, padding_mode=mode),
        *theirs((first, last)),
    ]


def padding_mode(layer: Layer, mode: str) -> Iterator[Variant]:
    """The maps that padding with pixels has a part in, beside ``pad`` and a convolution."""
    yield from _variants(
        "padding-modes",
        layer,
        ["forward", "grad_input"],
        partial(_padding_mode, mode=mode),
        layouts(OURS, PEER),
        name=f"{layer.name} {mode}",
    )


def _named(names: Iterable[str]) -> list[Layer]:
    return [layer for layer in layers_of(SUITES) if layer.name in names]


VARIANTS: dict[str, tuple[Variant, ...]] = {
    "pooling": tuple(v for pool in POOLS for v in pooling(*pool)),
    "half": tuple(
        v for x in _named(HALVES) for dtype in ("float16", "bfloat16") for v in half(x, dtype)
    ),
    "per-sample": tuple(v for x in _named(SAMPLES) for v in per_sample(x)),
    "padding-modes": tuple(
        v for x in _padded_layers() for mode in MODES for v in padding_mode(x, mode)
    ),
}

# What each of these suites needs to be installed.
NEEDS = {suite: (PEER, "ml_dtypes") if suite == "half" else (PEER,) for suite in VARIANTS}
