"""What can only be seen from a fresh process: imports, narrower vectors, caches, no compiler."""

import os
import re
import subprocess
import sys
import time

import pytest

from .child import environment, python


def run(code, **changes):
    return python("-W", "error", "-c", code, **changes)


def test_import_is_light():
    heavy = "{'numba.cuda', 'sklearn', 'matplotlib', 'tqdm', 'torch', 'cupy', 'dask'}"
    assert run(f"import sys, fastconv; print(sorted({heavy} & set(sys.modules)))") == "[]"


def test_import_costs_little_more_than_numba(tmp_path):
    # From bytecode, which installed packages have: compiling the sources takes as long again.
    bytecode = {"PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    code = """
import time
start = time.perf_counter(); import numba
middle = time.perf_counter(); import fastconv
print((time.perf_counter() - start) / (middle - start))
"""
    ratios = [float(run(code, **bytecode)) for _ in range(12)]
    assert min(ratios[1:]) < 1.25  # 1.17, where nothing else runs


# Every map at sizes with tails, against the oracle, in a process of its own.
EVERY_MAP = """
import numpy as np, fastconv
from fastconv import host
from tests import pool_reference, reference
from tests.cases import assert_close, assert_close_in_norm, data
rng = np.random.default_rng(0)
for dtype in ("f4", "f8"):
    for filters, groups, stride in ((70, 1, 1), (18, 3, 2), (5, 1, (2, 3)), (9, 9, 1)):
        x, w = data(rng, (2, 9, 13, 11), dtype), data(rng, (filters, 9 // groups, 3, 2), dtype)
        geometry = dict(stride=stride, padding=((1, 0), 2), groups=groups)
        y = fastconv.conv2d(x, w, **geometry)
        assert_close(y, reference.conv(x, w, **geometry))
        dx, dw, _ = fastconv.conv2d_backward(y, x, w, **geometry)
        assert_close(dx, reference.conv_grad_input(y, w, x.shape, **geometry))
        assert_close(dw, reference.conv_grad_weight(y, x, w.shape, **geometry))
    x, w = data(rng, (2, 18, 13, 11), dtype), data(rng, (20, 18, 3, 3), dtype)
    for algorithm in ("depthwise", "gemm", "planar", "winograd"):
        options = dict(padding=1, algorithm=algorithm)
        y = fastconv.conv2d(x, w, **options)
        assert_close_in_norm(y, reference.conv(x, w, padding=1))
        dx, dw, _ = fastconv.conv2d_backward(y, x, w, **options)
        assert_close_in_norm(dx, reference.conv_grad_input(y, w, x.shape, padding=1))
        assert_close_in_norm(dw, reference.conv_grad_weight(y, x, w.shape, padding=1))
for channels, windows in ((21, (3, 2, 1)), (40, ((2, 3), 1)), (1, ((9, 70),))):
    x = data(rng, (2, channels, 9, 70), "f4")
    for x in (x, np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)):
        y, indices = fastconv.max_pool2d(x, *windows, return_indices=True)
        expected, places = pool_reference.max_pool(x, *windows)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(indices, places)
        dx = fastconv.max_pool2d_grad_input(y, x, *windows)
        assert_close(dx, pool_reference.max_pool_grad_input(y, x, *windows))
        assert_close(fastconv.avg_pool2d(x, *windows), pool_reference.avg_pool(x, *windows))
        dx = fastconv.avg_pool2d_grad_input(y, x.shape, *windows)
        assert_close(dx, pool_reference.avg_pool_grad_input(y, x.shape, *windows))
print(host.VECTOR_BITS, host.VECTOR_REGISTERS)
"""


@pytest.mark.parametrize(
    ("cpu", "features", "expected"),
    [
        ("haswell", "+avx,+avx2,+fma,+sse4.2", "256 16"),
        ("sandybridge", "+avx,+sse4.2", "256 16"),
        ("x86-64", "+sse2", "128 16"),
    ],
)
@pytest.mark.skipif("x86_64" not in os.uname().machine, reason="names x86 processors")
def test_narrower_vectors(cpu, features, expected):
    out = run(EVERY_MAP, NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES=features)
    assert out == expected


def test_without_the_compiler():
    code = """
import numpy as np, fastconv
from tests import reference
x, w = np.arange(60.).reshape(1, 2, 5, 6), np.arange(24.).reshape(3, 2, 2, 2)
y = fastconv.conv2d(x, w, stride=2, padding=1)
np.testing.assert_allclose(y, reference.conv(x, w, stride=2, padding=1))
dx, dw, db = fastconv.conv2d_backward(y, x, w, stride=2, padding=1)
np.testing.assert_allclose(dx, reference.conv_grad_input(y, w, x.shape, stride=2, padding=1))
np.testing.assert_allclose(dw, reference.conv_grad_weight(y, x, w.shape, stride=2, padding=1))
for mode in ("reflect", "replicate", "circular"):
    options = {"padding": ((2, 1), (0, 3)), "padding_mode": mode}
    y = fastconv.conv2d(x, w, **options)
    np.testing.assert_allclose(y, reference.conv(x, w, **options))
    dx, dw, db = fastconv.conv2d_backward(y, x, w, **options)
    np.testing.assert_allclose(dx, reference.conv_grad_input(y, w, x.shape, **options))
    np.testing.assert_allclose(dw, reference.conv_grad_weight(y, x, w.shape, **options))
told = fastconv.explain(x.shape, w.shape).maps.values()
assert {plan.algorithm for plan in told} == {"reference"}
for call in (
    lambda: fastconv.conv2d(x, w, algorithm="direct"),
    lambda: fastconv.max_pool2d(x, 2),
    lambda: fastconv.avg_pool2d_grad_input(x, x.shape, 1),
):
    try:
        call()
    except ValueError as error:
        print(error)
"""
    out = run(code, NUMBA_DISABLE_JIT="1")
    assert re.findall("(.*) needs Numba's compiler", out) == [
        "algorithm 'direct'",
        *["pooling"] * 2,
    ]


CALL = "import numpy as np, fastconv; print(fastconv.conv1d(np.ones((1, 4)), np.ones((1, 1, 3))))"


def test_cache_is_used_and_heals(tmp_path):
    cache = {"FASTCONV_CACHE_DIR": str(tmp_path)}
    assert run(CALL, **cache) == "[[3. 3.]]"
    files = sorted(tmp_path.rglob("*.nb?"))
    assert files
    times = {file: file.stat().st_mtime_ns for file in files}
    assert run(CALL, **cache) == "[[3. 3.]]"
    assert {file: file.stat().st_mtime_ns for file in files} == times
    for damage in (b"", b"garbage", None):
        for file in files:
            file.write_bytes(file.read_bytes()[:100] if damage is None else damage)
        assert run(CALL, **cache) == "[[3. 3.]]"
        assert all(file.stat().st_size > 100 for file in files if file.suffix == ".nbc")


def test_kernels_of_pooling_are_found_again(tmp_path):
    """They are made by functions, of which Numba's cache looks at what they hold."""
    code = """
import numpy as np, fastconv
for x in (np.ones((1, 20, 5, 6), "f4"), np.ones((1, 2, 70, 75), "f4")):
    windows = (2, 1) if x.shape[1] == 20 else ((70, 65), 3)
    y = fastconv.max_pool2d(x, *windows)
    fastconv.max_pool2d_grad_input(y, x, *windows)
    fastconv.avg_pool2d_grad_input(fastconv.avg_pool2d(x, *windows), x.shape, *windows)
"""
    run(code, FASTCONV_CACHE_DIR=str(tmp_path))
    files = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.nb?")}
    # The largest, these and places, means, both gradients: of large windows and of others.
    assert sum("pool" in file.name and file.suffix == ".nbc" for file in files) == 10
    run(code, FASTCONV_CACHE_DIR=str(tmp_path))
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.nb?")} == files


def test_variants_that_two_processes_have_compiled(tmp_path):
    """Each was the first to meet one of the functions that a factory makes; a third needs both."""
    data = """
import numpy as np, fastconv
x = np.ones((2, 20, 1, 1)) + 7 * np.arange({0})[:, None] + np.arange({0})
x = x.astype("f4")
"""
    largest = "np.testing.assert_array_equal(fastconv.max_pool2d(x, 2), x[:, :, 1::2, 1::2]);"
    means = "np.testing.assert_array_equal(fastconv.avg_pool2d(x, 2), x[:, :, ::2, ::2] + 4);"
    small, large = data.format(6), data.format(10)
    # The first one once more, for what it has not met before the second one.
    for calls in (largest, means, largest + means + large + largest):
        run(small + calls, FASTCONV_CACHE_DIR=str(tmp_path))


def test_kernels_of_old_sources_are_removed(tmp_path):
    def folder(name, days, file):
        path = tmp_path / name
        path.mkdir()
        (path / file).touch()
        then = time.time() - days * 86400
        os.utime(path, (then, then))
        return path

    old = folder("0123456789abcdef", 31, "kernel.nbc")
    recent = folder("0123456789abcdee", 29, "kernel.nbc")
    somebody_elses = folder("0123456789abcded", 31, "thesis.tex")
    run(CALL, FASTCONV_CACHE_DIR=str(tmp_path))
    assert not old.exists()
    assert recent.exists()
    assert somebody_elses.exists()


def test_processes_that_start_together_compile_each_function_once(tmp_path):
    code = (
        """
from fastconv import caching
count, save = 0, caching._Cache.save_overload

def counted(*arguments):
    global count
    count += 1
    save(*arguments)

caching._Cache.save_overload = counted
"""
        + CALL
        + "; print(count)"
    )

    def start(cache):
        command = [sys.executable, "-c", code]
        env = environment(FASTCONV_CACHE_DIR=str(tmp_path / cache))
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)

    alone = start("alone").communicate()[0].split()
    assert int(alone[-1]) > 0
    together = [start("together") for _ in range(8)]
    outputs = [process.communicate()[0].split() for process in together]
    assert [output[:-1] for output in outputs] == [alone[:-1]] * 8
    assert sum(int(output[-1]) for output in outputs) == int(alone[-1])


def test_a_lock_that_is_never_released(tmp_path):
    """A process that was stopped while it compiled holds up the others for a while only."""
    fcntl = pytest.importorskip("fcntl")
    code = "from fastconv import caching; caching.PATIENCE = 0.1\n" + CALL
    assert run(code, FASTCONV_CACHE_DIR=str(tmp_path)) == "[[3. 3.]]"
    (lock,) = tmp_path.rglob("lock")
    for file in tmp_path.rglob("*.nbi"):
        file.unlink()
    with lock.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert run(code, FASTCONV_CACHE_DIR=str(tmp_path)) == "[[3. 3.]]"


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    """It has the open file that its parent held the lock by."""
    pytest.importorskip("fcntl")
    code = """
import os, pathlib, time
from fastconv import caching
caching.PATIENCE, there = 5, pathlib.Path(os.environ["FASTCONV_CACHE_DIR"])
with caching._locked(there):
    child = os.fork()
    if child == 0:
        time.sleep(20)
        os._exit(0)
start = time.monotonic()
with caching._locked(there):
    print(time.monotonic() - start < 4)
os.kill(child, 9)
os.waitpid(child, 0)
"""
    assert run(code, FASTCONV_CACHE_DIR=str(tmp_path)) == "True"


def test_cache_can_be_turned_off(tmp_path):
    run(CALL, FASTCONV_CACHE_DIR=str(tmp_path), FASTCONV_CACHE="0")
    assert list(tmp_path.iterdir()) == []


def test_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a directory")
    assert run(CALL, FASTCONV_CACHE_DIR=str(tmp_path / "file" / "cache")) == "[[3. 3.]]"


def test_any_number_of_threads_gives_the_same_bits():
    code = """
import numba, numpy as np, fastconv, hashlib, sys
rng = np.random.default_rng(0)
x = rng.standard_normal((4, 20, 30, 31)).astype("f4")
w = rng.standard_normal((70, 20, 3, 3)).astype("f4")
y = fastconv.conv2d(x, w, padding=1)
dx, dw, db = fastconv.conv2d_backward(y, x, w, padding=1)
digest = hashlib.sha256(b"".join(a.tobytes() for a in (y, dx, dw, db))).hexdigest()
print(numba.get_num_threads(), digest)
"""
    seen = [run(code, NUMBA_NUM_THREADS=str(n)).split() for n in (1, 2, 3, 8)]
    assert [int(n) for n, _ in seen] == [1, 2, 3, 8]
    assert len({digest for _, digest in seen}) == 1
