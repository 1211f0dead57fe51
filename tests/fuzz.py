"""Random calls: each must agree with the oracle, or raise before anything is written.

    python -m tests.fuzz --minutes 10 --seed 1

draws geometries, padding of every mode and negative, dtypes, algorithms, layouts, NaN, infinities
and mistakes, and prints how many
calls were made of each kind. A call that fails is named by seed and round, on which alone it
depends.
"""

import argparse
import time
from collections import Counter
from dataclasses import dataclass, replace
from math import prod

import numpy as np

import fastconv
from fastconv.padding import MODES
from fastconv.plan.cpu import ALGORITHMS

from . import reference
from .cases import Case
from .guard import guarded

# A sum of n products, in any order, is off by at most n units of rounding of the sum of magnitudes
# (N. Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1); in float64 so is the
# oracle's. Winograd's transforms lose more, of the largest such sum of the tile.
WINOGRAD = 30


class _Subclass(np.ndarray):
    pass


# Ways to lay the same numbers out in memory.


def _reordered(rng, a):
    order = rng.permutation(a.ndim)
    return np.ascontiguousarray(a.transpose(order)).transpose(np.argsort(order))


def _reversed(rng, a):
    axes = tuple(slice(None, None, -1) if rng.random() < 0.5 else slice(None) for _ in a.shape)
    return np.ascontiguousarray(a[axes])[axes]


def _sparse(rng, a):
    steps = [int(rng.integers(1, 4)) for _ in a.shape]
    room = np.full([n * s + 1 for n, s in zip(a.shape, steps, strict=True)], np.nan, a.dtype)
    view = room[tuple(slice(0, n * s, s) for n, s in zip(a.shape, steps, strict=True))]
    view[...] = a
    return view


def _misaligned(rng, a):
    room = np.empty(a.nbytes + 1, np.uint8)
    view = room[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def _read_only(rng, a):
    a = a.copy()
    a.flags.writeable = False
    return a


LAYOUTS = {
    "contiguous": lambda rng, a: a,
    "reordered": _reordered,
    "reversed": _reversed,
    "sparse": _sparse,
    "misaligned": _misaligned,
    "read-only": _read_only,
    "subclass": lambda rng, a: a.view(_Subclass),
    "guard after": lambda rng, a: guarded(a),
    "guard before": lambda rng, a: guarded(a, before=True),
}
OUTPUTS = ("contiguous", "reordered", "reversed", "sparse", "guard after", "guard before")


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


def draw_numbers(rng, shape, dtype):
    """Normally distributed, sometimes all the same, tiny or from a single plane."""
    kind = rng.random()
    if kind < 0.05:
        return np.broadcast_to(np.asarray(rng.standard_normal(), dtype), shape)
    numbers = rng.standard_normal(shape).astype(dtype)
    if kind < 0.1:
        numbers *= np.finfo(dtype).smallest_normal * 3
    elif kind < 0.15 and numbers.size:
        numbers = np.broadcast_to(numbers[:1], shape)
    return numbers


@dataclass
class Call:
    """A function, its operands by name, what it must return, and how exactly.

    ``products`` is how many there are to a sum, ``scale`` the sums of their magnitudes.
    """

    name: str
    arrays: dict
    extra: tuple
    expected: np.ndarray
    scale: np.ndarray
    products: int

    def allowed(self, dtype, algorithm):
        """Error of each element."""
        facts = np.finfo(dtype)
        units = (self.products + 2) * float(facts.eps)
        lost = 2 * self.products * float(facts.smallest_subnormal)  # of products that are denormal
        if algorithm in ("auto", "winograd") and self.scale.size:
            return WINOGRAD * units * self.scale.max() + lost
        return units * self.scale + lost


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
    if kind == "forward":
        b = draw_numbers(rng, case.filters, dtype) if rng.random() < 0.5 else None
        arrays = {"x": x, "weight": w} | ({} if b is None else {"bias": b})
        magnitude = reference.conv(abs(x), abs(w), None if b is None else abs(b), **g)
        expected = reference.conv(x, w, b, **g)
        return Call(f"conv{case.ndim}d", arrays, (), expected, magnitude, prod(w.shape[1:]))
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
    expected = function(*arrays, shape, **g)
    magnitude = function(*map(abs, arrays), shape, **g)
    return Call(f"conv{case.ndim}d_{kind}", named, (shape,), expected, magnitude, products)


def spoil(rng, call, options):
    """Make one mistake, that the package must find."""
    name = str(rng.choice(list(call.arrays)))
    array = call.arrays[name]
    mistakes = {
        "rank": lambda: call.arrays.update({name: array[None, None]}),
        "dtype": lambda: call.arrays.update({name: np.zeros(array.shape, "i4")}),
        "byte order": lambda: call.arrays.update({name: array.astype(array.dtype.newbyteorder())}),
        "list": lambda: call.arrays.update({name: array.tolist()}),
        "masked": lambda: call.arrays.update({name: np.ma.array(array)}),
        "stride": lambda: options.update(stride=0),
        "dilation": lambda: options.update(dilation=-1),
        "padding": lambda: options.update(padding="full"),
        "cropped": lambda: options.update(padding=-(10**6)),
        "padding_mode": lambda: options.update(padding_mode="wrap"),
        "cropped mode": lambda: options.update(padding_mode="reflect", padding=-1),
        "groups": lambda: options.update(groups=10**6),
        "algorithm": lambda: options.update(algorithm="fastest"),
        "precision": lambda: options.update(precision="low"),
        "out": lambda: options.update(out=np.empty((*call.expected.shape, 2), array.dtype)),
    }
    mistake = str(rng.choice(list(mistakes)))
    mistakes[mistake]()
    return mistake


def poisoned(rng, call, dtype):
    """An ``out`` of some layout, full of NaN."""
    layout = str(rng.choice(OUTPUTS))
    return LAYOUTS[layout](rng, np.full(call.expected.shape, np.nan, dtype)), layout


def check_round(seed, number, counts):
    """Draw one call and make it."""
    rng = np.random.default_rng((seed, number))
    case, dtype = draw_case(rng), np.dtype(str(rng.choice(["f4", "f8"])))
    algorithm = str(rng.choice(ALGORITHMS))
    # Winograd's algorithm spreads what is no number over a tile.
    special = algorithm not in ("auto", "winograd") and rng.random() < 0.1
    with np.errstate(invalid="ignore"):
        call = draw_call(rng, case, dtype, special)
    options = {**case.geometry, "algorithm": algorithm}
    for name, array in call.arrays.items():
        layout = "broadcast" if 0 in array.strides else str(rng.choice(list(LAYOUTS)))
        if layout != "broadcast":
            call.arrays[name] = LAYOUTS[layout](rng, array)
        counts[f"operand {layout}"] += 1
    out = None
    if rng.random() < 0.4 and call.expected.size:
        out, layout = poisoned(rng, call, dtype)
        options["out"] = out
        counts[f"result {layout}"] += 1
    mistake = spoil(rng, call, options) if rng.random() < 0.1 else None
    before = {name: np.array(array) for name, array in call.arrays.items()}
    function = getattr(fastconv, call.name)
    result, refusal = None, None
    try:
        result = function(*call.arrays.values(), *call.extra, **options)
    except (TypeError, ValueError) as error:
        refusal = str(error)
    if refusal is not None:
        by_name = algorithm == "winograd" and "winograd" in refusal
        assert mistake or by_name, f"refused: {refusal}"
        assert out is None or np.isnan(out).all(), "written in spite of an error"
        counts[f"mistake {mistake}" if mistake else "not for winograd"] += 1
        return
    assert mistake is None, f"not refused: {mistake}"
    for name, array in call.arrays.items():
        assert np.array_equal(before[name], array, equal_nan=True), f"{name} was changed"
    assert out is None or result is out
    assert result.dtype == dtype
    assert result.shape == call.expected.shape
    finite = np.isfinite(call.expected)
    same = np.array_equal(result[~finite], call.expected[~finite], equal_nan=True)
    assert same, "NaN or infinity where it does not belong, or none where it does"
    allowed = np.broadcast_to(call.allowed(dtype, algorithm), finite.shape)
    error = np.abs(result[finite] - call.expected[finite])
    excess = error - allowed[finite]
    assert (excess <= 0).all(), f"error {error.max():.2e}, {excess.max():.2e} more than allowed"
    counts[f"{call.name} {algorithm}"] += 1
    counts[f"padding {case.padding_mode}"] += any(map(any, case.pairs))
    counts["cropped"] += min(map(min, case.pairs)) < 0
    counts["NaN and infinity"] += special


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
