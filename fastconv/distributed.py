"""Training on several processes, each with its share of every batch: gradients are added up.

The processes talk through a communicator of mpi4py, which is not imported here.
``examples/train_mpi.py`` is a training loop.
"""

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Trained(Protocol):
    """What is needed of a layer, and what ``fastconv.Conv2d`` has."""

    @property
    def parameters(self) -> dict[str, Array]: ...
    @property
    def grads(self) -> dict[str, Array]: ...


def allreduce_gradients(layers: Iterable[Trained], comm: Any) -> None:
    """Replace the gradients of layers by their sums over all processes.

    All of them travel in one buffer: processes wait for each other once, not once for each layer.
    The order of additions is MPI's choice. Implementations add in the same order on all processes,
    so that the sums are the same bits everywhere; MPI asks them to, but does not require it.

    Parameters
    ----------
    layers : iterable of layers
        With ``parameters`` and, filled by ``backward``, ``grads``, in the same order on all
        processes.
    comm : mpi4py.MPI.Comm
        The processes.

    Raises
    ------
    RuntimeError
        If a layer has parameters without gradients.
    TypeError
        If not all gradients have one dtype.

    Examples
    --------
    A communicator of one process, by itself:

    >>> import numpy as np, fastconv
    >>> from fastconv.distributed import allreduce_gradients
    >>> class Alone:
    ...     def Allreduce(self, send, receive):
    ...         receive[...] = send
    >>> layer = fastconv.Conv2d(1, 2, 3, rng=0)
    >>> dx = layer.backward(layer.forward(np.ones((1, 1, 4, 4), np.float32)))
    >>> allreduce_gradients([layer], Alone())
    >>> layer.grads["weight"].shape
    (2, 1, 3, 3)
    """
    places = [(layer, name) for layer in layers for name in layer.parameters]
    lacking = [name for layer, name in places if name not in layer.grads]
    if lacking:
        raise RuntimeError(
            f"layers must have gradients, filled by backward, for all parameters; {lacking[0]!r}"
            " has none"
        )
    grads = [layer.grads[name] for layer, name in places]
    dtypes = {grad.dtype for grad in grads}
    if len(dtypes) > 1:
        raise TypeError(f"gradients must have one dtype, got {' and '.join(map(str, dtypes))}")
    if not grads:
        return
    own = np.concatenate([grad.ravel() for grad in grads])
    total = np.empty_like(own)
    comm.Allreduce(own, total)
    ends = np.cumsum([grad.size for grad in grads])
    for (layer, name), part, grad in zip(places, np.split(total, ends[:-1]), grads, strict=True):
        layer.grads[name] = part.reshape(grad.shape)
