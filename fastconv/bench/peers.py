"""The libraries to compare with, each in its best layouts and without autograd bookkeeping."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from .baselines import NumPyIm2col, SciPy
from .contestant import Array, Call, Contestant, Operands
from .suites import Layer


class Torch(Contestant):
    """PyTorch: ``conv{n}d``, and the operator behind its autograd for the gradients."""

    peer = "torch"

    def __init__(self, threads: int, channels_last: bool = False) -> None:
        self._torch = import_module("torch")
        self._threads = threads
        self._channels_last = channels_last
        self.name = "torch channels_last" if channels_last else "torch"

    @contextmanager
    def active(self) -> Iterator[None]:
        before = self._torch.get_num_threads()
        self._torch.set_num_threads(self._threads)
        try:
            with self._torch.inference_mode():
                yield
        finally:
            self._torch.set_num_threads(before)

    def supports(self, layer: Layer, map_name: str) -> bool:
        return not self._channels_last or layer.ndim > 1

    def _tensor(self, array: Array) -> Any:
        tensor = self._torch.from_numpy(array)
        if not self._channels_last:
            return tensor
        three = array.ndim == 5
        name = "channels_last_3d" if three else "channels_last"
        return tensor.contiguous(memory_format=getattr(self._torch, name))

    def prepare(self, layer: Layer, map_name: str, operands: Operands) -> Call:
        tensors = (self._tensor(a) for a in (operands.x, operands.weight, operands.dy))
        return torch_convolution(layer, map_name, *tensors)


def torch_convolution(layer: Layer, map_name: str, x: Any, weight: Any, dy: Any) -> Call:
    """The call of PyTorch that computes a map of tensors."""
    torch = import_module("torch")
    axes = (layer.stride, layer.padding, layer.dilation)
    groups = layer.groups
    if map_name == "forward":
        conv = getattr(torch.nn.functional, f"conv{layer.ndim}d")
        return lambda: conv(x, weight, None, *axes, groups)
    backward = torch.ops.aten.convolution_backward.default
    zeros = (0,) * layer.ndim
    result = 0 if map_name == "grad_input" else 1
    mask = (result == 0, result == 1, False)
    return lambda: backward(dy, x, weight, None, *axes, False, zeros, groups, mask)[result]


class OnnxRuntime(Contestant):
    """ONNX Runtime: a model of one node, its filters known (and so packed) beforehand."""

    name = peer = "onnxruntime"

    def __init__(self, threads: int) -> None:
        self._runtime = import_module("onnxruntime")
        self._onnx = import_module("onnx")
        self._threads = threads

    def supports(self, layer: Layer, map_name: str) -> bool:
        return map_name == "forward"

    def _model(self, layer: Layer, weight: Array) -> bytes:
        helper = self._onnx.helper
        kind = self._onnx.TensorProto.FLOAT
        node = helper.make_node(
            "Conv",
            ["x", "weight"],
            ["y"],
            strides=layer.stride,
            pads=layer.padding * 2,
            dilations=layer.dilation,
            group=layer.groups,
        )
        graph = helper.make_graph(
            [node],
            layer.name,
            [helper.make_tensor_value_info("x", kind, layer.x_shape)],
            [helper.make_tensor_value_info("y", kind, layer.y_shape)],
            [helper.make_tensor("weight", kind, weight.shape, weight.tobytes(), raw=True)],
        )
        # Of an age that every release of either package understands.
        opset = helper.make_opsetid("", 17)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
        return bytes(model.SerializeToString())

    def prepare(self, layer: Layer, map_name: str, operands: Operands) -> Call:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = self._threads
        # Its threads would spin for tens of milliseconds after a call and slow the next
        # contestant down to half its speed; during a call they still do.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        session = self._runtime.InferenceSession(
            self._model(layer, operands.weight), options, providers=["CPUExecutionProvider"]
        )
        feed = {"x": operands.x}
        return lambda: session.run(None, feed)[0]


class Jax(Contestant):
    """JAX: compiled ``conv_general_dilated`` and its vector-Jacobian products."""

    peer = "jax"

    def __init__(self, threads: int, channels_last: bool = False) -> None:
        os.environ.setdefault("NPROC", str(threads))  # read once, when its first array is made
        self._jax = import_module("jax")
        self._jax.config.update("jax_platforms", "cpu")
        self._channels_last = channels_last
        self.name = "jax channels_last" if channels_last else "jax"

    def supports(self, layer: Layer, map_name: str) -> bool:
        return True

    def prepare(self, layer: Layer, map_name: str, operands: Operands) -> Call:
        jax = self._jax
        spatial = "DHW"[3 - layer.ndim :]
        image, filters = f"NC{spatial}", f"OI{spatial}"
        x, weight, dy = operands.x, operands.weight, operands.dy
        if self._channels_last:
            image, filters = f"N{spatial}C", f"{spatial}IO"
            x, dy = np.moveaxis(x, 1, -1), np.moveaxis(dy, 1, -1)
            weight = np.moveaxis(weight, (1, 0), (-2, -1))
        x, weight, dy = (jax.device_put(a) for a in (x, weight, dy))

        def conv(x: Any, weight: Any) -> Any:
            return jax.lax.conv_general_dilated(
                x,
                weight,
                window_strides=layer.stride,
                padding=[(n, n) for n in layer.padding],
                rhs_dilation=layer.dilation,
                dimension_numbers=(image, filters, image),
                feature_group_count=layer.groups,
            )

        def grad_input(x: Any, weight: Any, dy: Any) -> Any:
            return jax.vjp(lambda x: conv(x, weight), x)[1](dy)[0]

        def grad_weight(x: Any, weight: Any, dy: Any) -> Any:
            return jax.vjp(lambda weight: conv(x, weight), weight)[1](dy)[0]

        if map_name == "forward":
            forward = jax.jit(conv)
            return lambda: forward(x, weight).block_until_ready()
        gradient = jax.jit(grad_input if map_name == "grad_input" else grad_weight)
        return lambda: gradient(x, weight, dy).block_until_ready()

    def to_numpy(self, result: Any, layer: Layer, map_name: str) -> Array:
        array = np.asarray(result)
        if not self._channels_last:
            return array
        if map_name == "grad_weight":
            return np.moveaxis(array, (-2, -1), (1, 0))
        return np.moveaxis(array, -1, 1)


def _torch(threads: int) -> list[Contestant]:
    return [Torch(threads), Torch(threads, channels_last=True)]


def _onnxruntime(threads: int) -> list[Contestant]:
    return [OnnxRuntime(threads)]


def _jax(threads: int) -> list[Contestant]:
    return [Jax(threads), Jax(threads, channels_last=True)]


def _scipy(threads: int) -> list[Contestant]:
    return [SciPy(threads, way) for way in ("correlate", "oaconvolve", "ndimage")]


def _numpy(threads: int) -> list[Contestant]:
    return [NumPyIm2col(threads)]


# The packages each peer needs, and its contestants for a number of threads.
PEERS: dict[str, tuple[tuple[str, ...], Callable[[int], list[Contestant]]]] = {
    "torch": (("torch",), _torch),
    "onnxruntime": (("onnxruntime", "onnx"), _onnxruntime),
    "jax": (("jax", "jaxlib"), _jax),
    "scipy": (("scipy",), _scipy),
    "numpy": (("numpy",), _numpy),
}


def missing_packages(peer: str) -> list[str]:
    """The packages that a peer needs and that are not installed."""
    return [package for package in PEERS[peer][0] if find_spec(package) is None]


def load_peers(names: Sequence[str], threads: int) -> tuple[list[Contestant], dict[str, str]]:
    """Contestants of the peers that are there, and the reason for each that is left out."""
    contestants: list[Contestant] = []
    left_out = {}
    for name in names:
        missing = missing_packages(name)
        if missing:
            left_out[name] = f"not installed: {', '.join(missing)}"
            continue
        try:
            contestants += PEERS[name][1](threads)
        except (ImportError, OSError) as error:  # installed, and broken or for another machine
            left_out[name] = f"cannot be imported: {error}"
    return contestants, left_out
