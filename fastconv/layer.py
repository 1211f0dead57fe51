"""What all layers share: two modes, what ``forward`` keeps for ``backward``, how they are shown."""

from collections.abc import Callable
from inspect import signature
from typing import Any, ClassVar

from numpy.typing import NDArray

from .arguments import is_channels_last

Array = NDArray[Any]


class Layer:
    """A layer in training mode, for images of ``ndim`` spatial axes."""

    ndim: ClassVar[int]
    forward: Callable[..., Array]  # of each kind
    _defaults: ClassVar[dict[str, Any]]  # of all arguments that make a layer, in their order

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Note the arguments of a class that says its ``ndim``; its docstring is its kind's."""
        super().__init_subclass__(**kwargs)
        if "ndim" in vars(cls):
            parameters = signature(cls).parameters.values()
            cls._defaults = {parameter.name: parameter.default for parameter in parameters}
            cls.__doc__ = (cls.__mro__[1].__doc__ or "").replace("{n}", str(cls.ndim))

    def __init__(self, data_format: str) -> None:
        is_channels_last(data_format)
        self.data_format = data_format
        self.training = True
        self.grads: dict[str, Array] = {}
        self._saved: tuple[Any, ...] | None = None

    def train(self, mode: bool = True) -> None:
        """Set training mode, in which ``forward`` keeps its input for ``backward``.

        With an activation it keeps its result too, which must then not be changed in between.
        """
        self.training = mode
        if not mode:
            self._saved = None

    def eval(self) -> None:
        """Set evaluation mode, in which ``forward`` keeps no reference to any array."""
        self.train(False)

    def __call__(self, *arguments: Any, **options: Any) -> Array:
        """``forward``, for those who are used to call a layer."""
        return self.forward(*arguments, **options)

    def _save(self, *things: Any) -> None:
        """Keep things for ``backward``, in training mode."""
        self._saved = things if self.training else None

    def _kept(self) -> tuple[Any, ...]:
        if self._saved is None:
            raise RuntimeError(
                f"{type(self).__name__}.backward needs the input of a forward call in training"
                " mode before it"
            )
        return self._saved

    def _argument(self, name: str) -> Any:
        """What makes such a layer, in the form in which it is kept."""
        return getattr(self, name)

    def __repr__(self) -> str:
        """The call that makes such a layer, without what has its default."""
        shown = []
        for name, default in self._defaults.items():
            value = self._argument(name)
            # A number is kept as one for each axis, or as a pair for each.
            if value not in (default, (default,) * self.ndim, ((default, default),) * self.ndim):
                # Channels go first and without a name, as in PyTorch.
                shown.append(repr(value) if name.endswith("channels") else f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


def check_device(device: str) -> None:
    """See that a layer can be moved there."""
    if device not in ("cpu", "cuda"):
        raise ValueError(f'device must be "cpu" or "cuda", got {device!r}')
