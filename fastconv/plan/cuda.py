"""Which algorithm computes a call on a CUDA device, and why.

"gemm"       tiles of a product of matrices, in float32 (``cuda/gemm.py``, ``cuda/gemm_weight.py``)
"tf32"       the same tiles on tensor cores, numbers rounded to TF32 (``cuda/tensor.py``)
"3xtf32"     the same, with three products in TF32 for one in float32
"planar"     a thread for each pixel, a block for each tap: for few filters, and for float64
             (``cuda/planar.py``, ``cuda/planar_weight.py``)
"reference"  the formulas as literal loops (``cuda/reference.py``)

No figure here has been measured on a device yet.
"""

from functools import lru_cache
from math import ceil, prod
from typing import Any

import numpy as np

from ..dtypes import Numbers, is_half
from ..geometry import ConvGeometry
from . import Choice, check_precision

ALGORITHMS = ("auto", "gemm", "planar", "tf32", "3xtf32", "reference")
TILES = ("gemm", "tf32", "3xtf32")

# A block computes TILE x TILE sums, from tiles of DEPTH products at a time.
TILE, DEPTH = 128, 8
THREADS = 256

# Of a tile's sums that are wanted at least: a multiply-add costs "planar" some 11 instructions,
# tiles hardly more than one.
LEAST_SHARE = 1 / 16

# grad_weight is shared out until there are this many blocks: a few for each multiprocessor.
BLOCKS = 512

MOST_GROUPS = 65535  # the extent of a grid's last axis


def dtype_for(numbers: Numbers) -> np.dtype[Any]:
    """The dtype of the kernels that compute with such operands, or with their parts.

    Those for float16 add up in float32, those for integers modulo 2**bits.
    """
    if numbers.sums is None:
        return np.dtype(np.int64 if numbers.result.itemsize == 8 else np.int32)
    halves = numbers.x == np.float16 and numbers.sums == np.float32
    return numbers.x if halves else numbers.sums


def precision_for(numbers: Numbers, precision: str) -> str:
    """What is asked of products: in TF32, those of halves that are widened lose nothing.

    Raises
    ------
    ValueError
        If ``precision`` is no name of one.
    """
    check_precision(precision)
    widened = is_half(numbers.x) and numbers.sums == np.float32
    return "medium" if widened else precision


def is_native(numbers: Numbers) -> bool:
    """Whether kernels take the operands as they are."""
    return dtype_for(numbers) == numbers.x == numbers.weight == numbers.result


@lru_cache(maxsize=1024)
def explain_choice(
    map_name: str, g: ConvGeometry, dtype: np.dtype[Any], algorithm: str, precision: str
) -> Choice:
    """The algorithm that computes a map of a geometry, and the reason.

    Raises
    ------
    ValueError
        If ``algorithm`` or ``precision`` is no name of one, or the algorithm cannot serve this.
    """
    check_precision(precision)
    if algorithm not in ALGORITHMS:
        raise ValueError(
            f"algorithm must be one of {', '.join(ALGORITHMS)} on a CUDA device, got {algorithm!r}"
        )
    if algorithm in TILES and (obstacle := _not_for_tiles(g, dtype)):
        raise ValueError(f'algorithm "{algorithm}" cannot serve this call: {obstacle}')
    if algorithm != "auto":
        return Choice(algorithm, "asked for by name")
    return _best(map_name, g, dtype, precision)


def _not_for_tiles(g: ConvGeometry, dtype: np.dtype[Any]) -> str | None:
    if dtype not in (np.float16, np.float32):
        return f"its sums are float32, too short for {dtype}"
    if g.groups > MOST_GROUPS:
        return f"{g.groups} groups are more than a grid has blocks along an axis"
    return None


def _best(map_name: str, g: ConvGeometry, dtype: np.dtype[Any], precision: str) -> Choice:
    if obstacle := _not_for_tiles(g, dtype):
        return Choice("planar", f"tiles cannot serve: {obstacle}")
    rows, columns = _matrix(map_name, g)
    share = min(rows, TILE) * min(columns, TILE) / TILE**2
    if share < LEAST_SHARE:
        return Choice("planar", f"a group would fill {share:.1%} of a tile of {TILE} x {TILE} sums")
    if dtype == np.float16:
        return Choice("tf32", "half precision loses nothing in TF32")
    if precision == "highest":
        return Choice("gemm", f"{rows} x {columns} sums to a group fill tiles of {TILE} x {TILE}")
    if precision == "high":
        return Choice("3xtf32", 'precision "high" is met by three products in TF32')
    return Choice("tf32", 'precision "medium" is met by TF32')


def _matrix(map_name: str, g: ConvGeometry) -> tuple[int, int]:
    """Extents of a group's result as a matrix."""
    channels, filters = g.in_channels // g.groups, g.out_channels // g.groups
    if map_name == "forward":
        return filters, g.batch * prod(g.output)
    if map_name == "grad_input":
        return channels, ceil(g.batch * prod(g.input) / prod(g.stride))
    return filters, channels * prod(g.kernel)


# What the kernels need: see ``explain``.


def panel_elements(groups: int, filters: int, channels: int, taps: int) -> int:
    """Numbers of the filters as tiles read them."""
    return groups * taps * ceil(channels / DEPTH) * DEPTH * ceil(filters / TILE) * TILE


def shares_of(blocks: int, lines: int) -> int:
    """Parts into which sums over lines of pixels are cut, each with this many blocks."""
    return max(1, min(lines, BLOCKS // max(blocks, 1)))


def requirements(
    map_name: str, g: ConvGeometry, dtype: np.dtype[Any], algorithm: str
) -> tuple[int, int, int]:
    """Floating-point operations, bytes of scratch memory, and threads of the largest launch."""
    tiles = algorithm in TILES
    operations = g.operations * (3 if algorithm == "3xtf32" else 1)
    rows, columns = _matrix(map_name, g)
    sums = g.groups * rows * columns
    blocks = g.groups * ceil(rows / TILE) * ceil(columns / TILE) if tiles else sums
    if map_name == "grad_weight":
        shares = shares_of(blocks, g.batch * prod(g.output[:2]))
        return operations, shares * sums * max(dtype.itemsize, 4), blocks * shares * THREADS
    if not tiles:
        return operations, 0, sums
    channels = (g.in_channels + g.out_channels) // g.groups - rows
    panel = panel_elements(g.groups, rows, channels, _taps(map_name, g))
    return operations, 4 * panel, blocks * THREADS


def _taps(map_name: str, g: ConvGeometry) -> int:
    """Taps of the filters that a launch reads: grad_input takes one for each phase."""
    if map_name == "forward":
        return prod(g.kernel)
    phases = [phase.taps[1:] for phase in g.phases]
    taps_of = [
        prod([len(range(n)[axis]) for axis, n in zip(taps, g.kernel, strict=True)])
        for taps in phases
    ]
    return max(taps_of, default=0)
