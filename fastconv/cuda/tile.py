"""A block's share of a product of matrices: TILE x TILE sums, 8 x 8 in the registers of a thread.

    sums[i, j] += sum_s  rows[s, i] * cols[s, j]

Tiles of DEPTH rows of both operands lie in shared memory, twice, so that the next ones are fetched
while these are multiplied: ``gemm.py`` and ``gemm_weight.py`` say what they are. How they lie there
and how they are multiplied is ``simt.py``'s and ``tensor.py``'s to say.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

OWN = 8  # rows and columns of a thread

Device = Callable[..., Any]


class Product(NamedTuple):
    """A way to multiply tiles, made of device functions.

    Attributes
    ----------
    size : int
        Elements that a tile takes in shared memory.
    rounded : x -> x as it is multiplied
    panel : s, i -> place of ``rows[s, i]`` where filters are stored tile by tile
    vector : v -> place in shared memory of the v-th 4 numbers of a tile of such filters
    put_row, put_col : array, start, i, s, 4 numbers -> None
        Stores ``rows[s:s+4, i]``, or ``cols[s:s+4, i]``, of the tile that begins at ``start``.
    place : thread -> a, b
        From which its rows and columns follow:
    row, col : a, i -> its row i; b, j -> its column j
    multiply : rows, cols, start, a, b, sums -> None
        Adds the products of two tiles to a thread's sums.
    """

    size: int
    rounded: Device
    panel: Device
    vector: Device
    put_row: Device
    put_col: Device
    place: Device
    row: Device
    col: Device
    multiply: Device
