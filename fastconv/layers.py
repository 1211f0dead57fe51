"""Convolution as layers that hold their filters and gradients, for a training loop of your own.

y = layer.forward(x)
dx = layer.backward(dy)         # fills layer.grads
layer.weight -= rate * layer.grads["weight"]
"""

from collections.abc import Callable
from math import prod, sqrt
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .arguments import Padding, PerAxis, padding_form, per_axis, positive
from .checks import check_activation
from .dispatch import cuda_backend
from .dtypes import FLOATING_SERVED, is_floating, named, stored_numbers
from .functional import conv, conv_backward
from .geometry import Ints
from .layer import Layer, check_device
from .maps import Gradients
from .padding import check_mode, check_signs
from .plan import check_precision
from .transposed import conv_transpose, conv_transpose_backward
from .transposed_geometry import check_output_padding

Array = NDArray[Any]


class _Layer(Layer):
    """What both kinds share: parameters and their gradients."""

    transposed: ClassVar[bool]
    _conv: ClassVar[Callable[..., Array]]
    _conv_backward: ClassVar[Callable[..., Gradients]]

    def __init__(
        self,
        data_format: str,
        activation: str | None,
        precision: str,
        accumulate_dtype: DTypeLike | None,
    ) -> None:
        super().__init__(data_format)
        check_activation(activation, None)
        check_precision(precision)
        self.activation = activation
        self.precision = precision
        self.accumulate_dtype = accumulate_dtype

    def _set_geometry(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: PerAxis,
        stride: PerAxis,
        padding: Padding,
        dilation: PerAxis,
        groups: int,
    ) -> None:
        self.in_channels = positive("in_channels", in_channels)
        self.out_channels = positive("out_channels", out_channels)
        self.kernel_size = per_axis("kernel_size", kernel_size, self.ndim, 1)
        self.stride = per_axis("stride", stride, self.ndim, 1)
        self.padding = padding_form(padding, self.ndim)
        self.dilation = per_axis("dilation", dilation, self.ndim, 1)
        self.groups = positive("groups", groups)
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"groups must divide in_channels, {in_channels}, and out_channels, {out_channels},"
                f" got {groups}"
            )

    def _draw_filters(
        self, bias: bool, dtype: DTypeLike, rng: np.random.Generator | int | None
    ) -> None:
        """Make the parameters. Called last: a layer that is refused has drawn nothing."""
        kind = named("dtype", dtype)
        if not is_floating(kind):
            raise TypeError(f"dtype must be {FLOATING_SERVED}, got {kind}")
        stored_numbers((("weight", kind),), None, self.accumulate_dtype, self.transposed)
        check_activation(self.activation, kind)
        self.bias: Array | None = np.zeros(self.out_channels, kind) if bias else None
        # He initialisation (arXiv:1502.01852): filters of variance 2 / fan_in keep that of
        # activations through a ReLU. A pixel that a transposed convolution makes meets one in
        # prod(stride) of the taps. The attributes are Python's integers, which do not overflow.
        fan_in: float = self.in_channels // self.groups * prod(self.kernel_size)
        leading, other = self.out_channels, self.in_channels
        if self.transposed:
            fan_in /= prod(self.stride)
            leading, other = other, leading
        shape = (leading, other // self.groups, *self.kernel_size)
        generator = np.random.default_rng(rng)
        normal: Array = generator.standard_normal(shape)
        if kind.kind == "c":
            normal = (normal + 1j * generator.standard_normal(shape)) / sqrt(2)
        self.weight: Array = (normal * sqrt(2 / fan_in)).astype(kind)

    @property
    def _geometry(self) -> tuple[Any, ...]:
        """What the functions take after the arrays."""
        raise NotImplementedError

    @property
    def _options(self) -> dict[str, Any]:
        """What they take by keyword."""
        return {
            "data_format": self.data_format,
            "precision": self.precision,
            "accumulate_dtype": self.accumulate_dtype,
        }

    def to(self, device: str) -> Self:
        """Move the parameters to ``"cuda"`` or back to the ``"cpu"``; returns the layer.

        On a device they are arrays of CuPy, where that is installed, which a training loop updates
        as it does NumPy's; otherwise of Numba. Gradients and a kept input are let go.

        Raises
        ------
        ValueError
            If ``device`` is neither.
        ModuleNotFoundError, RuntimeError
            If numba-cuda is not installed or no device answers.
        """
        check_device(device)
        on_host = isinstance(self.weight, np.ndarray)
        if on_host != (device == "cpu"):
            backend = cuda_backend()
            move = backend.to_device if on_host else backend.to_host
            self.weight = move(self.weight)
            self.bias = None if self.bias is None else move(self.bias)
            self.grads, self._saved = {}, None
        return self

    @property
    def parameters(self) -> dict[str, Array]:
        """The arrays to be trained, under the keys that ``grads`` uses."""
        both = {"weight": self.weight, "bias": self.bias}
        return {name: array for name, array in both.items() if array is not None}

    def forward(self, x: Array) -> Array:
        """The layer's result for ``x``, which is kept for ``backward`` in training mode."""
        return self._forward(x)

    def _forward(self, x: Array, **given: Any) -> Array:
        options = {**self._options, **given, "activation": self.activation}
        y = self._conv(self.ndim, x, self.weight, self.bias, *self._geometry, **options)
        self._save(x, y if self.activation is not None else None, given)
        return y

    def backward(self, grad_output: Array) -> Array:
        """Gradient with respect to the last input; those of the parameters go to ``grads``.

        Parameters
        ----------
        grad_output : (N, K, *result) or (K, *result) ndarray
            Gradient with respect to the result of the last ``forward``, of its shape and dtype.

        Returns
        -------
        (N, C, *spatial) or (C, *spatial) ndarray
            Of the shape and dtype of the last input. With "channels_last", C and K come last.

        Raises
        ------
        RuntimeError
            If there was no ``forward`` in training mode.
        TypeError, ValueError
            If ``grad_output`` has another shape or dtype.
        """
        x, y, given = self._kept()
        dx, *rest = self._conv_backward(
            self.ndim,
            grad_output,
            x,
            self.weight,
            *self._geometry,
            activation=self.activation,
            y=y,
            needs=(True, True, self.bias is not None),
            **self._options,
            **given,
        )
        named = zip(("weight", "bias"), rest, strict=True)
        self.grads = {name: array for name, array in named if array is not None}
        assert dx is not None
        return dx

    def _argument(self, name: str) -> Any:
        if name == "bias":
            return self.bias is not None
        if name == "rng":  # not kept: it has drawn the filters
            return None
        value = self.weight.dtype if name == "dtype" else super()._argument(name)
        if name.endswith("dtype") and value is not None:
            return np.dtype(value).name
        return value


class _Conv(_Layer):
    """Convolution layer over {n} spatial axes.

    Parameters
    ----------
    in_channels, out_channels : int
        C and K.
    kernel_size : int or {n} ints
        Taps along each spatial axis.
    stride, padding, dilation, groups
        As in ``conv{n}d``.
    bias : bool, default True
        Whether to add a number to every output channel.
    dtype : dtype of floating-point or complex numbers, default float32
        Of the parameters, and so of inputs and results.
    rng : numpy.random.Generator or int, optional
        Source of the filters: He initialisation, normal with variance 2 / fan_in, of which each
        part of complex numbers has half. The bias is zero.
    padding_mode : "zeros", "reflect", "replicate" or "circular", default "zeros"
        As in ``conv{n}d``.
    activation : "relu" or None, default None
        Applied to the result, as in ``conv{n}d``.
    data_format : "channels_first" or "channels_last", default "channels_first"
        As in ``conv{n}d``.
    precision : "highest", "high" or "medium", default "highest"
        As in ``conv{n}d``.
    accumulate_dtype : float64, optional
        As in ``conv{n}d``.

    Attributes
    ----------
    weight : (K, C/groups, *kernel_size) ndarray
    bias : (K,) ndarray or None
    parameters : dict
        The arrays to be trained: "weight" and, with a bias, "bias".
    grads : dict
        Their gradients, under the same names, after ``backward``.
    training : bool
        Whether ``forward`` keeps its input for ``backward``; ``train`` and ``eval`` set it.

    Raises
    ------
    TypeError, ValueError
        If a number is not an integer or out of range, groups do not divide the channels, a name is
        none of those above, a dtype is not served, or no image could go through such a layer.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> layer = fastconv.Conv{n}d(3, 8, kernel_size=3, padding=1, rng=0)
    >>> y = layer.forward(np.ones((2, 3) + (6,) * {n}, np.float32))
    >>> dx = layer.backward(np.ones_like(y))
    >>> dx.shape == (2, 3) + (6,) * {n}, layer.grads["bias"].shape
    (True, (8,))
    """

    transposed = False
    _conv = staticmethod(conv)
    _conv_backward = staticmethod(conv_backward)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: PerAxis,
        stride: PerAxis = 1,
        padding: Padding = 0,
        dilation: PerAxis = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        dtype: DTypeLike = "float32",
        rng: np.random.Generator | int | None = None,
        padding_mode: str = "zeros",
        activation: str | None = None,
        data_format: str = "channels_first",
        precision: str = "highest",
        accumulate_dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(data_format, activation, precision, accumulate_dtype)
        self._set_geometry(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups
        )
        check_mode(padding_mode)
        if not isinstance(self.padding, str):
            check_signs(padding_mode, self.padding)
        self.padding_mode = padding_mode
        self._draw_filters(bias, dtype, rng)

    @property
    def _options(self) -> dict[str, Any]:
        return {**super()._options, "padding_mode": self.padding_mode}

    @property
    def _geometry(self) -> tuple[Ints, Padding, Ints, int]:
        return self.stride, self.padding, self.dilation, self.groups


class _ConvTranspose(_Layer):
    """Transposed convolution layer over {n} spatial axes.

    Parameters
    ----------
    in_channels, out_channels : int
        C and K.
    kernel_size : int or {n} ints
        Taps along each spatial axis.
    stride, padding, output_padding, groups, dilation
        As in ``conv_transpose{n}d``.
    bias : bool, default True
        Whether to add a number to every output channel.
    dtype : dtype of floating-point or complex numbers, default float32
        Of the parameters, and so of inputs and results.
    rng : numpy.random.Generator or int, optional
        Source of the filters: He initialisation, normal with variance 2 / fan_in, of which each
        part of complex numbers has half. The bias is zero.
    activation : "relu" or None, default None
        Applied to the result, as in ``conv{n}d``.
    data_format : "channels_first" or "channels_last", default "channels_first"
        As in ``conv{n}d``.
    precision : "highest", "high" or "medium", default "highest"
        As in ``conv{n}d``.
    accumulate_dtype : float64, optional
        As in ``conv{n}d``.

    Attributes
    ----------
    weight : (C, K/groups, *kernel_size) ndarray
    bias : (K,) ndarray or None
    parameters : dict
        The arrays to be trained: "weight" and, with a bias, "bias".
    grads : dict
        Their gradients, under the same names, after ``backward``.
    training : bool
        Whether ``forward`` keeps its input for ``backward``; ``train`` and ``eval`` set it.

    Raises
    ------
    TypeError, ValueError
        If a number is not an integer or out of range, groups do not divide the channels, a name is
        none of those above, a dtype is not served, or no image could go through such a layer.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> layer = fastconv.ConvTranspose{n}d(3, 8, kernel_size=2, stride=2, rng=0)
    >>> y = layer.forward(np.ones((2, 3) + (6,) * {n}, np.float32))
    >>> y.shape == (2, 8) + (12,) * {n}
    True
    """

    transposed = True
    _conv = staticmethod(conv_transpose)
    _conv_backward = staticmethod(conv_transpose_backward)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: PerAxis,
        stride: PerAxis = 1,
        padding: Padding = 0,
        output_padding: PerAxis = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: PerAxis = 1,
        *,
        dtype: DTypeLike = "float32",
        rng: np.random.Generator | int | None = None,
        activation: str | None = None,
        data_format: str = "channels_first",
        precision: str = "highest",
        accumulate_dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(data_format, activation, precision, accumulate_dtype)
        self._set_geometry(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups
        )
        self.output_padding = per_axis("output_padding", output_padding, self.ndim, 0)
        check_output_padding(self.output_padding, self.stride, self.padding, self.dilation)
        self._draw_filters(bias, dtype, rng)

    def forward(self, x: Array, output_shape: PerAxis | None = None) -> Array:
        """The layer's result for ``x``, which is kept for ``backward`` in training mode.

        ``output_shape`` is as in ``conv_transpose1d`` and its like, for a layer that has no
        ``output_padding``.
        """
        return self._forward(x, output_shape=output_shape)

    @property
    def _geometry(self) -> tuple[Ints, Padding, Ints, int, Ints]:
        return self.stride, self.padding, self.output_padding, self.groups, self.dilation


class Conv1d(_Conv):
    ndim = 1


class Conv2d(_Conv):
    ndim = 2


class Conv3d(_Conv):
    ndim = 3


class ConvTranspose1d(_ConvTranspose):
    ndim = 1


class ConvTranspose2d(_ConvTranspose):
    ndim = 2


class ConvTranspose3d(_ConvTranspose):
    ndim = 3
