"""Transposed convolution as functions: the three maps with input and result exchanged.

A transposed convolution *is* the gradient of a convolution with respect to its input; its own
gradients are that convolution and its gradient with respect to the filters.
"""

from collections.abc import Sequence
from typing import Any, SupportsIndex

from numpy.typing import DTypeLike, NDArray

from .arguments import (
    Padding,
    PerAxis,
    batched_shape,
    is_channels_last,
    padding_form,
    per_axis,
    positive,
    shape_tuple,
)
from .checks import Needs, check_activation, check_grad_output, check_needs, check_result
from .dispatch import backend_of, dtype_of
from .geometry import ConvGeometry, Ints, image_shape
from .maps import (
    Gradients,
    choose,
    run_forward,
    run_grad_bias,
    run_grad_input,
    run_grad_weight,
)
from .ranks import ranks
from .transposed_geometry import transposed_geometry

Array = NDArray[Any]


def transposed_geometry_of(
    ndim: int,
    x_shape: Ints,
    weight_shape: Ints,
    stride: PerAxis,
    padding: Padding,
    output_padding: PerAxis,
    groups: SupportsIndex,
    dilation: PerAxis,
    data_format: str,
    output_shape: PerAxis | None,
    x_name: str = "x",
    weight_name: str = "weight",
) -> ConvGeometry:
    channels_last = is_channels_last(data_format)
    return transposed_geometry(
        ndim,
        batched_shape(x_name, x_shape, ndim, channels_last),
        tuple(weight_shape),
        per_axis("stride", stride, ndim, 1),
        padding_form(padding, ndim),
        per_axis("output_padding", output_padding, ndim, 0),
        positive("groups", groups),
        per_axis("dilation", dilation, ndim, 1),
        channels_last,
        None if output_shape is None else per_axis("output_shape", output_shape, ndim, 1),
        x_name,
        weight_name,
    )


def conv_transpose(
    ndim: int,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    groups: SupportsIndex = 1,
    dilation: PerAxis = 1,
    *,
    output_shape: PerAxis | None = None,
    activation: str | None = None,
    data_format: str = "channels_first",
    algorithm: str = "auto",
    precision: str = "highest",
    out_dtype: DTypeLike | None = None,
    accumulate_dtype: DTypeLike | None = None,
    out: Array | None = None,
) -> Array:
    """Transposed convolution: the gradient of a convolution, used as a layer of its own.

    ``y[n,k,h] = bias[k] + sum_c sum_r x[n, c, (h + before - r*dilation) / stride] weight[c,k,r]``
    over whole quotients, c running over the channels of k's group.

    Parameters
    ----------
    x : (N, C, {spatial}) or (C, {spatial}) ndarray of numbers, see Notes
        Images; without the batch axis, so is the result.
    weight : (C, K/groups, {kernel}) ndarray
        Filters, of the same dtype, or int8 with ``x`` of uint8.
    bias : (K,) ndarray, optional
        Added to every pixel of its output channel; of the result's dtype.
    {transposed}
    {output_shape}
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
        Of ``x``'s dtype, or for integers ``out_dtype``; an extent is, unless ``output_shape`` says
        it,
        ``(extent - 1)*stride + (taps - 1)*dilation + 1 - before - after + output_padding``.

    Raises
    ------
    {raises}

    Notes
    -----
    {dtypes}

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.ones((1, 3) + (8,) * {n}, np.float32)
    >>> weight = np.ones((3, 4) + (2,) * {n}, np.float32)
    >>> fastconv.conv_transpose{n}d(x, weight, stride=2).shape == (1, 4) + (16,) * {n}
    True
    """
    backend = backend_of({"x": x, "weight": weight}, bias, out_dtype, accumulate_dtype, True)
    relu = check_activation(activation, dtype_of("x", x))
    g = transposed_geometry_of(
        ndim,
        x.shape,
        weight.shape,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
        data_format,
        output_shape,
    )
    shape = image_shape(g.x_shape, ndim, x.shape, g.channels_last)
    return run_grad_input(backend, g, x, weight, bias, shape, algorithm, precision, out, relu)


def conv_transpose_grad_input(
    ndim: int,
    grad_output: Array,
    weight: Array,
    input_shape: Sequence[SupportsIndex],
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    groups: SupportsIndex = 1,
    dilation: PerAxis = 1,
    *,
    output_shape: PerAxis | None = None,
    data_format: str = "channels_first",
    algorithm: str = "auto",
    precision: str = "highest",
    accumulate_dtype: DTypeLike | None = None,
    out: Array | None = None,
) -> Array:
    """Gradient of a loss with respect to the input of a transposed convolution.

    It is ``conv{n}d`` of ``grad_output`` with the same filters.

    Parameters
    ----------
    grad_output : (N, K, {result}) or (K, {result}) ndarray of floating-point or complex numbers
        The gradient with respect to the result of ``conv_transpose{n}d``.
    weight : (C, K/groups, {kernel}) ndarray
        Filters, of the same dtype.
    input_shape : tuple of ints
        Shape of ``x``: (N, C, {spatial}) or (C, {spatial}).
    {transposed}
    {output_shape}
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
    >>> import numpy as np, fastconv
    >>> dy, weight = np.ones((1, 4) + (16,) * {n}), np.ones((3, 4) + (2,) * {n})
    >>> shape = (1, 3) + (8,) * {n}
    >>> dx = fastconv.conv_transpose{n}d_grad_input(dy, weight, shape, stride=2)
    >>> dx.shape == shape
    True
    """
    arrays = {"grad_output": grad_output, "weight": weight}
    backend = backend_of(arrays, None, None, accumulate_dtype, True)
    shape = shape_tuple("input_shape", input_shape)
    g = transposed_geometry_of(
        ndim,
        shape,
        weight.shape,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
        data_format,
        output_shape,
        x_name="input_shape",
    )
    check_grad_output(grad_output, image_shape(g.x_shape, ndim, shape, g.channels_last))
    return run_forward(backend, g, grad_output, weight, None, shape, algorithm, precision, out)


def conv_transpose_grad_weight(
    ndim: int,
    grad_output: Array,
    x: Array,
    weight_shape: Sequence[SupportsIndex],
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    groups: SupportsIndex = 1,
    dilation: PerAxis = 1,
    *,
    output_shape: PerAxis | None = None,
    per_sample: bool = False,
    data_format: str = "channels_first",
    algorithm: str = "auto",
    precision: str = "highest",
    accumulate_dtype: DTypeLike | None = None,
    out: Array | None = None,
) -> Array:
    """Gradient of a loss with respect to the filters of a transposed convolution.

    Parameters
    ----------
    grad_output : (N, K, {result}) or (K, {result}) ndarray of floating-point or complex numbers
        The gradient with respect to the result of ``conv_transpose{n}d``.
    x : (N, C, {spatial}) or (C, {spatial}) ndarray
        Images, of the same dtype.
    weight_shape : tuple of ints
        Shape of the filters: (C, K/groups, {kernel}).
    {transposed}
    {output_shape}
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
    >>> import numpy as np, fastconv
    >>> x, dy = np.ones((1, 3) + (8,) * {n}), np.ones((1, 4) + (16,) * {n})
    >>> shape = (3, 4) + (2,) * {n}
    >>> dw = fastconv.conv_transpose{n}d_grad_weight(dy, x, shape, stride=2)
    >>> dw.shape == shape
    True
    """
    arrays = {"grad_output": grad_output, "x": x}
    backend = backend_of(arrays, None, None, accumulate_dtype, True)
    shape = shape_tuple("weight_shape", weight_shape)
    g = transposed_geometry_of(
        ndim,
        x.shape,
        shape,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
        data_format,
        output_shape,
        weight_name="weight_shape",
    )
    check_grad_output(grad_output, image_shape(g.x_shape, ndim, x.shape, g.channels_last))
    each = per_sample and len(x.shape) == ndim + 2
    return run_grad_weight(backend, g, x, grad_output, shape, algorithm, precision, out, each)


def conv_transpose_backward(
    ndim: int,
    grad_output: Array,
    x: Array,
    weight: Array,
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    groups: SupportsIndex = 1,
    dilation: PerAxis = 1,
    *,
    activation: str | None = None,
    y: Array | None = None,
    needs: Needs = (True, True, True),
    output_shape: PerAxis | None = None,
    data_format: str = "channels_first",
    algorithm: str = "auto",
    precision: str = "highest",
    accumulate_dtype: DTypeLike | None = None,
) -> Gradients:
    """Gradients with respect to input, filters and bias of a transposed convolution in one call.

    Parameters
    ----------
    grad_output : (N, K, {result}) or (K, {result}) ndarray of floating-point or complex numbers
        The gradient with respect to the result of ``conv_transpose{n}d``.
    x : (N, C, {spatial}) or (C, {spatial}) ndarray
        Images, of the same dtype.
    weight : (C, K/groups, {kernel}) ndarray
        Filters, of the same dtype.
    {transposed}
    {back_through}
    {needs}
    {output_shape}
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
    >>> x, weight = np.ones((1, 3) + (4,) * {n}), np.ones((3, 2) + (2,) * {n})
    >>> dy = np.ones((1, 2) + (8,) * {n})
    >>> dx, dw, db = fastconv.conv_transpose{n}d_backward(dy, x, weight, stride=2)
    >>> dx.shape == x.shape, dw.shape == weight.shape, db.shape
    (True, True, (2,))
    """
    arrays = {"grad_output": grad_output, "x": x, "weight": weight}
    given = arrays if y is None else {**arrays, "y": y}
    backend = backend_of(given, None, None, accumulate_dtype, True)
    g = transposed_geometry_of(
        ndim,
        x.shape,
        weight.shape,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
        data_format,
        output_shape,
    )
    check_grad_output(grad_output, image_shape(g.x_shape, ndim, x.shape, g.channels_last))
    relu = check_result(activation, grad_output, y)
    of_x, of_weight, of_bias = check_needs(needs)
    # Says what is wrong before anything is computed.
    choose(backend, "forward", g, x, algorithm, precision)
    dy, how = grad_output, (algorithm, precision, None)
    if relu and (of_x or of_weight or of_bias):
        dy = backend.mask(dy, y)
    return (
        run_forward(backend, g, dy, weight, None, x.shape, *how) if of_x else None,
        run_grad_weight(backend, g, x, dy, weight.shape, *how) if of_weight else None,
        run_grad_bias(backend, ndim, dy, g.channels_last) if of_bias else None,
    )


conv_transpose1d, conv_transpose2d, conv_transpose3d = ranks(conv_transpose)
conv_transpose1d_grad_input, conv_transpose2d_grad_input, conv_transpose3d_grad_input = ranks(
    conv_transpose_grad_input
)
conv_transpose1d_grad_weight, conv_transpose2d_grad_weight, conv_transpose3d_grad_weight = ranks(
    conv_transpose_grad_weight
)
conv_transpose1d_backward, conv_transpose2d_backward, conv_transpose3d_backward = ranks(
    conv_transpose_backward
)
