"""Lazy arrays on worker processes: what travels, what is compiled, and what dies."""

import os
import signal
import time

import numpy as np
import pytest

import fastconv
from fastconv.caching import cache_directory

from .cases import data

distributed = pytest.importorskip(
    "distributed", reason='needs Dask\'s scheduler: pip install "fastconv[dask]"'
)
da = pytest.importorskip("dask.array", reason='needs Dask: pip install "fastconv[dask]"')


@pytest.fixture(scope="module")
def client():
    options = {"n_workers": 2, "threads_per_worker": 2, "processes": True}
    with (
        distributed.LocalCluster(**options, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def operands(rng):
    x, w, b = data(rng, (3, 5, 40, 50), "f4"), data(rng, (6, 5, 3, 4), "f4"), data(rng, 6, "f4")
    return x, w, b, data(rng, (3, 6, 20, 51), "f4")


def calls(x, w, b, dy):
    options = {"stride": (2, 1), "padding": (1, 2), "algorithm": "direct"}
    y = fastconv.conv2d(x, w, b, **options)
    transposed = fastconv.conv_transpose2d(dy, w, None, (2, 1), (1, 2), (1, 0))
    return y, transposed, *fastconv.conv2d_backward(dy, x, w, **options)


def test_workers_take_kernels_from_the_cache(client, operands):
    """What this process has compiled they load: none of them takes the lock to compile."""
    whole = calls(*operands)

    def files():
        return {file: file.stat().st_mtime_ns for file in cache_directory().iterdir()}

    before = files()
    assert before
    lazy = [da.from_array(array, chunks=-1) for array in operands]
    results = client.gather(client.compute(calls(*lazy)))
    for result, exact in zip(results, whole, strict=True):
        np.testing.assert_array_equal(result, exact)
    assert files() == before


def test_maps(client, operands):
    x, w, b, dy = operands
    lazy = da.from_array(x, (2, 5, 13, 11)), da.from_array(w, (3, 2, 3, 4)), b
    lazy += (da.from_array(dy, (1, 6, 7, 12)),)
    results = client.gather(client.compute(calls(*lazy)))
    here = [array.compute(scheduler="sync") for array in calls(*lazy)]
    for result, same, whole in zip(results, here, calls(*operands), strict=True):
        np.testing.assert_array_equal(result, same)
        np.testing.assert_allclose(result, whole, rtol=0, atol=2e-6 * np.abs(whole).max())


def test_a_worker_dies(client, operands):
    x, w, *_ = operands

    def slowly(block):
        time.sleep(0.05)
        return block

    x = np.concatenate([x] * 8)
    lazy = da.from_array(x, (1, 5, 20, 25)).map_blocks(slowly, meta=x[:0])
    y = fastconv.conv2d(lazy, w, padding=1).persist()
    victim, pid = next(iter(client.run(os.getpid).items()))
    while not client.has_what()[victim]:  # until it has something to lose
        time.sleep(0.05)
    assert not all(future.done() for future in distributed.futures_of(y))
    os.kill(pid, signal.SIGKILL)
    np.testing.assert_array_equal(y.compute(), fastconv.conv2d(x, w, padding=1))
    assert pid not in client.run(os.getpid).values()
