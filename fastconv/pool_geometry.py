"""The shapes of a pooling: output sizes, and every error about them.

A pooling has the geometry of a convolution whose channels are groups of their own.
"""

from functools import lru_cache

from .arguments import (
    Padding,
    PerAxis,
    batched_shape,
    is_channels_last,
    is_plain,
    padding_form,
    per_axis,
)
from .geometry import ConvGeometry, Ints, as_shown, check_image, check_size, three_axes

Pairs = tuple[tuple[int, int], ...]


def pool_geometry_of(
    ndim: int,
    x_shape: Ints,
    kernel_size: PerAxis,
    stride: PerAxis | None,
    padding: Padding,
    dilation: PerAxis,
    ceil_mode: bool,
    data_format: str,
    x_name: str = "x",
) -> ConvGeometry:
    """The geometry of a pooling, given what the public functions are; ``x_shape`` may be unbatched.

    >>> g = pool_geometry_of(2, (9, 9, 3), 3, 2, 1, 1, True, "channels_last")
    >>> g.y_shape
    (1, 3, 1, 1, 5, 5)
    """
    if stride is None:
        stride = kernel_size
    arguments = kernel_size, stride, padding, dilation, bool(ceil_mode), data_format, x_name
    # As for convolutions, looking at each in earnest takes a third of a small call.
    if type(data_format) is str and all(map(is_plain, arguments[:4])):
        return _kept_geometry(ndim, x_shape, *arguments)  # type: ignore[arg-type]
    return _geometry(ndim, x_shape, *arguments)


def _geometry(
    ndim: int,
    x_shape: Ints,
    kernel_size: PerAxis,
    stride: PerAxis,
    padding: Padding,
    dilation: PerAxis,
    ceil_mode: bool,
    data_format: str,
    x_name: str,
) -> ConvGeometry:
    channels_last = is_channels_last(data_format)
    x_shape = batched_shape(x_name, x_shape, ndim, channels_last)
    x_name = as_shown(x_name, channels_last)
    kernel = per_axis("kernel_size", kernel_size, ndim, 1)
    strides = per_axis("stride", stride, ndim, 1)
    pairs = pool_pairs(padding, kernel)
    dilations = per_axis("dilation", dilation, ndim, 1)
    check_image(x_name, x_shape)
    extents = x_shape[2:]
    output = tuple(
        [
            _outputs(*numbers, ceil_mode)
            for numbers in zip(extents, kernel, strides, pairs, dilations, strict=True)
        ]
    )
    if min(output) < 1:
        reach = tuple([(r - 1) * d + 1 for r, d in zip(kernel, dilations, strict=True)])
        padded = tuple([n + sum(pair) for n, pair in zip(extents, pairs, strict=True)])
        raise ValueError(
            f"kernel_size {kernel} with dilation {dilations} spans {reach}, more than the padded"
            f" {x_name} of {padded}: there would be {output} windows"
        )
    check_size((*x_shape[:2], *output))
    channels = x_shape[1]
    return ConvGeometry(
        batch=x_shape[0],
        groups=channels,
        in_channels=channels,
        out_channels=channels,
        input=three_axes(extents, 1),
        kernel=three_axes(kernel, 1),
        output=three_axes(output, 1),
        stride=three_axes(strides, 1),
        before=three_axes(tuple([pair[0] for pair in pairs]), 0),
        after=three_axes(tuple([pair[1] for pair in pairs]), 0),
        dilation=three_axes(dilations, 1),
        channels_last=channels_last,
    )


_kept_geometry = lru_cache(maxsize=1024)(_geometry)


def pool_pairs(padding: Padding, kernel: Ints) -> Pairs:
    """``padding`` as a pair (before, after) for each axis, of at most half a window."""
    if isinstance(padding, str):
        raise TypeError(
            "padding must be an integer, or one integer or pair (before, after) for each axis, got"
            f" {padding!r}"
        )
    pairs = padding_form(padding, len(kernel))
    assert not isinstance(pairs, str)
    if min(map(min, pairs)) < 0:
        raise ValueError(f"padding must be at least 0 along every axis, got {padding!r}")
    if any(max(pair) > r // 2 for pair, r in zip(pairs, kernel, strict=True)):
        raise ValueError(
            f"padding must be at most half of kernel_size, {kernel}, along every axis, got"
            f" {padding!r}"
        )
    return pairs


def _outputs(
    extent: int, taps: int, stride: int, pair: tuple[int, int], dilation: int, ceil_mode: bool
) -> int:
    """Windows along one axis, less than 1 if there is no room for any."""
    room = extent + sum(pair) - (taps - 1) * dilation - 1
    if not ceil_mode:
        return room // stride + 1
    outputs = -(-room // stride) + 1
    # The last one must not start in the padding that follows.
    return outputs - 1 if (outputs - 1) * stride >= extent + pair[0] else outputs
