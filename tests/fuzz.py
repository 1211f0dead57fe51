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
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

import fastconv
from fastconv.padding import MODES
from fastconv.plan.cpu import ALGORITHMS

from . import reference
from .cases import Case
from .dtypes import (
    BFLOAT16,
    FLOAT16,
    conjugate,
    exactly,
    integers_of,
    magnitude,
    result_dtype,
    smallest_normal,
    ulp,
    wrapped,
)
from .guard import guarded

# How often each is drawn.
DTYPES = {
    **{np.dtype(name): 0.25 for name in ("float32", "float64")},
    **{half: 0.1 for half in (FLOAT16, BFLOAT16) if half is not None},
    **{np.dtype(name): 0.075 for name in ("complex64", "complex128")},
    **{np.dtype(f"{sign}{size}"): 0.02 for sign in "iu" for size in (1, 2, 4, 8)},
}
SINGLE = (np.dtype(np.float32), np.dtype(np.complex64), FLOAT16, BFLOAT16)
LARGE = 1_000_000  # products, for which Python's integers are too slow

# A sum of n products, in any order, is off by at most n units of rounding of the sum of magnitudes
# (N. Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1); in float64 so is the
# oracle's. Winograd's transforms lose more, of the largest such sum of the tile.
WINOGRAD = 30


class _Subclass(np.ndarray):
    pass


def poison(a):
    """What must not be read, or stay in a result."""
    return 77 if a.dtype.kind in "iu" else np.nan


# Ways to lay the same numbers out in memory.


def _reordered(rng, a):
    order = rng.permutation(a.ndim)
    return np.ascontiguousarray(a.transpose(order)).transpose(np.argsort(order))


def _reversed(rng, a):
    axes = tuple(slice(None, None, -1) if rng.random() < 0.5 else slice(None) for _ in a.shape)
    return np.ascontiguousarray(a[axes])[axes]


def _sparse(rng, a):
    steps = [int(rng.integers(1, 4)) for _ in a.shape]
    room = np.full([n * s + 1 for n, s in zip(a.shape, steps, strict=True)], poison(a), a.dtype)
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


def draw_dtype(rng, case):
    dtypes = [*DTYPES]
    weights = np.array([*DTYPES.values()])
    dtype = dtypes[rng.choice(len(dtypes), p=weights / weights.sum())]
    large = case.batch * prod(case.extents) * prod(case.weight_shape) > LARGE
    return np.dtype(np.int16) if dtype.kind in "iu" and dtype.itemsize > 2 and large else dtype


def draw_numbers(rng, shape, dtype):
    """Normally distributed, sometimes all the same, tiny or from a single plane."""
    if dtype.kind in "iu":
        return integers_of(rng, shape, dtype)
    kind = rng.random()
    if kind < 0.05:
        return np.broadcast_to(np.asarray(rng.standard_normal(), dtype), shape)
    numbers = rng.standard_normal(shape)
    if dtype.kind == "c":
        numbers = numbers + 1j * rng.standard_normal(shape)
    if kind < 0.1:
        numbers *= smallest_normal(dtype) * 3
    numbers = numbers.astype(dtype)
    if 0.1 <= kind < 0.15 and numbers.size:
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
    options: dict = field(default_factory=dict)

    def allowed(self, dtype, algorithm, sums):
        """Error of each element of ``dtype``, of ``sums`` in float32 or float64."""
        if dtype.kind in "iu":
            return self.scale
        parts = 2 if dtype.kind == "c" else 1
        products = parts * self.products
        facts = np.finfo(sums)
        error = (products + 2) * float(facts.eps) * self.scale
        if algorithm in ("auto", "winograd") and self.scale.size:
            error = np.full_like(error, WINOGRAD * error.max())
        error += 2 * products * float(facts.smallest_subnormal)  # of products that are denormal
        if parts * np.dtype(sums).itemsize > dtype.itemsize:  # rounded once, or each part is
            error += parts * ulp(np.abs(self.expected) + error, dtype) / 2
        return error


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
        return Call(f"conv{case.ndim}d", arrays, (), expected, scale, products, options)
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
    return Call(name, named, (shape,), expected, scale, products, options)


def spoil(rng, call, options):
    """Make one mistake, that the package must find."""
    name = str(rng.choice(list(call.arrays)))
    array = call.arrays[name]
    other = "f8" if array.dtype == "f4" else "f4"
    mistakes = {
        "rank": lambda: call.arrays.update({name: array[None, None]}),
        "dtype": lambda: call.arrays.update({name: np.zeros(array.shape, "?")}),
        "other dtype": lambda: call.arrays.update({name: np.zeros(array.shape, other)}),
        "accumulate_dtype": lambda: options.update(accumulate_dtype="float16"),
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
    if array.dtype.newbyteorder() == array.dtype:  # of one byte, or of ml_dtypes
        del mistakes["byte order"]
    mistake = str(rng.choice(list(mistakes)))
    mistakes[mistake]()
    return mistake


def poisoned(rng, call, dtype):
    """An ``out`` of some layout, full of NaN or of what stands for it."""
    layout = str(rng.choice(OUTPUTS))
    out = np.empty(call.expected.shape, dtype)
    out[...] = poison(out)
    return LAYOUTS[layout](rng, out), layout


def check_round(seed, number, counts):
    """Draw one call and make it."""
    rng = np.random.default_rng((seed, number))
    case = draw_case(rng)
    dtype = draw_dtype(rng, case)
    algorithm = str(rng.choice(ALGORITHMS))
    # Winograd's algorithm spreads what is no number over a tile, parts of complex numbers over
    # both parts.
    special = algorithm not in ("auto", "winograd") and dtype.kind in "fV" and rng.random() < 0.1
    with np.errstate(invalid="ignore"):
        call = draw_call(rng, case, dtype, special)
    options = {**case.geometry, **call.options, "algorithm": algorithm}
    sums = "float32" if dtype in SINGLE else "float64"
    if dtype.kind in "fVc" and rng.random() < 0.15:
        sums = options["accumulate_dtype"] = "float64"
    for name, array in call.arrays.items():
        layout = "broadcast" if 0 in array.strides else str(rng.choice(list(LAYOUTS)))
        if layout != "broadcast":
            call.arrays[name] = LAYOUTS[layout](rng, array)
        counts[f"operand {layout}"] += 1
    out = None
    if rng.random() < 0.4 and call.expected.size:
        out, layout = poisoned(rng, call, result_dtype(dtype))
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
        if out is not None:
            same = np.array_equal(out, np.full_like(out, poison(out)), equal_nan=True)
            assert same, "written in spite of an error"
        counts[f"mistake {mistake}" if mistake else "not for winograd"] += 1
        return
    assert mistake is None, f"not refused: {mistake}"
    for name, array in call.arrays.items():
        assert np.array_equal(before[name], array, equal_nan=True), f"{name} was changed"
    assert out is None or result is out
    assert result.dtype == result_dtype(dtype)
    assert result.shape == call.expected.shape
    integers = dtype.kind in "iu"
    finite = np.isfinite(call.expected)
    result, expected = (a if integers else reference.wide(a) for a in (result, call.expected))
    same = np.array_equal(result[~finite], expected[~finite], equal_nan=True)
    assert same, "NaN or infinity where it does not belong, or none where it does"
    error = np.abs(result[finite] - expected[finite])
    excess = error - call.allowed(result_dtype(dtype), algorithm, sums)[finite]
    assert (excess <= 0).all(), f"error {error.max():.2e}, {excess.max():.2e} more than allowed"
    counts[f"{call.name} {algorithm}"] += 1
    for option in call.options:
        counts[f"with {option}"] += 1
    counts[f"padding {case.padding_mode}"] += any(map(any, case.pairs))
    counts["cropped"] += min(map(min, case.pairs)) < 0
    counts[f"dtype {dtype}"] += 1
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
