"""One random call: its operands in memory, mistakes in it, and whether its result is right."""

from dataclasses import dataclass, field

import numpy as np

import fastconv

from . import reference
from .dtypes import BFLOAT16, FLOAT16, integers_of, smallest_normal, ulp
from .guard import guarded
from .scratch import poison_scratch

SINGLE = (np.dtype(np.float32), np.dtype(np.complex64), FLOAT16, BFLOAT16)

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

    ``products`` is how many there are to a sum, ``scale`` the sums of their magnitudes; ``sums``
    the dtype in which they are added up. ``mistakes`` are options that must be refused, ``kinds``
    what is counted of a call that is right.
    """

    name: str
    arrays: dict
    extra: tuple
    expected: np.ndarray
    scale: np.ndarray
    products: int
    result: np.dtype
    options: dict
    mistakes: dict
    kinds: list = field(default_factory=list)
    algorithm: str = "direct"

    @property
    def sums(self):
        return self.options.get("accumulate_dtype") or sums_of(self.result)

    def allowed(self):
        """Error of each element of the result."""
        dtype = self.result
        if dtype.kind in "iu":
            return self.scale
        parts = 2 if dtype.kind == "c" else 1
        products = parts * self.products
        facts = np.finfo(self.sums)
        error = (products + 2) * float(facts.eps) * self.scale
        if self.algorithm in ("auto", "winograd") and self.scale.size:
            error = np.full_like(error, WINOGRAD * error.max())
        error += 2 * products * float(facts.smallest_subnormal)  # of products that are denormal
        if parts * np.dtype(self.sums).itemsize > dtype.itemsize:  # rounded once, or each part is
            error += parts * ulp(np.abs(self.expected) + error, dtype) / 2
        return error


def sums_of(dtype):
    """In which dtype numbers of another one are added up."""
    return "float32" if dtype in SINGLE else "float64"


def spoil(rng, call):
    """Make one mistake, that the package must find."""
    name = str(rng.choice(list(call.arrays)))
    array = call.arrays[name]
    other = "f8" if array.dtype == "f4" else "f4"
    shape = (*call.expected.shape, 2)
    mistakes = {
        "rank": lambda: call.arrays.update({name: array[None, None]}),
        "dtype": lambda: call.arrays.update({name: np.zeros(array.shape, "?")}),
        "other dtype": lambda: call.arrays.update({name: np.zeros(array.shape, other)}),
        "byte order": lambda: call.arrays.update({name: array.astype(array.dtype.newbyteorder())}),
        "list": lambda: call.arrays.update({name: array.tolist()}),
        "masked": lambda: call.arrays.update({name: np.ma.array(array)}),
        "out": lambda: call.options.update(out=np.empty(shape, array.dtype)),
    }
    if array.dtype.newbyteorder() == array.dtype:  # of one byte, or of ml_dtypes
        del mistakes["byte order"]
    if len(call.arrays) == 1:
        del mistakes["other dtype"]
    mistake = str(rng.choice([*mistakes, *call.mistakes]))
    if mistake in mistakes:
        mistakes[mistake]()
    else:
        call.options.update(call.mistakes[mistake])
    return mistake


def poisoned(rng, call):
    """An ``out`` of some layout, full of NaN or of what stands for it."""
    layout = str(rng.choice(OUTPUTS))
    out = np.empty(call.expected.shape, call.result)
    out[...] = poison(out)
    return LAYOUTS[layout](rng, out), layout


def check(rng, call, counts):
    """Make the call, now and then with a mistake, with operands of all kinds of layouts.

    Without an ``out``, it is made twice.
    """
    for name, array in call.arrays.items():
        layout = "broadcast" if 0 in array.strides else str(rng.choice(list(LAYOUTS)))
        if layout != "broadcast":
            call.arrays[name] = LAYOUTS[layout](rng, array)
        counts[f"operand {layout}"] += 1
    out = None
    if rng.random() < 0.4 and call.expected.size:
        out, layout = poisoned(rng, call)
        call.options["out"] = out
        counts[f"result {layout}"] += 1
    mistake = spoil(rng, call) if rng.random() < 0.1 else None
    before = {name: np.array(array) for name, array in call.arrays.items()}
    function = getattr(fastconv, call.name)
    result, refusal = None, None
    poison_scratch()
    try:
        result = function(*call.arrays.values(), *call.extra, **call.options)
    except (TypeError, ValueError) as error:
        refusal = str(error)
    if refusal is not None:
        by_name = call.algorithm == "winograd" and "winograd" in refusal
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
    if out is None:  # a call like an earlier one is not looked at again
        again = function(*call.arrays.values(), *call.extra, **call.options)
        assert np.array_equal(again, result, equal_nan=True), "not the same once more"
        assert not np.may_share_memory(again, result)
    assert result.dtype == call.result
    assert result.shape == call.expected.shape
    integers = call.result.kind in "iu"
    finite = np.isfinite(call.expected)
    result, expected = (a if integers else reference.wide(a) for a in (result, call.expected))
    same = np.array_equal(result[~finite], expected[~finite], equal_nan=True)
    assert same, "NaN or infinity where it does not belong, or none where it does"
    error = np.abs(result[finite] - expected[finite])
    excess = error - call.allowed()[finite]
    assert (excess <= 0).all(), f"error {error.max():.2e}, {excess.max():.2e} more than allowed"
    counts.update(call.kinds)
