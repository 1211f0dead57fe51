"""Rounding errors over the length of the sums: the table in docs/reliability.md.

    python -m tests.numerics --largest 10000000

All numbers lie between 0 and 1, so that partial sums only grow and lose the most: an error here is
relative to the sum of magnitudes, in units of rounding of the dtype (2**-24, 2**-53).
"""

import argparse
from itertools import product
from math import ceil, fsum, isqrt

import numpy as np

import fastconv
from fastconv.plan.cpu import ALGORITHMS

MAPS = ("forward", "grad_input", "grad_weight")
TAPS = 9
UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}


def worst(map_name, algorithm, dtype, length, seed=0):
    """The largest error of a few sums of about ``length`` products, in units of rounding."""
    rng = np.random.default_rng(seed)
    terms = ceil(length / TAPS)

    def draw(*shape):
        return rng.random(shape, dtype)

    if map_name == "forward":
        x, w = draw(1, terms, 4, 5), draw(2, terms, 3, 3)
        found = fastconv.conv2d(x, w, algorithm=algorithm)
        sums = {
            (0, k, p, q): (x[0, :, p : p + 3, q : q + 3], w[k])
            for k, p, q in product(range(2), range(2), range(3))
        }
    elif map_name == "grad_input":
        dy, w = draw(1, terms, 4, 5), draw(terms, 2, 3, 3)
        found = fastconv.conv2d_grad_input(dy, w, (1, 2, 6, 7), algorithm=algorithm)
        sums = {  # of pixels that all taps reach
            (0, c, h, v): (dy[0, :, h - 2 : h + 1, v - 2 : v + 1], w[:, c, ::-1, ::-1])
            for c, h, v in product(range(2), range(2, 4), range(2, 5))
        }
    else:
        side = max(isqrt(length), 3)
        x, dy = draw(1, 2, side + 2, side + 2), draw(1, 2, side, side)
        found = fastconv.conv2d_grad_weight(dy, x, (2, 2, 3, 3), algorithm=algorithm)
        sums = {
            (k, c, r, s): (dy[0, k], x[0, c, r : r + side, s : s + side])
            for k, c, r, s in product(range(2), range(2), (0, 2), (0, 1))
        }
    return max(_error(found[i], *pair) for i, pair in sums.items()) / UNIT[dtype]


def _error(found, a, b):
    products = np.multiply(a, b, dtype=np.float64).ravel()
    # float64's own sums need better ones beside them; for float32 pairwise sums in float64 do.
    exact = fsum(products) if found.dtype == np.float64 else products.sum()
    return abs(float(found) - exact) / exact


def table(lengths):
    yield "| algorithm | map | dtype | " + " | ".join(f"{n:,}" for n in lengths) + " |"
    yield "|---|---|---|" + "--:|" * len(lengths)
    for algorithm, map_name, dtype in product(ALGORITHMS, MAPS, UNIT):
        cells = [f"{worst(map_name, algorithm, dtype, n):.3g}" for n in lengths]
        yield f"| {algorithm} | {map_name} | {dtype} | " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=10**6, metavar="N")
    largest = parser.parse_args().largest
    for line in table([10**i for i in range(1, 8) if 10**i <= largest]):
        print(line, flush=True)


if __name__ == "__main__":
    main()
