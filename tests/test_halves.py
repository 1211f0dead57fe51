"""float16 and bfloat16 as bits: every one of them to float32, and to it from all that is near."""

import numpy as np
import pytest

from fastconv.cpu.halves import narrow, widen

from .dtypes import FLOAT16, FORMATS

PATTERNS = np.arange(2**16, dtype=np.uint16)


def value(bits, dtype):
    """The number of each pattern, in float64, by the definition of the format; infinity and NaN
    are taken for numbers, too."""
    fraction_bits, least = FORMATS[dtype.name]
    bits = bits.astype(np.int64)
    exponent = (bits & 0x7FFF) >> fraction_bits
    fraction = (bits & ((1 << fraction_bits) - 1)) + ((exponent > 0) << fraction_bits)
    magnitude = np.ldexp(
        fraction.astype(float), np.maximum(exponent, 1) - 1 + least - fraction_bits
    )
    return np.where(bits >> 15, -magnitude, magnitude)


def infinity(dtype):
    return 0x7C00 if dtype == FLOAT16 else 0x7F80


def test_every_half_is_widened(half):
    wide = widen(PATTERNS.view(half).reshape(256, 256))
    assert wide.dtype == np.float32
    assert wide.shape == (256, 256)
    wide = wide.reshape(-1)
    magnitude, negative = PATTERNS & 0x7FFF, PATTERNS >> 15 == 1
    finite, nan = magnitude < infinity(half), magnitude > infinity(half)
    np.testing.assert_array_equal(wide[finite], value(PATTERNS, half)[finite])
    np.testing.assert_array_equal(np.signbit(wide), negative)  # of zeros and NaN as well
    np.testing.assert_array_equal(np.isinf(wide), magnitude == infinity(half))
    assert np.isnan(wide[nan]).all()
    # A payload stays in front of the fraction.
    shift = 23 - FORMATS[half.name][0]
    payload = wide.view(np.uint32)[nan] & 0x007FFFFF
    np.testing.assert_array_equal(payload >> shift, magnitude[nan] & (infinity(half) ^ 0x7FFF))
    assert (payload & ((1 << shift) - 1) == 0).all()


def narrowed(numbers, half):
    out = np.empty(numbers.shape, half)
    narrow(numbers, out)
    return out.view(np.uint16)


def test_every_half_comes_back(half):
    wide = widen(PATTERNS.view(half))
    nan = np.isnan(wide)
    quiet = 1 << (FORMATS[half.name][0] - 1)  # which arithmetic sets
    with np.errstate(invalid="ignore"):  # some NaN signal
        doubles = wide.astype(np.float64)
    for numbers in (wide, doubles):
        back = narrowed(numbers, half)
        np.testing.assert_array_equal(back[~nan], PATTERNS[~nan])
        np.testing.assert_array_equal(back[nan], PATTERNS[nan] | quiet)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_nearest_half_is_taken(half, dtype):
    """Halfway between all neighbours, and the next numbers below and above that."""
    low = PATTERNS[: infinity(half)]
    below, above = value(low, half), value(low + 1, half)  # infinity for the next power of two
    halfway = ((below + above) / 2).astype(dtype)
    assert (halfway == (below + above) / 2).all()
    even = low + (low & 1)
    for sign, bit in ((1, 0), (-1, 0x8000)):
        for numbers, expected in (
            (np.nextafter(halfway, np.array(0, dtype)), low),
            (halfway, even),
            (np.nextafter(halfway, np.array(np.inf, dtype)), low + 1),
        ):
            np.testing.assert_array_equal(narrowed(sign * numbers, half), expected | bit)


def test_extremes(half):
    top = infinity(half)
    tiny = np.array([1e-310, 5e-324, 2.0**-149, 2.0**-150, 0.0])
    large = np.array([1e300, np.finfo("f4").max, 3.5e38, np.inf])
    for numbers, expected in ((tiny, 0), (large, top)):
        np.testing.assert_array_equal(narrowed(numbers, half), expected)
        np.testing.assert_array_equal(narrowed(-numbers, half), expected | 0x8000)


def test_random_numbers(half, rng):
    """Of every magnitude; the nearest is found by looking at all."""
    with np.errstate(over="ignore"):
        numbers = np.ldexp(rng.uniform(1, 2, 20_000), rng.integers(-140, 130, 20_000))
        singles = numbers.astype(np.float32)
    values = value(PATTERNS[: infinity(half) + 1], half)
    for some in (numbers, singles[np.isfinite(singles)]):
        exact = some.astype(np.float64)
        at = np.clip(np.searchsorted(values, exact), 1, infinity(half))
        nearer = exact - values[at - 1] < values[at] - exact
        np.testing.assert_array_equal(narrowed(some, half), at - nearer)
