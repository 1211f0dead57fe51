"""Large results of short sums: written past the caches.

A processor reads a cache line before the first number in it is written. Where writing is the work
and nothing of the result is left in the caches at the end anyway, stores that go past them save a
third of the memory's traffic. They do where vectors that follow one another fill whole lines: parts
of one may be written one by one. Such stores are seen by other threads after the next atomic
operation of the thread that made them, which is how every stage of ``driver.py`` ends.
"""

from math import prod
from typing import Any

import numpy as np

from ..host import L3_BYTES, VECTOR_BITS, VECTOR_HALVES
from .tile import STEPS
from .views import Layout

# Results of this size, of sums of so many products. Where wide vectors go through in two halves: 16
# to 96 channels, 16x112x112, took 0.63 to 0.68 of the time, 32 from 16 0.53 to 0.72. A next layer
# finds less of them in the caches: both together took 0.84 to 1.0 of it. With sums of 64 they took
# up to 1.1, for such a layer computes while the processor reads and writes. Where wide vectors go
# through whole, 16 to 96 took 0.26 (channels first) and 0.7 (last), sums of 64 at 56x56 0.70 and
# 0.89, of 128 at 28x28 0.83 and 0.90, with the 1x1 layer that reads them 0.88 to 0.94. Longer ones,
# the parts of which have to wait elsewhere, took 0.94 to 1.0: not done. On a processor with narrow
# vectors, where a byte of memory costs more operations, two layers together took 0.83 to 0.92 of
# the time for results of 7 to 10 MB, 1.01 to 1.08 for 5 MB; below 8 MiB of 32 are sums in half
# precision, which are read at once.
BYTES = L3_BYTES // 2 if VECTOR_BITS == 512 else L3_BYTES // 4
DEPTH = STEPS if VECTOR_BITS == 512 and not VECTOR_HALVES else 32


def is_far(y: Layout, dtype: np.dtype[Any], depth: int) -> bool:
    """Whether a result is so large, and its sums so short, that it goes past the caches."""
    large = prod(y.shape) * dtype.itemsize >= BYTES
    return large and depth <= DEPTH
