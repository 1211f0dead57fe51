"""Random calls of poolings and their gradients, for ``fuzz.py``."""

from math import prod

import numpy as np

from . import pool_reference as reference
from .dtypes import BFLOAT16, FLOAT16, magnitude
from .fuzz_call import Call, draw_numbers
from .reference import wide

# How often each is drawn; of integers there are largest numbers alone.
DTYPES = {
    **{np.dtype(name): 0.3 for name in ("float32", "float64")},
    **{half: 0.1 for half in (FLOAT16, BFLOAT16) if half is not None},
}
INTEGERS = [np.dtype(f"{sign}{size}") for sign in "iu" for size in (1, 2, 4)]

MISTAKES = {
    "stride": {"stride": 0},
    "padding": {"padding": -1},
    "padding name": {"padding": "same"},
    "more padding": {"padding": 10**6},
    "kernel_size": {"kernel_size": 0},
    "data_format": {"data_format": "NHWC"},
}


def draw_windows(rng, dilated):
    """Extents of an image, and windows of which there is one at least."""
    ndim = int(rng.integers(1, 4))

    def each(low, high):
        return tuple(int(n) for n in rng.integers(low, high + 1, ndim))

    kernel, dilation = each(1, 5), each(1, 3) if dilated else (1,) * ndim
    padding = tuple(
        (int(rng.integers(0, k // 2 + 1)), int(rng.integers(0, k // 2 + 1))) for k in kernel
    )
    if rng.random() < 0.5:
        padding = ((0, 0),) * ndim
    largest = {1: 90, 2: 22, 3: 9}[ndim]
    extents = tuple(
        max(1, (k - 1) * d + 1 - sum(pair)) + more
        for k, d, pair, more in zip(kernel, dilation, padding, each(0, largest - 1), strict=True)
    )
    options = {"kernel": kernel, "padding": padding, "ceil_mode": bool(rng.random() < 0.3)}
    if rng.random() < 0.6:
        options["stride"] = each(1, 6)
    return extents, options | ({"dilation": dilation} if dilated else {})


# Each kind: operands, result, the sums of magnitudes that are in it, and how many terms a sum has.


def _max_pool(rng, x, options):
    expected, _ = reference.max_pool(x, **options)
    if x.dtype.kind in "iu":
        expected = np.maximum(expected, np.iinfo(x.dtype).min).astype(x.dtype)
    return {"x": x}, expected, np.zeros(expected.shape), 0


def _max_pool_grad_input(rng, x, options):
    dy = draw_numbers(rng, reference.max_pool(x, **options)[0].shape, x.dtype)
    sums = [reference.max_pool_grad_input(f(dy), x, **options) for f in (wide, magnitude)]
    return {"grad_output": dy, "x": x}, *sums, prod(options["kernel"])


def _avg_pool(rng, x, options):
    sums = [reference.avg_pool(f(x), **options) for f in (wide, magnitude)]
    return {"x": x}, *sums, prod(options["kernel"])


def _avg_pool_grad_input(rng, x, options):
    dy = draw_numbers(rng, reference.avg_pool(x, **options).shape, x.dtype)
    sums = [reference.avg_pool_grad_input(f(dy), x.shape, **options) for f in (wide, magnitude)]
    return {"grad_output": dy}, *sums, prod(options["kernel"])


KINDS = {
    "max_pool": _max_pool,
    "max_pool_grad_input": _max_pool_grad_input,
    "avg_pool": _avg_pool,
    "avg_pool_grad_input": _avg_pool_grad_input,
}


def draw_images(rng, extents, dtype):
    """Images, and whether there are NaN or infinities among their numbers."""
    channels = int(rng.choice([1, 2, 3, 7, 16, 17, 40, 130]))
    x = draw_numbers(rng, (int(rng.choice([0, 1, 1, 2, 3, 5])), channels, *extents), dtype)
    if rng.random() < 0.3:
        x = np.round(x)  # of which many are equal
    special = dtype.kind in "fV" and x.size > 0 and rng.random() < 0.1
    if special:
        x = x.copy()
        x.flat[rng.integers(0, x.size, 3)] = rng.choice([np.nan, np.inf, -np.inf], 3)
    return x, special


def draw_pooling(rng):
    """A call of a pooling, or of its gradient."""
    kind = str(rng.choice([*KINDS]))
    largest = kind.startswith("max_pool")
    weights = np.array([*DTYPES.values()])
    dtype = [*DTYPES][rng.choice(len(DTYPES), p=weights / weights.sum())]
    if kind == "max_pool" and rng.random() < 0.3:
        dtype = INTEGERS[rng.integers(len(INTEGERS))]
    extents, options = draw_windows(rng, largest and rng.random() < 0.5)
    if not largest:
        options["count_include_pad"] = bool(rng.random() < 0.5)
    x, special = draw_images(rng, extents, dtype)
    with np.errstate(invalid="ignore"):
        arrays, expected, scale, terms = KINDS[kind](rng, x, options)
    options["kernel_size"] = options.pop("kernel")  # which the oracle calls otherwise
    shape = x.shape
    if rng.random() < 0.5:
        options["data_format"] = "channels_last"
        arrays = {name: np.moveaxis(array, 1, -1) for name, array in arrays.items()}
        expected, scale = np.moveaxis(expected, 1, -1), np.moveaxis(scale, 1, -1)
        shape = (shape[0], *shape[2:], shape[1])
    extra = (shape,) if kind == "avg_pool_grad_input" else ()
    name = f"{kind[:8]}{len(extents)}d{kind[8:]}"
    kinds = [name, f"dtype {dtype}", *[f"with {option}" for option in options]]
    kinds += ["NaN and infinity"] * special
    mistakes = MISTAKES | ({"dilation": {"dilation": 0}} if largest else {})
    return Call(name, arrays, extra, expected, scale, terms, dtype, options, mistakes, kinds)
