"""The shapes of a transposed convolution: those of the forward map whose gradient it is."""

from dataclasses import replace
from functools import lru_cache

from .geometry import (
    ConvGeometry,
    Ints,
    PaddingForm,
    as_shown,
    check_image,
    check_size,
    check_weight,
    conv_geometry,
    kept_extents,
    three_axes,
)


@lru_cache(maxsize=1024)
def transposed_geometry(
    ndim: int,
    x_shape: Ints,
    weight_shape: Ints,
    stride: Ints,
    padding: PaddingForm,
    output_padding: Ints,
    groups: int,
    dilation: Ints,
    channels_last: bool = False,
    output_shape: Ints | None = None,
    x_name: str = "x",
    weight_name: str = "weight",
) -> ConvGeometry:
    """Geometry of the forward map whose ``grad_input`` is a transposed convolution.

    That map goes from the transposed convolution's result back to its input ``x`` (N, C, *spatial),
    with the same ``weight`` (C, K/G, *kernel): C and K keep the meaning they have for the caller.
    """
    x_name = as_shown(x_name, channels_last)
    check_weight(weight_name, weight_shape, ndim, "C, K/groups")
    check_image(x_name, x_shape)
    channels = x_shape[1]
    if channels % groups:
        raise ValueError(f"groups must divide the input channels, {channels}, got {groups}")
    if weight_shape[0] != channels:
        raise ValueError(
            f"{weight_name} must have {channels} input channels on its first axis to match"
            f" {x_name} of shape {x_shape}, got shape {weight_shape}"
        )
    result = _transposed_extents(
        x_shape[2:], weight_shape[2:], stride, padding, output_padding, dilation, output_shape
    )
    full = (x_shape[0], weight_shape[1] * groups, *result)
    check_size(full)
    geometry = conv_geometry(
        ndim, full, weight_shape, stride, padding, dilation, groups, channels_last
    )
    # output_padding of a stride or more leaves room for windows that have no counterpart in x.
    return replace(geometry, output=three_axes(x_shape[2:], 1))


def check_output_padding(
    output_padding: Ints, stride: Ints, padding: PaddingForm, dilation: Ints
) -> None:
    """Raise ValueError if it can go with no image."""
    for extra, s, d in zip(output_padding, stride, dilation, strict=True):
        if extra >= max(s, d):
            raise ValueError(
                "output_padding must be smaller than stride or dilation along every axis, got"
                f" {output_padding} with stride {stride} and dilation {dilation}"
            )
    if padding == "same" and any(output_padding):
        raise ValueError(f'output_padding must be 0 with padding="same", got {output_padding}')


def _transposed_extents(
    extents: Ints,
    kernel: Ints,
    stride: Ints,
    padding: PaddingForm,
    output_padding: Ints,
    dilation: Ints,
    output_shape: Ints | None,
) -> Ints:
    """Spatial extents of the result of a transposed convolution."""
    check_output_padding(output_padding, stride, padding, dilation)
    pairs = ((0, 0),) * len(extents) if isinstance(padding, str) else padding
    if padding == "same":
        smallest = tuple([(n - 1) * s + 1 for n, s in zip(extents, stride, strict=True)])
        result = tuple([n * s for n, s in zip(extents, stride, strict=True)])
    else:
        reach = [(r - 1) * d + 1 for r, d in zip(kernel, dilation, strict=True)]
        axes = zip(extents, stride, reach, pairs, strict=True)
        smallest = tuple([(n - 1) * s + r - sum(pair) for n, s, r, pair in axes])
        result = tuple([n + extra for n, extra in zip(smallest, output_padding, strict=True)])
    if output_shape is not None:
        if any(output_padding):
            raise ValueError(
                f"output_padding must be 0 where output_shape is given, got {output_padding}"
            )
        largest = tuple([n + s - 1 for n, s in zip(smallest, stride, strict=True)])
        bounds = zip(smallest, output_shape, largest, strict=True)
        if not all(least <= n <= most for least, n, most in bounds):
            raise ValueError(
                f"output_shape must lie between {smallest} and {largest}, stride - 1 more, got"
                f" {output_shape}"
            )
        result = output_shape
    kept = kept_extents(result, pairs)
    if min(kept) < 1:
        raise ValueError(
            f"padding {padding} leaves nothing of the result: its extents would be {kept}"
        )
    return result
