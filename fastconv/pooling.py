"""Pooling as functions: the largest number or the mean of every window, and the gradients.

Written once, as convolutions are in ``functional.py``. Semantics are PyTorch's; what is said of NaN
and of windows without pixels goes beyond what PyTorch promises.
"""

from collections.abc import Hashable, Sequence
from typing import Any, SupportsIndex

from numpy.typing import NDArray

from . import repeats
from .arguments import Padding, PerAxis, shape_tuple
from .checks import check_grad_output
from .dispatch import backend_of, dtype_of
from .dtypes import DTYPES, POOLED_INTEGERS, is_half
from .geometry import ConvGeometry, image_shape
from .pool_geometry import pool_geometry_of
from .ranks import ranks

Array = NDArray[Any]


def max_pool(
    ndim: int,
    x: Array,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    *,
    ceil_mode: bool = False,
    return_indices: bool = False,
    data_format: str = "channels_first",
    out: Array | None = None,
) -> Array | tuple[Array, Array]:
    """The largest number of every window.

    ``y[n,c,p] = max over r of x[n, c, p*stride + r*dilation - before]``, where p and r stand for a
    pixel and a tap along every spatial axis, ``before`` for the padding ahead of it. Pixels of the
    padding have no part in it. A NaN in the window is the result. A dilated window may see nothing
    but padding: its result is -inf, or the least of the integers.

    Parameters
    ----------
    x : (N, C, {spatial}) or (C, {spatial}) ndarray of floating-point numbers or integers
        Images; without the batch axis, so is the result. Integers have 8, 16 or 32 bits.
    {pooling}
    dilation : int or {n} ints, default 1
        Pixels of ``x`` from one tap to the next.
    {ceil_mode}
    return_indices : bool, default False
        Whether the places of the results in ``x`` are wanted too.
    {data_format}
    {out}

    Returns
    -------
    y : (N, C, {result}) or (C, {result}) ndarray
        Of ``x``'s dtype; an extent is
        ``(extent + before + after - (taps - 1)*dilation - 1) // stride + 1``, with ``ceil_mode``
        that is rounded up.
    indices : ndarray of int64, with ``return_indices``
        Of ``y``'s shape: where the result is in the image of its channel, flattened. Of equal
        numbers it is the first one, of several NaN the first one, and -1 where there is none.

    Raises
    ------
    {pool_raises}

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.arange(6.0**{n}).reshape((1, 1) + (6,) * {n})
    >>> y, indices = fastconv.max_pool{n}d(x, 2, return_indices=True)
    >>> y.shape == indices.shape == (1, 1) + (3,) * {n}
    True
    >>> bool((x.ravel()[indices] == y).all())
    True
    """
    key = None
    if out is None and return_indices is False:
        windows = kernel_size, stride, padding, dilation
        key = _key_of("max_pool", ndim, x, x, windows, (ceil_mode, data_format))
        if repeat := repeats.known(key):
            return repeat(x, x, None)
    backend = _pool_backend_of({"x": x}, integers=True)
    g = pool_geometry_of(
        ndim, x.shape, kernel_size, stride, padding, dilation, ceil_mode, data_format
    )
    y: Array = backend.result_like(
        x, image_shape(g.y_shape, ndim, x.shape, g.channels_last), out, (x,)
    )
    indices: Array | None = backend.max_pool(x, g, ndim, y, bool(return_indices))
    _remember(key, backend, "max_pool", x, None, g, y)
    return y if indices is None else (y, indices)


def max_pool_grad_input(
    ndim: int,
    grad_output: Array,
    x: Array,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    *,
    ceil_mode: bool = False,
    data_format: str = "channels_first",
    out: Array | None = None,
) -> Array:
    """Gradient of a loss with respect to the images, given that with respect to the maxima.

    ``dx[n,c,h]`` is the sum of ``dy[n,c,p]`` over the windows p whose largest number is the pixel
    h, the first of several.

    Parameters
    ----------
    grad_output : (N, C, {result}) or (C, {result}) ndarray of floating-point numbers
        The gradient dy with respect to the result of ``max_pool{n}d``.
    x : (N, C, {spatial}) or (C, {spatial}) ndarray
        Images, of the same dtype.
    {pooling}
    dilation : int or {n} ints, default 1
        Pixels of ``x`` from one tap to the next.
    {ceil_mode}
    {data_format}
    {out}

    Returns
    -------
    ndarray of the shape of ``x``
        Of its dtype.

    Raises
    ------
    {pool_raises}

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.random.default_rng(0).standard_normal((2, 3) + (6,) * {n})
    >>> y = fastconv.max_pool{n}d(x, 3, 1)
    >>> dx = fastconv.max_pool{n}d_grad_input(np.ones_like(y), x, 3, 1)
    >>> bool(dx.sum() == y.size)
    True
    """
    key = None
    if out is None:
        windows = kernel_size, stride, padding, dilation
        words = ceil_mode, data_format
        key = _key_of("max_pool_grad_input", ndim, grad_output, x, windows, words)
        if repeat := repeats.known(key):
            return repeat(grad_output, x, None)
    backend = _pool_backend_of({"grad_output": grad_output, "x": x})
    g = pool_geometry_of(
        ndim, x.shape, kernel_size, stride, padding, dilation, ceil_mode, data_format
    )
    check_grad_output(grad_output, image_shape(g.y_shape, ndim, x.shape, g.channels_last))
    dx: Array = backend.result_like(x, tuple(x.shape), out, (grad_output, x))
    backend.max_pool_grad_input(grad_output, x, g, ndim, dx)
    _remember(key, backend, "max_pool_grad_input", grad_output, x, g, dx)
    return dx


def avg_pool(
    ndim: int,
    x: Array,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    *,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    data_format: str = "channels_first",
    out: Array | None = None,
) -> Array:
    """The mean of every window.

    ``y[n,c,p] = sum over r of x[n, c, p*stride + r - before] / size``, where p and r stand for a
    pixel and a tap along every spatial axis, and ``x`` is zero outside.

    Parameters
    ----------
    x : (N, C, {spatial}) or (C, {spatial}) ndarray of floating-point numbers
        Images; without the batch axis, so is the result.
    {pooling}
    {ceil_mode}
    count_include_pad : bool, default True
        Whether pixels of the padding count for the size of a window. What ``ceil_mode`` adds beyond
        it never does.
    {data_format}
    {out}

    Returns
    -------
    (N, C, {result}) or (C, {result}) ndarray
        Of ``x``'s dtype; an extent is ``(extent + before + after - taps) // stride + 1``, with
        ``ceil_mode`` that is rounded up.

    Raises
    ------
    {pool_raises}

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.ones((1, 3) + (7,) * {n}, np.float32)
    >>> fastconv.avg_pool{n}d(x, 7).shape == (1, 3) + (1,) * {n}
    True
    >>> y = fastconv.avg_pool{n}d(x, 3, padding=1, count_include_pad=False)
    >>> bool((y == 1).all())
    True
    """
    key = None
    if out is None:
        windows = kernel_size, stride, padding
        words = ceil_mode, count_include_pad, data_format
        key = _key_of("avg_pool", ndim, x, x, windows, words)
        if repeat := repeats.known(key):
            return repeat(x, x, None)
    backend = _pool_backend_of({"x": x})
    g = pool_geometry_of(ndim, x.shape, kernel_size, stride, padding, 1, ceil_mode, data_format)
    y: Array = backend.result_like(
        x, image_shape(g.y_shape, ndim, x.shape, g.channels_last), out, (x,)
    )
    padded = bool(count_include_pad)
    backend.avg_pool(x, g, ndim, y, padded)
    _remember(key, backend, "avg_pool", x, None, g, y, padded)
    return y


def avg_pool_grad_input(
    ndim: int,
    grad_output: Array,
    input_shape: Sequence[SupportsIndex],
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    *,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    data_format: str = "channels_first",
    out: Array | None = None,
) -> Array:
    """Gradient of a loss with respect to the images, given that with respect to the means.

    ``dx[n,c,h]`` is the sum of ``dy[n,c,p] / size`` over the windows p that see the pixel h.

    Parameters
    ----------
    grad_output : (N, C, {result}) or (C, {result}) ndarray of floating-point numbers
        The gradient dy with respect to the result of ``avg_pool{n}d``.
    input_shape : tuple of ints
        Shape of ``x``: (N, C, {spatial}) or (C, {spatial}).
    {pooling}
    {ceil_mode}
    count_include_pad : bool, default True
        As in ``avg_pool{n}d``.
    {data_format}
    {out}

    Returns
    -------
    ndarray of ``input_shape``
        Of ``grad_output``'s dtype.

    Raises
    ------
    {pool_raises}

    Examples
    --------
    The maps are adjoint: ``<dy, avg_pool(x)> = <dx, x>``.

    >>> import numpy as np, fastconv
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((2, 3) + (7,) * {n})
    >>> y = fastconv.avg_pool{n}d(x, 3, 2, padding=1)
    >>> dy = rng.standard_normal(y.shape)
    >>> dx = fastconv.avg_pool{n}d_grad_input(dy, x.shape, 3, 2, padding=1)
    >>> bool(np.isclose(np.vdot(dy, y), np.vdot(dx, x)))
    True
    """
    key = None
    if out is None:
        windows = kernel_size, stride, padding, input_shape
        words = ceil_mode, count_include_pad, data_format
        key = _key_of("avg_pool_grad_input", ndim, grad_output, grad_output, windows, words)
        if repeat := repeats.known(key):
            return repeat(grad_output, grad_output, None)
    backend = _pool_backend_of({"grad_output": grad_output})
    shape = shape_tuple("input_shape", input_shape)
    g = pool_geometry_of(
        ndim,
        shape,
        kernel_size,
        stride,
        padding,
        1,
        ceil_mode,
        data_format,
        x_name="input_shape",
    )
    check_grad_output(grad_output, image_shape(g.y_shape, ndim, shape, g.channels_last))
    dx: Array = backend.result_like(grad_output, shape, out, (grad_output,))
    padded = bool(count_include_pad)
    backend.avg_pool_grad_input(grad_output, g, ndim, dx, padded)
    _remember(key, backend, "avg_pool_grad_input", grad_output, None, g, dx, padded)
    return dx


def _key_of(
    name: str, ndim: int, a: Array, b: Array, windows: tuple[Any, ...], words: tuple[Any, ...]
) -> Hashable:
    """What a call depends on; of windows without a stride, whose extents are their distances."""
    extents, distances, *others = windows
    numbers = extents, extents if distances is None else distances, *others
    return repeats.key_of(name, ndim, a, b, None, numbers, words)


def _remember(
    key: Hashable,
    backend: Any,
    map_name: str,
    a: Array,
    b: Array | None,
    g: ConvGeometry,
    out: Array,
    padded: bool = False,
) -> None:
    """Keep what a call with this key came to, for others like it."""
    if repeats.is_new(key):
        kept = a.dtype in DTYPES and g.batch
        repeat = backend.pool_repeat_of(map_name, a, b, g, out, padded) if kept else None
        repeats.keep(key, repeat)


def _pool_backend_of(arrays: dict[str, Any], integers: bool = False) -> Any:
    """The backend that pools these arrays: fewer kinds of them than can be convolved.

    Raises
    ------
    TypeError
        If an argument is neither a NumPy array nor one on a CUDA device, or the dtypes are not
        served, or not together; ``integers`` says whether these are.
    """
    for name, array in arrays.items():
        dtype = dtype_of(name, array)
        if (
            dtype is None
            or dtype in DTYPES
            or is_half(dtype)
            or (integers and dtype in POOLED_INTEGERS)
        ):
            continue
        short = ", or integers of 8, 16 or 32 bits," if integers else ""
        raise TypeError(
            f"{name} must be float16, bfloat16, float32 or float64{short} to be pooled, got {dtype}"
        )
    backend = backend_of(arrays)
    if not hasattr(backend, "max_pool"):
        names = " and ".join(arrays)
        raise TypeError(f"{names} must be of NumPy or on a CUDA device to be pooled, not Dask's")
    return backend


max_pool1d, max_pool2d, max_pool3d = ranks(max_pool)
max_pool1d_grad_input, max_pool2d_grad_input, max_pool3d_grad_input = ranks(max_pool_grad_input)
avg_pool1d, avg_pool2d, avg_pool3d = ranks(avg_pool)
avg_pool1d_grad_input, avg_pool2d_grad_input, avg_pool3d_grad_input = ranks(avg_pool_grad_input)
