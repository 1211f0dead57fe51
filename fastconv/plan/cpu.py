"""Which algorithm computes a call on the CPU, and why.

"depthwise"  lanes are groups: for many groups of few channels (``cpu/depthwise.py``)
"direct"     lanes are channels: pack, accumulate, unpack (``cpu/direct.py``)
"gemm"       lanes are pixels, packed: 1x1 filters on larger images (``cpu/gemm.py``); its
             gradient of the filters is that of "direct"
"planar"     lanes are pixels: for few channels to a group, or short sums (``cpu/planar.py``)
"winograd"   3x3 and Tx3x3 filters of stride 1 with a quarter of the products (``cpu/winograd.py``)
"reference"  the formulas as literal loops (``reference.py``)
"""

from functools import lru_cache
from math import ceil, inf, prod
from typing import Any

import numba
import numpy as np

from ..geometry import ConvGeometry
from ..host import L2_BYTES, L3_BYTES, VECTOR_BITS, lanes_of
from . import Choice

ALGORITHMS = ("auto", "depthwise", "direct", "gemm", "planar", "winograd", "reference")

WIDE = VECTOR_BITS == 512

# Part of a vector that channels must fill, or pixels are lanes. For 6 and 7 channels in vectors of
# 8 "planar" took 0.77 to 0.97 of the time of "direct".
FILLED = 3 / 4 if WIDE else 1

# Channels times filters of a group up to which "depthwise" is taken: it packs each channel once and
# uses it for as many filters, "planar" has as many pixels in a vector as there are in a line.
FEW = 4

# Taps of a filter up to which "depthwise" is taken: it adds one product after the other, "planar"
# in pieces, and its vectors are full with such filters too.
MANY_TAPS = 4096

# Pixels of an image for which 1x1 filters take "gemm": 0.55 to 0.75 of the time of "planar" and
# "direct" at 28x28 and above, 0.9 to 1.0 at 14x14, 1.05 to 1.2 at 7x7.
GEMM_PIXELS = 192

# Products in a sum at most, and pixels in a line at least, for which "direct" spends more on
# transposing the result than "planar" loses at the ends of lines: 1-D layers of 64 channels and 2
# taps 1.1 times, images of 8 channels with 16 filters 1.35 times as fast.
SHORT_SUM = 256
LONG_LINE = 48

# Pixels in a line for which the gradient of as many filters as there are lanes takes "planar", of
# fewer in proportion. With vectors of 16 and lines of 8 to 112 pixels, 3x3 and 5x5, it took 0.2 to
# 1.05 of the time of "direct" below that number, above it 0.9 to 3; of 8, 0.15 to 1 and 0.6 to 4.
FULL_LINE = 64

# Vectors of channels from which on it does not, if they are narrow: "direct" took 0.7 to 0.9 of the
# time of "planar" for those 1-D layers, 0.9 to 1.2 times for images with 12 to 32 filters.
MOST_VECTORS = inf if WIDE else 4

# Products in a sum up to which "gemm" is the better one of these for 2 vectors of filters or more:
# 1.15 times as fast as "planar", 1.4 times as "direct", on images of 3 channels, 3x3. With narrow
# vectors it took 1.2 to 1.9 times as long as either.
SHORTEST_SUM = 32 if WIDE else 0


def choose(map_name: str, g: ConvGeometry, dtype: np.dtype[Any], algorithm: str) -> str:
    """The algorithm that computes a map ("forward", "grad_input" or "grad_weight") of a geometry.

    Raises
    ------
    ValueError
        If ``algorithm`` is no name of one, or the one it names cannot serve this call.
    """
    return explain_choice(map_name, g, dtype, algorithm).algorithm


@lru_cache(maxsize=1024)
def explain_choice(map_name: str, g: ConvGeometry, dtype: np.dtype[Any], algorithm: str) -> Choice:
    """Like ``choose``, with the reason."""
    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)}, got {algorithm!r}")
    if numba.config.DISABLE_JIT:
        if algorithm not in ("auto", "reference"):
            raise ValueError(
                f"algorithm {algorithm!r} needs Numba's compiler, which NUMBA_DISABLE_JIT turns off"
            )
        return Choice("reference", "Numba's compiler is turned off")
    if algorithm == "winograd" and (obstacle := _not_for_winograd(g)):
        raise ValueError(f'algorithm "winograd" cannot serve this call: {obstacle}')
    if algorithm != "auto":
        return Choice(algorithm, "asked for by name")
    return _best(map_name, g, dtype)


def _not_for_winograd(g: ConvGeometry) -> str | None:
    if g.kernel[1:] != (3, 3):
        return f"the filter must be 3x3 or Tx3x3, not {g.kernel}"
    if g.stride != (1, 1, 1) or g.dilation != (1, 1, 1):
        return f"stride and dilation must be 1, not {g.stride} and {g.dilation}"
    return None


def _best(map_name: str, g: ConvGeometry, dtype: np.dtype[Any]) -> Choice:
    lanes = lanes_of(dtype)
    channels, filters = g.in_channels // g.groups, g.out_channels // g.groups
    across = channels if map_name == "grad_input" else filters
    if channels * filters <= FEW and prod(g.kernel) <= MANY_TAPS and g.groups >= 3 * lanes / 4:
        return Choice("depthwise", f"{g.groups} groups of {channels} to {filters} fill the lanes")
    if _are_few(map_name, g, across, lanes):
        return Choice("planar", f"with {across} to a group, channels would not fill {lanes} lanes")
    if _not_for_winograd(g) is None and dtype == np.float32:
        winograd, direct = _winograd_time(map_name, g), _direct_time(map_name, g)
        if winograd < direct:
            share = winograd / direct
            return Choice("winograd", f'it takes about {share:.0%} of the time of "direct"')
    if g.channels_last:
        # Nothing to transpose: on 1x1 layers 0.5 to 0.7 of the time of "gemm", which has to.
        return Choice("direct", "channels are last, and pass through the lanes as they lie")
    pointwise = g.is_pointwise and prod(g.stride) == 1
    if pointwise and map_name != "grad_weight" and prod(g.output) >= GEMM_PIXELS:
        return Choice("gemm", f"1x1 filters on {prod(g.output)} pixels: a product of matrices")
    depth, width = _sums(map_name, g)
    unit, wide = prod(g.stride) == 1, across >= 2 * lanes
    if unit and wide and 0 < depth <= SHORTEST_SUM:
        return Choice("gemm", f"sums of {depth} products are short, and {across} filters many")
    # Of strided images "planar" copies more than "direct" reads: 1.1 to 1.2 times the time.
    few = across < MOST_VECTORS * lanes
    if depth <= SHORT_SUM and width >= LONG_LINE and few and (unit or not wide):
        return Choice("planar", f"sums of {depth} products are short, lines of {width} long")
    return Choice("direct", f"with {across} to a group, channels fill vectors of {lanes} lanes")


def _are_few(map_name: str, g: ConvGeometry, across: int, lanes: int) -> bool:
    """Whether so many channels leave more lanes empty than the ends of lines do."""
    if map_name != "grad_weight":
        return across < FILLED * lanes
    line = g.output[2]
    if g.kernel[1] > 1 and g.stride[1] == g.dilation[1] == 1:  # lines of taps share what they load
        return across < max(lanes * min(FILLED, line / FULL_LINE), 2)
    # For 5 and more filters over short lines "direct" took 0.5 to 0.9 of the time.
    return across <= lanes / 4 or (across < FILLED * lanes and line >= LONG_LINE)


def _sums(map_name: str, g: ConvGeometry) -> tuple[int, int]:
    """Products in a sum, and pixels in a line, as "planar" would have them; 0 if it cannot."""
    taps = prod(g.kernel)
    if map_name == "forward":
        return g.in_channels // g.groups * taps, g.output[2]
    if map_name == "grad_input":  # in phases
        phases = prod(g.stride)
        return g.out_channels // g.groups * ceil(taps / phases), g.input[2] // g.stride[2]
    return 0, 0


# Times for one channel and filter, in multiply-adds of "direct".

# Tiles up to which ``cpu/winograd.py`` takes the filters to the points where it needs them, if they
# are many. With 512 x 512 "direct" took 0.5 to 0.6 of the time for one tile, 1.1 times as long for
# 4, 1.7 times for 16; with 128 x 128 0.75 for 4, 0.8 to 0.9 for 9.
FEW_TILES = 66

# Packing a tap that comes from the third-level cache, as it lies or flipped: a third of the time of
# one image of 7x7 pixels and 512 x 512 filters, 0.45 of that of its grad_input. Filters of several
# planes or from memory cost Winograd's algorithm as much: it takes 0.9 to 2.5 times as long then.
PACKING = {"forward": 28, "grad_input": 42, "grad_weight": 0}


def _filters_bytes(g: ConvGeometry) -> int:
    return 4 * prod(g.kernel) * g.in_channels * g.out_channels // g.groups


def _direct_time(map_name: str, g: ConvGeometry) -> float:
    far = g.kernel[0] == 1 and 2 * L2_BYTES < _filters_bytes(g) <= L3_BYTES
    return prod(g.kernel) * (g.batch * prod(g.output) + (PACKING[map_name] if far else 0))


def _winograd_time(map_name: str, g: ConvGeometry) -> float:
    tiles = g.batch * g.output[0] * ceil(g.output[1] / 4) * ceil(g.output[2] / 4)
    channels, filters = g.in_channels // g.groups, g.out_channels // g.groups
    planes = g.kernel[0]
    # Each of a channel's tiles is transformed once for all filters, and the other way round.
    transforms = tiles * (1 / channels + planes / filters)
    if map_name == "grad_weight" or tiles > FEW_TILES:
        # Taking filters to the points or back, and reading them there.
        mebibytes = channels * filters * planes * 36 * 4 / 2**20
        return 36 * tiles * planes + 500 * transforms + planes * (500 + 50 * mebibytes)
    products = 36 * ceil(tiles / 6) * 6 * planes
    # Threads have some panels of filters each, or some tiles and all of a single panel. A filter's
    # planes share cache lines, which come again for each.
    across = g.out_channels if map_name == "forward" else g.in_channels
    taking = 350 if across > 4 * lanes_of(np.dtype(np.float32)) else 700
    if planes > 1 and _filters_bytes(g) > 2 * L2_BYTES:
        taking = 1000
    return 1.3 * products + 150 * transforms + taking * planes
