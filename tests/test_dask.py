"""Lazy arrays in chunks: the results of whole arrays, by tasks that take no more than they need."""

import re
import threading
from collections import Counter
from dataclasses import replace
from itertools import product
from math import ceil

import numpy as np
import pytest

import fastconv
from fastconv.geometry import conv_geometry

from . import reference
from .cases import CASES, Case, assert_close, assert_close_in_norm, data
from .child import python
from .test_maps import TRANSPOSED, function

dask = pytest.importorskip("dask", reason='needs Dask: pip install "fastconv[dask]"')
da = pytest.importorskip("dask.array", reason='needs Dask: pip install "fastconv[dask]"')

from fastconv.dask.slabs import blocks_of_pixels, blocks_of_windows  # noqa: E402

BLOCKS = 150  # to an image at most, where chunks are tiny


def whole(case):
    return (-1,) * (2 + case.ndim)


def uneven(case):
    """The batch in two, every spatial axis in up to three chunks of different lengths."""
    cuts = [(n // 3, 1, n - n // 3 - 1) for n in case.extents]
    batch = case.batch // 3, case.batch - case.batch // 3
    return tuple(tuple(filter(None, sizes)) or (0,) for sizes in (batch, (case.channels,), *cuts))


def tiny(case):
    """Chunks of fewer pixels than two windows share, as far as blocks do not get too many."""
    dilation, chunks, blocks = reference.tuple_of(case.dilation, case.ndim), [1, -1], 1
    for n, r, d in zip(case.extents, case.kernel, dilation, strict=True):
        size = max((r - 1) * d - 1, 1, ceil(n * blocks / BLOCKS))
        blocks *= ceil(n / size)
        chunks.append(size)
    return tuple(chunks)


def lazily(array, case, chunks):
    """``array``, images or results of a case, in chunks."""
    shaped = replace(case, channels=array.shape[1], extents=array.shape[2:])
    return da.from_array(array, chunks(shaped))


def operands(case, rng, dtype="f4"):
    x, w = data(rng, case.x_shape, dtype), data(rng, case.weight_shape, dtype)
    y = reference.conv(x, w, **case.geometry)
    return x, w, data(rng, case.filters, dtype), data(rng, y.shape, dtype)


def compute(*arrays):
    """What lazy arrays come to, which is what they said before."""
    results = dask.compute(*arrays)
    for array, result in zip(arrays, results, strict=True):
        assert isinstance(array, da.Array)
        assert type(result) is type(array._meta) is np.ndarray
        assert (result.shape, result.dtype) == (array.shape, array.dtype)
        assert array._meta.dtype == array.dtype
    return results


@pytest.mark.parametrize(
    ("chunks", "scheduler"), [(whole, "threads"), (uneven, "sync"), (tiny, "threads")]
)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_maps(case, chunks, scheduler, rng):
    """The same sums, bit by bit where a block has all their terms."""
    x, w, b, dy = operands(case, rng)
    options = {**case.geometry, "algorithm": "direct"}
    lazy, lazy_dy = lazily(x, case, chunks), lazily(dy, case, chunks)
    conv, backward = function("conv", case.ndim), function("conv_backward", case.ndim)
    with dask.config.set(scheduler=scheduler):
        y, *gradients = compute(conv(lazy, w, b, **options), *backward(lazy_dy, lazy, w, **options))
    np.testing.assert_array_equal(y, conv(x, w, b, **options))
    dx, dw, db = backward(dy, x, w, **options)
    np.testing.assert_array_equal(gradients[0], dx)
    assert_close(gradients[1], dw.astype("f8"))
    assert_close(gradients[2], db.astype("f8"))
    assert_close(y, reference.conv(x, w, b, **case.geometry))
    assert_close(gradients[0], reference.conv_grad_input(dy, w, x.shape, **case.geometry))
    assert_close(gradients[1], reference.conv_grad_weight(dy, x, w.shape, **case.geometry))
    assert_close(gradients[2], dy.astype("f8").sum(axis=(0, *range(2, dy.ndim))))


@pytest.mark.parametrize("algorithm", ["auto", "winograd"])
@pytest.mark.parametrize("chunks", [uneven, tiny])
def test_algorithms(algorithm, chunks, dtype, rng):
    """That of a block is the one of the whole, by name or chosen."""
    case = Case((29, 34), (3, 3), channels=40, filters=50, padding=((2, 0), 1))
    x, w, b, dy = operands(case, rng, dtype)
    options = {**case.geometry, "algorithm": algorithm}
    lazy, lazy_dy = lazily(x, case, chunks), lazily(dy, case, chunks)
    y, dx, dw, _ = compute(
        fastconv.conv2d(lazy, w, b, **options),
        *fastconv.conv2d_backward(lazy_dy, lazy, w, **options),
    )
    assert_close_in_norm(y, reference.conv(x, w, b, **case.geometry))
    assert_close_in_norm(dx, reference.conv_grad_input(dy, w, x.shape, **case.geometry))
    assert_close_in_norm(dw, reference.conv_grad_weight(dy, x, w.shape, **case.geometry))


@pytest.mark.parametrize("case", CASES[::6], ids=str)
def test_channels_last(case, rng):
    x, w, b, dy = operands(case, rng)
    options = {**case.geometry, "data_format": "channels_last"}
    lazy, lazy_dy = (da.moveaxis(lazily(a, case, uneven), 1, -1) for a in (x, dy))
    conv, backward = function("conv", case.ndim), function("conv_backward", case.ndim)
    y, dx, dw, db = compute(conv(lazy, w, b, **options), *backward(lazy_dy, lazy, w, **options))
    assert_close_in_norm(np.moveaxis(y, -1, 1), reference.conv(x, w, b, **case.geometry))
    dx_expected = reference.conv_grad_input(dy, w, x.shape, **case.geometry)
    assert_close_in_norm(np.moveaxis(dx, -1, 1), dx_expected)
    assert_close_in_norm(dw, reference.conv_grad_weight(dy, x, w.shape, **case.geometry))
    assert_close(db, dy.astype("f8").sum(axis=(0, *range(2, dy.ndim))))


@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_float64_and_every_function(case, rng):
    """Each gradient by its own function, of filters in chunks, and where only one array is lazy."""
    x, w, b, dy = operands(case, rng, "f8")
    lazy, lazy_dy = lazily(x, case, uneven), lazily(dy, case, uneven)
    lazy_w, lazy_b = da.from_array(w, chunks=2), da.from_array(b, chunks=3)
    conv, grad_input, grad_weight, grad_bias = (
        function(name, case.ndim)
        for name in ("conv", "conv_grad_input", "conv_grad_weight", "conv_grad_bias")
    )
    geometry = case.geometry
    got = compute(
        conv(lazy, lazy_w, lazy_b, **geometry),
        conv(x, lazy_w, b, **geometry),
        grad_input(lazy_dy, lazy_w, x.shape, **geometry),
        grad_input(dy, lazy_w, x.shape, **geometry),
        grad_weight(lazy_dy, lazy, w.shape, **geometry),
        grad_weight(lazy_dy, x, w.shape, **geometry),
        grad_weight(dy, lazy, w.shape, **geometry),
        grad_bias(lazy_dy),
    )
    y = reference.conv(x, w, b, **geometry)
    dx = reference.conv_grad_input(dy, w, x.shape, **geometry)
    dw = reference.conv_grad_weight(dy, x, w.shape, **geometry)
    expected = y, y, dx, dx, dw, dw, dw, dy.sum(axis=(0, *range(2, dy.ndim)))
    for result, exact in zip(got, expected, strict=True):
        assert_close(result, exact)


# One for each case: the most output_padding there can be.
@pytest.mark.parametrize(("case", "extra"), dict(TRANSPOSED).items(), ids=str)
def test_transposed(case, extra, rng):
    x = data(rng, (case.batch, case.filters, *case.extents), "f4")
    w, b = data(rng, case.weight_shape, "f4"), data(rng, case.channels, "f4")
    options = {**case.geometry, "output_padding": extra, "algorithm": "direct"}
    conv, backward, grad_input, grad_weight = (
        function(f"conv_transpose{name}", case.ndim)
        for name in ("", "_backward", "_grad_input", "_grad_weight")
    )
    lazy = lazily(x, case, uneven)
    try:
        y = conv(x, w, b, **options)
    except ValueError as error:
        with pytest.raises(ValueError, match=re.escape(str(error))):
            conv(lazy, w, b, **options)
        return
    dy = data(rng, y.shape, "f4")
    lazy_dy = lazily(dy, case, uneven)
    got = compute(
        conv(lazy, w, b, **options),
        *backward(lazy_dy, lazy, w, **options),
        grad_input(lazy_dy, w, x.shape, **options),
        grad_weight(lazy_dy, lazy, w.shape, **options),
    )
    dx, dw, db = backward(dy, x, w, **options)
    np.testing.assert_array_equal(got[0], y)
    np.testing.assert_array_equal(got[1], dx)
    np.testing.assert_array_equal(got[4], dx)
    for result, exact in zip((got[2], got[3], got[5]), (dw, db, dw), strict=True):
        assert_close(result, exact.astype("f8"))


def test_unbatched(rng):
    x, w = data(rng, (3, 9, 13), "f4"), data(rng, (4, 3, 3, 2), "f4")
    y = fastconv.conv2d(x, w, padding=1)
    lazy, lazy_y = da.from_array(x, (3, 2, 5)), da.from_array(y, (4, 5, 2))
    assert_close(compute(fastconv.conv2d(lazy, w, padding=1))[0], y.astype("f8"))
    got = compute(*fastconv.conv2d_backward(lazy_y, lazy, w, padding=1))
    for result, exact in zip(got, fastconv.conv2d_backward(y, x, w, padding=1), strict=True):
        assert_close(result, exact.astype("f8"))


def test_empty_chunks(rng):
    x, w = data(rng, (3, 3, 9, 13), "f4"), data(rng, (4, 3, 3, 2), "f4")
    chunks = (0, 2, 0, 1), 3, (4, 0, 5), (0, 13, 0)
    y = fastconv.conv2d(x, w, padding=(1, 0))
    lazy = da.from_array(x, chunks)
    lazy_y = da.from_array(y, ((3, 0), 4, (0, 0, 9), (12,)))
    assert_close(compute(fastconv.conv2d(lazy, w, padding=(1, 0)))[0], y.astype("f8"))
    got = compute(*fastconv.conv2d_backward(lazy_y, lazy, w, padding=(1, 0)))
    for result, exact in zip(got, fastconv.conv2d_backward(y, x, w, padding=(1, 0)), strict=True):
        assert_close(result, exact.astype("f8"))


def test_needs(rng):
    x, w = data(rng, (2, 3, 9, 13), "f4"), data(rng, (4, 3, 3, 2), "f4")
    lazy, dy = da.from_array(x, (1, 3, 4, 5)), np.ones((2, 4, 7, 12), "f4")
    dx, dw, db = fastconv.conv2d_backward(dy, lazy, w, needs=(False, False, True))
    assert dx is dw is None
    np.testing.assert_array_equal(*compute(db), 2 * 7 * 12)
    # One lazy array makes all gradients lazy, also those that do not depend on it.
    exact = fastconv.conv2d_backward(dy, x, w)
    for arrays in ((dy, lazy, w), (dy, x, da.from_array(w)), (da.from_array(dy), x, w)):
        gradients = fastconv.conv2d_backward(*arrays)
        assert all(isinstance(gradient, da.Array) for gradient in gradients)
        for result, expected in zip(compute(*gradients), exact, strict=True):
            assert_close(result, expected.astype("f8"))


class Loads:
    """Images of which it is known how often each chunk was computed."""

    def __init__(self, array, chunks):
        self._counts, self._lock, self._array = Counter(), threading.Lock(), array
        shape = da.empty(array.shape, chunks=chunks)
        self.lazy = shape.map_blocks(self._load, dtype=array.dtype)

    def _load(self, block, block_info=None):
        if not block.size:  # asked for the dtype
            return block
        place = block_info[0]["array-location"]
        with self._lock:
            self._counts[block_info[0]["chunk-location"]] += 1
        return self._array[tuple(slice(*extent) for extent in place)]

    def take(self):
        """Chunks computed since the last time, each with how often."""
        counts, self._counts = dict(self._counts), Counter()
        return counts


def test_nothing_is_computed_early_and_no_chunk_twice(rng):
    x, w = data(rng, (3, 2, 20, 30), "f4"), data(rng, (4, 2, 5, 3), "f4")
    loads, options = Loads(x, (1, 2, 7, 4)), {"padding": 1, "stride": (2, 1)}
    layer = fastconv.Conv2d(2, 4, (5, 3), **options)
    layer.weight[...] = w
    y = layer.forward(loads.lazy)
    dx = layer.backward(y)
    assert (y.shape, dx.shape, dx.dtype) == ((3, 4, 9, 30), x.shape, x.dtype)
    assert all(isinstance(n, int) for array in (y, dx) for axis in array.chunks for n in axis)
    assert not loads.take()
    got = compute(y, dx, layer.grads["weight"], layer.grads["bias"])
    assert loads.take() == dict.fromkeys(np.ndindex(3, 1, 3, 8), 1)
    y = fastconv.conv2d(x, w, **options)
    expected = y, *fastconv.conv2d_backward(y, x, w, **options)
    for result, exact in zip(got, expected, strict=True):
        assert_close(result, exact.astype("f8"))


@pytest.mark.parametrize(
    ("kernel", "options", "block", "taken"),
    [
        (
            (3, 3),
            {"padding": 1},
            (1, 0, 2, 1),
            [(1, 0, i, j) for i in (1, 2, 3) for j in (0, 1, 2)],
        ),
        ((3, 3), {"padding": 1}, (0, 0, 0, 0), [(0, 0, i, j) for i in (0, 1) for j in (0, 1)]),
        ((1, 1), {}, (0, 0, 1, 1), [(0, 0, 1, 1)]),
        ((1, 3), {"padding": (0, 1)}, (0, 0, 4, 1), [(0, 0, 4, j) for j in (0, 1, 2)]),
        ((2, 5), {"stride": (2, 5)}, (1, 0, 3, 2), [(1, 0, 3, 2)]),
        (
            (3, 3),
            {"padding": 9, "dilation": 9},
            (0, 0, 1, 0),
            [(0, 0, i, j) for i in range(5) for j in range(2)],
        ),
    ],
)
def test_a_block_takes_what_it_needs(kernel, options, block, taken, rng):
    x, w = data(rng, (2, 2, 20, 30), "f4"), data(rng, (4, 2, *kernel), "f4")
    loads = Loads(x, (1, 2, 4, 10))
    fastconv.conv2d(loads.lazy, w, **options).blocks[block].compute()
    assert loads.take() == dict.fromkeys(taken, 1)


def test_slabs_are_what_meets_a_block():
    """Pixels seen by windows, and windows that see pixels, one by one."""
    seen = 0
    for n, s, more, b in product(range(1, 8), range(1, 4), range(3), range(4)):
        r = s + more  # windows without gaps between them
        for p in range(1, max(n + 2 * b - r, 0) // s + 2):
            g = geometry_of(n, r, s, b, p)
            meet = {(w, w * s + t - b) for w in range(p) for t in range(r)}
            meet = {(w, h) for w, h in meet if 0 <= h < n}
            for blocks, extent, mine in ((blocks_of_windows, p, 0), (blocks_of_pixels, n, 1)):
                cuts = ((0, 1), (0, 1), (0, 1), (*range(0, extent, 2), extent))
                for _, block, slab, _ in blocks(g, cuts):
                    other = {pair[1 - mine] for pair in meet if pair[mine] in range(*block[3])}
                    if other:
                        assert slab[3] == (min(other), max(other) + 1)
                        seen += 1
    assert seen > 1000


def geometry_of(n, r, s, b, p):
    one = conv_geometry(1, (1, 1, n), (1, 1, 1), (s,), ((b, b),), (1,), 1)
    return replace(one, kernel=(1, 1, r), output=(1, 1, p))


def test_chunks_as_the_images_have(rng):
    """Where there is a window to every pixel, and back through strides."""
    x, w = (
        da.zeros((2, 3, 24, 36), dtype="f4", chunks=(1, 3, (8, 6, 10), 12)),
        np.ones((4, 3, 3, 3), "f4"),
    )
    assert fastconv.conv2d(x, w, padding=1).chunks == (x.chunks[0], (4,), *x.chunks[2:])
    y = fastconv.conv2d(x, w, padding=1, stride=2)
    assert y.chunks == ((1, 1), (4,), (4, 3, 5), (6, 6, 6))
    assert fastconv.conv2d_grad_input(y, w, x.shape, padding=1, stride=2).chunks == x.chunks


def test_halos_are_cut_out_where_chunks_lie():
    """What crosses from chunk to chunk: strips of a pixel, copied, not chunks."""
    x = da.zeros((1, 3, 60, 80), dtype="f4", chunks=(1, 3, 20, 20))
    y = fastconv.conv2d(x, np.ones((4, 3, 3, 3), "f4"), padding=1)
    tasks = [task for key, task in dict(y.dask).items() if key[0] == y.name]
    for task in tasks:
        chunks = [key for key in task.dependencies if key[0] == x.name]
        assert len(chunks) == 1
    # A chunk, the filters, and what 8 neighbours of an interior block lend.
    assert max(len(task.dependencies) for task in tasks) == 1 + 1 + 8
    halos = {key for task in tasks for key in task.dependencies if "-halo-" in key[0]}
    assert len(halos) == 12  # one task for each chunk
    for key in halos:
        parts = y.dask[key]({y.dask[key].args[0].key: np.zeros((1, 3, 20, 20), "f4")})
        assert {part.shape[2:] for part in parts} == {(1, 1), (1, 20), (20, 1)}
        assert all(part.base is None for part in parts)


def test_names_tell_calls_apart():
    x = da.ones((1, 1, 9, 9), chunks=(1, 1, 4, 4))
    w = np.arange(9.0).reshape(1, 1, 3, 3)
    calls = {
        "plain": fastconv.conv2d(x, w, padding=1),
        "weight": fastconv.conv2d(x, w + 1, padding=1),
        "dilation": fastconv.conv2d(x, w, padding=2, dilation=2),
        "padding": fastconv.conv2d(x, w, padding=((2, 0), 1)),
        "bias": fastconv.conv2d(x, w, np.ones(1), padding=1),
        "grad_input": fastconv.conv2d_grad_input(x, w, x.shape, padding=1),
    }
    assert len({array.name for array in calls.values()}) == len(calls)
    assert fastconv.conv2d(x, w.copy(), padding=1).name == calls["plain"].name
    together = dask.compute(*calls.values())
    for array, result in zip(calls.values(), together, strict=True):
        np.testing.assert_array_equal(array.compute(), result)


def test_arrays_may_change_after_the_call(rng):
    x, w = data(rng, (1, 2, 9, 9), "f4"), data(rng, (3, 2, 3, 3), "f4")
    expected = fastconv.conv2d(x, w)
    lazy = fastconv.conv2d(da.from_array(x, (1, 2, 4, 4)), w)
    w[...] = 0
    np.testing.assert_array_equal(lazy.compute(), expected)


def test_sums_are_the_same_bits_every_time(rng):
    x, dy = data(rng, (8, 3, 40, 40), "f4"), data(rng, (8, 4, 40, 40), "f4")
    lazy, lazy_dy = da.from_array(x, (1, 3, 9, 13)), da.from_array(dy, (2, 4, 11, 8))
    dw = fastconv.conv2d_grad_weight(lazy_dy, lazy, (4, 3, 3, 3), padding=1)
    db = fastconv.conv2d_grad_bias(lazy_dy)
    runs = [compute(dw, db) for _ in range(5)]
    runs.append(dask.compute(dw, db, scheduler="sync"))
    assert len({(a.tobytes(), b.tobytes()) for a, b in runs}) == 1


def test_an_array_with_itself(rng):
    x = data(rng, (2, 3, 9, 11), "f4")
    lazy = da.from_array(x, (1, 3, 4, 4))
    (dw,) = compute(fastconv.conv2d_grad_weight(lazy, lazy, (3, 3, 3, 3), padding=1))
    assert_close(dw, reference.conv_grad_weight(x, x, (3, 3, 3, 3), padding=1))


def test_sums_are_trees():
    x = da.ones((64, 1, 3, 3), chunks=(1, 1, 3, 3))
    dw = fastconv.conv2d_grad_weight(da.ones((64, 1, 1, 1), chunks=1), x, (1, 1, 3, 3))
    graph = dict(dw.dask)
    depth, keys = 0, [(dw.name, 0, 0, 0, 0)]
    while all(key[0].startswith(dw.name) for key in keys):
        assert max(len(graph[key].dependencies) for key in keys) <= 4
        keys = [part for key in keys for part in graph[key].dependencies]
        depth += 1
    assert depth == 1 + 3  # the blocks, and 64 = 4**3
    assert (dw == 64).all().compute()


X = np.ones((2, 4, 8, 9), np.float32)
W = np.ones((6, 4, 3, 2), np.float32)
B = np.ones(6, np.float32)
LAZY = da.from_array(X, (1, 4, 3, 5))
UNKNOWN = LAZY[LAZY[:, 0, 0, 0] > 0]


class OnDevice:
    @property
    def __cuda_array_interface__(self):
        return {"shape": W.shape, "typestr": "<f4", "data": (0, True), "version": 3}


BAD = {
    "channels": (
        {"x": LAZY.rechunk({1: 2})},
        ValueError,
        "x and grad_output must have their channels in one chunk, got an array of shape"
        " (2, 4, 8, 9) in chunks ((1, 1), (2, 2), (3, 3, 2), (5, 4)): .rechunk({1: -1}) joins them",
    ),
    "channels, unbatched": ({"x": LAZY[0].rechunk({0: 3})}, ValueError, ".rechunk({0: -1}) joins"),
    "unknown": (
        {"x": UNKNOWN},
        ValueError,
        "x must have chunks of known sizes, got shape (nan, 4, 8, 9): x.compute_chunk_sizes() f",
    ),
    "device": (
        {"weight": OnDevice()},
        TypeError,
        "weight must be a Dask array of NumPy's, or a NumPy array beside one, got"
        " tests.test_dask.OnDevice",
    ),
    "list": (
        {"weight": W.tolist()},
        TypeError,
        "weight must be a Dask array of NumPy's, or a NumPy array beside one, got builtins.list",
    ),
    "masked": (
        {"x": da.ma.masked_equal(LAZY, 0)},
        TypeError,
        "NumPy array beside one, got a Dask array of numpy.ma.MaskedArray",
    ),
    "out": (
        {"out": np.empty((2, 6, 6, 8), "f4")},
        TypeError,
        "out must be None beside Dask arrays, whose results are lazy, got numpy.ndarray",
    ),
    "lazy out": (
        {"out": da.empty((2, 6, 6, 8), dtype="f4")},
        TypeError,
        "out must be None beside Dask arrays, whose results are lazy, got dask.array.core.Array",
    ),
    "dtypes": (
        {"weight": W.astype("f8")},
        TypeError,
        "one dtype, got x float32 and weight float64",
    ),
    "lazy dtypes": (
        {"x": LAZY.astype("f8")},
        TypeError,
        "one dtype, got x float64 and weight float32",
    ),
    "integers": (
        {"x": LAZY.astype(int)},
        TypeError,
        "x must be float32 or float64 beside Dask arrays",
    ),
    "halves": (
        {"x": LAZY.astype("f2")},
        TypeError,
        "x must be float32 or float64 beside Dask arrays",
    ),
    "complex": ({"weight": W.astype("c8")}, TypeError, "weight must be float32 or float64 beside"),
    "accumulate_dtype": ({"accumulate_dtype": "f8"}, TypeError, "accumulate_dtype must be None"),
    "out_dtype": ({"out_dtype": "i4"}, TypeError, "out_dtype must be None beside Dask arrays"),
    "bias dtype": ({"bias": B.astype("f8")}, TypeError, "got x float32 and bias float64"),
    "bias shape": ({"bias": da.ones(5, dtype="f4")}, ValueError, "bias must have shape (6,)"),
    "padding_mode": (
        {"padding": 1, "padding_mode": "reflect"},
        ValueError,
        'padding_mode must be "zeros" beside Dask arrays',
    ),
    "rank": ({"x": LAZY[0, 0]}, ValueError, "x must have 4 axes (N, C, H, W), or 3 without"),
    "filters": ({"weight": W[:, :3]}, ValueError, "weight must have 4 / 1 = 4 input channels"),
    "algorithm": ({"algorithm": "winograd"}, ValueError, "the filter must be 3x3"),
    "precision": ({"precision": "low"}, ValueError, "precision must be one of highest, high, m"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    changes, error, message = BAD[name]
    with pytest.raises(error, match=re.escape(message)):
        fastconv.conv2d(**{"x": LAZY, "weight": W, **changes})


def test_bad_input_of_gradients():
    dy = da.ones((2, 6, 6, 8), dtype="f4", chunks=(1, 6, 3, 3))
    cut = dy.rechunk({1: 2})
    for call in (
        lambda: fastconv.conv2d_grad_bias(cut),
        lambda: fastconv.conv2d_grad_weight(cut, X, W.shape),
        lambda: fastconv.conv2d_grad_weight(dy, LAZY.rechunk({1: 1}), W.shape),
        lambda: fastconv.conv2d_grad_input(cut, W, X.shape),
        lambda: fastconv.conv2d_backward(cut, LAZY, W, needs=(False, False, True)),
    ):
        with pytest.raises(ValueError, match=r"in one chunk, got .*: \.rechunk\(\{1: -1\}\)"):
            call()
    with pytest.raises(ValueError, match="grad_output must have the shape of the result"):
        fastconv.conv2d_grad_weight(dy[:1], LAZY, W.shape)
    with pytest.raises(TypeError, match="one dtype, got grad_output float64 and x float32"):
        fastconv.conv2d_grad_weight(dy.astype("f8"), LAZY, W.shape)
    with pytest.raises(TypeError, match="out must be None"):
        fastconv.conv2d_grad_weight(dy, LAZY, W.shape, out=np.empty_like(W))
    with pytest.raises(TypeError, match="out must be a NumPy array, got Array"):
        fastconv.conv2d(X, W, out=dy)


def test_dask_is_not_imported():
    code = """
import sys, numpy as np, fastconv
x, w = np.ones((1, 2, 6, 6)), np.ones((3, 2, 3, 3))
fastconv.conv2d_backward(fastconv.conv2d(x, w), x, w)
try:
    fastconv.conv2d([1], w)
except TypeError:
    print("dask" in sys.modules)
"""
    assert python("-c", code) == "False"
