"""Convolution as functions: check the arguments once, build one ``ConvGeometry``, run a map.

Each is written once, with the number of spatial axes as its first argument; ``ranks`` makes the
1-D, 2-D and 3-D ones of it. Transposed convolutions, in ``transposed.py``, are the same three maps.
"""

from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import repeats
from .arguments import (
    Padding,
    PerAxis,
    batched_shape,
    is_channels_last,
    is_plain,
    padding_form,
    per_axis,
    positive,
    shape_tuple,
)
from .checks import Needs, check_activation, check_grad_output, check_needs, check_result
from .dispatch import backend_of, dtype_of
from .dtypes import DTYPES
from .geometry import ConvGeometry, Ints, conv_geometry, image_shape
from .maps import (
    Gradients,
    choose,
    run_forward,
    run_grad_bias,
    run_grad_input,
    run_grad_weight,
)
from .padding import check_mode
from .ranks import ranks

Array = NDArray[Any]


def conv_geometry_of(
    ndim: int,
    x_shape: Ints,
    weight_shape: Ints,
    stride: PerAxis,
    padding: Padding,
    dilation: PerAxis,
    groups: SupportsIndex,
    data_format: str,
    padding_mode: str = "zeros",
    x_name: str = "x",
    weight_name: str = "weight",
) -> ConvGeometry:
    arguments = x_shape, weight_shape, stride, padding, dilation, groups, data_format, padding_mode
    names = x_name, weight_name
    # Looking at each in earnest takes a third of a small call.
    plain = type(groups) is int and type(data_format) is type(padding_mode) is str
    if plain and is_plain(stride) and is_plain(padding) and is_plain(dilation):
        return _kept_geometry(ndim, *arguments, *names)  # type: ignore[arg-type]
    return _geometry(ndim, *arguments, *names)


def _geometry(
    ndim: int,
    x_shape: Ints,
    weight_shape: Ints,
    stride: PerAxis,
    padding: Padding,
    dilation: PerAxis,
    groups: SupportsIndex,
    data_format: str,
    padding_mode: str,
    x_name: str,
    weight_name: str,
) -> ConvGeometry:
    channels_last = is_channels_last(data_format)
    check_mode(padding_mode)
    return conv_geometry(
        ndim,
        batched_shape(x_name, x_shape, ndim, channels_last),
        tuple(weight_shape),
        per_axis("stride", stride, ndim, 1),
        padding_form(padding, ndim),
        per_axis("dilation", dilation, ndim, 1),
        positive("groups", groups),
        channels_last,
        padding_mode,
        x_name,
        weight_name,
    )


_kept_geometry = lru_cache(maxsize=1024)(_geometry)


def _remember(
    key: Hashable,
    backend: Any,
    map_name: str,
    a: Array,
    b: Array,
    bias: Array | None,
    g: ConvGeometry,
    out: Array,
    algorithm: str,
    precision: str,
    relu: bool = False,
) -> None:
    """Keep what a call with this key came to, for others like it."""
    if not repeats.is_new(key):
        return
    repeat = None
    if a.dtype in DTYPES and g.batch and g.padded is g:
        algorithm = backend.choose(map_name, g, a, algorithm, precision)
        repeat = backend.repeat_of(map_name, a, b, bias, g, out, algorithm, relu)
    repeats.keep(key, repeat)


def conv(
    ndim: int,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: SupportsIndex = 1,
    *,
    padding_mode: str = "zeros",
    activation: str | None = None,
    data_format: str = "channels_first",
    algorithm: str = "auto",
    precision: str = "highest",
    out_dtype: DTypeLike | None = None,
    accumulate_dtype: DTypeLike | None = None,
    out: Array | None = None,
) -> Array:
    """Correlate images with filters: the forward pass of a convolution layer.

    ``y[n,k,p] = bias[k] + sum_c sum_r x[n, c, p*stride + r*dilation - before] weight[k,c,r]``,
    where p and r stand for a pixel and a tap along every spatial axis, ``before`` for the padding
    ahead of it, and c runs over the channels of k's group; outside ``x`` is what ``padding_mode``
    says.

    Parameters
    ----------
    x : (N, C, {spatial}) or (C, {spatial}) ndarray of numbers, see Notes
        Images; without the batch axis, so is the result.
    weight : (K, C/groups, {kernel}) ndarray
        Filters, of the same dtype, or int8 with ``x`` of uint8.
    bias : (K,) ndarray, optional
        Added to every pixel of its output channel; of the result's dtype.
    {geometry}
    {padding_mode}
    {activation}
    {data_format}
    {algorithm}
    {precision}
    {out_dtype}
    {accumulate_dtype}
    {out}

    Returns
    -------
    (N, K, {result}) or (K, {result}) ndarray
        Of ``x``'s dtype, or for integers ``out_dtype``; an extent is
        ``(extent + before + after - (taps - 1)*dilation - 1) // stride + 1``.

    Raises
    ------
    {raises}

    Notes
    -----
    {dtypes}

    References
    ----------
    V. Dumoulin and F. Visin, "A guide to convolution arithmetic for deep learning",
    arXiv:1603.07285.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.ones((1, 3) + (8,) * {n}, np.float32)
    >>> weight = np.ones((4, 3) + (3,) * {n}, np.float32)
    >>> y = fastconv.conv{n}d(x, weight, padding=1)
    >>> y.shape == (1, 4) + (8,) * {n}
    True
    >>> bool(y[0, 0].max() == 3 * 3**{n})
    True
    """
    key = None
    if out is None and out_dtype is None and accumulate_dtype is None:
        numbers = stride, padding, dilation, groups
        words = padding_mode, activation, data_format, algorithm, precision
        key = repeats.key_of("forward", ndim, x, weight, bias, numbers, words)
        if repeat := repeats.known(key):
            return repeat(x, weight, bias)
    backend = backend_of({"x": x, "weight": weight}, bias, out_dtype, accumulate_dtype)
    relu = check_activation(activation, dtype_of("x", x))
    g = conv_geometry_of(
        ndim,
        x.shape,
        weight.shape,
        stride,
        padding,
        dilation,
        groups,
        data_format,
        padding_mode,
    )
    shape = image_shape(g.y_shape, ndim, x.shape, g.channels_last)
    y = run_forward(backend, g, x, weight, bias, shape, algorithm, precision, out, relu)
    _remember(key, backend, "forward", x, weight, bias, g, y, algorithm, precision, relu)
    return y


def conv_grad_input(
    ndim: int,
    grad_output: Array,
    weight: Array,
    input_shape: Sequence[SupportsIndex],
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: SupportsIndex = 1,
    *,
    padding_mode: str = "zeros",
    data_format: str = "channels_first",
    algorithm: str = "auto",
    precision: str = "highest",
    accumulate_dtype: DTypeLike | None = None,
    out: Array | None = None,
) -> Array:
    """Gradient of a loss with respect to the images, given that with respect to the result.

    ``dx[n,c,h] = sum_k sum_r dy[n, k, (h + before - r*dilation) / stride] weight[k,c,r]`` over
    whole quotients: a correlation of ``dy`` with the flipped filters, their channel axes swapped.
    Padding that shows pixels adds its own gradient to theirs.

    Parameters
    ----------
    grad_output : (N, K, {result}) or (K, {result}) ndarray of floating-point or complex numbers
        The gradient dy with respect to the result of ``conv{n}d``.
    weight : (K, C/groups, {kernel}) ndarray
        Filters, of the same dtype.
    input_shape : tuple of ints
        Shape of ``x``: (N, C, {spatial}) or (C, {spatial}).
    {geometry}
    {padding_mode}
    {data_format}
    {algorithm}
    {precision}
    {accumulate_dtype}
    {out}

    Returns
    -------
    ndarray of ``input_shape``
        Of ``grad_output``'s dtype.

    Raises
    ------
    {raises}

    Notes
    -----
    {gradient_dtypes}

    Examples
    --------
    The flipped filter, at work: with stride 1, ``conv{n}d`` itself computes the gradient.

    >>> import numpy as np, fastconv
    >>> rng = np.random.default_rng(0)
    >>> dy = rng.standard_normal((2, 4) + (6,) * {n})
    >>> weight = rng.standard_normal((4, 3) + (3,) * {n})
    >>> dx = fastconv.conv{n}d_grad_input(dy, weight, (2, 3) + (8,) * {n})
    >>> flipped = np.flip(weight, axis=range(2, 2 + {n})).swapaxes(0, 1)
    >>> bool(np.allclose(dx, fastconv.conv{n}d(dy, flipped, padding=2)))
    True
    """
    key = None
    if out is None and accumulate_dtype is None:
        numbers = input_shape, stride, padding, dilation, groups
        words = padding_mode, data_format, algorithm, precision
        key = repeats.key_of("grad_input", ndim, grad_output, weight, None, numbers, words)
        if repeat := repeats.known(key):
            return repeat(grad_output, weight, None)
    arrays = {"grad_output": grad_output, "weight": weight}
    backend = backend_of(arrays, None, None, accumulate_dtype)
    shape = shape_tuple("input_shape", input_shape)
    g = conv_geometry_of(
        ndim,
        shape,
        weight.shape,
        stride,
        padding,
        dilation,
        groups,
        data_format,
        padding_mode,
        x_name="input_shape",
    )
    check_grad_output(grad_output, image_shape(g.y_shape, ndim, shape, g.channels_last))
    dx = run_grad_input(backend, g, grad_output, weight, None, shape, algorithm, precision, out)
    _remember(key, backend, "grad_input", grad_output, weight, None, g, dx, algorithm, precision)
    return dx


def conv_grad_weight(
    ndim: int,
    grad_output: Array,
    x: Array,
    weight_shape: Sequence[SupportsIndex],
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: SupportsIndex = 1,
    *,
    padding_mode: str = "zeros",
    per_sample: bool = False,
    data_format: str = "channels_first",
    algorithm: str = "auto",
    precision: str = "highest",
    accumulate_dtype: DTypeLike | None = None,
    out: Array | None = None,
) -> Array:
    """Gradient of a loss with respect to the filters, given that with respect to the result.

    ``dw[k,c,r] = sum_n sum_p dy[n,k,p] x[n, c, p*stride + r*dilation - before]``: a correlation of
    ``x`` with ``dy``.

    Parameters
    ----------
    grad_output : (N, K, {result}) or (K, {result}) ndarray of floating-point or complex numbers
        The gradient dy with respect to the result of ``conv{n}d``.
    x : (N, C, {spatial}) or (C, {spatial}) ndarray
        Images, of the same dtype.
    weight_shape : tuple of ints
        Shape of the filters: (K, C/groups, {kernel}).
    {geometry}
    {padding_mode}
    {per_sample}
    {data_format}
    {algorithm}
    {precision}
    {accumulate_dtype}
    {out}

    Returns
    -------
    ndarray of ``weight_shape``, or (N, *weight_shape) with ``per_sample``
        Of ``x``'s dtype; summed over the batch, or not.

    Raises
    ------
    {raises}

    Notes
    -----
    {gradient_dtypes}

    Examples
    --------
    The maps are adjoint: ``<dy, conv(x, w)> = <dw, w>``.

    >>> import numpy as np, fastconv
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((2, 3) + (8,) * {n})
    >>> weight = rng.standard_normal((4, 3) + (3,) * {n})
    >>> dy = rng.standard_normal((2, 4) + (6,) * {n})
    >>> dw = fastconv.conv{n}d_grad_weight(dy, x, weight.shape)
    >>> bool(np.isclose(np.vdot(dy, fastconv.conv{n}d(x, weight)), np.vdot(dw, weight)))
    True
    """
    key = None
    if out is None and accumulate_dtype is None and not per_sample:
        numbers = weight_shape, stride, padding, dilation, groups
        words = padding_mode, data_format, algorithm, precision
        key = repeats.key_of("grad_weight", ndim, grad_output, x, None, numbers, words)
        if repeat := repeats.known(key):
            return repeat(grad_output, x, None)
    arrays = {"grad_output": grad_output, "x": x}
    backend = backend_of(arrays, None, None, accumulate_dtype)
    shape = shape_tuple("weight_shape", weight_shape)
    g = conv_geometry_of(
        ndim,
        x.shape,
        shape,
        stride,
        padding,
        dilation,
        groups,
        data_format,
        padding_mode,
        weight_name="weight_shape",
    )
    check_grad_output(grad_output, image_shape(g.y_shape, ndim, x.shape, g.channels_last))
    each = per_sample and len(x.shape) == ndim + 2
    dw = run_grad_weight(backend, g, grad_output, x, shape, algorithm, precision, out, each)
    _remember(key, backend, "grad_weight", grad_output, x, None, g, dw, algorithm, precision)
    return dw


def conv_grad_bias(
    ndim: int,
    grad_output: Array,
    *,
    data_format: str = "channels_first",
    accumulate_dtype: DTypeLike | None = None,
) -> Array:
    """Gradient of a loss with respect to the bias, given that with respect to the result.

    ``db[k] = sum_n sum_p dy[n,k,p]``

    Parameters
    ----------
    grad_output : (N, K, {result}) or (K, {result}) ndarray of floating-point or complex numbers
        The gradient dy with respect to the result.
    {data_format}
    {accumulate_dtype}

    Returns
    -------
    (K,) ndarray
        Of ``grad_output``'s dtype.

    Raises
    ------
    TypeError
        If ``grad_output`` is not an array, or of a dtype that is not served.
    ValueError
        If it has another number of axes, or ``data_format`` or ``accumulate_dtype`` cannot serve.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> db = fastconv.conv{n}d_grad_bias(np.ones((2, 4) + (5,) * {n}))
    >>> bool((db == 2 * 5**{n}).all())
    True
    """
    backend = backend_of({"grad_output": grad_output}, None, None, accumulate_dtype)
    return run_grad_bias(backend, ndim, grad_output, is_channels_last(data_format))


def conv_backward(
    ndim: int,
    grad_output: Array,
    x: Array,
    weight: Array,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: SupportsIndex = 1,
    *,
    activation: str | None = None,
    y: Array | None = None,
    needs: Needs = (True, True, True),
    padding_mode: str = "zeros",
    data_format: str = "channels_first",
    algorithm: str = "auto",
    precision: str = "highest",
    accumulate_dtype: DTypeLike | None = None,
) -> Gradients:
    """Gradients with respect to images, filters and bias in one call.

    Parameters
    ----------
    grad_output : (N, K, {result}) or (K, {result}) ndarray of floating-point or complex numbers
        The gradient dy with respect to the result of ``conv{n}d``.
    x : (N, C, {spatial}) or (C, {spatial}) ndarray
        Images, of the same dtype.
    weight : (K, C/groups, {kernel}) ndarray
        Filters, of the same dtype.
    {geometry}
    {back_through}
    {needs}
    {padding_mode}
    {data_format}
    {algorithm}
    {precision}
    {accumulate_dtype}

    Returns
    -------
    dx, dw, db : ndarray or None
        Of the shapes of ``x``, ``weight`` and the bias, (K,); None where not wanted.

    Raises
    ------
    {raises}

    Notes
    -----
    {gradient_dtypes}

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x, weight = np.ones((1, 2) + (5,) * {n}), np.ones((3, 2) + (3,) * {n})
    >>> dy = np.ones((1, 3) + (3,) * {n})
    >>> dx, dw, db = fastconv.conv{n}d_backward(dy, x, weight, needs=(False, True, True))
    >>> dx is None, dw.shape == weight.shape, db.shape
    (True, True, (3,))
    """
    arrays = {"grad_output": grad_output, "x": x, "weight": weight}
    given = arrays if y is None else {**arrays, "y": y}
    backend = backend_of(given, None, None, accumulate_dtype)
    g = conv_geometry_of(
        ndim,
        x.shape,
        weight.shape,
        stride,
        padding,
        dilation,
        groups,
        data_format,
        padding_mode,
    )
    check_grad_output(grad_output, image_shape(g.y_shape, ndim, x.shape, g.channels_last))
    relu = check_result(activation, grad_output, y)
    of_x, of_weight, of_bias = check_needs(needs)
    # Says what is wrong before anything is computed.
    choose(backend, "forward", g.padded, x, algorithm, precision)
    dy, dx, dw = grad_output, None, None
    if relu and (of_x or of_weight or of_bias):
        dy = backend.mask(dy, y)
    if all(type(array) is np.ndarray for array in given.values()):
        # As calls of their own, which know earlier ones like them.
        numbers = stride, padding, dilation, groups
        how: dict[str, Any] = {
            "padding_mode": padding_mode,
            "data_format": data_format,
            "algorithm": algorithm,
            "precision": precision,
            "accumulate_dtype": accumulate_dtype,
        }
        if of_x:
            dx = conv_grad_input(ndim, dy, weight, x.shape, *numbers, **how)
        if of_weight:
            dw = conv_grad_weight(ndim, dy, x, weight.shape, *numbers, **how)
    else:  # one array in another place decides where all gradients are
        words = algorithm, precision, None
        if of_x:
            dx = run_grad_input(backend, g, dy, weight, None, x.shape, *words)
        if of_weight:
            dw = run_grad_weight(backend, g, dy, x, weight.shape, *words)
    return dx, dw, run_grad_bias(backend, ndim, dy, g.channels_last) if of_bias else None


conv1d, conv2d, conv3d = ranks(conv)
conv1d_grad_input, conv2d_grad_input, conv3d_grad_input = ranks(conv_grad_input)
conv1d_grad_weight, conv2d_grad_weight, conv3d_grad_weight = ranks(conv_grad_weight)
conv1d_grad_bias, conv2d_grad_bias, conv3d_grad_bias = ranks(conv_grad_bias)
conv1d_backward, conv2d_backward, conv3d_backward = ranks(conv_backward)
