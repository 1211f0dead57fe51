"""Gradients of gradients: the three maps once more.

The gradients that a backward pass computes are linear in dy, x and w each. With ggx, ggw and ggb
the gradients of a loss with respect to its results dx, dw and db,

    gradient of dy = conv(ggx, w) + conv(x, ggw) + ggb
    gradient of x  = grad_input(dy, ggw)
    gradient of w  = grad_weight(dy, ggx)

The sum of two convolutions is one, with ggx and x as channels of one image, and w and ggw as
channels of one set of filters. For a transposed convolution, conv and grad_input change places.
"""

from dataclasses import replace
from typing import Any, SupportsIndex

from numpy.typing import DTypeLike, NDArray

from .dispatch import Backend, backend_of
from .functional import (
    Gradients,
    Needs,
    check_grad_output,
    check_needs,
    conv_geometry_of,
    run_forward,
    run_grad_input,
    run_grad_weight,
)
from .geometry import ConvGeometry, Padding, PerAxis, image_shape
from .ranks import ranks
from .transposed import transposed_geometry_of

Array = NDArray[Any]


def _backend_of(
    second: Gradients,
    grad_output: Array,
    x: Array,
    weight: Array,
    accumulate_dtype: DTypeLike | None,
    transposed: bool,
) -> Backend:
    names = ("grad_grad_input", "grad_grad_weight", "grad_grad_bias")
    given = {name: a for name, a in zip(names, second, strict=True) if a is not None}
    arrays = {"grad_output": grad_output, "x": x, "weight": weight, **given}
    return backend_of(arrays, None, None, accumulate_dtype, transposed)


def _check_shapes(second: Gradients, x: Array, weight: Array, channels: int) -> None:
    expected = (
        ("grad_grad_input", "x", x.shape),
        ("grad_grad_weight", "weight", weight.shape),
        ("grad_grad_bias", "the bias", (channels,)),
    )
    for array, (name, like, shape) in zip(second, expected, strict=True):
        if array is not None and tuple(array.shape) != tuple(shape):
            raise ValueError(
                f"{name} must have the shape of {like}, {tuple(shape)}, got {tuple(array.shape)}"
            )


def _side_by_side(
    backend: Backend,
    g: ConvGeometry,
    transposed: bool,
    ggx: Array,
    x: Array,
    w: Array,
    ggw: Array,
) -> tuple[ConvGeometry, Array, Array]:
    """Geometry, images and filters of the convolution that is ``conv(ggx, w) + conv(x, ggw)``."""
    ndim = len(w.shape) - 2
    channels = len(x.shape) - 1 - (0 if g.channels_last else ndim)
    images = backend.side_by_side(ggx, x, channels, g.groups)
    if transposed:
        filters = backend.side_by_side(w, ggw, 0, g.groups)
        return replace(g, out_channels=2 * g.out_channels), images, filters
    filters = backend.side_by_side(w, ggw, 1, 1)
    return replace(g, in_channels=2 * g.in_channels), images, filters


def _gradients(
    backend: Backend,
    g: ConvGeometry,
    transposed: bool,
    second: Gradients,
    dy: Array,
    x: Array,
    weight: Array,
    needs: Needs,
    algorithm: str,
    precision: str,
) -> Gradients:
    """The gradients, where ``g`` is the layer's geometry or, if ``transposed``, its gradient's."""
    of_dy, of_x, of_weight = check_needs(needs, "grad_output, x and weight")
    # Says what is wrong before anything is computed.
    backend.choose("forward", g, x, algorithm, precision)
    ggx, ggw, ggb = second
    how = algorithm, precision, None
    there, back = (run_grad_input, run_forward) if transposed else (run_forward, run_grad_input)
    grad_dy = grad_x = grad_w = None
    if of_dy and ggx is not None and ggw is not None:
        twice, images, filters = _side_by_side(backend, g, transposed, ggx, x, weight, ggw)
        grad_dy = there(backend, twice, images, filters, ggb, dy.shape, *how)
    elif of_dy and ggx is not None:
        grad_dy = there(backend, g, ggx, weight, ggb, dy.shape, *how)
    elif of_dy and ggw is not None:
        grad_dy = there(backend, g, x, ggw, ggb, dy.shape, *how)
    elif of_dy and ggb is not None:
        grad_dy = backend.spread_bias(ggb, dy.shape, len(weight.shape) - 2, g.channels_last)
    if of_x and ggw is not None:
        grad_x = back(backend, g, dy, ggw, None, x.shape, *how)
    if of_weight and ggx is not None:
        y, seen = (ggx, dy) if transposed else (dy, ggx)
        grad_w = run_grad_weight(backend, g, y, seen, weight.shape, *how)
    return grad_dy, grad_x, grad_w


def conv_double_backward(
    ndim: int,
    grad_grad_input: Array | None,
    grad_grad_weight: Array | None,
    grad_grad_bias: Array | None,
    grad_output: Array,
    x: Array,
    weight: Array,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: SupportsIndex = 1,
    *,
    needs: Needs = (True, True, True),
    data_format: str = "channels_first",
    algorithm: str = "auto",
    precision: str = "highest",
    accumulate_dtype: DTypeLike | None = None,
) -> Gradients:
    """Gradient of ``conv{n}d_backward``: of a loss made of dx, dw and db.

    Parameters
    ----------
    grad_grad_input : (N, C, {spatial}) or (C, {spatial}) ndarray, or None
        The gradient ggx of the loss with respect to dx; None for zero, here and below.
    grad_grad_weight : (K, C/groups, {kernel}) ndarray or None
        The gradient ggw with respect to dw.
    grad_grad_bias : (K,) ndarray or None
        The gradient ggb with respect to db.
    grad_output : (N, K, {result}) or (K, {result}) ndarray of floating-point or complex numbers
        The gradient dy that ``conv{n}d_backward`` was given.
    x : (N, C, {spatial}) or (C, {spatial}) ndarray
        Images, of the same dtype.
    weight : (K, C/groups, {kernel}) ndarray
        Filters, of the same dtype.
    {geometry}
    needs : 3 booleans, default (True, True, True)
        Which gradients are wanted; the others are not computed.
    {data_format}
    {algorithm}
    {precision}
    {accumulate_dtype}

    Returns
    -------
    grad_grad_output : ndarray or None
        With respect to ``grad_output``: ``conv(ggx, weight) + conv(x, ggw) + ggb``. None where not
        wanted, or zero because all three are None.
    grad_x : ndarray or None
        With respect to ``x``: ``grad_input(dy, ggw)``. None where not wanted, or zero because
        ``grad_grad_weight`` is None.
    grad_weight : ndarray or None
        With respect to ``weight``: ``grad_weight(dy, ggx)``. None where not wanted, or zero because
        ``grad_grad_input`` is None.

    Raises
    ------
    {raises}

    Notes
    -----
    {gradient_dtypes}

    Where ``grad_grad_input`` and ``grad_grad_weight`` are both given, they are copied side by side
    with ``x`` and ``weight``, for one convolution of twice the channels.

    Examples
    --------
    The penalty on gradients, ``|dx|**2 / 2``: its gradient with respect to dx is dx.

    >>> import numpy as np, fastconv
    >>> rng = np.random.default_rng(0)
    >>> x, weight = rng.random((1, 2) + (5,) * {n}), rng.random((3, 2) + (3,) * {n})
    >>> dy = rng.random((1, 3) + (3,) * {n})
    >>> dx, _, _ = fastconv.conv{n}d_backward(dy, x, weight)
    >>> of_dy, of_x, of_weight = fastconv.conv{n}d_double_backward(dx, None, None, dy, x, weight)
    >>> of_dy.shape == dy.shape, of_x is None, of_weight.shape == weight.shape
    (True, True, True)
    >>> bool(np.isclose(np.vdot(of_weight, weight), np.vdot(dx, dx)))
    True
    """
    second = grad_grad_input, grad_grad_weight, grad_grad_bias
    backend = _backend_of(second, grad_output, x, weight, accumulate_dtype, False)
    g = conv_geometry_of(
        ndim, x.shape, weight.shape, stride, padding, dilation, groups, data_format
    )
    check_grad_output(grad_output, image_shape(g.y_shape, ndim, x.shape, g.channels_last))
    _check_shapes(second, x, weight, g.out_channels)
    how = needs, algorithm, precision
    return _gradients(backend, g, False, second, grad_output, x, weight, *how)


def conv_transpose_double_backward(
    ndim: int,
    grad_grad_input: Array | None,
    grad_grad_weight: Array | None,
    grad_grad_bias: Array | None,
    grad_output: Array,
    x: Array,
    weight: Array,
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    groups: SupportsIndex = 1,
    dilation: PerAxis = 1,
    *,
    needs: Needs = (True, True, True),
    data_format: str = "channels_first",
    algorithm: str = "auto",
    precision: str = "highest",
    accumulate_dtype: DTypeLike | None = None,
) -> Gradients:
    """Gradient of ``conv_transpose{n}d_backward``: of a loss made of dx, dw and db.

    Parameters
    ----------
    grad_grad_input : (N, C, {spatial}) or (C, {spatial}) ndarray, or None
        The gradient ggx of the loss with respect to dx; None for zero, here and below.
    grad_grad_weight : (C, K/groups, {kernel}) ndarray or None
        The gradient ggw with respect to dw.
    grad_grad_bias : (K,) ndarray or None
        The gradient ggb with respect to db.
    grad_output : (N, K, {result}) or (K, {result}) ndarray of floating-point or complex numbers
        The gradient dy that ``conv_transpose{n}d_backward`` was given.
    x : (N, C, {spatial}) or (C, {spatial}) ndarray
        Images, of the same dtype.
    weight : (C, K/groups, {kernel}) ndarray
        Filters, of the same dtype.
    {transposed}
    needs : 3 booleans, default (True, True, True)
        Which gradients are wanted; the others are not computed.
    {data_format}
    {algorithm}
    {precision}
    {accumulate_dtype}

    Returns
    -------
    grad_grad_output, grad_x, grad_weight : ndarray or None
        With respect to ``grad_output``, ``x`` and ``weight``. None where not wanted, or zero
        because nothing reaches it: the first where all three of ggx, ggw and ggb are None, the
        second without ggw, the third without ggx.

    Raises
    ------
    {raises}

    Notes
    -----
    {gradient_dtypes}

    Examples
    --------
    Both are linear in dy, and adjoint: ``<of_dy, dy> = <dx, ggx>``.

    >>> import numpy as np, fastconv
    >>> rng = np.random.default_rng(0)
    >>> x, weight = rng.random((1, 3) + (4,) * {n}), rng.random((3, 2) + (2,) * {n})
    >>> dy, ggx = rng.random((1, 2) + (8,) * {n}), rng.random(x.shape)
    >>> dx, _, _ = fastconv.conv_transpose{n}d_backward(dy, x, weight, stride=2)
    >>> of_dy, of_x, of_weight = fastconv.conv_transpose{n}d_double_backward(
    ...     ggx, None, None, dy, x, weight, stride=2
    ... )
    >>> bool(np.isclose(np.vdot(of_dy, dy), np.vdot(dx, ggx))), of_x
    (True, None)
    """
    second = grad_grad_input, grad_grad_weight, grad_grad_bias
    backend = _backend_of(second, grad_output, x, weight, accumulate_dtype, True)
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
        None,
    )
    check_grad_output(grad_output, image_shape(g.x_shape, ndim, x.shape, g.channels_last))
    _check_shapes(second, x, weight, g.in_channels)
    how = needs, algorithm, precision
    return _gradients(backend, g, True, second, grad_output, x, weight, *how)


conv1d_double_backward, conv2d_double_backward, conv3d_double_backward = ranks(conv_double_backward)
(
    conv_transpose1d_double_backward,
    conv_transpose2d_double_backward,
    conv_transpose3d_double_backward,
) = ranks(conv_transpose_double_backward)
