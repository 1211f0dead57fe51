"""What lies in memory and is asked for while the micro-kernel multiplies, a cache line at a time.

The processor foresees what follows in memory. It does not foresee the next rows of a block, which
are pieces of some hundred bytes far apart, and waits for each of them; but it multiplies meanwhile
if they were asked for. Not many at a time, for it keeps track of a few dozen lines and then waits
as well. So ``accumulate`` asks for one with every other step, and finds in two tables which.
"""

from math import prod

import numpy as np

from ..host import L2_BYTES, LINE
from .blocks import Table
from .views import Layout

# Rows of the micro-kernel between asking for lines and taking them, two tiles: 1x1 layers of 16 to
# 96 channels, 112x112, grad_input, took 0.68 of the time with one and 0.63 with two; 64 to 64,
# 56x56, 0.87 and 0.89.
AHEAD = 12


def is_beyond(x: Layout, itemsize: int, threads: int) -> bool:
    """Whether an array is more than the second-level caches of so many cores hold."""
    return prod(x.shape) * itemsize > threads * L2_BYTES


def lines_among(table: Table, itemsize: int) -> Table:
    """Of these offsets, one in each cache line.

    >>> lines_among(np.arange(40), 4)
    array([ 0, 16, 32])
    """
    _, first = np.unique(table * itemsize // LINE, return_index=True)
    return table[first]


def in_steps(rows: Table, lines: Table, steps: int) -> Table:
    """All lines of all rows spread evenly over so many steps, of which every other one is taken.

    If there are too many, some of them.

    >>> in_steps(np.array([0, 1000]), np.array([0, 16]), 8)
    array([   0,    0,   16,   16, 1000, 1000, 1016, 1016])
    >>> in_steps(np.array([0, 1000]), np.array([0, 16]), 4)
    array([   0,    0, 1000, 1000])
    """
    places = (rows[:, None] + lines).ravel()
    return places[np.arange(steps) // 2 * 2 * len(places) // steps]
