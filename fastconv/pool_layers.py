"""Pooling as layers, beside those of ``layers.py``.

y = layer.forward(x)
dx = layer.backward(dy)
"""

from typing import Any, ClassVar, Self

from numpy.typing import NDArray

from .geometry import Padding, PerAxis, is_channels_last, per_axis
from .pool_geometry import pool_pairs
from .pooling import avg_pool, avg_pool_grad_input, max_pool, max_pool_grad_input

Array = NDArray[Any]


class _Pool:
    """What both kinds share: the windows, and the input kept for ``backward``."""

    ndim: ClassVar[int]

    def __init__(
        self,
        kernel_size: PerAxis,
        stride: PerAxis | None,
        padding: Padding,
        ceil_mode: bool,
        data_format: str,
    ) -> None:
        is_channels_last(data_format)
        self.kernel_size = per_axis("kernel_size", kernel_size, self.ndim, 1)
        self.stride = self.kernel_size
        if stride is not None:
            self.stride = per_axis("stride", stride, self.ndim, 1)
        self.padding = pool_pairs(padding, self.kernel_size)
        self.ceil_mode = bool(ceil_mode)
        self.data_format = data_format
        self.training = True
        self.grads: dict[str, Array] = {}
        self._x: Any = None

    @property
    def _windows(self) -> tuple[Any, ...]:
        """What the functions take after the arrays."""
        return self.kernel_size, self.stride, self.padding

    @property
    def _options(self) -> dict[str, Any]:
        """What they take by keyword."""
        return {"ceil_mode": self.ceil_mode, "data_format": self.data_format}

    @property
    def parameters(self) -> dict[str, Array]:
        """The arrays to be trained: none."""
        return {}

    def train(self, mode: bool = True) -> None:
        """Set training mode, in which ``forward`` keeps its input for ``backward``."""
        self.training = mode
        if not mode:
            self._x = None

    def eval(self) -> None:
        """Set evaluation mode, in which ``forward`` keeps no reference to its input."""
        self.train(False)

    def to(self, device: str) -> Self:
        """Return the layer, which has no parameters to move to ``"cuda"`` or the ``"cpu"``.

        Raises
        ------
        ValueError
            If ``device`` is neither.
        """
        if device not in ("cpu", "cuda"):
            raise ValueError(f'device must be "cpu" or "cuda", got {device!r}')
        return self

    def _keep(self, x: Any) -> None:
        self._x = x if self.training else None

    def _kept(self) -> Any:
        if self._x is None:
            raise RuntimeError(
                f"{type(self).__name__}.backward needs the input of a forward call in training"
                " mode before it"
            )
        return self._x

    def _describe(self, *more: str) -> str:
        names = ("kernel_size", "stride", "padding", *more)
        values = ", ".join([f"{name}={getattr(self, name)!r}" for name in names])
        return f"{type(self).__name__}({values})"


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

    Raises
    ------
    TypeError, ValueError
        If a number is not an integer or out of range, or ``data_format`` cannot serve.

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

    @property
    def _windows(self) -> tuple[Any, ...]:
        return (*super()._windows, self.dilation)

    def forward(self, x: Array) -> Array:
        """The layer's result for ``x``, which is kept for ``backward`` in training mode."""
        y = max_pool(self.ndim, x, *self._windows, **self._options)
        assert not isinstance(y, tuple)
        self._keep(x)
        return y

    def backward(self, grad_output: Array) -> Array:
        """Gradient with respect to the last input."""
        x = self._kept()
        return max_pool_grad_input(self.ndim, grad_output, x, *self._windows, **self._options)

    def __repr__(self) -> str:
        return self._describe("dilation", "ceil_mode")


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

    Raises
    ------
    TypeError, ValueError
        If a number is not an integer or out of range, or ``data_format`` cannot serve.

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

    @property
    def _options(self) -> dict[str, Any]:
        return {**super()._options, "count_include_pad": self.count_include_pad}

    def forward(self, x: Array) -> Array:
        """The layer's result for ``x``, whose shape is kept for ``backward`` in training mode."""
        y = avg_pool(self.ndim, x, *self._windows, **self._options)
        self._keep(x.shape)
        return y

    def backward(self, grad_output: Array) -> Array:
        """Gradient with respect to the last input."""
        shape = self._kept()
        return avg_pool_grad_input(self.ndim, grad_output, shape, *self._windows, **self._options)

    def __repr__(self) -> str:
        return self._describe("ceil_mode", "count_include_pad")


class MaxPool1d(_MaxPool):
    ndim = 1
    __doc__ = (_MaxPool.__doc__ or "").replace("{n}", "1")


class MaxPool2d(_MaxPool):
    ndim = 2
    __doc__ = (_MaxPool.__doc__ or "").replace("{n}", "2")


class MaxPool3d(_MaxPool):
    ndim = 3
    __doc__ = (_MaxPool.__doc__ or "").replace("{n}", "3")


class AvgPool1d(_AvgPool):
    ndim = 1
    __doc__ = (_AvgPool.__doc__ or "").replace("{n}", "1")


class AvgPool2d(_AvgPool):
    ndim = 2
    __doc__ = (_AvgPool.__doc__ or "").replace("{n}", "2")


class AvgPool3d(_AvgPool):
    ndim = 3
    __doc__ = (_AvgPool.__doc__ or "").replace("{n}", "3")
