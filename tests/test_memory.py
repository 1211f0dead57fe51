"""No call needs more scratch memory than its arrays take, and 64 MiB; nor do many calls."""

import mmap
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import fastconv
from fastconv import cpu, memory, padded
from fastconv.cpu import depthwise, engine

MIB = 2**20

LAYERS = {
    "wide": ((2, 64, 112, 112), (64, 64, 3, 3), {"padding": 1}),
    "deep": ((4, 512, 7, 7), (512, 512, 3, 3), {"padding": 1}),
    "pointwise": ((2, 256, 56, 56), (64, 256, 1, 1), {}),
    "strided": ((2, 128, 56, 56), (128, 128, 3, 3), {"stride": 2, "padding": 1}),
    "stem": ((2, 3, 224, 224), (64, 3, 7, 7), {"stride": 2, "padding": 3}),
    "depthwise": ((2, 144, 56, 56), (144, 1, 3, 3), {"padding": 1, "groups": 144}),
    "filter": ((1, 1, 1024, 1024), (1, 1, 31, 31), {"padding": 15}),
    "volume": ((1, 32, 24, 48, 48), (32, 32, 3, 3, 3), {"padding": 1}),
    "signal": ((1, 64, 16000), (64, 64, 2), {"dilation": 512}),
    "apart": ((1, 64, 16, 16, 16), (64, 64, 3, 3, 3), {"padding": "same", "dilation": 32}),
    "far apart": ((1, 32, 64, 64), (32, 32, 3, 3), {"padding": "same", "dilation": 4096}),
    "sparse": ((1, 32, 4, 4), (32, 32, 1, 1), {"stride": 65536, "padding": 65536}),
    "mirrored": ((4, 512, 7, 7), (512, 512, 3, 3), {"padding": 1, "padding_mode": "reflect"}),
    # With their padding these images would take 3.4 times as much.
    "wrapped": ((320, 1024, 7, 7), (2, 1024, 3, 3), {"padding": 3, "padding_mode": "circular"}),
}


def peak_of(call):
    """Bytes that ``call`` needs at most at any time, its result among them."""
    fastconv.free_workspace()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", LAYERS)
def test_scratch_memory(name):
    x_shape, w_shape, options = LAYERS[name]
    conv, backward = (
        getattr(fastconv, f"conv{len(x_shape) - 2}d{part}") for part in ("", "_backward")
    )
    x, w = np.ones(x_shape, np.float32), np.ones(w_shape, np.float32)
    y = conv(x, w, **options)  # compiles, plans
    backward(y, x, w, **options)
    arrays = x.nbytes + w.nbytes + y.nbytes
    assert peak_of(lambda: conv(x, w, **options)) - y.nbytes <= arrays + 64 * MIB
    for i, result in enumerate((x, w)):
        needs = (i == 0, i == 1, False)
        peak = peak_of(lambda needs=needs: backward(y, x, w, needs=needs, **options))
        assert peak - result.nbytes <= arrays + 64 * MIB


@pytest.mark.parametrize("form", ["channels_first", "channels_last"])
def test_padding_of_long_lines(form):
    """Also by the call that plans it: nothing is as long as a line but for the copy."""
    options = {"padding": 1, "padding_mode": "reflect", "data_format": form}

    def images(channels, length):
        last = (length, channels)
        return np.ones((1, *(last if form == "channels_last" else last[::-1])), np.float32)

    w = np.ones((1, 4, 3), np.float32)
    x, dy = images(4, 50), images(1, 50)
    fastconv.conv1d(x, w, **options)  # compiles
    fastconv.conv1d_backward(dy, x, w, **options)
    x, dy = images(4, 2_000_000), images(1, 2_000_000)
    calls = {
        dy.nbytes: lambda: fastconv.conv1d(x, w, **options),
        x.nbytes: lambda: fastconv.conv1d_grad_input(dy, w, x.shape, **options),
        w.nbytes: lambda: fastconv.conv1d_grad_weight(dy, x, w.shape, **options),
    }
    for nbytes, call in calls.items():
        assert peak_of(call) - nbytes <= x.nbytes + 16 * MIB


def test_workspace_is_given_back():
    x, w = np.ones((1, 64, 112, 112), np.float32), np.ones((64, 64, 3, 3), np.float32)
    fastconv.conv2d(x, w)
    tracemalloc.start()
    try:
        fastconv.free_workspace()
        before = tracemalloc.get_traced_memory()[0]
        fastconv.conv2d(x, w)
        kept = tracemalloc.get_traced_memory()[0] - before
        assert 0 < kept <= 64 * MIB
        fastconv.conv2d(x, w)
        assert tracemalloc.get_traced_memory()[0] - before < kept + MIB
        fastconv.free_workspace()
        assert tracemalloc.get_traced_memory()[0] - before < MIB
    finally:
        tracemalloc.stop()


def test_scratch_memory_serves_every_dtype():
    fastconv.free_workspace()
    kept = memory.workspace(10**5, np.dtype("f8")).ctypes.data
    for count, dtype in ((0, "f4"), (2 * 10**5, "f4"), (10**5, "f8"), (1, "f8")):
        array = memory.workspace(count, np.dtype(dtype))
        assert array.dtype == dtype
        assert array.size >= count
        assert array.ctypes.data == kept
    larger = memory.workspace(10**6 + 1, np.dtype("f4"))
    assert larger.ctypes.data % memory.LINE == 0
    assert memory.workspace(10**6 // 2, np.dtype("f8")).ctypes.data == larger.ctypes.data


def test_padded_images_of_wide_numbers_fit_in_a_piece(monkeypatch):
    """Those are made at a time that take so much memory in the dtype of the sums."""
    sizes, pad = [], cpu.pad

    def measured(x, geometry, ndim, out):
        sizes.append(out.nbytes)
        pad(x, geometry, ndim, out)

    monkeypatch.setattr(cpu, "pad", measured)
    monkeypatch.setattr(padded, "PIECE_BYTES", 40_000)
    x, w = np.ones((12, 3, 20, 18), np.float16), np.ones((2, 3, 1, 1), np.float16)
    options = {"padding": 1, "padding_mode": "circular", "accumulate_dtype": "f8"}
    fastconv.conv2d(x, w, **options)
    assert sizes == [3 * (3 * 22 * 20 * 8)] * 4


def test_plans_are_forgotten_when_their_tables_are_large(monkeypatch):
    plans = depthwise.correlate._plans
    x, w = np.ones((9, 9, 9, 32), np.float32), np.ones((32, 1, 3, 3), np.float32)
    options = {"groups": 32, "algorithm": "depthwise", "data_format": "channels_last"}
    fastconv.conv2d(x, w, **options)
    *_, plan = plans.values()
    monkeypatch.setattr(engine, "KEPT_NUMBERS", 2 * plan.table.size)
    for batch in range(1, 9):
        y = fastconv.conv2d(x[:batch], w, **options)
        assert (y == 9).all()
        assert sum(plan.table.size for plan in plans.values()) <= 2 * plan.table.size


@pytest.mark.parametrize("filters", [129, 4097])
def test_memory_of_large_results_is_used_again(filters):
    x, w = np.ones((1, 1, 32, 64), np.float32), np.ones((filters, 1, 1, 1), np.float32)
    fastconv.free_workspace()
    y = fastconv.conv2d(x, w)
    assert y.nbytes > MIB
    address, part = y.ctypes.data, y[:, 5]
    del y
    other = fastconv.conv2d(2 * x, w)  # a part of the first is still in use
    assert other.ctypes.data != address
    assert (part == 1).all()
    del part
    again = fastconv.conv2d(3 * x, w)
    assert again.ctypes.data == address
    assert (again == 3).all()
    assert (other == 2).all()


def test_results_of_about_the_same_size_share_memory():
    x, w = np.ones((1, 1, 32, 64), np.float32), np.ones((140, 1, 1, 1), np.float32)
    fastconv.free_workspace()
    address = fastconv.conv2d(x, w).ctypes.data
    y = fastconv.conv2d(3 * x, w[:138])
    assert y.ctypes.data == address
    assert y.shape == (1, 138, 32, 64)
    assert (y == 3).all()


def test_memory_of_large_results_is_bounded():
    x = np.ones((1, 1, 32, 64), np.float32)
    fastconv.free_workspace()
    tracemalloc.start()
    try:
        for filters in range(5000, 5020):  # 40 MB each, no two alike
            fastconv.conv2d(x, np.ones((filters, 1, 1, 1), np.float32))
        assert 0 < tracemalloc.get_traced_memory()[0] <= (256 + 64) * MIB
        fastconv.free_workspace()
        assert tracemalloc.get_traced_memory()[0] < 8 * MIB  # the plans of 20 geometries
    finally:
        tracemalloc.stop()


def test_a_result_that_does_not_fit():
    """Is a MemoryError, and the next call is right."""
    x = np.broadcast_to(np.float32(1), (10**6, 1, 10**4, 10**4))
    w = np.ones((1, 1, 3, 3), np.float32)
    with pytest.raises(MemoryError):
        fastconv.conv2d(x, w)
    assert (fastconv.conv2d(x[:1, :, :5, :6], w) == 9).all()


@pytest.mark.slow
def test_many_calls_leave_memory_flat():
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("the system does not say how much memory a process has")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 20, 30, 31)).astype("f4")

    def calls(number):
        for i in range(number):
            w = np.ones((20, 20, 1 + i % 4, 1 + i % 3), np.float32)
            y = fastconv.conv2d(x, w, padding=i % 2)
            fastconv.conv2d_backward(y, x, w, padding=i % 2)

    def resident():
        return int(statm.read_text().split()[1]) * mmap.PAGESIZE

    calls(100)
    before = resident()
    calls(3000)
    assert resident() - before < 4 * MIB
