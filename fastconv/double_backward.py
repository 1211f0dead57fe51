"""Gradients of gradients: the three maps once more.

The gradients that a backward pass computes are linear in dy, x and w each. With ggx, ggw and ggb
the gradients of a loss with respect to its results dx, dw and db,

    gradient of dy = conv(ggx, w) + conv(x, ggw) + ggb
    gradient of x  = grad_input(dy, ggw)
    gradient of w  = grad_weight(dy, ggx)

The sum of two convolutions is one, with ggx and x as channels of one image, and w and ggw as
channels of one set of filters. For a transposed convolution, conv and grad_input change places.

A ReLU passes back dy where its result is above 0, and nothing elsewhere. Such a mask has no slope:
above, dy is what is left of it, and the gradient of dy is masked in turn.
"""

from dataclasses import replace
from typing import Any, NamedTuple, SupportsIndex

from numpy.typing import DTypeLike, NDArray

from .arguments import Padding, PerAxis
from .checks import Needs, check_grad_output, check_needs, check_result
from .dispatch import Backend, backend_of
from .functional import conv_geometry_of
from .geometry import ConvGeometry, image_shape
from .maps import Gradients, choose, run_forward, run_grad_input, run_grad_weight
from .ranks import ranks
from .transposed import transposed_geometry_of

Array = NDArray[Any]


class _Arrays(NamedTuple):
    """The arrays of a call, under the names that it has for them."""

    grad_output: Array
    x: Array
    weight: Array
    grad_grad_input: Array | None
    grad_grad_weight: Array | None
    grad_grad_bias: Array | None
    y: Array | None

    def backend(self, accumulate_dtype: DTypeLike | None, transposed: bool) -> Backend:
        named = zip(self._fields, self, strict=True)
        given = {name: array for name, array in named if array is not None}
        return backend_of(given, None, None, accumulate_dtype, transposed)

    def check(self, g: ConvGeometry, transposed: bool) -> None:
        """See that the shapes are those of a layer of this geometry."""
        x, weight = tuple(self.x.shape), tuple(self.weight.shape)
        result, channels = (g.x_shape, g.in_channels) if transposed else (g.y_shape, g.out_channels)
        shape = image_shape(result, len(weight) - 2, x, g.channels_last)
        check_grad_output(self.grad_output, shape)
        for name, array, like, shape in (
            ("grad_grad_input", self.grad_grad_input, "x", x),
            ("grad_grad_weight", self.grad_grad_weight, "weight", weight),
            ("grad_grad_bias", self.grad_grad_bias, "the bias", (channels,)),
        ):
            if array is not None and tuple(array.shape) != shape:
                raise ValueError(
                    f"{name} must have the shape of {like}, {shape}, got {tuple(array.shape)}"
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
    arrays: _Arrays,
    activation: str | None,
    needs: Needs,
    algorithm: str,
    precision: str,
) -> Gradients:
    """The gradients, where ``g`` is the layer's geometry or, if ``transposed``, its gradient's."""
    arrays.check(g, transposed)
    dy, x, weight, ggx, ggw, ggb, y = arrays
    relu = check_result(activation, dy, y)
    of_dy, of_x, of_weight = check_needs(needs, "grad_output, x and weight")
    # Says what is wrong before anything is computed.
    choose(backend, "forward", g.padded, x, algorithm, precision)
    shape, how = dy.shape, (algorithm, precision, None)
    there, back = (run_grad_input, run_forward) if transposed else (run_forward, run_grad_input)
    grad_dy = grad_x = grad_w = None
    if relu and (of_x or of_weight):
        dy = backend.mask(dy, y)
    if of_dy and ggx is not None and ggw is not None:
        twice, images, filters = _side_by_side(backend, g, transposed, ggx, x, weight, ggw)
        grad_dy = there(backend, twice, images, filters, ggb, shape, *how)
    elif of_dy and ggx is not None:
        grad_dy = there(backend, g, ggx, weight, ggb, shape, *how)
    elif of_dy and ggw is not None:
        grad_dy = there(backend, g, x, ggw, ggb, shape, *how)
    elif of_dy and ggb is not None:
        grad_dy = backend.spread_bias(ggb, shape, len(weight.shape) - 2, g.channels_last)
    if relu and grad_dy is not None:
        grad_dy = backend.mask(grad_dy, y)
    if of_x and ggw is not None:
        grad_x = back(backend, g, dy, ggw, None, x.shape, *how)
    if of_weight and ggx is not None:
        result, seen = (ggx, dy) if transposed else (dy, ggx)
        grad_w = run_grad_weight(backend, g, result, seen, weight.shape, *how)
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
    activation: str | None = None,
    y: Array | None = None,
    needs: Needs = (True, True, True),
    padding_mode: str = "zeros",
    data_format: str = "channels_first",
    algorithm: str = "auto",
    precision: str = "highest",
    accumulate_dtype: DTypeLike | None = None,
) -> Gradients:
    """Gradient of ``conv{n}d_backward``: of a loss made of dx, dw and db.

    It is ``conv(ggx, weight) + conv(x, ggw) + ggb`` with respect to dy, ``grad_input(dy, ggw)``
    with respect to ``x``, and ``grad_weight(dy, ggx)`` with respect to ``weight``.

    Parameters
    ----------
    {second}
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
    {second_results}

    Raises
    ------
    {raises}

    Notes
    -----
    {gradient_dtypes}

    {second_notes}

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
    arrays = _Arrays(grad_output, x, weight, *second, y)
    backend = arrays.backend(accumulate_dtype, transposed=False)
    g = conv_geometry_of(
        ndim, x.shape, weight.shape, stride, padding, dilation, groups, data_format, padding_mode
    )
    return _gradients(backend, g, False, arrays, activation, needs, algorithm, precision)


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
    activation: str | None = None,
    y: Array | None = None,
    needs: Needs = (True, True, True),
    output_shape: PerAxis | None = None,
    data_format: str = "channels_first",
    algorithm: str = "auto",
    precision: str = "highest",
    accumulate_dtype: DTypeLike | None = None,
) -> Gradients:
    """Gradient of ``conv_transpose{n}d_backward``: of a loss made of dx, dw and db.

    Parameters
    ----------
    {second}
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
    {second_results}

    Raises
    ------
    {raises}

    Notes
    -----
    {gradient_dtypes}

    {second_notes}

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
    arrays = _Arrays(grad_output, x, weight, *second, y)
    backend = arrays.backend(accumulate_dtype, transposed=True)
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
    return _gradients(backend, g, True, arrays, activation, needs, algorithm, precision)


conv1d_double_backward, conv2d_double_backward, conv3d_double_backward = ranks(conv_double_backward)
(
    conv_transpose1d_double_backward,
    conv_transpose2d_double_backward,
    conv_transpose3d_double_backward,
) = ranks(conv_transpose_double_backward)
