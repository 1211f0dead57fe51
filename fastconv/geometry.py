"""The shapes of a convolution, and every error about them.

Letters, used the same way everywhere: N batch, C input channels, K output channels, G groups; input
D H W, output O P Q, filter T R S. Inside the package every convolution has three spatial axes: 1-D
and 2-D ones get leading axes of length 1.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import gcd, prod
from typing import NamedTuple

from .padding import check_pairs, segments
from .ranks import FILTER_AXES

Ints = tuple[int, ...]
PaddingForm = str | tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Phase:
    """A part of ``grad_input`` that is an ordinary correlation of stride 1.

    ``out[place]`` is the correlation of ``grad_output``, with ``before`` zeros ahead of each axis,
    with the flipped sub-filter ``weight[taps]``.
    """

    place: tuple[slice, ...]
    taps: tuple[slice, ...]
    before: Ints
    dilation: Ints


class Met(NamedTuple):
    """A part of a map, ``weight[taps]`` and ``y[windows]``: see ``ConvGeometry.met``."""

    geometry: "ConvGeometry"
    taps: tuple[slice, ...]
    windows: tuple[slice, ...]


@dataclass(frozen=True)
class ConvGeometry:
    """The forward map of one call, all spatial tuples (d, h, w).

    For a transposed convolution it describes the forward map whose gradient that is. What is said
    here of images holds for arrays (N, C, *spatial) and, where ``channels_last`` is set, for arrays
    (N, *spatial, C): only backends, as they look at an array, see the difference.
    """

    batch: int
    groups: int
    in_channels: int
    out_channels: int
    input: Ints
    kernel: Ints
    output: Ints
    stride: Ints
    before: Ints
    after: Ints
    dilation: Ints
    channels_last: bool = False
    padding_mode: str = "zeros"

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        # Kept, for every call looks decisions up by its geometry: 0.25 of 5.6 us for a small one.
        shapes = self.x_shape, self.weight_shape, self.output
        return hash((shapes, self.stride, self.before, self.channels_last))

    @cached_property
    def x_shape(self) -> Ints:
        """(N, G, C/G, D, H, W)"""
        return (self.batch, self.groups, self.in_channels // self.groups, *self.input)

    @cached_property
    def weight_shape(self) -> Ints:
        """(G, K/G, C/G, T, R, S)"""
        return (self.groups, self.out_channels // self.groups, *self.x_shape[2:3], *self.kernel)

    @cached_property
    def y_shape(self) -> Ints:
        """(N, G, K/G, O, P, Q)"""
        return (self.batch, self.groups, self.out_channels // self.groups, *self.output)

    @cached_property
    def operations(self) -> int:
        """Multiplications and additions of any of the three maps, those with padding included."""
        return 2 * prod(self.y_shape) * prod(self.weight_shape[2:])

    @cached_property
    def is_product(self) -> bool:
        """Whether there is one window and it is the whole image: a product of matrices."""
        return (
            self.output == (1, 1, 1)
            and self.kernel == self.input
            and self.before == self.after == (0, 0, 0)
        )

    @cached_property
    def is_pointwise(self) -> bool:
        """Whether each output pixel is made of one input pixel, and no padding of any."""
        return prod(self.kernel) == 1 and self.before == self.after == (0, 0, 0)

    @cached_property
    def padded(self) -> "ConvGeometry":
        """The same map of images to which the padding belongs; itself where that is zeros."""
        if self.padding_mode == "zeros":
            return self
        axes = zip(self.input, self.before, self.after, strict=True)
        none = (0, 0, 0)
        return replace(
            self,
            input=tuple([n + before + after for n, before, after in axes]),
            before=none,
            after=none,
            padding_mode="zeros",
        )

    @cached_property
    def segments(self) -> tuple[Ints, ...]:
        """What each axis shows with its padding: see ``padding.segments``."""
        axes = zip(self.input, self.before, self.after, strict=True)
        return tuple([segments(self.padding_mode, *axis) for axis in axes])

    @cached_property
    def of_parts(self) -> "ConvGeometry":
        """The same map of the real and imaginary parts of channels, as channels themselves."""
        return replace(self, in_channels=2 * self.in_channels, out_channels=2 * self.out_channels)

    @cached_property
    def per_sample(self) -> "ConvGeometry":
        """Samples as groups of one image, over which no gradient of the filters sums."""
        return replace(
            self,
            batch=1,
            groups=self.batch * self.groups,
            in_channels=self.batch * self.in_channels,
            out_channels=self.batch * self.out_channels,
            # Several groups of several samples have no common stride there, and are copied.
            channels_last=self.channels_last and self.groups == 1,
        )

    @cached_property
    def met(self) -> "Met":
        """The same map without the first and last taps and windows that meet nothing but padding.

        A filter that reaches further than its image by its dilation is smaller than it seems. All
        are left where neither dilation nor stride is larger than the image: so many they are not,
        and parts of an image add up the same products in the same pieces as the whole.
        """
        steps = zip(self.dilation, self.stride, self.input, strict=True)
        if all(max(dil, s) <= n for dil, s, n in steps):
            return Met(self, (...,), (...,))  # type: ignore[arg-type]
        axes = list(
            zip(
                self.input,
                self.kernel,
                self.output,
                self.stride,
                self.before,
                self.dilation,
                strict=True,
            )
        )
        met = [meeting(*axis) for axis in axes]
        taps, windows = zip(*met, strict=True)
        before, after = [], []
        for (n, _, _, s, b, dil), (tap, window) in zip(axes, met, strict=True):
            before.append(b - window.start * s - tap.start * dil)
            after.append(max((window.stop - 1) * s + (tap.stop - 1) * dil - b + 1 - n, 0))
        part = replace(
            self,
            kernel=tuple([tap.stop - tap.start for tap in taps]),
            output=tuple([window.stop - window.start for window in windows]),
            before=tuple(before),
            after=tuple(after),
        )
        return Met(part, (..., *taps), (..., *windows))  # type: ignore[arg-type]

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """How ``grad_input`` splits into correlations of stride 1: at most prod(stride) of them.

        Along one axis, input pixel ``h`` meets tap ``r`` at output pixel
        ``(h + before - r*dilation) / stride`` where that is whole. All pixels
        ``h = first + i*stride`` meet the same taps, ``step`` apart, so that, with the taps taken
        backwards, the sum over them is a correlation. Pixels that meet none are in no phase.
        """
        axes = []
        for n, r, s, b, dil in zip(
            self.input, self.kernel, self.stride, self.before, self.dilation, strict=True
        ):
            met: dict[int, list[int]] = {}
            for tap in range(r):
                met.setdefault((tap * dil - b) % s, []).append(tap)
            step, dilation = s // gcd(s, dil), dil // gcd(s, dil)
            axes.append(
                [
                    (
                        slice(first, None, s),
                        slice(taps[-1], None, -step),
                        (taps[-1] * dil - first - b) // s,
                        dilation,
                    )
                    for first, taps in sorted(met.items())
                    if first < n
                ]
            )
        return tuple(
            [
                Phase(
                    (..., d[0], h[0], w[0]),  # type: ignore[arg-type]
                    (..., d[1], h[1], w[1]),  # type: ignore[arg-type]
                    (d[2], h[2], w[2]),
                    (d[3], h[3], w[3]),
                )
                for d in axes[0]
                for h in axes[1]
                for w in axes[2]
            ]
        )

    @cached_property
    def is_covered(self) -> bool:
        """Whether each pixel of the input is in a phase."""
        axes = zip(self.stride, self.input, strict=True)
        return len(self.phases) == prod([min(s, n) for s, n in axes])


def meeting(n: int, r: int, p: int, s: int, b: int, dil: int) -> tuple[slice, slice]:
    """The range of ``r`` taps and that of ``p`` windows in which some meet one of ``n`` pixels.

    Tap ``i`` of window ``o`` meets pixel ``o*s + i*dil - b``.

    >>> meeting(n=16, r=3, p=16, s=1, b=32, dil=32)
    (slice(1, 2, None), slice(0, 16, None))
    """
    at = [
        range(max(-((i * dil - b) // s), 0), min((n - 1 + b - i * dil) // s + 1, p))
        for i in range(r)
    ]
    taps = [i for i in range(r) if at[i]]
    if not taps:
        return slice(0, 0), slice(0, 0)
    windows = slice(min([at[i].start for i in taps]), max([at[i].stop for i in taps]))
    return slice(taps[0], taps[-1] + 1), windows


@lru_cache(maxsize=1024)
def image_shape(grouped: Ints, ndim: int, like: Ints, channels_last: bool) -> Ints:
    """Shape for the caller of a grouped image (N, G, C/G, D, H, W), unbatched if ``like`` is.

    >>> image_shape((2, 2, 3, 1, 8, 9), ndim=2, like=(2, 8, 9, 6), channels_last=True)
    (2, 8, 9, 6)
    """
    batch = () if len(like) == ndim + 1 else grouped[:1]
    channels, spatial = grouped[1] * grouped[2], grouped[6 - ndim :]
    return (*batch, *spatial, channels) if channels_last else (*batch, channels, *spatial)


def check_weight(name: str, shape: Ints, ndim: int, axes: str) -> None:
    if len(shape) != ndim + 2:
        raise ValueError(
            f"{name} must have {ndim + 2} axes ({axes}, {FILTER_AXES[ndim]}), got shape {shape}"
        )
    if 0 in shape:
        raise ValueError(f"{name} must not have axes of length 0, got shape {shape}")


def check_image(name: str, shape: Ints) -> None:
    if 0 in shape[1:]:
        raise ValueError(f"{name} may be empty along the batch axis only, got shape {shape}")


def as_shown(name: str, channels_last: bool) -> str:
    """How messages call an image of which they show the shape (N, C, *spatial)."""
    return f"{name} (channels first)" if channels_last else name


def kept_extents(extents: Ints, pairs: Sequence[tuple[int, int]]) -> Ints:
    """What cropping, by the pairs' negative numbers, leaves along each axis."""
    axes = zip(extents, pairs, strict=True)
    return tuple([n + min(before, 0) + min(after, 0) for n, (before, after) in axes])


def three_axes(values: Ints, fill: int) -> Ints:
    return (fill,) * (3 - len(values)) + values


def check_size(shape: Ints, what: str = "the result") -> None:
    # The largest dtype has 16 bytes.
    if prod(shape) > sys.maxsize // 16:
        raise ValueError(f"{what} would have shape {shape}, more than memory can address")


@lru_cache(maxsize=1024)
def conv_geometry(
    ndim: int,
    x_shape: Ints,
    weight_shape: Ints,
    stride: Ints,
    padding: PaddingForm,
    dilation: Ints,
    groups: int,
    channels_last: bool = False,
    padding_mode: str = "zeros",
    x_name: str = "x",
    weight_name: str = "weight",
) -> ConvGeometry:
    """Geometry of the forward map of ``x`` (N, C, *spatial) with ``weight`` (K, C/G, *kernel).

    The names are those under which the caller knows the two shapes.
    """
    x_name = as_shown(x_name, channels_last)
    check_weight(weight_name, weight_shape, ndim, "K, C/groups")
    check_image(x_name, x_shape)
    check_size(x_shape, f"an array of {x_name}")
    check_size(weight_shape, f"an array of {weight_name}")
    channels = x_shape[1]
    if channels % groups or weight_shape[0] % groups:
        raise ValueError(
            f"groups must divide the input channels, {channels}, and the output channels,"
            f" {weight_shape[0]}, got {groups}"
        )
    if weight_shape[1] * groups != channels:
        raise ValueError(
            f"{weight_name} must have {channels} / {groups} = {channels // groups} input channels"
            f" to match {x_name} of shape {x_shape} in {groups} groups, got shape {weight_shape}"
        )
    extents, kernel = x_shape[2:], weight_shape[2:]
    reach = tuple([(r - 1) * d + 1 for r, d in zip(kernel, dilation, strict=True)])
    if padding == "same":
        output = tuple([-(-n // s) for n, s in zip(extents, stride, strict=True)])
        total = [
            max((p - 1) * s + r - n, 0)
            for p, s, r, n in zip(output, stride, reach, extents, strict=True)
        ]
        pairs: tuple[tuple[int, int], ...] = tuple([(t // 2, t - t // 2) for t in total])
    else:
        pairs = ((0, 0),) * ndim if isinstance(padding, str) else padding
        if min(kept_extents(extents, pairs)) < 1:
            raise ValueError(f"padding {pairs} leaves nothing of {x_name}, of extents {extents}")
        padded = tuple([n + sum(pair) for n, pair in zip(extents, pairs, strict=True)])
        room = [n - r for n, r in zip(padded, reach, strict=True)]
        if min(room) < 0:
            raise ValueError(
                f"{weight_name} of shape {weight_shape} with dilation {dilation} spans {reach},"
                f" more than the padded {x_name} of {padded}"
            )
        output = tuple([free // s + 1 for free, s in zip(room, stride, strict=True)])
    check_pairs(padding_mode, pairs, extents, x_name)
    check_size((x_shape[0], weight_shape[0], *output))
    geometry = ConvGeometry(
        x_shape[0],
        groups,
        channels,
        weight_shape[0],
        three_axes(extents, 1),
        three_axes(kernel, 1),
        three_axes(output, 1),
        three_axes(stride, 1),
        three_axes(tuple([pair[0] for pair in pairs]), 0),
        three_axes(tuple([pair[1] for pair in pairs]), 0),
        three_axes(dilation, 1),
        channels_last,
        padding_mode if any(map(any, pairs)) else "zeros",
    )
    if geometry.padding_mode != "zeros":
        check_size(geometry.padded.x_shape, f"the padded {x_name}")
    return geometry
