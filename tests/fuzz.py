"""Random calls: each must agree with the oracle, or raise before anything is written.

    python -m tests.fuzz --minutes 10 --seed 1

draws convolutions and poolings: geometries, padding of every mode and negative, dtypes, algorithms,
layouts, NaN, infinities and mistakes. It prints how many calls were made of each kind; one that
fails is named by seed and round, on which alone it depends.
"""

import argparse
import time
from collections import Counter
from dataclasses import replace
from math import prod

import numpy as np

from fastconv.padding import MODES
from fastconv.plan.cpu import ALGORITHMS

from . import reference
from .cases import Case
from .dtypes import (
    BFLOAT16,
    FLOAT16,
    conjugate,
    exactly,
    magnitude,
    result_dtype,
    wrapped,
)
from .fuzz_call import Call, check, draw_numbers
from .fuzz_pool import draw_pooling

# How often each is drawn.
DTYPES = {
    **{np.dtype(name): 0.25 for name in ("float32", "float64")},
    **{half: 0.1 for half in (FLOAT16, BFLOAT16) if half is not None},
    **{np.dtype(name): 0.075 for name in ("complex64", "complex128")},
    **{np.dtype(f"{sign}{size}"): 0.02 for sign in "iu" for size in (1, 2, 4, 8)},
}
LARGE = 1_000_000  # products, for which Python's integers are too slow
POOLINGS = 0.2  # of all calls

MISTAKES = {
    "accumulate_dtype": {"accumulate_dtype": "float16"},
    "stride": {"stride": 0},
    "dilation": {"dilation": -1},
    "padding": {"padding": "full"},
    "cropped": {"padding": -(10**6)},
    "padding_mode": {"padding_mode": "wrap"},
    "cropped mode": {"padding_mode": "reflect", "padding": -1},
    "groups": {"groups": 10**6},
    "algorithm": {"algorithm": "fastest"},
    "precision": {"precision": "low"},
}


def draw_case(rng):
    """A geometry whose filter fits into the padded image."""
    ndim = int(rng.integers(1, 4))

    def each(low, high):
        return tuple(int(n) for n in rng.integers(low, high + 1, ndim))

    kernel, dilation, stride = each(1, 5), each(1, 3), each(1, 4)
    if rng.random() < 0.3:
        kernel, dilation, stride = (3,) * ndim, (1,) * ndim, (1,) * ndim
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    padding = str(rng.choice(["same", "valid", "pairs"]))
    before = after = (0,) * ndim
    if padding == "pairs":
        least = -4 if rng.random() < 0.3 else 0
        before, after = each(least, 5), each(least, 5)
        padding = tuple(zip(before, after, strict=True))
    largest = {1: 90, 2: 22, 3: 9}[ndim]
    extents = tuple(
        # Some pixel is left by cropping.
        max(1 - min(b, 0) - min(a, 0), (1 if padding == "same" else r - b - a) + more)
        for r, b, a, more in zip(reach, before, after, each(0, largest - 1), strict=True)
    )
    groups = int(rng.choice([1, 1, 1, 2, 3, 17]))
    channels, filters = (int(rng.choice([1, 1, 2, 3, 7, 16, 20])) for _ in range(2))
    case = Case(
        extents=extents,
        kernel=kernel,
        batch=int(rng.choice([0, 1, 1, 2, 3, 7])),
        channels=groups * channels,
        filters=groups * filters,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
    showing = replace(case, padding_mode=str(rng.choice(MODES)))
    return showing if showing.is_allowed else case


def draw_dtype(rng, case):
    dtypes = [*DTYPES]
    weights = np.array([*DTYPES.values()])
    dtype = dtypes[rng.choice(len(dtypes), p=weights / weights.sum())]
    large = case.batch * prod(case.extents) * prod(case.weight_shape) > LARGE
    return np.dtype(np.int16) if dtype.kind in "iu" and dtype.itemsize > 2 and large else dtype


def draw_call(rng, case, dtype, special):
    """One of the three maps of a case; with numbers that are none, if ``special``, in one image."""
    g = case.geometry
    x = draw_numbers(rng, case.x_shape, dtype)
    if special and x.size:
        x = x.copy()
        places = rng.integers(0, x.size, 3)
        x.flat[places] = rng.choice([np.nan, np.inf, -np.inf], 3)
    w = draw_numbers(rng, case.weight_shape, dtype)
    kind = rng.choice(["forward", "grad_input", "grad_weight"])
    integers = dtype.kind in "iu"
    if kind == "forward" or integers:
        result = result_dtype(dtype)
        b = draw_numbers(rng, case.filters, result) if rng.random() < 0.5 else None
        arrays = {"x": x, "weight": w} | ({} if b is None else {"bias": b})
        if integers:
            expected = wrapped(exactly("conv", x, w, b, **g), result)
            scale = np.zeros(expected.shape)
        else:
            expected = reference.conv(x, w, b, **g)
            scale = reference.conv(*map(magnitude, arrays.values()), **g)
        options = {}
        if dtype.kind in "fV" and rng.random() < 0.2:
            expected, options = np.where(expected <= 0, 0, expected), {"activation": "relu"}
        products = prod(w.shape[1:])
        name = f"conv{case.ndim}d"
        return Call(name, arrays, (), expected, scale, products, result, options, MISTAKES)
    windows = reference.Windows(x, case.kernel, **{**g, "groups": 1})
    pixels = windows.shape
    dy = draw_numbers(rng, (case.batch, case.filters, *pixels), dtype)
    if kind == "grad_input":
        function, arrays, shape = reference.conv_grad_input, (dy, w), case.x_shape
        named = {"grad_output": dy, "weight": w}
        # A pixel's gradient is the sum over the positions that show it.
        ones = np.ones((1, 1, *windows.padded.shape[2:]))
        shown = reference.unpad(ones, case.extents, case.pairs, case.padding_mode).max()
        products = case.filters // case.groups * prod(case.kernel) * max(int(shown), 1)
    else:
        function, arrays, shape = reference.conv_grad_weight, (dy, x), case.weight_shape
        named = {"grad_output": dy, "x": x}
        products = case.batch * prod(pixels)
    pairs = (dy, conjugate(arrays[1])), [*map(magnitude, arrays)]
    options = {}
    if kind == "grad_weight" and case.batch and rng.random() < 0.2:
        options = {"per_sample": True}
        images = [slice(n, n + 1) for n in range(case.batch)]
        expected, scale = (
            np.stack([function(*[a[n] for a in pair], shape, **g) for n in images])
            for pair in pairs
        )
    else:
        expected, scale = (function(*pair, shape, **g) for pair in pairs)
    name = f"conv{case.ndim}d_{kind}"
    return Call(name, named, (shape,), expected, scale, products, dtype, options, MISTAKES)


def draw_convolution(rng):
    """A call of a convolution, or of its gradients."""
    case = draw_case(rng)
    dtype = draw_dtype(rng, case)
    algorithm = str(rng.choice(ALGORITHMS))
    # Winograd's algorithm spreads what is no number over a tile, parts of complex numbers over
    # both parts.
    special = algorithm not in ("auto", "winograd") and dtype.kind in "fV" and rng.random() < 0.1
    with np.errstate(invalid="ignore"):
        call = draw_call(rng, case, dtype, special)
    kinds = [f"{call.name} {algorithm}", f"dtype {dtype}", *[f"with {o}" for o in call.options]]
    kinds += [f"padding {case.padding_mode}"] * any(map(any, case.pairs))
    kinds += ["cropped"] * (min(map(min, case.pairs)) < 0) + ["NaN and infinity"] * special
    call.kinds, call.algorithm = kinds, algorithm
    call.options |= {**case.geometry, "algorithm": algorithm}
    if dtype.kind in "fVc" and rng.random() < 0.15:
        call.options["accumulate_dtype"] = "float64"
    return call


def check_round(seed, number, counts):
    """Draw one call and make it."""
    rng = np.random.default_rng((seed, number))
    draw = draw_pooling if rng.random() < POOLINGS else draw_convolution
    check(rng, draw(rng), counts)


def fuzz(seed, seconds=None, rounds=None):
    """Make random calls for some seconds, or a number of them.

    Returns
    -------
    Counter
        Calls of each kind.
    """
    counts: Counter[str] = Counter()
    end = None if seconds is None else time.monotonic() + seconds
    number = 0
    while (end is None or time.monotonic() < end) and (rounds is None or number < rounds):
        try:
            check_round(seed, number, counts)
        except Exception as error:
            raise AssertionError(f"seed {seed}, round {number}: {error}") from error
        number += 1
    counts["calls"] = number
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    counts = fuzz(arguments.seed, seconds=60 * arguments.minutes)
    for kind in sorted(counts):
        print(f"{counts[kind]:>9,} {kind}")


if __name__ == "__main__":
    main()
