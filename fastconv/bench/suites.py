"""Layers to time, each as its source network has it.

Batches are those of training (16 images) unless the network is far too large or too small for that.
The suite ``batch1`` is inference on a single image.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

from ..geometry import ConvGeometry, Ints, conv_geometry

FLOAT_BYTES = 4

MAPS = ("forward", "grad_input", "grad_weight")


@dataclass(frozen=True)
class Layer:
    """A convolution of float32 arrays; ``stride``, ``padding`` and ``dilation`` one per axis."""

    name: str
    network: str
    x_shape: Ints
    weight_shape: Ints
    stride: Ints
    padding: Ints
    dilation: Ints
    groups: int = 1

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.x_shape) - 2

    @cached_property
    def geometry(self) -> ConvGeometry:
        pairs = tuple((n, n) for n in self.padding)
        return conv_geometry(
            self.ndim,
            self.x_shape,
            self.weight_shape,
            self.stride,
            pairs,
            self.dilation,
            self.groups,
        )

    @property
    def y_shape(self) -> Ints:
        output = self.geometry.output[3 - self.ndim :]
        return (self.x_shape[0], self.weight_shape[0], *output)

    @property
    def flops(self) -> int:
        """Multiplications and additions of the definition: the same number for all three maps."""
        return self.geometry.operations

    @property
    def bytes(self) -> int:
        """Least memory traffic of any map: each reads two of x, weight and y, writes the third."""
        return FLOAT_BYTES * sum(map(prod, (self.x_shape, self.weight_shape, self.y_shape)))

    @property
    def shape(self) -> str:
        """The layer in a few words, such as ``16x64x56x56 to 64, 3x3 s1 p1``."""
        parts = [
            f"{_times(self.x_shape)} to {self.weight_shape[0]}, {_times(self.weight_shape[2:])}"
        ]
        for letter, numbers, usual in (
            ("s", self.stride, 1),
            ("p", self.padding, 0),
            ("d", self.dilation, 1),
        ):
            if any(n != usual for n in numbers):
                parts.append(f"{letter}{numbers[0] if len(set(numbers)) == 1 else _times(numbers)}")
        if self.groups > 1:
            parts.append(f"g{self.groups}")
        return " ".join(parts)


def _times(numbers: Ints) -> str:
    return "x".join(map(str, numbers))


def _layer(
    name: str,
    network: str,
    x_shape: Ints,
    filters: int,
    taps: int,
    stride: int = 1,
    padding: int | None = None,
    dilation: int = 1,
    groups: int = 1,
) -> Layer:
    """A layer whose axes are alike; without ``padding`` it keeps the extents at stride 1."""
    ndim = len(x_shape) - 2
    if padding is None:
        padding = (taps - 1) // 2
    weight_shape = (filters, x_shape[1] // groups, *(taps,) * ndim)
    axes = [(n,) * ndim for n in (stride, padding, dilation)]
    return Layer(name, network, x_shape, weight_shape, axes[0], axes[1], axes[2], groups)


def image_layer(
    name: str,
    network: str,
    batch: int,
    size: int,
    channels: int,
    filters: int,
    taps: int,
    **axes: int,
) -> Layer:
    """A layer on square images of ``size`` pixels a side."""
    return _layer(name, network, (batch, channels, size, size), filters, taps, **axes)


def _resnet50() -> Iterable[Layer]:
    """Every distinct convolution, with the stride on the 3x3 one as nearly everyone has it."""

    def layer(
        stage: int, part: str, size: int, channels: int, filters: int, taps: int, s: int
    ) -> Layer:
        name = f"resnet50-conv{stage}-{part}"
        return image_layer(name, "ResNet-50", 16, size, channels, filters, taps, stride=s)

    yield layer(1, "7x7", 224, 3, 64, 7, 2)
    yield layer(2, "reduce-first", 56, 64, 64, 1, 1)
    yield layer(2, "3x3", 56, 64, 64, 3, 1)
    yield layer(2, "expand", 56, 64, 256, 1, 1)
    yield layer(2, "reduce", 56, 256, 64, 1, 1)
    for stage, width, size in ((3, 128, 28), (4, 256, 14), (5, 512, 7)):
        yield layer(stage, "reduce-first", 2 * size, 2 * width, width, 1, 1)
        yield layer(stage, "3x3-stride2", 2 * size, width, width, 3, 2)
        yield layer(stage, "shortcut", 2 * size, 2 * width, 4 * width, 1, 2)
        yield layer(stage, "3x3", size, width, width, 3, 1)
        yield layer(stage, "expand", size, width, 4 * width, 1, 1)
        yield layer(stage, "reduce", size, 4 * width, width, 1, 1)


def _vgg16() -> Iterable[Layer]:
    table = (
        ("1-1", 224, 3, 64),
        ("1-2", 224, 64, 64),
        ("2-1", 112, 64, 128),
        ("2-2", 112, 128, 128),
        ("3-1", 56, 128, 256),
        ("3-2", 56, 256, 256),
        ("4-1", 28, 256, 512),
        ("4-2", 28, 512, 512),
        ("5-1", 14, 512, 512),
    )
    for part, size, channels, filters in table:
        yield image_layer(f"vgg16-conv{part}", "VGG-16", 4, size, channels, filters, 3)


def _mobilenetv2() -> Iterable[Layer]:
    for channels, size, stride in (
        (32, 112, 1),
        (96, 112, 2),
        (144, 56, 1),
        (144, 56, 2),
        (192, 28, 1),
        (384, 14, 1),
        (576, 14, 2),
        (960, 7, 1),
    ):
        name = f"mobilenetv2-depthwise{channels}" + ("-stride2" if stride == 2 else "")
        yield image_layer(
            name, "MobileNetV2", 16, size, channels, channels, 3, stride=stride, groups=channels
        )
    for channels, filters, size in (
        (32, 16, 112),
        (16, 96, 112),
        (96, 24, 56),
        (24, 144, 56),
        (32, 192, 28),
        (192, 64, 14),
        (64, 384, 14),
        (576, 160, 7),
        (960, 320, 7),
        (320, 1280, 7),
    ):
        name = f"mobilenetv2-pointwise{channels}-{filters}"
        yield image_layer(name, "MobileNetV2", 16, size, channels, filters, 1)


def _stems(resnet50: Iterable[Layer]) -> Iterable[Layer]:
    yield image_layer("alexnet-conv1", "AlexNet", 16, 224, 3, 64, 11, stride=4, padding=2)
    yield from (layer for layer in resnet50 if layer.x_shape[1] == 3)
    yield image_layer("mobilenetv2-conv1", "MobileNetV2", 16, 224, 3, 32, 3, stride=2)


def _lenet5() -> Iterable[Layer]:
    yield image_layer("lenet5-c1", "LeNet-5", 128, 32, 1, 6, 5, padding=0)
    yield image_layer("lenet5-c3", "LeNet-5", 128, 14, 6, 16, 5, padding=0)
    yield image_layer("lenet5-c5", "LeNet-5", 128, 5, 16, 120, 5, padding=0)


def _filters() -> Iterable[Layer]:
    for taps in (3, 5, 7, 11, 15, 31):
        yield image_layer(f"filter-{taps}x{taps}", "image filter", 1, 1024, 1, 1, taps)


def _unet3d() -> Iterable[Layer]:
    yield _layer("unet3d-block2", "3-D U-Net", (1, 32, 32, 64, 64), 64, 3)
    yield _layer("unet3d-block3", "3-D U-Net", (1, 64, 16, 32, 32), 128, 3)


def _wavenet() -> Iterable[Layer]:
    for d in (1, 8, 64, 512):
        x_shape = (1, 64, 16000)
        yield _layer(f"wavenet-dilation{d}", "WaveNet", x_shape, 64, 2, padding=0, dilation=d)


def _batch1(resnet50: Iterable[Layer]) -> Iterable[Layer]:
    parts = "conv1-7x7 conv2-3x3 conv2-expand conv3-3x3 conv3-3x3-stride2 conv4-3x3 conv5-3x3"
    parts += " conv5-expand"
    chosen = [f"resnet50-{part}" for part in parts.split()]
    for layer in resnet50:
        if layer.name in chosen:
            yield replace(layer, name=f"batch1-{layer.name}", x_shape=(1, *layer.x_shape[1:]))


def _tiny() -> Iterable[Layer]:
    yield _layer("tiny-1d", "tiny call", (1, 1, 64), 1, 5)
    yield image_layer("tiny-1x8x8", "tiny call", 1, 8, 1, 1, 3)
    yield image_layer("tiny-16x8x8", "tiny call", 1, 8, 16, 16, 3)
    yield image_layer("tiny-3x32x32", "tiny call", 1, 32, 3, 8, 3)


def _suites() -> dict[str, tuple[Layer, ...]]:
    resnet50 = tuple(_resnet50())
    same_3x3 = (x for x in resnet50 if x.weight_shape[2:] == (3, 3) and x.stride == (1, 1))
    return {
        "resnet50": resnet50,
        "resnet50-3x3": tuple(same_3x3),
        "vgg16": tuple(_vgg16()),
        "mobilenetv2": tuple(_mobilenetv2()),
        "stems": tuple(_stems(resnet50)),
        "lenet5": tuple(_lenet5()),
        "filters": tuple(_filters()),
        "unet3d": tuple(_unet3d()),
        "wavenet": tuple(_wavenet()),
        "batch1": tuple(_batch1(resnet50)),
        "tiny": tuple(_tiny()),
    }


SUITES = _suites()


def layers_of(suites: Iterable[str]) -> list[Layer]:
    """The layers of some suites, each once."""
    return list(dict.fromkeys(layer for suite in suites for layer in SUITES[suite]))
