"""What a convolution costs, and how it is computed: ``fastconv.explain``."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import DTypeLike

from .arguments import Padding, PerAxis, shape_tuple
from .dtypes import COMPLEX, INTEGERS, SERVED, Numbers, is_floating, named, stored_numbers
from .functional import conv_geometry_of
from .geometry import ConvGeometry
from .padded import padded_at_a_time
from .plan import check_precision
from .plan import cpu as cpu_plan
from .plan import cuda as cuda_plan
from .ranks import FILTER_AXES, IMAGE_AXES, RESULT_AXES

MAPS = ("forward", "grad_input", "grad_weight")


@dataclass(frozen=True)
class MapPlan:
    """How one map is computed.

    Attributes
    ----------
    algorithm, why : str
        What "auto" takes, and the reason.
    products : int
        Multiply-adds that the algorithm does, those of empty lanes not counted.
    workspace : int
        Bytes of scratch memory, copies in the dtype of the sums among them.
    threads : int
        Threads that take part.
    """

    algorithm: str
    why: str
    products: int
    workspace: int
    threads: int


@dataclass(frozen=True)
class Explanation:
    """A convolution's shapes and costs; prints as a table.

    Attributes
    ----------
    geometry : ConvGeometry
    dtype : numpy dtype
    accumulate_dtype : numpy dtype or None
        As asked for.
    flops : int
        Multiplications and additions of the definition, the same for all maps; of complex numbers,
        those of their parts.
    nbytes : int
        Of input, filters and result: what any of the maps moves at least.
    maps : dict
        A ``MapPlan`` for "forward", "grad_input" and "grad_weight"; of integers for "forward".
    """

    ndim: int
    geometry: ConvGeometry
    dtype: np.dtype[np.generic]
    accumulate_dtype: np.dtype[np.generic] | None
    flops: int
    nbytes: int
    maps: dict[str, MapPlan]

    def __str__(self) -> str:
        g, n = self.geometry, self.ndim
        inner = slice(3 - n, None)
        pairs = tuple(zip(g.before, g.after, strict=True))
        sums = "" if self.accumulate_dtype is None else f" summed in {self.accumulate_dtype}"
        lines = [
            f"x       (N, C, {IMAGE_AXES[n]}) = {(g.batch, g.in_channels, *g.input[inner])}",
            f"weight  (K, C/groups, {FILTER_AXES[n]}) ="
            f" {(g.out_channels, g.in_channels // g.groups, *g.kernel[inner])}",
            f"y       (N, K, {RESULT_AXES[n]}) = {(g.batch, g.out_channels, *g.output[inner])}",
            f"stride {g.stride[inner]}, padding {pairs[inner]} ({g.padding_mode}), dilation"
            f" {g.dilation[inner]}, groups {g.groups}, {self.dtype}{sums}",
            f"{self.flops / 1e9:.3g} GFLOP, {self.nbytes / 1e6:.3g} MB,"
            f" {self.flops / self.nbytes:.3g} FLOP/byte",
        ]
        for name, each in self.maps.items():
            share = 2 * each.products / max(self.flops, 1)
            lines += [
                "",
                f"{name}: {each.algorithm}, because {each.why}",
                f"    {share:.0%} of the multiply-adds of the definition,"
                f" {each.workspace / 2**20:.3g} MiB of scratch memory, {each.threads:,} threads",
            ]
        return "\n".join(lines)


def explain(
    x_shape: Sequence[SupportsIndex],
    weight_shape: Sequence[SupportsIndex],
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: SupportsIndex = 1,
    *,
    padding_mode: str = "zeros",
    data_format: str = "channels_first",
    dtype: DTypeLike = np.float32,
    backend: str = "cpu",
    precision: str = "highest",
    accumulate_dtype: DTypeLike | None = None,
) -> Explanation:
    """Say what a convolution costs and which algorithm "auto" takes for each map, and why.

    Parameters
    ----------
    x_shape : tuple of ints
        (N, C, *spatial), with 1 to 3 spatial axes; (N, *spatial, C) with "channels_last".
    weight_shape : tuple of ints
        (K, C/groups, *kernel).
    stride, padding, dilation, groups
        As in ``conv1d``, ``conv2d`` and ``conv3d``.
    padding_mode : "zeros", "reflect", "replicate" or "circular", default "zeros"
        As in ``conv1d``, ``conv2d`` and ``conv3d``.
    data_format : "channels_first" or "channels_last", default "channels_first"
        As in ``conv1d``, ``conv2d`` and ``conv3d``.
    dtype : dtype, default float32
        Of ``x`` and ``weight``; for integers, of which there are no gradients, the forward map
        alone is explained.
    backend : "cpu" or "cuda", default "cpu"
        Where the arrays would lie; no device is needed to ask.
    precision : "highest", "high" or "medium", default "highest"
        As in ``conv1d``, ``conv2d`` and ``conv3d``.
    accumulate_dtype : float64, optional
        As in ``conv1d``, ``conv2d`` and ``conv3d``.

    Returns
    -------
    Explanation
        Prints as a table.

    Raises
    ------
    TypeError, ValueError
        As the convolution itself would.

    Examples
    --------
    >>> import fastconv
    >>> plan = fastconv.explain((16, 64, 56, 56), (64, 64, 3, 3), padding=1)
    >>> plan.flops == 2 * 16 * 64 * 56 * 56 * 64 * 3 * 3
    True
    >>> plan.maps["forward"].algorithm
    'winograd'
    """
    if not isinstance(backend, str) or backend not in _PLANS:
        raise ValueError(f"backend must be one of {', '.join(_PLANS)}, got {backend!r}")
    kind = named("dtype", dtype)
    if not is_floating(kind) and kind not in INTEGERS:
        raise TypeError(f"dtype must be {SERVED}, got {kind}")
    check_precision(precision)
    x, w = shape_tuple("x_shape", x_shape), shape_tuple("weight_shape", weight_shape)
    ndim = len(w) - 2
    if ndim not in IMAGE_AXES:
        raise ValueError(f"weight_shape must have 3, 4 or 5 entries, got {w}")
    g = conv_geometry_of(
        ndim,
        x,
        w,
        stride,
        padding,
        dilation,
        groups,
        data_format,
        padding_mode,
        x_name="x_shape",
        weight_name="weight_shape",
    )
    numbers = stored_numbers((("x", kind), ("weight", kind)), None, accumulate_dtype, False)
    nbytes = kind.itemsize * (prod(g.x_shape) + prod(g.weight_shape))
    nbytes += numbers.result.itemsize * prod(g.y_shape)
    maps = {
        name: _PLANS[backend](name, g, numbers, precision)
        for name in (MAPS[:1] if kind in INTEGERS else MAPS)
    }
    flops = g.operations * (4 if kind in COMPLEX else 1)
    accumulate = None if accumulate_dtype is None else np.dtype(accumulate_dtype)
    return Explanation(ndim, g, kind, accumulate, flops, nbytes, maps)


def _on_cpu(name: str, g: ConvGeometry, numbers: Numbers, precision: str) -> MapPlan:
    from . import cpu  # which takes a while to import
    from .cpu import stored

    if numbers.x == numbers.sums:
        choice = cpu_plan.explain_choice(name, g.padded, numbers.x, "auto")
        needs = cpu.requirements(name, g.padded, numbers.x, choice.algorithm)
        operations, elements, threads = needs
        nbytes = elements * numbers.x.itemsize
    else:
        backend = stored.backend_for(numbers)
        choice = backend.explain_choice(name, g.padded, "auto")
        operations, nbytes, threads = backend.requirements(name, g.padded, choice.algorithm)
    sums = numbers.x if numbers.sums is None else numbers.sums
    nbytes += _padded_bytes(g, numbers, sums)
    return MapPlan(choice.algorithm, choice.why, operations // 2, nbytes, threads)


def _on_cuda(name: str, g: ConvGeometry, numbers: Numbers, precision: str) -> MapPlan:
    dtype = cuda_plan.dtype_for(numbers)
    computed = g.padded.of_parts if numbers.x in COMPLEX else g.padded
    precision = cuda_plan.precision_for(numbers, precision)
    choice = cuda_plan.explain_choice(name, computed, dtype, "auto", precision)
    operations, nbytes, threads = cuda_plan.requirements(name, computed, dtype, choice.algorithm)
    if not cuda_plan.is_native(numbers):
        shapes = computed.x_shape, computed.weight_shape, computed.y_shape
        nbytes += dtype.itemsize * sum(map(prod, shapes))
    nbytes += _padded_bytes(g, numbers, dtype)
    return MapPlan(choice.algorithm, choice.why, operations // 2, nbytes, threads)


def _padded_bytes(g: ConvGeometry, numbers: Numbers, sums: np.dtype[Any]) -> int:
    """Bytes of images with their padding, or of gradients that are folded, made at a time."""
    if g.padded is g:
        return 0
    size = sums.itemsize * (2 if numbers.x in COMPLEX else 1)
    return padded_at_a_time(g, size) * prod(g.padded.x_shape[1:]) * size


_PLANS = {"cpu": _on_cpu, "cuda": _on_cuda}
