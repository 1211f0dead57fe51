"""Pooling as layers, beside those of ``layers.py``.

y = layer.forward(x)
dx = layer.backward(dy)
"""

from collections.abc import Callable
from typing import Any, ClassVar, Self

from numpy.typing import NDArray

from .arguments import Padding, PerAxis, per_axis
from .geometry import Ints
from .layer import Layer, check_device
from .pool_geometry import pool_pairs
from .pooling import avg_pool, avg_pool_grad_input, max_pool, max_pool_grad_input

Array = NDArray[Any]


class _Pool(Layer):
    """What both kinds share: the windows, and one function for each direction."""

    _pool: ClassVar[Callable[..., Any]]
    _grad_input: ClassVar[Callable[..., Array]]

    def __init__(
        self,
        kernel_size: PerAxis,
        stride: PerAxis | None,
        padding: Padding,
        ceil_mode: bool,
        data_format: str,
    ) -> None:
        super().__init__(data_format)
        self.kernel_size = per_axis("kernel_size", kernel_size, self.ndim, 1)
        self.stride = self.kernel_size
        if stride is not None:
            self.stride = per_axis("stride", stride, self.ndim, 1)
        self.padding = pool_pairs(padding, self.kernel_size)
        self.ceil_mode = bool(ceil_mode)

    @property
    def parameters(self) -> dict[str, Array]:
        """The arrays to be trained: none."""
        return {}

    def to(self, device: str) -> Self:
        """Return the layer, which has no parameters to move to ``"cuda"`` or the ``"cpu"``.

        Raises
        ------
        ValueError
            If ``device`` is neither.
        """
        check_device(device)
        return self

    @property
    def _options(self) -> dict[str, Any]:
        """What both functions take after the arrays."""
        return {name: getattr(self, name) for name in self._defaults}

    def forward(self, x: Array) -> Array:
        """The layer's result for ``x``; what ``backward`` needs of that is kept in training."""
        y: Array = self._pool(self.ndim, x, **self._options)
        self._save(self._needed(x))
        return y

    def backward(self, grad_output: Array) -> Array:
        """Gradient with respect to the last input.

        Parameters
        ----------
        grad_output : (N, C, *result) or (C, *result) ndarray
            Gradient with respect to the result of the last ``forward``, of its shape.

        Returns
        -------
        (N, C, *spatial) or (C, *spatial) ndarray
            Of the shape of the last input and the dtype of ``grad_output``. With "channels_last", C
            comes last.

        Raises
        ------
        RuntimeError
            If there was no ``forward`` in training mode.
        TypeError, ValueError
            If ``grad_output`` has another shape, or a dtype that is not served with the input.
        """
        return self._grad_input(self.ndim, grad_output, *self._kept(), **self._options)

    def _needed(self, x: Array) -> Any:
        """What the gradient depends on besides ``grad_output``."""
        raise NotImplementedError

    def _argument(self, name: str) -> Any:
        if name == "stride" and self.stride == self.kernel_size:
            return None
        return super()._argument(name)


class _MaxPool(_Pool):
    """Layer of the largest numbers of windows over {n} spatial axes.

    Parameters
    ----------
    kernel_size, stride, padding, dilation, ceil_mode, data_format
        As in ``max_pool{n}d``.

    Attributes
    ----------
    parameters, grads : dict
        Empty.
    training : bool
        Whether ``forward`` keeps what ``backward`` needs; ``train`` and ``eval`` set it.

    Raises
    ------
    TypeError, ValueError
        If a number is not an integer or out of range, or ``data_format`` is neither.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> layer = fastconv.MaxPool{n}d(2)
    >>> y = layer.forward(np.ones((2, 3) + (6,) * {n}, np.float32))
    >>> y.shape == (2, 3) + (3,) * {n}
    True
    >>> layer.backward(y).shape == (2, 3) + (6,) * {n}
    True
    """

    _pool = staticmethod(max_pool)
    _grad_input = staticmethod(max_pool_grad_input)

    def __init__(
        self,
        kernel_size: PerAxis,
        stride: PerAxis | None = None,
        padding: Padding = 0,
        dilation: PerAxis = 1,
        *,
        ceil_mode: bool = False,
        data_format: str = "channels_first",
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, data_format)
        self.dilation = per_axis("dilation", dilation, self.ndim, 1)

    def _needed(self, x: Array) -> Array:
        return x


class _AvgPool(_Pool):
    """Layer of the means of windows over {n} spatial axes.

    Parameters
    ----------
    kernel_size, stride, padding, ceil_mode, count_include_pad, data_format
        As in ``avg_pool{n}d``.

    Attributes
    ----------
    parameters, grads : dict
        Empty.
    training : bool
        Whether ``forward`` keeps what ``backward`` needs; ``train`` and ``eval`` set it.

    Raises
    ------
    TypeError, ValueError
        If a number is not an integer or out of range, or ``data_format`` is neither.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> layer = fastconv.AvgPool{n}d(2)
    >>> y = layer.forward(np.ones((2, 3) + (6,) * {n}, np.float32))
    >>> y.shape == (2, 3) + (3,) * {n}
    True
    >>> layer.backward(y).shape == (2, 3) + (6,) * {n}
    True
    """

    _pool = staticmethod(avg_pool)
    _grad_input = staticmethod(avg_pool_grad_input)

    def __init__(
        self,
        kernel_size: PerAxis,
        stride: PerAxis | None = None,
        padding: Padding = 0,
        *,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        data_format: str = "channels_first",
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, data_format)
        self.count_include_pad = bool(count_include_pad)

    def _needed(self, x: Array) -> Ints:
        return x.shape


class MaxPool1d(_MaxPool):
    ndim = 1


class MaxPool2d(_MaxPool):
    ndim = 2


class MaxPool3d(_MaxPool):
    ndim = 3


class AvgPool1d(_AvgPool):
    ndim = 1


class AvgPool2d(_AvgPool):
    ndim = 2


class AvgPool3d(_AvgPool):
    ndim = 3
