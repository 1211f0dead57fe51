"""Threads, forks and signals: each in a process of its own, since the faults end processes."""

import multiprocessing
import os
import subprocess
import sys

import pytest

from .child import python

LAYERS = ("omp", "workqueue", "tbb")

# A parallel job of several stages, one of a single stage, a serial one and the reference.
CALLS = """
import hashlib, multiprocessing, os, sys, threading
import numba, numpy as np, fastconv
rng = np.random.default_rng(0)
x = rng.standard_normal((4, 32, 20, 21)).astype("f4")
w = rng.standard_normal((48, 32, 3, 3)).astype("f4")
small, image = x[:1, :2, :5, :5].copy(), w[:2, :2].copy()

def digest():
    results = [
        fastconv.conv2d(x, w),
        fastconv.conv2d(x, w, padding=1, stride=2),
        fastconv.conv2d(small, image),
        fastconv.conv2d(small, image, algorithm="reference"),
    ]
    results += fastconv.conv2d_backward(results[0], x, w)
    return hashlib.sha256(b"".join(a.tobytes() for a in results)).hexdigest()
"""

THREADS = """
expected, wrong = digest(), []
def work():
    wrong.extend(1 for _ in range(20) if digest() != expected)
threads = [threading.Thread(target=work) for _ in range(5)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(wrong), numba.threading_layer())
"""

FIRST_CALLS = """
from fastconv import caching
found, compiled, compile_ = [], [], caching.PerDtype._compile

def recorded(self, dtype):
    compiled.append((id(self), dtype))
    return compile_(self, dtype)

caching.PerDtype._compile = recorded
threads = [threading.Thread(target=lambda: found.append(digest())) for _ in range(6)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(found), len(set(found)), found[0] == digest(), len(compiled) - len(set(compiled)))
"""

PROCESSES = """
def child(_):
    return digest()

if __name__ == "__main__":
    expected = digest()
    with multiprocessing.get_context(sys.argv[1]).Pool(3) as pool:
        print(pool.map_async(child, range(6)).get(timeout=100) == [expected] * 6)
"""


def installed(layer):
    if layer == "tbb":
        probe = "import numba.np.ufunc.tbbpool"
        if subprocess.run([sys.executable, "-c", probe], capture_output=True).returncode:
            pytest.skip("TBB is not installed")
    return layer


def run(code, *arguments, folder=None, **changes):
    if folder is None:
        return python("-c", code, *arguments, **changes).split()
    file = folder / "script.py"  # which spawned processes import
    file.write_text(code)
    return python(file, *arguments, **changes).split()


@pytest.mark.parametrize("layer", LAYERS)
def test_python_threads(layer):
    out = run(CALLS + THREADS, NUMBA_THREADING_LAYER=installed(layer), NUMBA_NUM_THREADS="3")
    assert out == ["0", layer]


def test_python_threads_that_all_compile():
    assert run(CALLS + FIRST_CALLS, FASTCONV_CACHE="0") == ["6", "1", "True", "0"]


CALLING_THREAD = """
from fastconv.cpu.team import calling_thread, threads
expected, seen = None, []
with calling_thread():
    with calling_thread():
        pass
    expected = digest()
    try:
        seen.append(numba.threading_layer())
    except ValueError:
        seen.append("none")  # no thread was started
    other = threading.Thread(target=lambda: seen.append(threads()))
    other.start()
    other.join()
    seen.append(threads())
seen += [threads(), digest() == expected]
print(*seen)
"""


def test_calling_thread():
    """A large job on the thread that calls, while other threads have jobs run on all."""
    assert run(CALLS + CALLING_THREAD, NUMBA_NUM_THREADS="3") == ["none", "3", "1", "3", "True"]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("layer", LAYERS)
def test_processes(layer, method, tmp_path):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    options = {"NUMBA_THREADING_LAYER": installed(layer), "NUMBA_NUM_THREADS": "3"}
    assert run(CALLS + PROCESSES, method, folder=tmp_path, **options) == ["True"]


FORK = """
import signal, time
from llvmlite.binding import ffi
from numba.core.compiler_lock import global_compiler_lock

begun = threading.Event()

def take_a_second():
    begun.set()
    time.sleep(1)

def hold(lock):
    with lock:
        take_a_second()

def call():
    return [fastconv.conv2d(small.astype(t), image.astype(t)).sum() for t in ("f4", "f2")]

def first_call(slowly_imported):
    class Finder:
        def find_spec(self, name, *_):
            if name == slowly_imported:
                take_a_second()
    sys.meta_path.insert(0, Finder())
    call()

def fork():
    child = os.fork()
    if child == 0:
        signal.alarm(100)
        print(*call(), flush=True)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""

FORK_MEANWHILE = """
thread = threading.Thread(target=other)
thread.start()
begun.wait()
status = fork()
thread.join()
print(*call(), status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(
    "other",
    [
        "hold(global_compiler_lock)",
        "hold(ffi.lib._lock)",
        "first_call('numpy.ma')",
        "first_call('fastconv.cpu.views')",
        "first_call('fastconv.cpu.halves')",
    ],
)
def test_fork_while_another_thread_compiles_or_imports(other):
    out = run(CALLS + FORK + f"other = lambda: {other}" + FORK_MEANWHILE)
    assert out[:2] == out[2:4]
    assert out[4:] == ["0"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork_by_a_thread_that_compiles():
    code = """
with global_compiler_lock, ffi.lib._lock:
    status = fork()
thread = threading.Thread(target=lambda: print(*call(), status))
thread.start()
thread.join()
"""
    out = run(CALLS + FORK + code)
    assert out[:2] == out[2:4]
    assert out[4:] == ["0"]


FIRST_THREADS = """
from types import SimpleNamespace
from fastconv import config
from fastconv.cpu import team
both = threading.Barrier(2)

class Environment(dict):
    def __iter__(self):  # both have looked before either changes it
        seen = list(super().__iter__())
        both.wait(timeout=60)
        return iter(seen)

config.os, found = SimpleNamespace(environ=Environment()), []
threads = [threading.Thread(target=lambda: found.append(team.threads())) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(*found, len(config.os.environ))
"""


def test_two_python_threads_start_the_others():
    out = run(CALLS + FIRST_THREADS, NUMBA_NUM_THREADS="2")
    assert out == ["2", "2", "0"]


EVERY_ALGORITHM = """
from fastconv.plan.cpu import ALGORITHMS
for algorithm in ALGORITHMS:
    y = fastconv.conv2d(x, w, padding=1, algorithm=algorithm)
    dx = fastconv.conv2d_grad_input(y, w, x.shape, padding=1, algorithm=algorithm)
    dw = fastconv.conv2d_grad_weight(y, x, w.shape, padding=1, algorithm=algorithm)
    print(algorithm, hashlib.sha256(b"".join(a.tobytes() for a in (y, dx, dw))).hexdigest())
rng = np.random.default_rng(0)
options = {"padding": 1, "data_format": "channels_last"}
x = rng.standard_normal((5, 30, 29, 48), np.float32)
for groups, stride in ((1, 1), (1, 2), (48, 1), (48, 2)):
    w = rng.standard_normal((48, 48 // groups, 3, 3), np.float32)
    y = fastconv.conv2d(x, w, groups=groups, stride=stride, **options)
    dx, dw, db = fastconv.conv2d_backward(y, x, w, groups=groups, stride=stride, **options)
    print(hashlib.sha256(b"".join(a.tobytes() for a in (y, dx, dw, db))).hexdigest())
"""


def test_layers_give_the_same_bits():
    seen = {
        tuple(run(CALLS + EVERY_ALGORITHM, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS=threads))
        for layer in ("omp", "workqueue")
        for threads in ("1", "2", "5")
    }
    assert len(seen) == 1


def test_workers_of_a_data_loader(tmp_path):
    pytest.importorskip("torch")
    code = (
        CALLS
        + """
import torch

class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 6
    def __getitem__(self, i):
        return torch.from_numpy(fastconv.conv2d(x + np.float32(i), w))

if __name__ == "__main__":
    expected = [fastconv.conv2d(x + np.float32(i), w) for i in range(6)]
    loader = torch.utils.data.DataLoader(
        Images(), batch_size=None, num_workers=2, multiprocessing_context="fork"
    )
    print(all(np.array_equal(a, b) for a, b in zip(loader, expected, strict=True)))
"""
    )
    assert run(code, folder=tmp_path) == ["True"]


INTERRUPT = """
import signal, time
import numpy as np, fastconv
image = np.random.default_rng(0).standard_normal((1, 1, 130, 130)).astype("f4")
x = np.broadcast_to(image, (1, 16384, 130, 130))  # 310 billion operations, 40 MB
w = np.ones((64, 16384, 3, 3), "f4")
options = {"algorithm": "direct"}

def timed():
    start = time.perf_counter()
    y = fastconv.conv2d(x, w, **options)
    return y, time.perf_counter() - start

expected, before = timed()
# As Ctrl-C is, from outside: a thread that sends it may itself be late.
signal.signal(signal.SIGALRM, signal.default_int_handler)
sent = time.perf_counter() + 0.1  # of half a second at least
signal.setitimer(signal.ITIMER_REAL, 0.1)
try:
    fastconv.conv2d(x, w, **options)
    print("finished")
except KeyboardInterrupt:
    answered = time.perf_counter() - sent
again, after = timed()
print(answered < max(before, after) / 2)  # other programs may slow down either
print(np.array_equal(again, expected))
"""


@pytest.mark.slow
def test_an_interrupt_is_answered_and_the_next_call_is_right():
    assert run(INTERRUPT) == ["True", "True"]
