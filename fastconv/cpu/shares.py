"""Sums over pixels that are divided into *shares*, one task each.

How many there are depends on the problem alone, and they are added in order: so the result does not
depend on the number of threads, and long sums lose less to rounding.
"""

from .kernel import once
from .simd import element, lanes, load, pointer, put, store

# Shares of the pixels are made until there are this many tasks.
TASKS = 16


@once
def add_up(sums, begin, end, shares, distance):
    """Add those of the other shares, ``distance`` apart, to the vectors from begin to end."""
    for i in range(begin, end, lanes(sums)):
        total = load(sums, i)
        for share in range(1, shares):
            total = total + load(sums, share * distance + i)
        store(sums, i, total)


@once
def write_total(shares, count, distance, filters, depth, table, offsets, dw, w_filter):
    """``dw[k, table[offsets + s]] = sum_i shares[i, k, s]``.

    Parameters
    ----------
    shares : pointer to (count, filters, depth), the shares ``distance`` numbers apart
    table : (n,) int64
        Holds ``depth`` offsets from index ``offsets``.
    dw : pointer
        To the first filter; the others are ``w_filter`` numbers apart.
    """
    for k in range(filters):
        result = pointer(dw, k * w_filter)
        for s in range(depth):
            i = k * depth + s
            total = element(shares, i)
            for share in range(1, count):
                total += element(shares, share * distance + i)
            put(result, element(table, offsets + s), total)
